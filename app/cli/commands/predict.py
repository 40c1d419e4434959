"""Define `graft predict`: classify image files at once, or the stored images of a dataset in a job."""

from pathlib import Path
from typing import Annotated, Any

import typer

from app.cli.commands.models import ModelRef
from app.cli.errors import CommandError
from app.cli.fields import without_none
from app.cli.options import Json, client, print_json

_FORMATS = {".csv": "csv", ".jsonl": "jsonl"}


def predict(
    model: ModelRef,
    images: Annotated[list[Path] | None, typer.Argument(help="Image files.")] = None,
    top_k: Annotated[int, typer.Option(min=1, help="Number of classes in each answer.")] = 3,
    threshold: Annotated[float, typer.Option(min=0, max=1, help="Leave out classes that are less probable.")] = 0,
    dataset: Annotated[str | None, typer.Option(help="Id or name of a dataset to classify instead of files.")] = None,
    version: Annotated[int | None, typer.Option(help="Version of the dataset; the newest if left out.")] = None,
    split: Annotated[str | None, typer.Option(help="Classify only this split: train, val or test.")] = None,
    label: Annotated[str | None, typer.Option(help="Classify only images with this label.")] = None,
    out: Annotated[Path | None, typer.Option(help="File for a dataset's rows: FILE.csv or FILE.jsonl.")] = None,
    detach: Annotated[bool, typer.Option("--detach", help="Submit the dataset's job and do not wait for it.")] = False,
    as_json: Json = False,
) -> None:
    """Classify image files or, with --dataset, the stored images of a dataset."""
    selection = without_none({"version": version, "split": split, "label": label})
    options = {"top_k": top_k, "threshold": threshold}
    if (dataset is None) == (not images):
        raise CommandError("Give image files, or --dataset NAME --out FILE.csv.", 2)
    if dataset is not None:
        return _predict_dataset({"model": model, "dataset": dataset, **selection, **options}, out, detach, as_json)
    if out is not None or detach or selection:
        raise CommandError("--version, --split, --label, --out and --detach can only be used with --dataset.", 2)
    return _predict_files(model, images or [], options, as_json)


def _predict_files(model: str, images: list[Path], options: dict[str, Any], as_json: bool) -> None:
    answer = client().predict(model, images, **options)
    if as_json:
        print_json(answer)
    else:
        from app.cli import show

        show.show_predictions(answer["items"])
    if any(item["status"] == "error" for item in answer["items"]):
        raise typer.Exit(1)


def _predict_dataset(body: dict[str, Any], out: Path | None, detach: bool, as_json: bool) -> None:
    if not detach:
        format_of(out)  # before anything is done
    from app.cli import show

    api = client()
    job = api.post("/v1/jobs:predict", body)
    if detach:
        return print_json(job) if as_json else print(job["id"])
    show.progress_console.print(f"Job {job['id']}: Ctrl-C stops watching, 'graft jobs cancel' stops the job.")
    job = show.watch_job(api, job["id"])
    download_predictions(job["id"], out)
    return print_json(job) if as_json else show.show_predicted(job, str(out))


def download_predictions(job_id: str, out: Path | None) -> None:
    """Write a job's rows to the file `out`, in the format that its name ends in."""
    wanted, target = format_of(out)
    client().download(f"/v1/jobs/{job_id}/predictions?format={wanted}", target)


def format_of(out: Path | None) -> tuple[str, Path]:
    """Return the format that the file's name ends in, and the file. Raises `CommandError` for another ending."""
    if out is None or out.suffix.lower() not in _FORMATS:
        name = "is missing" if out is None else f"is {str(out)!r}"
        raise CommandError(f"--out {name}; give a file whose name ends in .csv or .jsonl.", 2)
    return _FORMATS[out.suffix.lower()], out
