"""The settings are the only reader of the environment. Every name is `GRAFT_` + the field's name in capitals."""

from functools import cached_property
from ipaddress import ip_network
from pathlib import Path
from typing import Literal
from urllib.parse import quote

from pydantic import Field, SecretStr, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict


class Settings(BaseSettings):
    """The settings are one immutable object, made where a process begins and passed on. Sizes are bytes, times are
    seconds."""

    # An empty variable counts as one that is not set, as `${NAME:-}` in a compose file means it.
    model_config = SettingsConfigDict(
        env_prefix="GRAFT_", env_file=".env", env_ignore_empty=True, extra="ignore", frozen=True
    )

    # Where things lie. Without further settings everything is below `home`.
    home: Path = Path.home() / ".graftwork"
    database_url: str | None = None
    database_pool_size: int = Field(
        default=20, gt=0, description="Connections to PostgreSQL that a process keeps open."
    )
    database_pool_overflow: int = Field(
        default=10, ge=0, description="Connections that it opens beyond those while many threads ask at once."
    )
    database_pooler: bool = Field(
        default=False, description="Whether PgBouncer or its like stands between, pooling by transaction."
    )
    redis_url: str | None = None
    storage_url: str | None = None
    s3_endpoint: str | None = None
    s3_region: str = "us-east-1"
    s3_access_key: SecretStr | None = None
    s3_secret_key: SecretStr | None = None

    # Backbone weights.
    weights_dir: Path | None = None
    weights_mirror: str | None = None
    weights_download: bool = True

    # The HTTP service, and where its clients find it.
    host: str = "127.0.0.1"
    port: int = Field(default=8400, ge=0, le=65535)
    root_path: str = Field(
        default="", pattern=r"^(/[^/?#\s]+)*$", description="The path below which a proxy offers the API, as /graft."
    )
    cors_origins: str = Field(
        default="", description="Origins, by comma, whose pages may call the API from a browser; * allows all."
    )
    url: str | None = None
    api_key: SecretStr | None = None
    stream_seconds: float = Field(
        default=3600.0, gt=0, description="Then the stream of a workspace's events ends; clients connect anew."
    )
    stream_silence_seconds: float = Field(
        default=15.0, ge=0, description="A stream of events that has none for so long says that it lives."
    )

    drain_seconds: float = Field(
        default=0.0, ge=0, description="From SIGTERM to the end of the listener; /readyz says 503 meanwhile."
    )
    readiness_seconds: float = Field(default=3.0, ge=0, description="What /readyz found is told for so long.")
    stop_seconds: float = Field(
        default=20.0, gt=0, description="What is being answered then may take so long; after that it is broken off."
    )

    # Limits on what a caller may send.
    max_upload_bytes: int = Field(default=8 * 2**30, gt=0)
    max_workspace_bytes: int = Field(default=512 * 2**30, gt=0)
    upload_expiry_seconds: float = Field(
        default=86_400.0, gt=0, description="A resumable upload that gets no bytes for so long is removed."
    )
    upload_silence_seconds: float = Field(
        default=30.0, gt=0, description="A sender of a resumable upload that says nothing for so long is left."
    )
    max_json_bytes: int = Field(default=2**20, gt=0)
    max_predict_bytes: int = Field(default=128 * 2**20, gt=0)
    max_predict_files: int = Field(default=64, gt=0)
    max_file_bytes: int = Field(default=64 * 2**20, gt=0)
    max_image_pixels: int = Field(default=64_000_000, gt=0)
    max_batch_files: int = Field(default=1000, gt=0)
    max_image_cpu_seconds: int = Field(default=20, gt=0)
    max_archive_entries: int = Field(default=200_000, gt=0)
    max_expanded_bytes: int = Field(default=64 * 2**30, gt=0)
    max_expansion_ratio: int = Field(default=200, gt=0)

    # What may be imported from elsewhere. Lists have commas.
    import_hosts: str = Field(
        default="", description="Host names, addresses and networks that may be fetched from beside public addresses."
    )
    import_folders: str = Field(default="", description="Folders of the workers' machines that may be read.")
    import_buckets: str = Field(default="", description="bucket or bucket/prefix that may be read, with these keys:")
    import_s3_endpoint: str | None = None
    import_s3_region: str = "us-east-1"
    import_s3_access_key: SecretStr | None = None
    import_s3_secret_key: SecretStr | None = None
    max_import_urls: int = Field(default=50_000, gt=0)
    max_import_bytes: int = Field(default=16 * 2**20, gt=0, description="Of the body that lists them.")

    # Jobs.
    train_slots: int = Field(
        default=1,
        ge=0,
        description="Trainings at once on this machine, one a GPU; 0 leaves it uploads and predictions.",
    )
    warm_children: bool = Field(
        default=True, description="Start a job's process before there is a job: it takes memory, and saves seconds."
    )
    train_memory_bytes: int | None = Field(
        default=None, gt=0, description="Memory that a training's process may have; one that needs more fails."
    )
    lease_seconds: float = Field(default=10.0, gt=0)
    heartbeat_seconds: float = Field(default=2.0, gt=0)
    poll_seconds: float = Field(default=1.0, gt=0)
    broker_poll_seconds: float = Field(default=5.0, gt=0)
    sweep_seconds: float = Field(default=2.0, gt=0)
    stop_grace_seconds: float = Field(default=10.0, gt=0)
    setback_seconds: float = Field(
        default=15.0, ge=0, description="A job that found no room on the disk is tried again after so long."
    )
    max_attempts: int = Field(default=3, gt=0)
    job_types: str = Field(
        default="",
        description="Kinds of job to add or replace, package.module:NAME each; the same for the API and all workers.",
    )
    worker_address: str | None = Field(
        default=None, description="Where other machines reach this worker; if left out, as the database sees it."
    )
    meeting_seconds: float = Field(
        default=60.0, gt=0, description="A job of several machines waits so long for the next one to come."
    )
    min_free_bytes: int = Field(
        default=512 * 2**20, ge=0, description="With less free disk no upload is received, and a worker takes no job."
    )
    max_queued_jobs: int = Field(default=1000, gt=0, description="Waiting jobs of a kind in one workspace.")
    max_running_jobs: int = Field(default=64, gt=0, description="Running jobs of a kind in one workspace.")
    job_retention_days: float = Field(default=90.0, ge=0, description="Ended jobs are forgotten then; 0: never.")
    event_retention_days: float = Field(
        default=30.0, ge=0, description="Events older than this are forgotten, those of jobs with their job; 0: never."
    )
    blob_grace_seconds: float = Field(default=3600.0, ge=0)

    cache_bytes: int = Field(
        default=20 * 2**30, ge=0, description="Decoded images and features kept for later trainings; 0: none."
    )

    # Predictions.
    model_cache_bytes: int = Field(default=2 * 2**30, gt=0)
    predict_batch: int = Field(default=32, gt=0)
    predict_queue: int = Field(default=256, gt=0, description="Images that may wait for one model.")
    predict_requests: int = Field(default=512, gt=0, description="Predict calls that are answered at once.")
    predict_bytes: int = Field(default=512 * 2**20, gt=0, description="Bytes of their bodies, all together.")
    predict_seconds: float = Field(default=60.0, gt=0, description="A call's deadline where it names none.")
    engines: str = Field(default="auto", description="Those that may be chosen, by comma; auto: all that there are.")
    engine_after_images: int = Field(default=64, ge=0, description="Answered by a model before its engine is chosen.")
    decode_threads: int | None = Field(default=None, gt=0, description="As many as cores if left out.")
    outage_seconds: float = Field(
        default=300.0, ge=0, description="While the database is away, keys and models known so long are still served."
    )
    model_idle_seconds: float = Field(default=1800.0, gt=0, description="Then an unused model is unloaded.")
    model_retry_seconds: float = Field(default=10.0, ge=0, description="Before a model that failed is loaded anew.")

    log_format: Literal["console", "json"] = "console"
    log_requests: bool | None = Field(
        default=None, description="Whether each request is a line in the log; if left out, where the log is JSON."
    )
    log_level: Literal["debug", "info", "warning", "error"] = "info"

    @field_validator("import_hosts")
    @classmethod
    def _networks_are_networks(cls, value: str) -> str:
        for word in filter(lambda part: "/" in part, value.split(",")):
            ip_network(word.strip())
        return value

    @field_validator("import_folders")
    @classmethod
    def _folders_are_absolute(cls, value: str) -> str:
        for word in filter(None, map(str.strip, value.split(","))):
            if not Path(word).is_absolute() or ".." in Path(word).parts:
                raise ValueError(f"{word!r} is no absolute path without '..'")
        return value

    @property
    def logs_requests(self) -> bool:
        """Whether each request is a line in the log."""
        return self.log_format == "json" if self.log_requests is None else self.log_requests

    @cached_property
    def sqlalchemy_url(self) -> str:
        """Return the database's URL; a SQLite file below `home` unless one is given."""
        return self.database_url or f"sqlite:///{quote(str(self.home.absolute() / 'graftwork.db'))}"

    @cached_property
    def blobs_url(self) -> str:
        """Return the blob store's URL: `file:///...` or `s3://bucket/prefix`."""
        return self.storage_url or f"file://{self.home.absolute() / 'blobs'}"

    @cached_property
    def scratch(self) -> Path:
        """Return where uploads are staged and jobs keep their working files; nothing here outlives its user."""
        return self.home.absolute() / "scratch"

    @cached_property
    def uploads(self) -> Path:
        """Return where resumable uploads lie until their last byte has come."""
        return self.home.absolute() / "uploads"

    @cached_property
    def doorbell(self) -> Path:
        """Return the named pipe through which the embedded API wakes the worker beside it."""
        return self.home.absolute() / "doorbell"

    @cached_property
    def image_cache(self) -> Path:
        """Return where trainings on this machine leave decoded images and features for one another."""
        return self.home.absolute() / "cache"

    @cached_property
    def weights_cache(self) -> Path:
        """Return where downloaded backbone weights are kept."""
        return self.home.absolute() / "weights"

    @cached_property
    def engine_files(self) -> Path:
        """Return where models lie as their engines want them; they can be made again."""
        return self.home.absolute() / "engines"

    @cached_property
    def client_file(self) -> Path:
        """Return where `graft up` leaves the service's address and a key for `graft`'s other commands."""
        return self.home.absolute() / "client.json"
