"""Those who use the service meanwhile: one who submits, cancels and asks, and readers of event streams."""

import json
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field

import httpx2

from tests.chaos.orders import ARCHIVE, Order, Orders
from tests.chaos.service import Breakable

_ENDS = ("succeeded", "failed", "cancelled")


def client(service: Breakable) -> httpx2.Client:
    return httpx2.Client(base_url=service.url, headers={"Authorization": f"Bearer {service.key}"}, timeout=15)


class Caller(threading.Thread):
    """Keeps a few jobs of each list under way until `most` are accepted or `until` has come, and cancels some at odd
    moments.

    What a broken connection leaves unknown is asked for again under the same key, as a careful client does.
    """

    def __init__(
        self, service: Breakable, lists: list[Orders], most: int, at_once: int, until: Callable[[], bool]
    ) -> None:
        super().__init__(name="caller", daemon=True)
        self._http = client(service)
        self._service, self._lists, self._most, self._at_once, self._until = service, lists, most, at_once, until
        self.accepted: list[Order] = []
        self.readers: list[Reader] = []
        self.asked_again = 0
        self.refused: list[str] = []  # answers that no fault explains

    def run(self) -> None:
        while len(self.accepted) < self._most and not self._until():
            self.look()
            for orders in self._lists:
                if sum(not one.ended and one.list == orders.what for one in self.accepted) < self._at_once:
                    self._submit(orders.draw())
            time.sleep(0.2)

    def close(self) -> None:
        self._http.close()

    def look(self) -> None:
        """Ask after every job that has not ended, and cancel those whose time has come."""
        for order in [one for one in self.accepted if not one.ended]:
            self._look(order)

    def _submit(self, order: Order) -> None:
        while True:
            answer = self._try(lambda: self._post(order))
            if answer is not None and answer.status_code == 202:
                break
            if answer is not None and answer.status_code not in (429, 500, 503):
                self.refused.append(f"{order.kind}: {answer.status_code} {answer.text}")
                return
            self.asked_again += 1
            time.sleep(0.5)
        body = answer.json()
        order.job_id = body["job_id"] if order.kind == "upload" else body["id"]
        order.accepted_at = time.monotonic()
        self.accepted.append(order)
        if order.followed:
            self.readers.append(Reader(self._service, order.job_id))
            self.readers[-1].start()

    def _post(self, order: Order) -> httpx2.Response:
        headers = {"Idempotency-Key": order.key}
        if order.kind == "upload":
            named = {"name": order.name}
            return self._http.post("/v1/datasets", params=named, content=ARCHIVE, headers=headers)
        path = "/v1/jobs:predict" if order.kind == "predict" else "/v1/jobs"
        return self._http.post(path, json=order.body, headers=headers)

    def _look(self, order: Order) -> None:
        age = time.monotonic() - order.accepted_at
        if order.cancel_after is not None and age >= order.cancel_after and not order.cancel_answers:
            order.cancelled_by_us = True  # whether or not the answer comes through
            answer = self._try(lambda: self._http.post(f"/v1/jobs/{order.job_id}:cancel"))
            if answer is not None and answer.status_code < 500:
                order.cancel_answers.append(answer.status_code)
                order.cancelled_at = time.time()
        answer = self._try(lambda: self._http.get(f"/v1/jobs/{order.job_id}"))
        if answer is None or answer.status_code >= 500:
            return
        if answer.status_code != 200:
            self.refused.append(f"GET of an accepted job: {answer.status_code} {answer.text}")
            order.ended = True
            return
        job = answer.json()
        order.ended = job["state"] in _ENDS
        if order.ended != (job["finished_at"] is not None):
            self.refused.append(f"{job['state']} with finished_at {job['finished_at']}: {order.job_id}")

    def _try(self, call: Callable[[], httpx2.Response]) -> httpx2.Response | None:
        try:
            return call()
        except httpx2.TransportError:
            return None


@dataclass
class Stream:
    """What a reader has been sent: the ids, and the last state."""

    ids: list[int] = field(default_factory=list)
    state: str = ""
    connections: int = 0


class Reader(threading.Thread):
    """Follows one job's events to its end, over as many connections as it takes, each after the last id seen."""

    def __init__(self, service: Breakable, job_id: str) -> None:
        super().__init__(name=f"reader-{job_id}", daemon=True)
        self.job_id = job_id
        self.seen = Stream()
        self.given_up = threading.Event()
        self._service = service

    def run(self) -> None:
        with client(self._service) as http:
            while self.seen.state not in _ENDS and not self.given_up.is_set():
                try:
                    self._read(http)
                except httpx2.HTTPError:
                    time.sleep(0.3)

    def _read(self, http: httpx2.Client) -> None:
        after = {"Last-Event-ID": str(self.seen.ids[-1])} if self.seen.ids else {}
        self.seen.connections += 1
        with http.stream("GET", f"/v1/jobs/{self.job_id}/events", headers=after) as answer:
            answer.raise_for_status()
            event: dict[str, str] = {}
            taken = 0
            for line in answer.iter_lines():
                if line:
                    name, _, value = line.partition(": ")
                    event[name] = value
                    continue
                taken += self._take(event)
                event = {}
                if taken == 2 and self.seen.connections % 2:  # hang up now and then without a reason
                    return

    def _take(self, event: dict[str, str]) -> int:
        if "id" not in event:
            return 0
        self.seen.ids.append(int(event["id"]))
        if event.get("event") == "state":
            self.seen.state = json.loads(event["data"])["state"]
        return 1
