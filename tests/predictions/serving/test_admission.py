"""Who was just refused is refused again without being read; for a moment, and nobody else."""

import time

import pytest

from app.core.errors import Unavailable
from app.predictions.serving.admission import Admission


def test_a_refused_caller_meets_the_same_error_for_a_moment(monkeypatch: pytest.MonkeyPatch) -> None:
    now = time.monotonic()
    monkeypatch.setattr(time, "monotonic", lambda: now)
    admission = Admission(max_requests=1, max_bytes=1)
    error = Unavailable("Too many wait.", code="overloaded", retry_after=2)
    assert admission.refusal("one") is None
    admission.refuse("one", error, 0.05)
    assert admission.refusal("one") is error
    assert admission.refusal("other") is None
    monkeypatch.setattr(time, "monotonic", lambda: now + 0.04)
    assert admission.refusal("one") is error
    monkeypatch.setattr(time, "monotonic", lambda: now + 0.06)
    assert admission.refusal("one") is None
    admission.refuse("one", error, 60.0)
    monkeypatch.setattr(time, "monotonic", lambda: now + 0.2)
    assert admission.refusal("one") is None  # no refusal holds for long
