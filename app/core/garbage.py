"""This module keeps Python's garbage collections short."""

import gc
import sys

_MANY = 100  # modules

_known = 0


def freeze_imports() -> None:
    """Let collections pass over all objects that exist now, if many modules were imported since the last time.

    A full collection looks at every object, with the interpreter's lock in its hand: at what torch, its exporter and
    OpenVINO bring along, and never let go of, for a third of a second. Meanwhile nobody is answered.
    """
    global _known
    if len(sys.modules) - _known < _MANY:
        return
    _known = len(sys.modules)
    gc.collect()  # or it would be kept for ever
    gc.freeze()
