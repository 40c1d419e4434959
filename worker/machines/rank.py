"""One of the further processes of a training that several share: `python -m worker.machines.rank`, started by `ranks`.

It reads its part from stdin and takes it, reports nothing, and exits. When stdin closes, the process that started it is
gone: the first of this machine.
"""

import json
import os
import signal
import sys
import threading
from pathlib import Path
from typing import NoReturn, TypedDict

from app.core.stops import let_stops_in

LOST_ANOTHER = 75  # exit status of one whose only fault is that another one is gone


class Part(TypedDict):
    """The message of a machine's first process to each of the others."""

    rank: int
    ranks: int
    host: str
    port: int  # of `host`, where they meet
    config: dict[str, object]
    manifest_sha256: str
    weights: str | None  # None: where the settings say
    scratch: str


def main() -> None:
    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    let_stops_in()
    part: Part = json.loads(sys.stdin.buffer.readline())
    threading.Thread(target=_die_with_the_first, daemon=True).start()
    # Only now, for this takes seconds, in which the first process may end.
    from app.core.settings import Settings
    from app.datasets.manifest import read_manifest
    from app.storage.configured import configured_store
    from app.trainings.weights import configured_weights
    from app.vision.errors import RankLost, Stopped, VisionError
    from app.vision.runtime import ranks
    from app.vision.runtime.observer import SilentObserver
    from app.vision.settings.config import TrainConfig
    from app.vision.training.fit import fit
    from worker.machines.inputs import cache_of, samples_of

    settings = Settings()
    weights = Path(part["weights"]) if part["weights"] else configured_weights(settings)
    scratch = Path(part["scratch"])
    store = configured_store(settings)
    manifest = read_manifest(store.read(part["manifest_sha256"]))
    try:
        place = ranks.meeting_place(part["port"], part["ranks"], part["host"])
        with ranks.joined(place, part["rank"], part["ranks"]):
            fit(
                TrainConfig.from_dict(part["config"]),
                samples_of(manifest),
                manifest.classes,
                weights=weights,
                workdir=scratch,
                observer=SilentObserver(stop.is_set),
                cache=cache_of(settings),
                fetch=lambda sample: store.fetch(sample.sha256, scratch / "images"),
            )
    except Stopped:
        pass
    except RankLost:
        sys.exit(LOST_ANOTHER)
    except VisionError as error:  # which the first process has heard of, and reports
        sys.exit(f"rank {part['rank']}: {error}")


def _die_with_the_first() -> NoReturn:
    while os.read(0, 4096):
        pass
    os._exit(1)


if __name__ == "__main__":
    main()
