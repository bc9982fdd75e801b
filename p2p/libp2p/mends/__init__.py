"""What py-libp2p 0.8.1 needs before it may face strangers, each mend with its fault and the release it waits for.

``MENDS`` lists them by name. A mend changes a ``Plan`` (the options one host is built from) or replaces a function of
the library for the whole process; ``apply`` does either once. Each has a test in ``tests/p2p/test_libp2p_mends.py``
that shows the fault with that mend left out, and shows it gone with all of them. When a release heals a fault, its
test without the mend fails: then the mend goes.
"""

from depin_node.p2p.libp2p.mends import bulk, connections, dialling, strangers, yamux_rules  # which register themselves
from depin_node.p2p.libp2p.mends.registry import MENDS, Plan, abort, apply, limits_of, tcp_of

__all__ = [
    "MENDS",
    "Plan",
    "abort",
    "apply",
    "bulk",
    "connections",
    "dialling",
    "limits_of",
    "strangers",
    "tcp_of",
    "yamux_rules",
]
