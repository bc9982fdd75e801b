"""How many files and connections a process may have open at once: more than the 256 or 1,024 of a login shell.

A node with all the connections, handshakes, streams of data and workers that its limits allow comes near those; and
without a descriptor it cannot take a connection, write a blob, or look which addresses it has.
"""

import resource
from contextlib import suppress

WANTED = 8192
"""As ``depin-node.service`` has it."""


def allow_more() -> None:
    """Raise this process's own limit to ``WANTED``, as far as the system lets it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = WANTED if hard == resource.RLIM_INFINITY else min(WANTED, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        with suppress(OSError, ValueError):  # a system may have another limit that it does not tell
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
