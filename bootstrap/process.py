"""The node as a process: what it prints, how signals end it, and that it does end.

The first SIGINT or SIGTERM stops the node in order: it leaves the mesh, ends its workers, closes its journal. A second
one, or ``waits.shutdown`` seconds, ends the process at once; the journal is made for that. SIGHUP, of a terminal that
goes, stops it as well, unless whoever started it has that ignored (nohup).
"""

import os
import signal
import sys
import threading
from collections.abc import Callable

import msgspec
import structlog
import trio

from depin_node.bootstrap.config import NodeConfig, unknown_variables
from depin_node.bootstrap.node import Node, open_node
from depin_node.core.descriptors import allow_more
from depin_node.core.errors import DepinError
from depin_node.core.garbage import look_rarely
from depin_node.core.local import DataDir
from depin_node.core.memory import keep_freed

log = structlog.get_logger("depin_node.node")

_SIGNALS = (signal.SIGINT, signal.SIGTERM)
_FAULT = "the node failed: this is a fault of depin-node"
EXIT_CUT_OFF = 1
EXIT_SECOND_SIGNAL = 130


def run_node(config: NodeConfig, data_dir: DataDir, *, as_json: bool) -> int:
    """Run a node until a signal ends it, and return the exit code of the process.

    When the node is up, stdout gets its peer id, the addresses to join it by and the URL of its control API: one JSON
    object on one line, or lines for people.

    Raises:
        ConfigError: a setting, a file or the identity is wrong.
        ResourceError: the data directory or a named port is in use.
    """

    is_up = False

    def ready(node: Node) -> None:
        nonlocal is_up
        is_up = True
        text = _ready_json(node) if as_json else _ready_text(node)
        try:
            print(text, flush=True)
        except BrokenPipeError:  # whoever started us does not read; the node runs all the same
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())

    keep_freed()
    allow_more()
    try:
        trio.run(_run, config, data_dir, ready)
    except* DepinError:
        if is_up:  # before that it is the user's to mend, and told as it is
            log.exception(_FAULT)
        raise
    except* Exception:
        log.exception(_FAULT)
        raise
    return 0


async def _run(config: NodeConfig, data_dir: DataDir, ready: Callable[[Node], None]) -> None:
    stopping = trio.Event()
    is_up = False
    hang_up = [] if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN else [signal.SIGHUP]
    with trio.open_signal_receiver(*_SIGNALS, *hang_up) as signals:
        async with trio.open_nursery() as nursery:

            async def wait_for_signal() -> None:
                async for number in signals:
                    if stopping.is_set():
                        if number == signal.SIGHUP:
                            continue  # a terminal that goes may send several
                        os._exit(EXIT_SECOND_SIGNAL)
                    _end_in(config.waits.shutdown)
                    log.info("stopping", reason=signal.Signals(number).name)
                    stopping.set()
                    if not is_up:
                        nursery.cancel_scope.cancel()

            nursery.start_soon(wait_for_signal)
            async with open_node(config, data_dir) as node:
                for warning in unknown_variables(os.environ):
                    log.warning(warning)
                is_up = True
                status = node.status()
                log.info("up", version=status.version, network=status.network_id, addresses=", ".join(status.addresses))
                look_rarely()
                ready(node)
                await stopping.wait()
            nursery.cancel_scope.cancel()
    log.info("stopped")


def _end_in(seconds: float) -> None:
    """From now on a signal ends the process at once, and so does the time, even if the event loop hangs."""
    for number in _SIGNALS:
        signal.signal(number, lambda *_: os._exit(EXIT_SECOND_SIGNAL))

    def cut_off() -> None:
        log.error("not stopped in time: ending at once", seconds=seconds)
        os._exit(EXIT_CUT_OFF)

    timer = threading.Timer(seconds, cut_off)
    timer.daemon = True
    timer.start()


def _ready_json(node: Node) -> str:
    status = node.status()
    facts = {
        "event": "ready",
        "peer": status.peer,
        "addresses": status.addresses,
        "control": node.control_url,
        "pid": status.pid,
        "data_dir": status.data_dir,
        "network_id": status.network_id,
        "slots": status.slots,
    }
    return msgspec.json.encode(facts).decode()


def _ready_text(node: Node) -> str:
    status = node.status()
    lent = f"{status.slots} task{'s' * (status.slots != 1)} at once" if status.lending else "nothing (--lend)"
    lines = [("node", status.peer), *(("address", address) for address in status.addresses)]
    lines += [("control", node.control_url), ("data", status.data_dir), ("lending", lent)]
    return "\n".join(f"{name:<8} {value}" for name, value in lines)
