"""Define `graft backbones`, and `graft models` list, show, alias, report, decisions, pin, unpin and delete."""

import json
from pathlib import Path
from typing import Annotated
from urllib.parse import quote

import typer

from app.cli.errors import CommandError
from app.cli.options import Json, client, print_json

models = typer.Typer(help="List, show, name, pin and delete trained models.", no_args_is_help=True)
ModelRef = Annotated[str, typer.Argument(help="Id, name@alias or name of a model. A name means its newest model.")]


@models.command("list")
def models_list(as_json: Json = False) -> None:
    """List models, newest first."""
    found = client().get("/v1/models", limit=200)
    if as_json:
        return print_json(found)
    from app.cli import show

    rows = [
        [m["name"], m["backbone"], len(m["classes"]), m["metrics"]["val"]["accuracy"], m["id"]] for m in found["items"]
    ]
    return show.table(["name", "backbone", "classes", "val accuracy", "id"], rows)


@models.command("show")
def models_show(model: ModelRef, as_json: Json = False) -> None:
    """Show a model's metrics for each class."""
    api = client()
    found = api.get(f"/v1/models/{quote(model, safe='@')}")
    if as_json:
        return print_json(found)
    from app.cli import show

    return show.show_model(found)


@models.command("alias")
def models_alias(
    name: Annotated[str, typer.Argument(help="A name that models have.")],
    alias: Annotated[str, typer.Argument(help="A word such as production.")],
    model: Annotated[str | None, typer.Argument(help="Id of the model that NAME@ALIAS is to mean.")] = None,
    delete: Annotated[bool, typer.Option("--delete", help="Delete the alias.")] = False,
) -> None:
    """Make an alias mean a model, or delete the alias."""
    path = f"/v1/models/{quote(name, safe='')}/aliases/{quote(alias, safe='')}"
    if delete == (model is not None):
        raise CommandError("Give the id of a model, or --delete.", 2)
    if delete:
        client().delete(path)
    else:
        client().put(path, {"model": model})


@models.command("report")
def models_report(
    model: ModelRef,
    out: Annotated[Path | None, typer.Option(help="Folder to write to; NAME-report if left out.")] = None,
    as_json: Json = False,
) -> None:
    """Write a model's report to a folder: report.json, pictures, and its answers for every image."""
    api = client()
    found = api.get(f"/v1/models/{quote(model, safe='@')}/report")
    folder = out or Path(f"{found['model']['name'].replace('/', '-')}-report")
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "report.json").write_text(json.dumps(found, indent=2, ensure_ascii=False) + "\n")
    for one in found["pictures"] + found["evaluations"]:
        api.download(one["href"], folder / one["name"])
    for one in found["evaluations"]:
        api.download(f"{one['href']}&format=csv", (folder / one["name"]).with_suffix(".csv"))
    written = sorted(path.name for path in folder.iterdir())
    return print_json({"folder": str(folder), "files": written}) if as_json else print(*written, sep="\n")


@models.command("decisions")
def models_decisions(
    model: ModelRef,
    target_precision: Annotated[
        float | None, typer.Option(help="Share of the accepted answers that is to be right, 0.5 to 0.9999.")
    ] = None,
    delete: Annotated[bool, typer.Option("--delete", help="Remove the target precision.")] = False,
    as_json: Json = False,
) -> None:
    """Show, set or remove a model's target precision."""
    if delete and target_precision is not None:
        raise CommandError("Give --target-precision or --delete, not both.", 2)
    api = client()
    reference = f"/v1/models/{quote(model, safe='@')}"
    path = f"/v1/models/{api.get(reference)['id']}/decisions"
    if delete:
        api.delete(path)
    elif target_precision is not None:
        api.put(path, {"target_precision": target_precision})
    found = api.get(reference)
    if as_json:
        return print_json({"decisions": found["decisions"]})
    from app.cli import show

    show.show_model(found)
    if found["decisions"] is None:
        show.console.print(
            "No target precision is set, so answers are neither accepted nor refused. --target-precision sets one."
        )
    return None


@models.command("pin")
def models_pin(model_id: str) -> None:
    """Load a model, by id, now and whenever the service starts, and keep it loaded."""
    client().post(f"/v1/models/{model_id}:pin")


@models.command("unpin")
def models_unpin(model_id: str) -> None:
    """Allow a model, by id, to be unloaded like any other."""
    client().post(f"/v1/models/{model_id}:unpin")


@models.command("delete")
def models_delete(model_id: str) -> None:
    """Delete a model by its id."""
    client().delete(f"/v1/models/{model_id}")


def backbones(
    name: Annotated[str | None, typer.Argument(help="Show one backbone, with advice on when to choose it.")] = None,
    as_json: Json = False,
) -> None:
    """List the backbones that can be fine-tuned."""
    found = client().get("/v1/backbones")["items"]
    if name is not None:
        found = [one for one in found if one["name"] == name]
        if not found:
            raise CommandError(f"There is no backbone {name!r}. 'graft backbones' lists them.")
    if as_json:
        return print_json({"items": found})
    from app.cli import show

    if name is not None:
        return show.table(["", ""], [list(fact) for fact in found[0].items()])
    rows = [
        [
            one["name"] + (" *" if one["default"] else ""),
            f"{one['parameters'] / 1e6:.1f} M",
            f"{one['gflops']:.2f}",
            one["input_size"],
            "–" if one["imagenet_top1"] is None else f"{one['imagenet_top1']:.1f} %",
            one["weights"],
        ]
        for one in found
    ]
    show.table(["name", "parameters", "GFLOPs", "input", "ImageNet top-1", "weights"], rows)
    (default,) = [one for one in found if one["default"]]
    return show.console.print(
        f"* is the default on this server. {default['advice']} 'graft backbones NAME' gives advice on another one."
    )
