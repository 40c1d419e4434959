"""A stop that comes while a process starts."""

import signal
import subprocess
import sys
import time

from app.core.stops import stops_held

LISTENS = """
import signal, time
from app.core.stops import let_stops_in
time.sleep(0.5)
signal.signal(signal.SIGTERM, lambda *_: print("heard", flush=True))
let_stops_in()
"""


def test_it_waits_until_the_process_can_take_it() -> None:
    before = signal.pthread_sigmask(signal.SIG_BLOCK, ())
    with stops_held():
        process = subprocess.Popen([sys.executable, "-c", LISTENS], stdout=subprocess.PIPE)
    assert signal.pthread_sigmask(signal.SIG_BLOCK, ()) == before
    time.sleep(0.1)
    process.send_signal(signal.SIGTERM)
    assert process.communicate(timeout=60)[0] == b"heard\n"
    assert process.returncode == 0
