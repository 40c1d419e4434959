"""Whether rows and blobs fit together: what is missing, what nothing refers to, what is damaged."""

from collections.abc import Callable
from dataclasses import dataclass

from app.core.database import Database
from app.operations.references import referenced_blobs
from app.storage import BlobDamaged, BlobMissing, BlobStore

Tell = Callable[[str], object]


@dataclass(frozen=True, slots=True)
class Findings:
    """SHA-256 of blobs, sorted. `unreferenced` ones are no fault: garbage collection frees them in time."""

    blobs: int
    referenced: int
    missing: list[str]
    unreferenced: list[str]
    damaged: list[str]

    @property
    def sound(self) -> bool:
        return not self.missing and not self.damaged


def check(database: Database, store: BlobStore, *, hashes: bool = False, tell: Tell = lambda _: None) -> Findings:
    """Compare the rows with the store; with `hashes` read every referenced blob and compare its bytes as well.

    Jobs may run meanwhile: what is put or deleted during the check is looked at once more before it is called missing.
    """
    stored = {blob.sha256 for blob in store.list()}
    with database.reading() as session:
        needed = referenced_blobs(session)
    absent = [sha256 for sha256 in sorted(needed - stored) if not store.exists(sha256)]
    if absent:
        with database.reading() as session:
            needed = referenced_blobs(session)
    missing = [sha256 for sha256 in absent if sha256 in needed]
    damaged = []
    present = sorted(needed & stored) if hashes else []
    for number, sha256 in enumerate(present):
        if number % 100 == 0:
            tell(f"reading blobs: {number} of {len(present)}")
        try:
            store.read(sha256)
        except BlobDamaged:
            damaged.append(sha256)
        except BlobMissing:  # its last row went meanwhile
            continue
    return Findings(len(stored), len(needed), missing, sorted(stored - needed), damaged)
