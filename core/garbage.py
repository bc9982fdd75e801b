"""How often a node looks for objects that only refer to each other.

Nearly all that it lets go is freed at once, by counting. Python looks for the rest whenever it has 700 objects more
than before, and now and then through all that there are: 130,000 in a node at rest, 75 ms. Jobs of many tasks make many
objects that live until they end: 2,000 quick tasks took 7 % longer.
"""

import gc

_YOUNG_MAX = 10_000
"""Objects more than at the last look before the next one: some MiB, if all of them are garbage."""


def look_rarely() -> None:
    """Look for garbage more rarely from now on, and not among what is there already: what a program has once it is up
    stays. For the whole process; to be called once."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(_YOUNG_MAX)
