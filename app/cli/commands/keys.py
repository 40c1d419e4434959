"""`graft keys`: create, list, revoke."""

from typing import Annotated

import typer

from app.cli.options import Json, client, print_json, settings

keys = typer.Typer(help="API keys.", no_args_is_help=True)


@keys.command("create")
def keys_create(
    name: Annotated[str, typer.Argument(help="Who or what will use it.")],
    scope: Annotated[str, typer.Option(help="read, predict, write or admin; each includes those before it.")] = "write",
    direct: Annotated[
        bool, typer.Option("--direct", help="Write to GRAFT_DATABASE_URL, for a service's first key.")
    ] = False,
    workspace: Annotated[str, typer.Option(help="With --direct: made if it is not there.")] = "default",
    as_json: Json = False,
) -> None:
    """Make an API key. It is printed this once."""
    from app.cli.first_key import create_direct

    key = (
        create_direct(settings(), workspace, name, scope)
        if direct
        else client().post("/v1/keys", {"name": name, "scopes": [scope]})
    )
    print_json(key) if as_json else print(key["secret"])


@keys.command("list")
def keys_list(as_json: Json = False) -> None:
    """List keys."""
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
    """Revoke a key, by id. What uses it is refused from then on."""
    key = client().delete(f"/v1/keys/{key_id}")
    print_json(key) if as_json else print(f"{key['name']} is revoked.")
