"""Define `graft keys` create, list and revoke."""

from typing import Annotated

import typer

from app.cli.options import Json, client, print_json, settings

keys = typer.Typer(help="Create, list and revoke API keys.", no_args_is_help=True)


@keys.command("create")
def keys_create(
    name: Annotated[str, typer.Argument(help="Who or what will use the key.")],
    scope: Annotated[str, typer.Option(help="read, predict, write or admin; each includes those before it.")] = "write",
    direct: Annotated[
        bool, typer.Option("--direct", help="Write to GRAFT_DATABASE_URL, for a service's first key.")
    ] = False,
    workspace: Annotated[str, typer.Option(help="With --direct: the key's workspace, created if needed.")] = "default",
    as_json: Json = False,
) -> None:
    """Create an API key and print it. It is not shown again."""
    from app.cli.first_key import create_direct

    key = (
        create_direct(settings(), workspace, name, scope)
        if direct
        else client().post("/v1/keys", {"name": name, "scopes": [scope]})
    )
    print_json(key) if as_json else print(key["secret"])


@keys.command("list")
def keys_list(as_json: Json = False) -> None:
    """List keys with their scopes."""
    found = client().get("/v1/keys", limit=200)
    if as_json:
        return print_json(found)
    from app.cli import show

    rows = [
        [key["name"], key["prefix"] + "…", ", ".join(key["scopes"]), key["revoked_at"], key["id"]]
        for key in found["items"]
    ]
    return show.table(["name", "key", "scopes", "revoked", "id"], rows)


@keys.command("revoke")
def keys_revoke(key_id: str, as_json: Json = False) -> None:
    """Revoke a key by its id. Calls with it are refused from then on."""
    key = client().delete(f"/v1/keys/{key_id}")
    print_json(key) if as_json else print(f"{key['name']} is revoked.")
