"""Record when an image arrived, was decoded and was classified, and write these times as `Server-Timing`."""

import time
from collections.abc import Iterable
from dataclasses import dataclass, field


@dataclass(slots=True)
class Times:
    """Readings of `time.monotonic` at one image's stages, in seconds; 0 for a stage that it has not reached."""

    arrived: float = field(default_factory=time.monotonic)
    decoding: float = 0.0
    decoded: float = 0.0
    started: float = 0.0
    ended: float = 0.0

    @property
    def decode(self) -> float:
        return self.decoded - self.decoding if self.decoded else 0.0

    @property
    def model(self) -> float:
        return self.ended - self.started if self.ended else 0.0

    @property
    def queue(self) -> float:
        """Return the seconds for which the image waited for a decoding thread and for the model."""
        waited = self.decoding - self.arrived if self.decoding else 0.0
        return waited + (self.started - self.decoded if self.started else 0.0)


def server_timing(times: Iterable[Times]) -> str:
    """Return the header's value (W3C Server Timing): the milliseconds of the image that was finished last."""
    last = max(times, key=lambda one: max(one.ended, one.decoded), default=Times())
    parts = {"queue": last.queue, "decode": last.decode, "model": last.model}
    return ", ".join(f"{name};dur={1000 * seconds:.2f}" for name, seconds in parts.items())
