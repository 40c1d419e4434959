"""A caller of the API, and what every problem document has to hold."""

from typing import Any
from uuid import UUID

CLASSES = ("ants", "bees")


class Caller:
    """Calls with one key, or with none. `client` is httpx's, of an application or of an address."""

    def __init__(self, client: Any, secret: str | None) -> None:
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
