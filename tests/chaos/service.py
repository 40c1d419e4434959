"""A service to be broken, in one of the two modes: its supervised processes, its servers, its database and blobs."""

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Literal

import psycopg

from tests.chaos import poison
from tests.chaos.processes import Found, Supervised, processes_of
from tests.support.deployments import GRAFT, environment, parts_of
from tests.support.servers import Postgres, Redis, free_port, postgres, redis_process
from tests.support.services import Service

Mode = Literal["embedded", "team"]


class Breakable(Service):
    """What the chaos run holds of a service: `api` and `workers` are processes that are started again when they die."""

    def __init__(self, mode: Mode, environment: dict[str, str], url: str, key: str, api: Supervised) -> None:
        super().__init__(parts_of(environment), url=url, key=key, environment=environment)
        self.mode, self.api = mode, api
        self.redis: Redis | None = None
        self.postgres: Postgres | None = None
        self.down: set[str] = set()  # servers that a fault has taken away

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
def breakable(mode: Mode, home: Path, workers: int, **settings: str) -> Iterator[Breakable]:
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
            home, OMP_NUM_THREADS="1", GRAFT_LOG_FORMAT="json", GRAFT_WARM_CHILDREN="true", **poison.environment()
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
        service = Breakable(mode, variables, f"http://127.0.0.1:{port}", key, api)
        service.workers, service.redis, service.postgres = crew, broker, server
        stack.callback(service.database.close)
        try:
            for process in service.supervised:
                process.start()
            yield service
        finally:
            service.stop()


Maker = Callable[..., Supervised]


def _embedded(supervised: Maker, port: int, workers: int) -> tuple[Supervised, list[Supervised]]:
    """`graft up`, which brings a worker, and more workers on the same folder."""
    api = supervised("up", "app.cli", "up", "--port", str(port))
    return api, [supervised(f"worker-{number}", "worker") for number in range(workers)]


def _team(supervised: Maker, port: int, workers: int) -> tuple[Supervised, list[Supervised]]:
    celery = "celery", "-A", "worker.celery_app", "worker", "--pool=threads", "--concurrency=2", "--loglevel=info"
    api = supervised("api", "app.cli", "api", "--port", str(port))
    return api, [supervised(f"worker-{number}", *celery, "-n", f"{number}@%h") for number in range(workers)]
