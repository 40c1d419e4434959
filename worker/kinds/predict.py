"""A child's work on a job that predicts: classify stored images a batch at a time, and hand over a row for each."""

import json
import os
import shutil
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from app.core.errors import NotFound
from app.core.logging import log
from app.core.settings import Settings
from app.datasets.intake.intake import IntakeLimits, read_image
from app.datasets.intake.limits import intake_limits
from app.datasets.manifest import read_manifest
from app.datasets.service import unknown_image
from app.jobs.states import FailureReason
from app.predictions.batch.rows import AskedImage, listed_images, result_row, version_images
from app.predictions.batch.schemas import PredictSpec
from app.predictions.schemas import Naming, Prediction, PredictionError
from app.predictions.service import described, image_error
from app.predictions.serving.engine_making import make_engine
from app.storage import BlobDamaged, BlobMissing, BlobStore
from app.storage.configured import configured_store
from app.vision.artefacts.model_file import load_model
from app.vision.artefacts.tables import json_lines
from app.vision.engines.model import TrainedModel
from app.vision.engines.names import obstacle
from app.vision.errors import VisionError
from app.vision.runtime.memory import CHUNK
from worker.child.parent import JobFailure, Parent, StopRequested, read_spec
from worker.processes.messages import Work

BATCH = CHUNK  # images a forward pass
_AHEAD = 1  # batches that are decoded while the model is at another: what memory holds is bounded by it
KEEP_EVERY = 30.0  # seconds between the places from where another attempt could go on

Outcome: TypeAlias = NDArray[np.uint8] | Exception  # a prepared image, or why there is none


def predict(
    work: Work, parent: Parent, settings: Settings, batch_size: int = BATCH, keep_every: float = KEEP_EVERY
) -> dict[str, Any]:
    """Return where the rows are, and how many images came to what.

    Rows are written in the order of the images, so that their number says where to go on: a job that was stopped, or
    whose worker died, goes on behind the last rows that were kept, and no image has two.
    """
    store = configured_store(settings)
    scratch, spec = Path(work["scratch"]), read_spec(PredictSpec, work["spec"])
    parent.progress("loading", 0.0, None)
    images = _images(spec, work["manifest_sha256"], store)
    model = _load(spec, store, scratch)
    options = spec.naming()
    path = scratch / "predictions.jsonl"
    done = _kept_rows(work["checkpoints"], store, path)
    pace = _Pace(len(images), done, keep_every)
    pool = ThreadPoolExecutor(settings.decode_threads or len(os.sched_getaffinity(0)), thread_name_prefix="decode")
    prepare = partial(_prepare, store=store, limits=intake_limits(settings), model=model)
    try:
        with path.open("ab") as file:
            for batch in _prepared(pool, images[done:], prepare, batch_size):
                file.writelines(json_lines(_rows(batch, model, options, spec.thresholds)))
                done += len(batch)
                parent.progress("predicting", done / len(images), pace.seconds_left(done))
                stop = parent.should_stop()
                if stop or pace.keep_now():
                    file.flush()
                    parent.checkpoint(store.put_file(path), 0, done, best=False)
                if stop:
                    raise StopRequested
    finally:
        pool.shutdown(cancel_futures=True)
    counts = _count(path, model.classes)
    assert counts["images"] == len(images), "an image has no row, or two"
    blob = store.put_file(path)
    return {"file": {"sha256": blob.sha256, "size": blob.size}, "engine": model.engine.name, **counts}


class _Pace:
    """Measures how fast images are done, and says when it is time to keep what is done."""

    def __init__(self, total: int, done: int, keep_every: float) -> None:
        self._total = total
        self._keep_every = keep_every
        self._began_with = done
        self._began = self._kept = time.monotonic()

    def seconds_left(self, done: int) -> float:
        seconds = (time.monotonic() - self._began) / (done - self._began_with)
        return seconds * (self._total - done)

    def keep_now(self) -> bool:
        now = time.monotonic()
        if now - self._kept < self._keep_every:
            return False
        self._kept = now
        return True


def _images(spec: PredictSpec, manifest_sha256: str | None, store: BlobStore) -> list[AskedImage]:
    if manifest_sha256 is not None:
        return version_images(read_manifest(store.read(manifest_sha256)), spec.split, spec.label)
    assert spec.images_sha256 is not None
    return listed_images(store.read(spec.images_sha256))


def _load(spec: PredictSpec, store: BlobStore, scratch: Path) -> TrainedModel:
    """Return the model with the engine that is asked for; on the processor, unless that is an engine of the GPU."""
    if detail := obstacle(spec.engine):
        raise JobFailure(FailureReason.invalid_config, detail, "Leave engine out, or ask for another.")

    def made(name: str, make: Callable[[Path], None]) -> Path:
        make(scratch / name)
        return scratch / name

    try:
        model = load_model(store.fetch(spec.artefact_sha256, scratch))
    except (BlobMissing, BlobDamaged, VisionError) as error:
        hint = "Predict with another model; this one's file is not what was stored."
        raise JobFailure(FailureReason.weights_unavailable, f"The model: {error}", hint) from None
    model.engine = make_engine(spec.engine, model, made)
    return model


def _kept_rows(checkpoints: Sequence[str], store: BlobStore, path: Path) -> int:
    """Put the rows of the newest checkpoint that is whole into `path`. Returns how many: 0 where there is none."""
    for sha256 in checkpoints:
        try:
            shutil.copyfile(store.fetch(sha256, path.parent), path)
        except (BlobMissing, BlobDamaged) as error:
            log.warning("checkpoint_damaged", sha256=sha256, error=str(error))
            continue
        with path.open("rb") as file:
            return sum(1 for _ in file)
    return 0


def _prepared(
    pool: ThreadPoolExecutor,
    images: Sequence[AskedImage],
    prepare: Callable[[AskedImage], NDArray[np.uint8]],
    batch_size: int,
) -> Iterator[list[tuple[AskedImage, Outcome]]]:
    """Yield the images in batches, in their order; the next is decoded while the caller is at this one."""
    waiting: deque[list[tuple[AskedImage, Future[NDArray[np.uint8]]]]] = deque()
    for start in range(0, len(images), batch_size):
        waiting.append([(one, pool.submit(prepare, one)) for one in images[start : start + batch_size]])
        if len(waiting) > _AHEAD:
            yield [(one, _outcome(future)) for one, future in waiting.popleft()]
    while waiting:
        yield [(one, _outcome(future)) for one, future in waiting.popleft()]


def _prepare(image: AskedImage, store: BlobStore, limits: IntakeLimits, model: TrainedModel) -> NDArray[np.uint8]:
    """Return the image as uint8 [H, W, 3] for the network, as a predict call prepares it."""
    if image.sha256 is None:
        raise unknown_image(image.id or "")
    try:
        data = store.read(image.sha256)
    except BlobMissing:
        detail = "The image is not stored any more: it was deleted while the job waited. Upload it again."
        raise NotFound(detail, code="image_gone") from None
    return read_image(data, limits, model.prepare)


def _outcome(future: Future[NDArray[np.uint8]]) -> Outcome:
    error = future.exception()
    if error is None:
        return future.result()
    if isinstance(error, Exception):
        return error
    raise error


def _rows(
    batch: Sequence[tuple[AskedImage, Outcome]],
    model: TrainedModel,
    options: Naming,
    thresholds: Sequence[float | None] | None,
) -> Iterator[dict[str, Any]]:
    """Yield a row for each image. Raises what is not one image's own fault."""
    readable = [outcome for _, outcome in batch if not isinstance(outcome, Exception)]
    answers = iter(_answers(model, np.stack(readable)) if readable else ())
    for image, outcome in batch:
        if isinstance(outcome, Exception):
            code, detail = image_error(outcome)
            answer = Prediction(file=None, status="error", error=PredictionError(code=code, detail=detail))
        else:
            answer = described(model, next(answers), None, options, thresholds)
        yield result_row(image, answer)


def _answers(model: TrainedModel, images: NDArray[np.uint8]) -> list[Any]:
    """Return the model's answers. A model that cannot say must not name a class."""
    try:
        return model.answer(images)
    except FloatingPointError:
        detail = f"The model answers with numbers that are not finite, on the engine {model.engine.name}."
        raise JobFailure(FailureReason.internal, detail, "Use another engine or another model.") from None


def _count(path: Path, classes: Sequence[str]) -> dict[str, Any]:
    """Count the result: images, those of them that have an error, and how many came to each class."""
    images, errors, predicted = 0, 0, Counter[str]()
    with path.open("rb") as file:
        for row in map(json.loads, file):
            images += 1
            errors += row["status"] == "error"
            predicted.update(one["label"] for one in row["predictions"][:1])
    return {"images": images, "errors": errors, "predicted": {label: predicted[label] for label in classes}}
