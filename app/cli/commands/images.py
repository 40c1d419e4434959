"""Define the `graft datasets` commands for single images, versions and the report."""

from pathlib import Path
from typing import Annotated, Any

import typer

from app.cli.errors import CommandError
from app.cli.fields import without_none
from app.cli.options import Json, client, print_json

images = typer.Typer()  # its commands become commands of `graft datasets`

Dataset = Annotated[str, typer.Argument(help="Id or name of the dataset.")]
Image = Annotated[str, typer.Argument(help="The image's SHA-256, as 'graft datasets images' shows it.")]
Label = Annotated[str | None, typer.Option(help="The label, which is a class.")]
Split = Annotated[str | None, typer.Option(help="The split: train, val or test.")]


@images.command("images")
def datasets_images(
    dataset: Dataset,
    label: Label = None,
    split: Split = None,
    limit: Annotated[int, typer.Option(help="The most images to list.")] = 50,
    as_json: Json = False,
) -> None:
    """List images of a dataset, newest first."""
    from app.cli import show

    found: list[dict[str, Any]] = []
    cursor = None
    api = client()
    while len(found) < limit:
        query = {"label": label, "split": split, "cursor": cursor, "limit": min(limit - len(found), 200)}
        page = api.get(f"/v1/datasets/{dataset}/images", **query)
        found, cursor = [*found, *page["items"]], page["next_cursor"]
        if cursor is None:
            break
    if as_json:
        return print_json({"items": found, "next_cursor": cursor})
    rows = [
        [one["label"], one["split"], f"{one['width']}×{one['height']}", one["name"], one["sha256"]] for one in found
    ]
    return show.table(["label", "split", "size", "file", "id"], rows)


@images.command("report")
def datasets_report(dataset: Dataset, as_json: Json = False) -> None:
    """Show findings that would spoil a training on a dataset, with remedies."""
    report = client().get(f"/v1/datasets/{dataset}/report")
    if as_json:
        return print_json(report)
    for one in report["findings"]:
        print(f"{one['severity']}: {one['message']} {one['remedy']}")
    return print(f"{report['images']} images, {len(report['findings'])} findings")


@images.command("add")
def datasets_add(
    dataset: Dataset,
    files: Annotated[list[Path], typer.Argument(help="Image files of one class.")],
    label: Annotated[str, typer.Option(help="The label of all these images.")],
    split: Split = None,
    as_json: Json = False,
) -> None:
    """Add images to a dataset. Then 'freeze' creates a version that holds them."""
    items = client().send_files(f"/v1/datasets/{dataset}/images", files, label=label, split=split)["items"]
    if as_json:
        print_json({"items": items})
    else:
        for one in items:
            print(f"{one['file']}: {one['error']['detail'] if one['error'] else one['status']}")
    failed = sum(one["status"] == "error" for one in items)
    if failed:
        raise CommandError(f"{failed} of {len(items)} files were not added.")


@images.command("edit")
def datasets_edit(
    dataset: Dataset, image: Image, label: Label = None, split: Split = None, as_json: Json = False
) -> None:
    """Give an image another label, or move it to another split."""
    change = without_none({"label": label, "split": split})
    if not change:
        raise CommandError("Nothing to change was given. Use --label or --split.", 2)
    changed = client().patch(f"/v1/datasets/{dataset}/images/{image}", change)
    print_json(changed) if as_json else print(f"{changed['name']}: {changed['label']}, {changed['split']}")


@images.command("remove")
def datasets_remove(dataset: Dataset, image: Image) -> None:
    """Remove an image from a dataset. Existing versions keep it."""
    client().delete(f"/v1/datasets/{dataset}/images/{image}")


@images.command("freeze")
def datasets_freeze(dataset: Dataset, as_json: Json = False) -> None:
    """Create a version of a dataset as it is now. Jobs train on the newest version."""
    version = client().post(f"/v1/datasets/{dataset}/versions")
    print_json(version) if as_json else print(f"version {version['number']} {version['sha256']}")


@images.command("versions")
def datasets_versions(dataset: Dataset, as_json: Json = False) -> None:
    """List a dataset's versions, newest first."""
    from app.cli import show

    found = client().get(f"/v1/datasets/{dataset}/versions")
    if as_json:
        return print_json(found)
    rows = [
        [one["number"], sum(sum(split.values()) for split in one["counts"].values()), one["created_at"], one["sha256"]]
        for one in found["items"]
    ]
    return show.table(["version", "images", "made", "id"], rows)


@images.command("download")
def datasets_download(
    dataset: Dataset,
    target: Annotated[Path, typer.Argument(help="The zip to write.")],
    version: Annotated[int | None, typer.Option(help="Number of the version; the newest if left out.")] = None,
) -> None:
    """Download a version as a zip. Pushing that zip gives a version with the same hash."""
    api = client()
    if version is None:
        version = api.get(f"/v1/datasets/{dataset}/versions")["items"][0]["number"]
    api.download(f"/v1/datasets/{dataset}/versions/{version}/archive", target)
    print(target)
