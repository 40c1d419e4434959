"""Micro-batching: images that arrive while the model is busy are answered together; an idle model starts at once, but
where many more than a batch are being decoded."""

import math
import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any, TypeAlias

from app.core.errors import GraftError, Unavailable
from app.core.logging import log
from app.predictions.serving.timing import Times
from app.predictions.serving.turns import Turns

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from app.vision.engines.model import TrainedModel

# Will give one image's answer, which the model's task alone can read.
Answer: TypeAlias = "Future[Any]"

# Seconds that a batch which is not full waits for more, and only where twice as many are in the house already: they are
# being decoded, on the same cores, and the fewer are computed at a time the more each of them costs.
FILL = 0.05
# The share of its deadline that a call may wait for others, as far as is known: what they take wavers, and what is
# decoded and then not answered in time was done for nobody.
_PATIENCE = 0.6
_SMOOTHING = 0.2  # weight of the newest batch in the rate that Retry-After is computed from


class Overloaded(Unavailable):
    """Says that too many images wait for a model: about `wait` seconds of work."""

    code = "overloaded"

    def __init__(self, images: int, wait: float) -> None:
        seconds = math.ceil(wait) or 1
        super().__init__(f"{images} images wait for this model already; try again in {seconds} s.", retry_after=seconds)
        self.wait = wait


class Batcher:
    """One model's queue and the thread that empties it. The queue is bounded: past it, callers are told to wait.

    A model that fails answers no more: everyone who waits is told, `on_failure` hears of it, and the thread ends.
    `on_idle` is called after `idle_seconds` without work.
    """

    def __init__(
        self,
        model: "TrainedModel",
        *,
        max_batch: int,
        max_waiting: int,
        turns: Turns | None = None,
        idle_seconds: float | None = None,
        fill: float = FILL,
        on_idle: Callable[[], None] = lambda: None,
        on_failure: Callable[[Exception], None] = lambda _: None,
    ) -> None:
        self.model = model
        self.answered = 0
        self._max_batch = max_batch
        self._max_waiting = max_waiting
        self._turns = turns or Turns()
        self._idle_seconds = idle_seconds
        self._fill = fill
        self._on_idle = on_idle
        self._on_failure = on_failure
        self._admitted = 0
        self._seconds_an_image = 0.0
        self._ended = 0.0  # when the last batch was done
        self._pressed = False  # whether others were in the house then
        self._waiting: deque[tuple[NDArray[np.uint8], Answer, Times]] = deque()
        self._changed = threading.Condition()
        self._closed: GraftError | None = None
        threading.Thread(target=self._serve, name="predict", daemon=True).start()

    def admit(self, images: int, timeout: float = math.inf) -> "list[Answer]":
        """Return places for so many images, all or none. A future that is done, with whatever outcome, frees its place.

        Refused are also those that would not be answered in `timeout` seconds: all that they would do is to keep others
        from being answered in time. Raises `Overloaded`.
        """
        with self._changed:
            wait = self._admitted * self._seconds_an_image
            # An empty queue takes any one request, so that no request is too large for ever.
            if self._admitted and (self._admitted + images > self._max_waiting or wait > _PATIENCE * timeout):
                raise Overloaded(self._admitted, wait)
            self._admitted += images
        futures: list[Answer] = [Future() for _ in range(images)]
        for future in futures:
            future.add_done_callback(self._leave)
        return futures

    def put(self, image: "NDArray[np.uint8]", future: Answer, times: Times) -> None:
        """Queue a prepared image under a future from `admit`, which will give its answer."""
        with self._changed:
            if self._closed is None:
                self._waiting.append((image, future, times))
                self._changed.notify()
                return
        fail(future, self._closed)

    def submit(self, images: "list[NDArray[np.uint8]]") -> "list[Answer]":
        """Do `admit` and `put` at once, for images that are prepared already."""
        futures = self.admit(len(images))
        for image, future in zip(images, futures, strict=True):
            self.put(image, future, Times())
        return futures

    def close(self) -> None:
        """Answer what waits, then end the thread."""
        self._close(Unavailable("The model was unloaded just now; send the request again.", retry_after=1))

    def _close(self, reason: GraftError) -> None:
        with self._changed:
            self._closed = self._closed or reason
            self._changed.notify()

    def _leave(self, _: Answer) -> None:
        with self._changed:
            self._admitted -= 1
            self._changed.notify()  # a batch may wait for this one

    @property
    def _most(self) -> int:
        """Return how many images make a batch: no more than the engine computes at a time, for others' answers wait."""
        return min(self._max_batch, self.model.engine.batch)

    def _worth_starting(self) -> bool:
        return self._closed is not None or len(self._waiting) >= self._most or self._admitted < 2 * self._most

    def _serve(self) -> None:
        while True:
            with self._changed:
                came = self._changed.wait_for(lambda: self._waiting or self._closed, self._idle_seconds)
                if not self._waiting and came:
                    return
                if came:
                    self._changed.wait_for(self._worth_starting, self._fill)
            if not came:
                self._on_idle()  # outside the lock: it may close this batcher
                continue
            with self._turns:
                # Taken when it is this model's turn, so that what came while others computed is in it.
                with self._changed:
                    batch = [self._waiting.popleft() for _ in range(min(len(self._waiting), self._most))]
                # A caller whose deadline has passed has cancelled: no work is done for it.
                batch = [one for one in batch if one[1].set_running_or_notify_cancel()]
                if not batch:
                    self._pressed = False  # the next image may come in an hour
                elif not self._answer(batch):
                    return

    def _answer(self, batch: "list[tuple[NDArray[np.uint8], Answer, Times]]") -> bool:
        import numpy as np

        started = time.monotonic()
        try:
            answers = self.model.answer(np.stack([image for image, _, _ in batch]))
        except Exception as error:
            self._fail(error, [future for _, future, _ in batch])
            return False
        ended = time.monotonic()
        # While others are in the house, what is done for them beside the model counts too, as decoding does: from one
        # batch's end to the next one's.
        seconds = (ended - (self._ended if self._pressed else started)) / len(batch)
        self._ended, self._pressed = ended, self._admitted > len(batch)
        self._seconds_an_image += (_SMOOTHING if self._seconds_an_image else 1.0) * (seconds - self._seconds_an_image)
        self.answered += len(batch)
        for (_, future, times), answer in zip(batch, answers, strict=True):
            times.started, times.ended = started, ended
            future.set_result(answer)
        return True

    def _fail(self, error: Exception, futures: "list[Answer]") -> None:
        log.error("model_failed", error=type(error).__name__, exc_info=error)
        self._on_failure(error)
        reason = Unavailable(
            f"The model failed ({type(error).__name__}) and is loaded anew; try again shortly.",
            code="model_failed",
            retry_after=1,
        )
        self._close(reason)
        for future in futures:
            future.set_exception(reason)
        while self._waiting:  # nothing is added any more
            fail(self._waiting.popleft()[1], reason)


def fail(future: Answer, error: BaseException) -> None:
    """End a future that nobody has begun on; one that its caller has cancelled stays so."""
    if future.set_running_or_notify_cancel():
        future.set_exception(error)
