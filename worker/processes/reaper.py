"""A process beside the worker that outlives it by a moment, to end what the worker started.

A killed worker ends nothing itself; its children see their pipe close, unless they are stuck in a computation. The
reaper waits for its own pipe to close, which happens when the worker is gone, however it went.
"""

import signal
import subprocess
import sys

from worker.processes import process_tree


class Reaper:
    """The worker's end of the pipe."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "worker.processes.reaper", process_tree.WORKER],
            stdin=subprocess.PIPE,
            start_new_session=True,
        )

    def close(self) -> None:
        """Let it do its work at the worker's own end. Returns when it has."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()


def main(mark: str) -> None:
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):  # meant for the worker, which goes first
        signal.signal(number, signal.SIG_IGN)
    sys.stdin.buffer.read()
    process_tree.end_family(mark)


if __name__ == "__main__":
    main(sys.argv[1])
