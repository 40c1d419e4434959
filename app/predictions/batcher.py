"""Micro-batching: images that arrive while the model is busy are answered together; an idle model starts at once."""

import threading
from collections import deque
from concurrent.futures import Future
from typing import TYPE_CHECKING

from app.core.errors import Unavailable

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from app.vision.classifier import Classifier


class Batcher:
    """One model's queue and the thread that empties it. The queue is bounded: past it, callers are told to wait."""

    def __init__(self, classifier: "Classifier", *, max_batch: int, max_waiting: int) -> None:
        self.classifier = classifier
        self._max_batch = max_batch
        self._max_waiting = max_waiting
        self._waiting: deque[tuple[NDArray[np.uint8], Future[NDArray[np.float32]]]] = deque()
        self._changed = threading.Condition()
        self._closed = False
        threading.Thread(target=self._serve, name="predict", daemon=True).start()

    def submit(self, images: "list[NDArray[np.uint8]]") -> "list[Future[NDArray[np.float32]]]":
        """Queue prepared images, all or none; each future gives a row of class probabilities."""
        with self._changed:
            if self._closed:
                raise Unavailable("The model was unloaded just now; send the request again.", retry_after=1)
            # An empty queue takes any one request, so that no request is too large for ever.
            if self._waiting and len(self._waiting) + len(images) > self._max_waiting:
                raise Unavailable(
                    f"{len(self._waiting)} images wait for this model already; try again in a second.",
                    code="overloaded",
                    retry_after=1,
                )
            futures: list[Future[NDArray[np.float32]]] = [Future() for _ in images]
            self._waiting.extend(zip(images, futures, strict=True))
            self._changed.notify()
        return futures

    def close(self) -> None:
        """Answer what waits, then end the thread."""
        with self._changed:
            self._closed = True
            self._changed.notify()

    def _serve(self) -> None:
        import numpy as np

        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._waiting or self._closed)
                if not self._waiting:
                    return
                batch = [self._waiting.popleft() for _ in range(min(len(self._waiting), self._max_batch))]
            try:
                rows = self.classifier.predict(np.stack([image for image, _ in batch]))
            except Exception as error:  # every waiting caller is told; the thread lives on
                for _, future in batch:
                    future.set_exception(error)
            else:
                for (_, future), row in zip(batch, rows, strict=True):
                    future.set_result(row)
