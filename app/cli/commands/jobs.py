"""Define `graft train`, and `graft jobs` list, show, watch, predictions and cancel."""

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from app.cli.commands.predict import download_predictions
from app.cli.commands.training_options import WHAT_LEARNS, asked, with_training_options
from app.cli.fields import without_none
from app.cli.options import Json, client, print_json

jobs = typer.Typer(help="List, follow and cancel jobs.", no_args_is_help=True)


@with_training_options
def train(
    dataset: Annotated[str, typer.Argument(help="Id or name of a dataset.")],
    backbone: Annotated[str | None, typer.Option(help="Name of a backbone; see 'graft backbones'.")] = None,
    base_model: Annotated[str | None, typer.Option(help="Id or name of a model to start from.")] = None,
    what: Annotated[str | None, typer.Option("--train", help=WHAT_LEARNS, metavar="head|all|N")] = None,
    processes: Annotated[int | None, typer.Option(help="Processes on each machine; one for each GPU.")] = None,
    machines: Annotated[int | None, typer.Option(help="Machines that share the training.")] = None,
    name: Annotated[str | None, typer.Option(help="Name of the model; the dataset's name if left out.")] = None,
    priority: Annotated[int | None, typer.Option(help="-100 to 100; a higher priority runs first.")] = None,
    run_after: Annotated[str | None, typer.Option(help="Earliest start, such as 2030-01-31T22:00:00Z.")] = None,
    max_attempts: Annotated[int | None, typer.Option(help="Attempts until a job that loses its worker fails.")] = None,
    max_seconds: Annotated[float | None, typer.Option(help="Running time after which the job fails.")] = None,
    plan: Annotated[bool, typer.Option("--plan", help="Show what the job would do, and queue nothing.")] = False,
    detach: Annotated[bool, typer.Option("--detach", help="Submit the job and do not wait for it.")] = False,
    as_json: Json = False,
    **fields: Any,
) -> None:
    """Fine-tune a pretrained backbone on a dataset. Only the dataset is required."""
    from app.cli import show

    body = {
        "dataset": dataset,
        "backbone": backbone,
        "base_model": base_model,
        "train": {"last_stages": int(what)} if what and what.isdigit() else what,
        "resources": without_none({"processes": processes, "machines": machines}) or None,
        "model_name": name,
        "priority": priority,
        "run_after": run_after,
        "max_attempts": max_attempts,
        "max_seconds": max_seconds,
        **asked(fields),
    }
    api = client()
    if plan:
        planned = api.post("/v1/jobs:plan", without_none(body))
        return print_json(planned) if as_json else show.show_plan(planned)
    job = api.post("/v1/jobs", without_none(body))
    if detach:
        return print_json(job) if as_json else print(job["id"])
    show.progress_console.print(f"Job {job['id']}: Ctrl-C stops watching, 'graft jobs cancel' stops the job.")
    job = show.watch_job(api, job["id"])
    model = api.get(f"/v1/models/{job['result']['model_id']}")
    if as_json:
        return print_json(model)
    show.show_model(model)
    return print(f"Classify with: graft predict {model['id']} IMAGE...")


@jobs.command("list")
def jobs_list(
    kind: Annotated[str, typer.Option(help="train, predict, ingest, …: what the service has.")] = "train",
    as_json: Json = False,
) -> None:
    """List the jobs of a kind, newest first."""
    found = client().get("/v1/jobs", kind=kind, limit=200)
    if as_json:
        return print_json(found)
    from app.cli import show

    rows = [
        [
            job["spec"].get("model_name"),
            job["spec"].get("backbone"),
            job["state"],
            f"{job['progress']:.0%}",
            show.waiting_text(job),
            job["created_at"][:19],
            job["id"],
        ]
        for job in found["items"]
    ]
    return show.table(["model", "backbone", "state", "done", "waits for", "created (UTC)", "id"], rows)


@jobs.command("show")
def jobs_show(job_id: str, as_json: Json = False) -> None:
    """Show a job and its epochs."""
    api = client()
    job = api.get(f"/v1/jobs/{job_id}")
    epochs = api.get(f"/v1/jobs/{job_id}/metrics")["items"]
    if as_json:
        return print_json({**job, "epochs": epochs})
    from app.cli import show

    facts = (
        "id",
        "state",
        "phase",
        "progress",
        "eta_seconds",
        "priority",
        "waiting_for",
        "queue_position",
        "wait_seconds",
        "attempt",
        "worker",
        "created_at",
        "started_at",
        "finished_at",
    )
    show.table(["", ""], [[fact, job[fact]] for fact in facts])
    for part in ("spec", "result", "setback", "failure"):
        show.console.print(f"[bold]{part}[/] {json.dumps(job[part])}")
    told = {name for epoch in epochs for name in epoch}
    columns = [one for one in ("epoch", "train_loss", "val_loss", "train_accuracy", "val_accuracy") if one in told]
    return show.table(columns, [[epoch.get(column) for column in columns] for epoch in epochs]) if columns else None


@jobs.command("watch")
def jobs_watch(job_id: str, as_json: Json = False) -> None:
    """Follow a job to its end. The exit code is 1 unless it succeeds."""
    from app.cli import show

    api = client()
    job = show.watch_job(api, job_id)
    if as_json:
        return print_json(job)
    result = job["result"]
    if "predicted" in result:
        return show.show_predicted(job, f"'graft jobs predictions {job_id}'")
    if "model_id" in result:
        return show.show_model(api.get(f"/v1/models/{result['model_id']}"))
    return show.console.print(json.dumps(result))


@jobs.command("predictions")
def jobs_predictions(
    job_id: str, out: Annotated[Path, typer.Option(help="File for the rows: FILE.csv or FILE.jsonl.")]
) -> None:
    """Download the rows of a predict job."""
    download_predictions(job_id, out)


@jobs.command("cancel")
def jobs_cancel(job_id: str, as_json: Json = False) -> None:
    """Cancel a job."""
    job = client().post(f"/v1/jobs/{job_id}:cancel")
    print_json(job) if as_json else print(job["state"])
