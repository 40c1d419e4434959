"""Print tables on the terminal, and show progress while a dataset or a job is followed to its end."""

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    SpinnerColumn,
    TaskProgressColumn,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)
from rich.table import Table

from app.cli.client import Client
from app.cli.errors import CommandError

console = Console(highlight=False)
# Progress is not output: `graft ... --json | jq` must read nothing else.
progress_console = Console(stderr=True, highlight=False)
_WIDEST = 1000  # characters of a line


def table(columns: Sequence[str], rows: Sequence[Sequence[Any]], title: str | None = None) -> None:
    """Print a table; columns of numbers are aligned to the right.

    In a table with a column `id` each row has one line, which a narrow terminal wraps as a whole. Wrapped cells would
    make the ids unreadable.
    """
    if title:
        console.print(title)  # above the table, not in it: there it would wrap at the table's width
    shown = Table(box=None, pad_edge=False, header_style="bold")
    for index, column in enumerate(columns):
        numeric = bool(rows) and all(isinstance(row[index], int | float) for row in rows)
        shown.add_column(column, justify="right" if numeric else "left", overflow="fold")
    for row in rows:
        shown.add_row(*(_text(value) for value in row))
    whole = console.measure(shown, options=console.options.update(max_width=_WIDEST)).maximum if "id" in columns else 0
    Console(highlight=False, width=max(console.width, whole)).print(shown)


def _text(value: Any) -> str:
    if value is None:
        return "–"
    return f"{value:.3f}" if isinstance(value, float) else str(value)


@contextmanager
def upload_bar(path: Path, size: int) -> Iterator[Any]:
    """Open `path` for reading and yield the file; a progress bar shows how much has been read."""
    with (
        Progress(
            TextColumn("Uploading {task.description}"),
            BarColumn(),
            DownloadColumn(),
            TransferSpeedColumn(),
            console=progress_console,
        ) as progress,
        progress.open(path, "rb", total=size, description=path.name) as file,
    ):
        yield file


def _bar() -> Progress:
    return Progress(
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(),
        TaskProgressColumn(),
        TimeRemainingColumn(compact=True),
        TextColumn("{task.fields[note]}"),
        console=progress_console,
    )


def watch_dataset(client: Client, dataset_id: str) -> dict[str, Any]:
    """Follow an upload until it has been read and return the dataset. Raises `CommandError` if reading failed."""
    with _bar() as progress:
        task = progress.add_task("Checking images", total=1.0, note="")
        while True:
            dataset: dict[str, Any] = client.get(f"/v1/datasets/{dataset_id}")
            progress.update(task, completed=dataset["progress"])
            if dataset["state"] != "processing":
                break
            time.sleep(0.2)
    if dataset["state"] == "failed":
        failure = dataset["failure"]
        for finding in (dataset["report"] or {}).get("rejected", [])[:10]:
            progress_console.print(f"  left out: {finding['file']}: {finding['reason']}", style="yellow")
        raise CommandError(f"The upload could not be used. {failure['detail']} {failure['hint'] or ''}".strip())
    return dataset


def watch_job(client: Client, job_id: str) -> dict[str, Any]:
    """Follow a job until it has ended, with its epochs, and return it. Raises `CommandError` unless it succeeded."""
    with _bar() as progress:
        task = progress.add_task("Waiting for a worker", total=1.0, note="")
        for event, data in client.events(job_id):
            if event == "progress":
                phase = (data["phase"] or "starting").capitalize()
                progress.update(task, description=phase, completed=data["progress"])
            elif event == "epoch":
                note = f"epoch {data['epoch']}" + (f"/{data['epochs']}" if "epochs" in data else "")
                note += f"  val accuracy {data['val_accuracy']:.1%}" if "val_accuracy" in data else ""
                progress.update(task, note=note)
            elif event == "state" and data["state"] == "succeeded":
                progress.update(task, completed=1.0)
    job: dict[str, Any] = client.get(f"/v1/jobs/{job_id}")
    if job["state"] != "succeeded":
        failure = job["failure"] or {"reason": job["state"], "detail": "It was cancelled.", "hint": None}
        raise CommandError(f"Job {job_id} {job['state']}: {failure['detail']} {failure['hint'] or ''}".strip())
    return job


def show_dataset(dataset: dict[str, Any]) -> None:
    version, report = dataset["version"], dataset["report"]
    counts = version["counts"]
    rows = [[label, *(counts[split].get(label, 0) for split in counts)] for label in version["classes"]]
    table(["class", *counts], rows, f"Dataset {dataset['name']}: {report['accepted']} of {report['files']} files kept")
    for finding in [*report["rejected"][:5], *report["noted"][:5]]:
        console.print(f"  {finding['file']}: {finding['reason']}", style="yellow")


def show_model(model: dict[str, Any]) -> None:
    """Print accuracy and per-class metrics, of the test split if there is one."""
    split = "test" if "test" in model["metrics"] else "val"
    metrics = model["metrics"][split]
    rows = [[one["class"], one["precision"], one["recall"], one["f1"], one["support"]] for one in metrics["per_class"]]
    images = sum(row[4] for row in rows)
    title = f"Model {model['name']} ({model['backbone']}): {metrics['accuracy']:.1%} of {images} {split} images right"
    table(["class", "precision", "recall", "F1", "images"], rows, title)
    if model["decisions"] is not None:
        _show_decisions(model["decisions"], split)


def _show_decisions(decisions: dict[str, Any], split: str) -> None:
    found = decisions["splits"][split]
    right = "" if found["precision"] is None else f", {found['precision']:.1%} of them right"
    console.print(
        f"At a target precision of {decisions['target_precision']:g}, {found['coverage']:.1%} of the {split} images "
        f"are accepted{right}, and {found['unknown']} images are unknown."
    )
    if without := [label for label, threshold in decisions["thresholds"].items() if threshold is None]:
        console.print(
            f"These classes are never accepted, because validation does not prove the target: {', '.join(without)}",
            style="yellow",
        )


def show_predictions(items: Sequence[dict[str, Any]]) -> None:
    rows: list[list[Any]] = []
    with_decisions = any(item["decision"] for item in items)
    for item in items:
        if item["status"] == "ok":
            best, *others = item["predictions"] or [{"label": "–", "probability": None}]  # all below the threshold
            runners_up = ", ".join(f"{one['label']} {one['probability']:.1%}" for one in others[:2])
            share = "–" if best["probability"] is None else f"{best['probability']:.1%}"
            rows.append([item["file"], best["label"], share, runners_up])
        else:
            rows.append([item["file"], "–", "–", item["error"]["detail"]])
        if with_decisions:
            rows[-1].insert(1, item["decision"])
    table(["image", *(["decision"] if with_decisions else []), "class", "probability", "next"], rows)


def show_predicted(job: dict[str, Any], place: str) -> None:
    """Print how often each class was predicted in a job that predicts, and where its rows are."""
    result = job["result"]
    rows = [[label, count] for label, count in result["predicted"].items() if count]
    title = (
        f"{job['spec']['model_name']} classified {result['images']} images, of which {result['errors']} could not be "
        f"read. The rows are in {place}"
    )
    table(["class", "images"], rows, title)


def waiting_text(job: dict[str, Any]) -> str:
    """Return what a queued job waits for, in a few words: `#2, 90 s`, `worker`."""
    if job["waiting_for"] != "slot":
        return job["waiting_for"] or ""
    estimate = "" if job["wait_seconds"] is None else f", {job['wait_seconds']:.0f} s"
    return f"#{job['queue_position']}{estimate}"


def show_plan(plan: dict[str, Any]) -> None:
    """Print a training's plan: the network, the images, the cost, and the faults of the data."""
    network, images, counts = plan["network"], plan["images"], plan["images"]["counts"]
    rows = [[label, *(counts[split].get(label, 0) for split in counts)] for label in network["classes"]]
    title = f"Version {images['version']} would train a {network['backbone']} at {network['input_size']} px"
    table(["class", *counts], rows, title)
    console.print(
        f"{network['trainable_parameters']:,} of {network['parameters']:,} parameters learn: "
        f"{', '.join(network['trained'])}"
    )
    for name in ("memory", "disk", "seconds"):
        estimate = plan[name]
        shown = _amount(estimate["value"], estimate["unit"])
        console.print(f"{name}: {shown}. {estimate['basis']}")
    ahead = plan["waiting_for"] if plan["jobs_ahead"] is None else f"{plan['jobs_ahead']} jobs ahead"
    console.print(f"The job would wait for: {ahead}")
    for finding in plan["findings"]:
        console.print(f"{finding['severity']}: {finding['message']} {finding['remedy']}", style="yellow")
    if plan["refusal"] is not None:
        console.print(f"The job would be refused: {plan['refusal']['detail']}", style="red")


def _amount(value: float | None, unit: str) -> str:
    if value is None:
        return "unknown"
    return f"{value / 2**20:,.0f} MiB" if unit == "bytes" else f"{value:,.0f} s"
