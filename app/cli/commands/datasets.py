"""Define `graft datasets` push, sample, list, show and delete."""

import hashlib
from pathlib import Path
from typing import Annotated

import typer

from app.cli.options import Json, client, print_json

_RESUMABLE_FROM = 64 << 20  # bytes above which a file is sent as a resumable upload

datasets = typer.Typer(help="Upload, list, change and download datasets of labelled images.", no_args_is_help=True)


@datasets.command("push")
def datasets_push(
    path: Annotated[Path, typer.Argument(help="A folder or an archive: class/image.jpg, or train/class/image.jpg.")],
    name: Annotated[str | None, typer.Option(help="Name of the dataset; the file's name if left out.")] = None,
    val_fraction: Annotated[
        float | None, typer.Option(help="Share of the images for val, if there is no val folder.")
    ] = None,
    test_fraction: Annotated[float | None, typer.Option(help="Share of the images for a final test.")] = None,
    seed: Annotated[int | None, typer.Option(help="Seed of the random split.")] = None,
    as_json: Json = False,
) -> None:
    """Upload labelled images and wait until every one has been checked."""
    from app.cli import resumable, show
    from app.cli.pack import as_archive

    api = client()
    with as_archive(path) as archive:
        size = archive.stat().st_size
        options = {
            "name": name or archive.name.split(".")[0],
            "val_fraction": val_fraction,
            "test_fraction": test_fraction,
            "seed": seed,
        }
        with show.upload_bar(archive, size) as file:
            if size > _RESUMABLE_FROM:
                created = resumable.send(api, file, size, _sha256(archive), options)
            else:
                created = api.upload("/v1/datasets", file, size, options)
    dataset = show.watch_dataset(api, created["id"])
    print_json(dataset) if as_json else show.show_dataset(dataset)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@datasets.command("sample")
def datasets_sample(
    path: Annotated[Path, typer.Argument(help="The archive to write.")] = Path("digits.zip"),
) -> None:
    """Write an archive of handwritten digits to try things with, and three more digits as PNG files."""
    from app.cli.demo.digits import write_digits_zip

    held_out = write_digits_zip(path)
    for _, data, label in held_out:
        path.with_name(f"digit-{label}.png").write_bytes(data)
    print(" ".join([str(path), *(str(path.with_name(f"digit-{label}.png")) for _, _, label in held_out)]))


@datasets.command("list")
def datasets_list(as_json: Json = False) -> None:
    """List datasets, newest first."""
    found = client().get("/v1/datasets", limit=200)
    if as_json:
        return print_json(found)
    from app.cli import show

    rows = [
        [d["name"], d["state"], sum(map(_images, (d["version"] or {}).get("counts", {}).values())), d["id"]]
        for d in found["items"]
    ]
    return show.table(["name", "state", "images", "id"], rows)


def _images(by_class: dict[str, int]) -> int:
    return sum(by_class.values())


@datasets.command("show")
def datasets_show(dataset: str, as_json: Json = False) -> None:
    """Show the classes of a dataset and the files that were left out. DATASET is an id or a name."""
    from app.cli import show

    api = client()
    found = api.get(f"/v1/datasets/{dataset}")
    if as_json or found["state"] == "processing":
        return print_json(found)
    return show.show_dataset(show.watch_dataset(api, found["id"]))


@datasets.command("delete")
def datasets_delete(dataset: str) -> None:
    """Delete a dataset by id or name. Models trained on it stay."""
    client().delete(f"/v1/datasets/{dataset}")
