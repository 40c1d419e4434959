"""What was imported is not looked at by later collections; what came after it is."""

import subprocess
import sys

SCRIPT = """
import gc, sys, types, weakref
from app.core.garbage import freeze_imports

def bring(many):
    for number in range(many):
        name = f"made{len(sys.modules)}"
        sys.modules[name] = types.ModuleType(name)

class Node:
    pass

def cycle():
    node = Node()
    node.me = node
    return weakref.ref(node)

bring(200)
before = cycle()
freeze_imports()
assert before() is None, "garbage is not kept"
frozen = gc.get_freeze_count()
assert frozen > 1000
bring(10)
freeze_imports()
assert gc.get_freeze_count() == frozen, "a few modules are not worth a look at everything"
after = cycle()
gc.collect()
assert after() is None
bring(200)
freeze_imports()
assert gc.get_freeze_count() > frozen
"""


def test_it_is_frozen_once_for_many_imports() -> None:
    subprocess.run([sys.executable, "-c", SCRIPT], check=True, timeout=60)
