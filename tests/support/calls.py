"""A running API as its callers see it, and what every problem document has to hold."""

from typing import Any
from uuid import UUID

from starlette.testclient import TestClient

from app.auth.schemas import Scope
from app.vision.training.result import FitResult
from tests.support.stages import Stage, Workspace

CLASSES = ("ants", "bees")


class Caller:
    """Calls with one key, or with none."""

    def __init__(self, client: TestClient, secret: str | None) -> None:
        self._client = client
        self.headers = {"Authorization": f"Bearer {secret}"} if secret else {}

    def __call__(self, method: str, path: str, headers: dict[str, str] | None = None, **options: Any) -> Any:
        return self._client.request(method, path, headers=self.headers | (headers or {}), **options)

    def get(self, path: str, **options: Any) -> Any:
        return self("GET", path, **options)

    def post(self, path: str, **options: Any) -> Any:
        return self("POST", path, **options)

    def put(self, path: str, **options: Any) -> Any:
        return self("PUT", path, **options)

    def patch(self, path: str, **options: Any) -> Any:
        return self("PATCH", path, **options)

    def delete(self, path: str, **options: Any) -> Any:
        return self("DELETE", path, **options)

    def stream(self, path: str, headers: dict[str, str] | None = None) -> Any:
        return self._client.stream("GET", path, headers=self.headers | (headers or {}))


class Api:
    """One service, a workspace in it, and a caller for each scope."""

    def __init__(self, client: TestClient, stage: Stage) -> None:
        self.client = client
        self.stage = stage
        self.workspace: Workspace = stage.workspace()
        self.read = self.caller(self.workspace, Scope.read)
        self.predict = self.caller(self.workspace, Scope.predict)
        self.write = self.caller(self.workspace, Scope.write)
        self.admin = self.caller(self.workspace, Scope.admin)
        self.nobody = Caller(client, None)

    def caller(self, workspace: Workspace, scope: Scope) -> Caller:
        return Caller(self.client, workspace.secrets[scope])

    def dataset(self, name: str = "pets", archive: bytes | None = None) -> str:
        """The id of a dataset that is ready."""
        return str(self.stage.dataset(self.workspace, name, archive))

    def job(self, dataset: str = "pets", **fields: Any) -> str:
        """The id of a training that waits."""
        return str(self.stage.job(self.workspace, dataset, **fields))

    def model(self, trained: FitResult, name: str = "pets") -> str:
        """The id of a model; the dataset `name` is made if it is not there."""
        if self.read.get(f"/v1/datasets/{name}").status_code == 404:
            self.dataset(name)
        self.job(name)
        job = self.stage.claim("train")
        assert job is not None
        return str(self.stage.finish(job, trained, CLASSES))

    def counts(self) -> dict[str, int]:
        """How many datasets, jobs of both kinds and models callers see."""
        paths = {
            "datasets": "/v1/datasets",
            "trainings": "/v1/jobs",
            "ingestions": "/v1/jobs?kind=ingest",
            "models": "/v1/models",
        }
        return {name: len(self.read.get(path).json()["items"]) for name, path in paths.items()}

    def staged(self) -> list[str]:
        """What lies in the scratch folder."""
        scratch = self.stage.settings.scratch
        return sorted(path.name for path in scratch.iterdir()) if scratch.is_dir() else []


def problem(
    response: Any, status: int, code: str, field: str | None = None, remedy: str | None = None
) -> dict[str, Any]:
    """The problem document of a refused call, checked: its kind, its code, the field it blames, and a remedy."""
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/problem+json"
    body: dict[str, Any] = response.json()
    assert body["status"] == status
    assert body["code"] == code, body
    assert body["type"] == f"urn:graftwork:problem:{code}"
    assert body["title"]
    assert body["instance"] == response.request.url.path
    if field is not None:
        named = {one["field"]: one for one in body["errors"]}
        assert field in named, body
        assert named[field]["message"]
        assert named[field]["code"]
    if remedy is not None:
        assert remedy in body["detail"] + " ".join(one["message"] for one in body["errors"]), body
    return body


def is_uuid(text: str) -> bool:
    return str(UUID(text)) == text
