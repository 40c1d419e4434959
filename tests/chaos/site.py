"""A service to be broken, in one of the two modes: its supervised processes, its servers, its database and blobs."""

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import psycopg

from app.core.database import Database
from app.core.settings import Settings
from tests.chaos import poison
from tests.chaos.processes import Found, Supervised, processes_of
from tests.support.deployments import GRAFT, environment
from tests.support.servers import Postgres, Redis, free_port, postgres, redis_process

Mode = Literal["embedded", "team"]


@dataclass
class Site:
    """What the chaos run holds of a service."""

    mode: Mode
    home: Path
    url: str
    key: str
    settings: Settings
    database: Database
    api: Supervised
    workers: list[Supervised]
    redis: Redis | None = None
    postgres: Postgres | None = None
    down: set[str] = field(default_factory=set)  # servers that a fault has taken away

    @property
    def supervised(self) -> list[Supervised]:
        return [self.api, *self.workers]

    @property
    def slots(self) -> int:
        """Jobs of one kind that it can run at once: `graft up` brings a worker of its own."""
        return len(self.workers) + (self.mode == "embedded")

    def look_after(self) -> None:
        for process in self.supervised:
            process.look_after()

    def worker_pids(self) -> list[int]:
        """Processes that claim jobs; `graft up` keeps one of its own."""
        own = [one.pid for one in processes_of(self.home) if one.runs("-m", "worker", "--with-parent")]
        return own + [worker.pid for worker in self.workers if worker.pid is not None]

    def children(self) -> list[Found]:
        """Processes that compute, busy or kept warm."""
        return [one for one in processes_of(self.home) if one.computes]

    def stop(self) -> None:
        for process in self.supervised:
            process.stop()


@contextmanager
def open_site(mode: Mode, home: Path, workers: int, **settings: str) -> Iterator[Site]:
    """Start a service of that mode with so many workers; whatever happened to it, nothing of it is left running."""
    home.mkdir(parents=True)
    server: Postgres | None = None
    broker: Redis | None = None
    with ExitStack() as stack:
        if mode == "team":
            server, broker = stack.enter_context(postgres()), stack.enter_context(redis_process())
            with psycopg.connect(server.url("postgres"), autocommit=True) as connection:
                connection.execute("CREATE DATABASE graft")
            settings |= {"GRAFT_DATABASE_URL": server.url("graft"), "GRAFT_REDIS_URL": broker.url}
        variables = environment(
            home, OMP_NUM_THREADS="1", GRAFT_LOG_FORMAT="json", GRAFT_WARM_CHILDREN="true", **poison.environment(home)
        )
        variables |= settings

        def graft(*arguments: str) -> str:
            command = [*GRAFT, *arguments]
            return subprocess.run(command, env=variables, cwd=home, check=True, capture_output=True, text=True).stdout

        def supervised(name: str, *command: str) -> Supervised:
            return Supervised(name, [sys.executable, "-m", *command], home / f"{name}.log", variables, home)

        graft("migrate")
        key = json.loads(graft("keys", "create", "chaos", "--scope", "admin", "--direct", "--json"))["secret"]
        port = free_port()
        serve, make = (_embedded, workers - 1) if mode == "embedded" else (_team, workers)
        api, crew = serve(supervised, port, make)
        known = Settings(
            home=home,
            database_url=settings.get("GRAFT_DATABASE_URL"),
            lease_seconds=float(settings.get("GRAFT_LEASE_SECONDS", Settings.model_fields["lease_seconds"].default)),
            _env_file=None,
        )  # type: ignore[call-arg]
        site = Site(
            mode,
            home,
            f"http://127.0.0.1:{port}",
            key,
            known,
            Database(known.sqlalchemy_url),
            api,
            crew,
            broker,
            server,
        )
        stack.callback(site.database.close)
        try:
            for process in site.supervised:
                process.start()
            yield site
        finally:
            site.stop()


Maker = Callable[..., Supervised]


def _embedded(supervised: Maker, port: int, workers: int) -> tuple[Supervised, list[Supervised]]:
    """`graft up`, which brings a worker, and more workers on the same folder."""
    api = supervised("up", "app.cli", "up", "--port", str(port))
    return api, [supervised(f"worker-{number}", "worker") for number in range(workers)]


def _team(supervised: Maker, port: int, workers: int) -> tuple[Supervised, list[Supervised]]:
    celery = "celery", "-A", "worker.celery_app", "worker", "--pool=threads", "--concurrency=2", "--loglevel=info"
    api = supervised("api", "app.cli", "api", "--port", str(port))
    return api, [supervised(f"worker-{number}", *celery, "-n", f"{number}@%h") for number in range(workers)]
