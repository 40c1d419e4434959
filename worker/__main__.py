"""`python -m worker`: the embedded service's worker. It hears a named pipe, polls the database, and needs no broker."""

import os
import signal
import sys
import threading
from typing import Any

from app.core.home import make_private
from app.core.logging import configure_logging, log
from app.core.settings import Settings
from worker.supervision.worker import Worker


def main() -> None:
    """Run until SIGTERM or SIGINT or, with `--with-parent`, until stdin closes."""
    settings = Settings()
    configure_logging(settings)
    make_private(settings)
    done = threading.Event()

    def stop(*_: Any) -> None:
        done.set()

    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, stop)
    if "--with-parent" in sys.argv:

        def wait_for_parent() -> None:
            while os.read(0, 4096):  # not by `sys.stdin`, whose lock Python wants at its end
                pass
            done.set()

        threading.Thread(target=wait_for_parent, daemon=True).start()

    worker = Worker(settings, settings.poll_seconds, settings.doorbell)
    worker.start()
    log.info("worker_started")
    done.wait()
    worker.stop()
    log.info("worker_stopped")


if __name__ == "__main__":
    main()
