"""Choose a model's engine on this machine: make each, compare it with the reference, time it, and store the result."""

import importlib.metadata
import os
import platform
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING
from uuid import UUID

from sqlalchemy import select
from sqlalchemy.orm import Session

from app import __version__
from app.core.database import Database
from app.core.errors import Conflict
from app.core.logging import log
from app.datasets import service as datasets
from app.datasets.manifest import ManifestImage, read_manifest
from app.predictions.orm import ModelEngine
from app.predictions.serving.engine_files import EngineFiles
from app.predictions.serving.engine_making import make_engine
from app.registry.orm import Model
from app.storage import BlobDamaged, BlobMissing, BlobStore
from app.vision.engines.names import ENGINES, REFERENCE, EngineName, missing_libraries, obstacle

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from app.vision.engines.choice import Measured
    from app.vision.engines.engine import Engine
    from app.vision.engines.model import TrainedModel

HELD_OUT = 256  # images of the test split, or of the validation split where there is none
LEAST_HELD_OUT = 20  # with fewer, agreement means nothing and the reference stays
CALIBRATION = 128  # training images that an INT8 file takes its ranges from


class Tuner:
    """Makes engines and chooses one of `candidates`. A process has one instance."""

    def __init__(
        self, database: Database, store: BlobStore, files: EngineFiles, candidates: Sequence[EngineName] = ENGINES
    ) -> None:
        self._database = database
        self._store = store
        self._files = files
        self._candidates = [name for name in candidates if name != REFERENCE and not missing_libraries(name)]

    @cached_property
    def machine(self) -> str:
        """Return the description of this machine, on which this process's measurements depend."""
        return machine(any(name.startswith("cuda") for name in self._candidates))

    @property
    def has_candidates(self) -> bool:
        return bool(self._candidates)

    def recall(self, model_id: UUID) -> EngineName | None:
        """Return the engine that was chosen on this kind of machine, or None if it cannot be made here any more."""
        with self._database.reading() as session:
            found = session.get(ModelEngine, (model_id, self.machine))
        chosen = next((name for name in ENGINES if found is not None and name == found.chosen), None)
        return chosen if chosen == REFERENCE or chosen in self._candidates else None

    def make(self, name: EngineName, model_id: UUID, artefact_sha256: str, model: "TrainedModel") -> "Engine":
        """Return the engine of that name for a loaded model; export and quantise first if its file does not exist."""

        def calibration() -> "NDArray[np.uint8]":
            return self._images(model_id, model, ("train",), CALIBRATION)[0]

        engine = make_engine(name, model, partial(self._files.get, artefact_sha256), calibration)
        with self._database.reading() as session:
            found = session.get(ModelEngine, (model_id, self.machine))
        for one in found.measured if found is not None else ():
            if one["engine"] == name:
                engine.batch = one.get("batch") or engine.batch
        return engine

    def tune(
        self,
        model_id: UUID,
        artefact_sha256: str,
        model: "TrainedModel",
        turn: Callable[[], AbstractContextManager[object]],
    ) -> "Engine":
        """Measure every candidate, store the measurements, and return the chosen engine; it takes a minute or more."""
        from app.vision.engines.choice import Measured, choose, measure, outputs_of

        try:
            images, labels = self._images(model_id, model, ("test", "val"), HELD_OUT)
        except Conflict as error:
            self._remember(model_id, [Measured(REFERENCE, True, detail=error.detail)], REFERENCE)
            return model.reference
        reference = outputs_of(model.reference, images, turn)
        engines: dict[str, Engine] = {REFERENCE: model.reference}
        agreement = partial(model.answers.agreement, reference=reference, labels=labels)
        compare = partial(measure, images=images, agreement=agreement, turn=turn)
        measured = [compare(model.reference)]
        for name in self._candidates:
            if reason := obstacle(name):
                measured.append(Measured(name, False, detail=reason))
                continue
            try:
                engines[name] = self.make(name, model_id, artefact_sha256, model)
                measured.append(compare(engines[name]))
            except Exception as error:  # a library's own fault is no reason not to serve
                log.warning("engine_failed", engine=name, model=str(model_id), exc_info=error)
                measured.append(Measured(name, False, detail=f"It cannot be used here ({type(error).__name__})."))
        chosen = choose(measured)
        self._remember(model_id, measured, chosen)
        log.info("engine_chosen", model=str(model_id), engine=chosen)
        return engines[chosen]

    def _remember(self, model_id: UUID, measured: "Sequence[Measured]", chosen: str) -> None:
        with self._database.writing() as session:
            if session.get(Model, model_id) is None:
                return  # deleted meanwhile
            rows = [one.to_dict() for one in measured]
            session.merge(ModelEngine(model_id=model_id, machine=self.machine, chosen=chosen, measured=rows))

    def _images(
        self, model_id: UUID, model: "TrainedModel", splits: Sequence[str], most: int
    ) -> "tuple[NDArray[np.uint8], NDArray[np.int64]]":
        """Return prepared images uint8 [N, H, W, 3] and labels, spread over the first of `splits` that has enough."""
        import numpy as np

        with self._database.reading() as session:
            row = session.get(Model, model_id)
            version = datasets.get_version(session, row.dataset_version_id) if row else None
        manifest = read_manifest(self._store.read(version.manifest_sha256)) if version else None
        for split in splits:
            items = [item for item in manifest.items if item.split == split] if manifest else []
            spread = np.linspace(0, len(items) - 1, min(len(items), most)).astype(int)  # no index twice
            found = [one for index in spread if (one := self._prepared(items[index], model)) is not None]
            if len(found) >= LEAST_HELD_OUT:
                return np.stack([image for image, _ in found]), np.array([label for _, label in found])
        raise Conflict(f"The model's dataset has fewer than {LEAST_HELD_OUT} images left in {' and '.join(splits)}.")

    def _prepared(self, item: ManifestImage, model: "TrainedModel") -> "tuple[NDArray[np.uint8], int] | None":
        try:
            data = self._store.read(item.sha256)
        except (BlobMissing, BlobDamaged):  # its dataset was deleted, perhaps
            return None
        return model.prepare(data), model.classes.index(item.label)


def engines_of(session: Session, model_id: UUID) -> Sequence[ModelEngine]:
    """Return the measurements of a model on each kind of machine, newest first."""
    query = select(ModelEngine).where(ModelEngine.model_id == model_id)
    return session.scalars(query.order_by(ModelEngine.measured_at.desc())).all()


def machine(gpu: bool) -> str:
    """Return the facts that a measurement depends on: processor, cores, with `gpu` the GPU, and library versions."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    processor = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "")
    versions = [f"graftwork {__version__}"]
    for library in ("torch", "onnxruntime", "openvino"):
        try:
            versions.append(f"{library} {importlib.metadata.version(library)}")
        except importlib.metadata.PackageNotFoundError:
            continue
    cores = len(os.sched_getaffinity(0))
    parts = [processor or platform.machine(), f"{cores} cores", *_gpus() * gpu, *versions]
    return ", ".join(parts)[:200]


def _gpus() -> list[str]:
    import torch

    return [torch.cuda.get_device_name()] if torch.cuda.is_available() else []
