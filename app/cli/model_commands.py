"""`graft predict`, `graft backbones` and `graft models`: list, show, delete."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from app.cli.errors import CommandError
from app.cli.options import Json, client, print_json

if TYPE_CHECKING:
    from app.cli.client import Client

models = typer.Typer(help="Trained models.", no_args_is_help=True)
ModelId = Annotated[str, typer.Argument(help="Id or name of a model; of several with one name, the newest.")]


def predict(
    model: ModelId,
    images: Annotated[list[Path], typer.Argument(help="Image files.")],
    top_k: Annotated[int, typer.Option(min=1, help="Classes to name for each image.")] = 3,
    as_json: Json = False,
) -> None:
    """Classify images."""
    api = client()
    answer = api.predict(find_model_id(api, model), images, top_k)
    if as_json:
        print_json(answer)
    else:
        from app.cli import show

        show.show_predictions(answer["items"])
    if any(item["status"] == "error" for item in answer["items"]):
        raise typer.Exit(1)


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
def models_show(model: ModelId, as_json: Json = False) -> None:
    """Show a model's results."""
    api = client()
    found = api.get(f"/v1/models/{find_model_id(api, model)}")
    if as_json:
        return print_json(found)
    from app.cli import show

    return show.show_model(found)


@models.command("delete")
def models_delete(model_id: str) -> None:
    """Delete a model, by id."""
    client().delete(f"/v1/models/{model_id}")


def backbones(
    name: Annotated[str | None, typer.Argument(help="One of them, with advice on when to choose it.")] = None,
    as_json: Json = False,
) -> None:
    """What can be fine-tuned, and which to choose."""
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
    return show.console.print(f"* the default here. {default['advice']} Advice on another: graft backbones NAME")


def find_model_id(api: "Client", reference: str) -> str:
    from app.core.ids import parse_id

    if parse_id(reference):
        return reference
    found = api.get("/v1/models", name=reference, limit=1)["items"]
    if not found:
        raise CommandError(f"There is no model {reference!r}. 'graft models list' shows them.")
    return str(found[0]["id"])
