"""How far a run is."""

from __future__ import annotations

from app.vision.runtime.progress import Progress
from tests.support.pictures import Recorder


def test_progress_covers_the_run_and_never_falls() -> None:
    recorder = Recorder()
    progress = Progress(recorder, {"a": 0.25, "b": 0.75})
    for phase, done in (("a", 0.0), ("a", 1.0), ("b", 0.0), ("b", 1.0), ("b", 0.5)):
        progress.report(phase, done)
    assert [(phase, fraction) for phase, fraction, _ in recorder.phases] == [
        ("a", 0.0),
        ("a", 0.25),
        ("b", 0.25),
        ("b", 1.0),
    ]
    assert recorder.phases[0][2] is None
    assert recorder.phases[-1][2] == 0.0
