"""Who was just refused is refused again without being read; for a moment, and nobody else."""

import time

import pytest

from app.core.errors import Unavailable
from app.predictions.admission import Admission


def test_a_refused_caller_meets_the_same_error_for_a_moment(monkeypatch: pytest.MonkeyPatch) -> None:
    now = time.monotonic()
    monkeypatch.setattr(time, "monotonic", lambda: now)
    admission = Admission(max_requests=1, max_bytes=1)
    error = Unavailable("Too many wait.", code="overloaded", retry_after=2)
    assert admission.refusal("one") is None
    admission.refuse("one", error)
    assert admission.refusal("one") is error
    assert admission.refusal("other") is None
    with pytest.raises(Unavailable), admission.enter(1):
        raise error
    assert admission.refusal("one") is error
    with admission.enter(1):
        assert admission.refusal("one") is error
    assert admission.refusal("one") is None  # someone was answered
    admission.refuse("one", error)
    later = now + 0.1
    monkeypatch.setattr(time, "monotonic", lambda: later)
    assert admission.refusal("one") is None
