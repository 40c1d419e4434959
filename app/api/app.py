"""Make the HTTP application: its parts, its routes, its errors."""

import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial

from fastapi import Depends, FastAPI
from starlette.middleware.cors import CORSMiddleware

from app import __version__
from app.api import docs, problems
from app.api.deps import OPEN_ROUTES, Services, authenticate
from app.api.draining import Draining
from app.api.middleware.cross_origin import CROSS_ORIGIN
from app.api.middleware.request_id import RequestId
from app.api.predict_path.kept import PredictPath, Shortcuts
from app.api.readiness import Readiness
from app.api.routers import (
    backbones,
    dataset_images,
    dataset_versions,
    datasets,
    decisions,
    events,
    health,
    imports,
    inference,
    jobs,
    keys,
    models,
    pins,
    predict,
    predictions,
    reports,
    uploads,
    workers,
)
from app.api.routes import Route
from app.api.uploads.chunks import Hashes
from app.api.uploads.tus import TusHeaders
from app.core.database import configured_database
from app.core.home import make_private
from app.core.logging import configure_logging
from app.core.settings import Settings
from app.datasets.intake.limits import intake_limits
from app.jobs.doorbell import open_doorbell
from app.predictions.service import Predictor
from app.predictions.serving.admission import Admission
from app.predictions.serving.decoding import Decoder
from app.predictions.serving.engine_files import EngineFiles
from app.predictions.serving.model_cache import CacheLimits, ModelCache
from app.predictions.serving.tuning import Tuner
from app.storage.configured import configured_store
from app.trainings.weights import configured_weights
from app.vision.engines.names import named_engines
from app.work import register_further

_DESCRIPTION = """Fine-tune and serve image classifiers.

1. `POST /v1/datasets`: upload labelled images.
2. `POST /v1/jobs`: fine-tune a pretrained backbone on them.
3. `POST /v1/models/{id}/predict`: classify images with the trained model.

Every call under `/v1` and `/v2` (the Open Inference Protocol) needs `Authorization: Bearer gw_…`; only health routes
need no key. Errors are RFC 9457 problem documents with a stable `code`.
"""


def create_app(settings: Settings | None = None, shortcuts: Shortcuts | None = None) -> FastAPI:
    """Return the application, ready for a server (`uvicorn app.api.app:create_app --factory`).

    Nothing is opened before it starts. `shortcuts` are those that predict calls take: all, unless given.
    """
    settings, shortcuts = settings or Settings(), shortcuts or Shortcuts()
    configure_logging(settings)
    register_further(settings)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        make_private(settings)
        sys.setswitchinterval(shortcuts.switch_seconds)
        app.state.services = services = _open_services(settings, shortcuts)
        services.draining.watch_signals()
        load_pinned = partial(pins.load_pinned, services)
        app.state.readiness = readiness = Readiness(services, load_pinned, settings.readiness_seconds)
        await readiness.for_answers()  # the pinned models begin to load now, and not with the first probe
        try:
            yield
        finally:
            readiness.close()
            services.predictions.close()
            services.database.close()

    app = FastAPI(
        title="Graftwork",
        version=__version__,
        description=_DESCRIPTION,
        lifespan=lifespan,
        dependencies=[Depends(authenticate)],
        docs_url=None,  # ours needs no network
        redoc_url=None,
        responses={status: {"model": problems.Problem, "content": {problems.MEDIA_TYPE: {}}} for status in (503, 507)},
    )
    app.router.route_class = Route  # so is every route of the routers below
    problems.install(app)
    app.add_middleware(TusHeaders)
    if origins := [one.strip() for one in settings.cors_origins.split(",") if one.strip()]:
        app.add_middleware(CORSMiddleware, allow_origins=origins, **CROSS_ORIGIN)
    app.add_middleware(
        RequestId, logs=settings.logs_requests, root_path=settings.root_path
    )  # added last, so it is the outermost
    docs.install(app, OPEN_ROUTES)
    if shortcuts.first:
        app.include_router(predict.router)
    app.include_router(datasets.router)
    app.include_router(imports.router)
    app.include_router(dataset_images.router)
    app.include_router(dataset_versions.router)
    app.include_router(uploads.router)
    app.include_router(jobs.router)
    app.include_router(predictions.router)
    app.include_router(models.router)
    app.include_router(decisions.router)
    app.include_router(pins.router)
    app.include_router(inference.router)
    app.include_router(reports.router)
    app.include_router(backbones.router)
    app.include_router(keys.router)
    app.include_router(events.router)
    app.include_router(workers.router)
    app.include_router(health.router)
    if not shortcuts.first:
        app.include_router(predict.router)
    return app


def _open_services(settings: Settings, shortcuts: Shortcuts) -> Services:
    store, database = configured_store(settings), configured_database(settings)
    tuner = Tuner(
        database, store, EngineFiles(settings.engine_files, settings.model_cache_bytes), named_engines(settings.engines)
    )
    return Services(
        settings=settings,
        database=database,
        store=store,
        weights=configured_weights(settings),
        doorbell=open_doorbell(settings),
        draining=Draining(settings.drain_seconds),
        predictions=Predictor(
            ModelCache(store, _cache_limits(settings), scratch=settings.scratch, tuner=tuner),
            Decoder(settings.decode_threads),
            intake_limits(settings),
        ),
        admission=Admission(max_requests=settings.predict_requests, max_bytes=settings.predict_bytes),
        hashes=Hashes(),
        predict_path=PredictPath.of(shortcuts, database, settings.outage_seconds),
    )


def _cache_limits(settings: Settings) -> CacheLimits:
    return CacheLimits(
        budget_bytes=settings.model_cache_bytes,
        max_batch=settings.predict_batch,
        max_waiting=settings.predict_queue,
        idle_seconds=settings.model_idle_seconds,
        retry_seconds=settings.model_retry_seconds,
        tune_after=settings.engine_after_images,
    )
