"""What a child does for a job that adds: one number after the other, with a checkpoint behind each."""

import time
from typing import Any

from app.core.settings import Settings
from app.storage.configured import configured_store
from tests.support.toy_kind.schemas import AddSpec
from worker.child.parent import Parent, StopRequested, read_spec
from worker.processes.messages import Work


def add(work: Work, parent: Parent, settings: Settings) -> dict[str, Any]:
    """Return the total, and where the sums lie. Goes on from the newest checkpoint."""
    spec, store = read_spec(AddSpec, work["spec"]), configured_store(settings)
    sums = [int(line) for line in store.read(work["checkpoints"][0]).split()] if work["checkpoints"] else []
    for number in spec.numbers[len(sums) :]:
        if parent.should_stop():
            raise StopRequested
        time.sleep(spec.pause)
        sums.append(number + (sums[-1] if sums else 0))
        parent.progress("adding", len(sums) / len(spec.numbers), None)
        parent.epoch({"epoch": len(sums), "subtotal": sums[-1]})
        parent.checkpoint(store.put_bytes(_lines(sums)), len(sums), 0, best=False)
    file = store.put_bytes(b"sums\n" + _lines(sums))
    return {"total": sums[-1], "file": {"sha256": file.sha256, "size": file.size}}


def _lines(sums: list[int]) -> bytes:
    return "".join(f"{one}\n" for one in sums).encode()
