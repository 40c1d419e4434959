"""Run `graft demo`: a training and predictions through the HTTP API of a temporary service."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from app.cli import show
from app.cli.client import Client
from app.cli.demo.digits import write_digits_zip
from app.cli.demo.held_out import HeldOut, hold_out
from app.cli.errors import CommandError
from app.cli.pack import as_archive

_STARTS_WITHIN = 60.0  # seconds


def demo(data: Path | None) -> None:
    """Start a service, upload, fine-tune, print the metrics, classify three held-out images, stop, and clean up."""
    began = time.monotonic()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # an ordinary exit stops the service and cleans up
    with tempfile.TemporaryDirectory(prefix="graft-demo-") as folder:
        archive, held_out = _images(data, Path(folder))
        with own_service(Path(folder) / "home") as client:
            show.console.print(f"[bold]1[/] A service runs at {client.url}, with SQLite and local files.")

            name = "digits" if data is None else "demo"
            with show.upload_bar(archive, archive.stat().st_size) as file:
                created = client.upload("/v1/datasets", file, archive.stat().st_size, {"name": name})
            dataset = show.watch_dataset(client, created["id"])
            show.console.print("[bold]2[/] The images are uploaded, checked, and divided into train and validation.")
            show.show_dataset(dataset)

            job = client.post("/v1/jobs", {"dataset": name})
            job = show.watch_job(client, job["id"])
            show.console.print(f"[bold]3[/] A {job['spec']['backbone']} is fine-tuned on them.")
            model = client.get(f"/v1/models/{job['result']['model_id']}")
            show.show_model(model)

            show.console.print("[bold]4[/] Three images that the model has never seen:")
            paths = _write(held_out, Path(folder))
            answers = client.predict(model["id"], paths, top_k=3)["items"]
            show.show_predictions(answers)
            right = sum(
                answer["predictions"][0]["label"] == image.label
                for answer, image in zip(answers, held_out, strict=True)
            )
    took = time.monotonic() - began
    show.console.print(f"{right} of {len(held_out)} right. The service is stopped; nothing is left. {took:.0f} s.")


def _images(data: Path | None, folder: Path) -> tuple[Path, list[HeldOut]]:
    if data is None:
        archive = folder / "digits.zip"
        return archive, [HeldOut(*image) for image in write_digits_zip(archive)]
    with as_archive(data) as archive:
        return hold_out(archive, folder / "rest.zip")


def _write(images: list[HeldOut], folder: Path) -> list[Path]:
    """Write the images to files named after their true label, so that the table shows it, and return their paths."""
    paths = []
    for number, image in enumerate(images, start=1):
        path = folder / f"{number}-true-{image.label.replace('/', '-')}{Path(image.name).suffix}"
        path.write_bytes(image.data)
        paths.append(path)
    return paths


@contextmanager
def own_service(home: Path, **settings: str) -> Iterator[Client]:
    """Run `graft up` in the folder `home` on a free port, and yield a client of it.

    The service has these settings (`GRAFT_ENGINES="torch"`) and none of this machine's own Graftwork settings.
    """
    home.mkdir()
    kept = ("GRAFT_WEIGHTS_DIR", "GRAFT_WEIGHTS_MIRROR", "GRAFT_WEIGHTS_DOWNLOAD")
    environment = {name: value for name, value in os.environ.items() if not name.startswith("GRAFT_") or name in kept}
    environment |= settings
    environment["MPLCONFIGDIR"] = str(home / "matplotlib")  # its font cache would outlive the demo
    log = home / "log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "app.cli", "up", "--home", str(home), "--port", "0"],
            env=environment,
            cwd=home,
            stdout=output,
            stderr=output,
            stdin=subprocess.DEVNULL,
            start_new_session=True,  # Ctrl-C reaches the demo, which then stops the service in order
        )
    try:
        with contextlib.closing(_wait_until_ready(process, home, log)) as client:
            yield client
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(60)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def _wait_until_ready(process: subprocess.Popen[bytes], home: Path, log: Path) -> Client:
    deadline = time.monotonic() + _STARTS_WITHIN
    while process.poll() is None and time.monotonic() < deadline:
        with contextlib.suppress(OSError, ValueError, CommandError):
            saved = json.loads((home / "client.json").read_text())
            client = Client(saved["url"], saved["key"])
            client.get("/readyz")
            return client
        time.sleep(0.1)
    raise CommandError(f"The service did not start. Its log ends: {' '.join(log.read_text().splitlines()[-3:])}")
