"""Call the HTTP API for the commands: find the service and the key, and turn every failure into one line."""

import json
import os
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any, BinaryIO
from urllib.parse import quote

import httpx2

from app.cli.errors import CommandError
from app.cli.fields import without_none
from app.core.settings import Settings


class Client:
    """A client of one service. Address and key come from the arguments, from GRAFT_URL and GRAFT_API_KEY, or from the
    file that `graft up` writes, in this order."""

    def __init__(self, url: str | None = None, key: str | None = None, settings: Settings | None = None) -> None:
        settings = settings or Settings()
        saved = _read_saved(settings.client_file)
        self.url = url or settings.url or saved.get("url") or f"http://{settings.host}:{settings.port}"
        self.key = key or (settings.api_key.get_secret_value() if settings.api_key else None) or saved.get("key")
        self._http = httpx2.Client(
            base_url=self.url,
            headers={"Authorization": f"Bearer {self.key}"} if self.key else {},
            # An upload or a wait may take long; a dead service is noticed at the connection.
            timeout=httpx2.Timeout(120.0, connect=5.0),
        )

    def close(self) -> None:
        self._http.close()

    def get(self, path: str, **params: Any) -> Any:
        return self._call("GET", path, params=without_none(params))

    def post(self, path: str, body: Any = None, *, params: dict[str, Any] | None = None, **kwargs: Any) -> Any:
        if body is not None:
            kwargs["json"] = body
        return self._call("POST", path, params=without_none(params or {}), **kwargs)

    def patch(self, path: str, body: Any) -> Any:
        return self._call("PATCH", path, json=body)

    def delete(self, path: str) -> Any:
        return self._call("DELETE", path)

    def upload(self, path: str, file: BinaryIO, size: int, params: dict[str, Any]) -> Any:
        """Send a file as the body and return the response; a progress bar can watch how `file` is read."""

        def chunks() -> Iterator[bytes]:
            while chunk := file.read(1 << 20):
                yield chunk

        headers = {"Content-Length": str(size), "Content-Type": "application/octet-stream"}
        return self._call("POST", path, params=without_none(params), content=chunks(), headers=headers)

    def put(self, path: str, body: Any) -> Any:
        return self._call("PUT", path, json=body)

    def predict(self, model: str, images: list[Path], **options: Any) -> Any:
        return self.send_files(f"/v1/models/{quote(model, safe='@')}/predict", images, **options)

    def send_files(self, path: str, files: list[Path], **params: Any) -> Any:
        """Send files as the parts `file` of one form, and return the response."""
        with ExitStack() as opened:
            parts = [("file", (file.name, opened.enter_context(_open(file)))) for file in files]
            return self._call("POST", path, params=without_none(params), files=parts)

    def download(self, path: str, target: Path) -> None:
        """Write a response's body to the file `target`, which appears only when it is complete."""
        partial = target.with_name(f"{target.name}.part")
        try:
            with self._http.stream("GET", path) as answer, partial.open("wb") as file:
                if answer.is_error:
                    answer.read()
                    raise refusal(answer)
                for chunk in answer.iter_bytes():
                    file.write(chunk)
            partial.replace(target)
        except httpx2.TransportError as error:
            raise self.no_service(error) from None
        except OSError as error:
            raise CommandError(f"{target} cannot be written: {error.strerror}.") from None
        finally:
            partial.unlink(missing_ok=True)

    def events(self, job_id: str) -> Iterator[tuple[str, dict[str, Any]]]:
        """Yield a job's events as (type, data) until it has ended, and reconnect after a broken connection."""
        seen, failures = "", 0
        while True:
            try:
                headers = {"Last-Event-ID": seen} if seen else {}
                with self._http.stream("GET", f"/v1/jobs/{job_id}/events", headers=headers) as answer:
                    if answer.is_error:
                        answer.read()
                        raise refusal(answer)
                    failures, event = 0, "message"
                    for line in answer.iter_lines():
                        name, _, value = line.partition(": ")
                        if name == "id":
                            seen = value
                        elif name == "event":
                            event = value
                        elif name == "data":
                            yield event, json.loads(value)
                    return
            except httpx2.TransportError as error:
                failures += 1
                if failures > 5:
                    raise self.no_service(error) from None

    def request(self, method: str, path: str, **kwargs: Any) -> httpx2.Response:
        """Return the response, whatever its status. A broken connection raises `httpx2.TransportError`."""
        return self._http.request(method, path, **kwargs)

    def located(self, answer: httpx2.Response) -> str:
        """Return the whole address that a response's Location names: as a path it would come behind our URL's own."""
        return str(answer.url.join(answer.headers["location"]))

    def _call(self, method: str, path: str, **kwargs: Any) -> Any:
        try:
            answer = self._http.request(method, path, **kwargs)
        except httpx2.TransportError as error:
            raise self.no_service(error) from None
        if answer.is_error:
            raise refusal(answer)
        return answer.json() if answer.content else None

    def no_service(self, error: Exception) -> CommandError:
        return CommandError(
            f"No Graftwork service answers at {self.url} ({error}). Start one with 'graft up', or set GRAFT_URL.", 3
        )


def refusal(answer: httpx2.Response) -> CommandError:
    exit_code = 4 if answer.status_code in (401, 403) else 1
    try:
        problem = answer.json()
        line = problem["detail"]
        named = [f"{one['field']}: {one['message']}" for one in problem.get("errors", [])]
        extra = [text for text in named if text.partition(": ")[2] not in line]
        line = " ".join([line, *extra])
    except (ValueError, KeyError, TypeError):
        line = f"The answer is a {answer.status_code} without a reason. Check that {answer.url} is a Graftwork service."
    return CommandError(line, exit_code)


def _read_saved(path: Path) -> dict[str, str]:
    try:
        saved: dict[str, str] = json.loads(path.read_text())
    except (OSError, ValueError):
        return {}
    return saved


def save(path: Path, url: str, key: str) -> None:
    """Write a service's address and key to a file for `Client`, which only its owner can read."""
    temporary = path.with_suffix(".tmp")
    with open(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:  # noqa: PTH123
        json.dump({"url": url, "key": key}, file)
    temporary.replace(path)


def _open(path: Path) -> BinaryIO:
    try:
        return path.open("rb")
    except OSError as error:
        raise CommandError(f"{path} cannot be read: {error.strerror}.") from None
