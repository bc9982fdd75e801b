"""Where a worker process begins: it is bound to its node and gives up what it can, and only then imports the rest.

A node may be killed at any moment. While its worker imports what it needs, which takes a second or more on a busy
machine, nobody else would end it. So little is imported here.
"""

import json
import os
import resource
import signal
import sys
from typing import NoReturn

from depin_node.compute.sandbox import linux

DESCRIPTORS_MAX = 256


def confine(parent: int) -> None:
    """Give up core dumps, writing files, many descriptors and new privileges; die with process ``parent``.

    Addresses are not limited: RLIMIT_AS breaks wasmtime, which reserves 4 GiB of them for each memory.
    """
    for limit, value in (
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_FSIZE, 0),
        (resource.RLIMIT_NOFILE, DESCRIPTORS_MAX),
    ):
        resource.setrlimit(limit, (value, value))
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the node decides; a terminal's Ctrl-C is not for us
    if sys.platform == "linux":
        linux.die_with_parent(signal.SIGKILL)
        linux.no_new_privileges()
    if orphaned(parent):  # it died before the line above
        os._exit(1)


def orphaned(parent: int) -> bool:
    """Whether the node is gone."""
    return os.getppid() != parent


def main(argument: str) -> NoReturn:
    """Start from the JSON object that ``WorkerProcess`` gives."""
    config = json.loads(argument)
    confine(config["parent"])
    from depin_node.compute.sandbox import worker

    os.nice(config["nice"])  # not before: on a busy machine somebody waits for the imports
    worker.run(config)


if __name__ == "__main__":
    main(sys.argv[1])
