"""What looking for garbage more rarely must not mean: that none is found."""

import subprocess
import sys

PROGRAM = """
import gc, weakref
from depin_node.core.garbage import look_rarely

class Thing:
    pass

def pair():
    one, other = Thing(), Thing()
    one.other, other.other = other, one
    return one

stays, before = pair(), len(gc.get_objects())
look_rarely()
assert len(gc.get_objects()) < before / 10  # what was there is not looked at again
seen, things = weakref.ref(pair()), []
assert seen() is not None
while seen() is not None:
    things.append([])
    assert len(things) < 20_000
assert len(things) > 5_000
assert stays.other.other is stays
"""


def test_garbage_is_found_among_what_is_new():
    subprocess.run([sys.executable, "-c", PROGRAM], check=True, timeout=60)
