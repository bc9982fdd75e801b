"""A port at the network's gateway, by UPnP (Internet Gateway Device): the router passes calls to it on to us.

The gateway is found by multicast on the network of the address we listen on; what it says is not believed: peers call
the port, and only if that works is it advertised. The work is miniupnpc's, in a thread.
"""

import ipaddress
from typing import Any

import structlog
import trio

log = structlog.get_logger("depin_node.p2p")

LEASE_S = 2400
"""Twice the time after which ``service`` renews it."""
_DISCOVER_MS = 2000
_TIMEOUT_S = 20.0
_threads = trio.CapacityLimiter(1)


async def map_port(host: str, port: int) -> tuple[str, int] | None:
    """Ask the gateway to pass a TCP port on to ``host`` and ``port``, where we listen; the gateway is looked for on
    that address's network. Return the outer host and port; None if there is no gateway, or it will not.
    """
    with trio.move_on_after(_TIMEOUT_S):
        try:
            mapped = await trio.to_thread.run_sync(  # type: ignore[call-arg]
                _ask, host, port, abandon_on_cancel=True, limiter=_threads
            )
        except Exception as error:  # noqa: BLE001 - miniupnpc raises bare ones; without a gateway the node lives on
            log.debug("no port at a gateway", reason=str(error)[:200])
            return None
        log.info("the gateway passes a port on", host=mapped[0], port=mapped[1])
        return mapped
    return None


def _ask(host: str, port: int) -> tuple[str, int]:
    import miniupnpc  # most nodes do not need it

    gateway: Any = miniupnpc.UPnP(multicastif=host, discoverdelay=_DISCOVER_MS)
    gateway.discover()
    gateway.selectigd()
    outer = str(ipaddress.ip_address(gateway.externalipaddress()))
    # The port is ours to choose: if another machine of this network has it, one that depends on our address.
    seed = int(ipaddress.ip_address(host)) * 7919 + port
    for wanted in (port, *(20_000 + (seed + n * 104_729) % 40_000 for n in range(3))):
        try:
            gateway.addportmapping(wanted, "TCP", host, port, "depin-node", "", LEASE_S)
            return outer, wanted
        except Exception as error:  # noqa: BLE001 - it raises nothing more precise: taken, or refused
            log.debug("the gateway gives another port", port=wanted, reason=str(error)[:200])
    raise LookupError("the gateway gives none of the ports")
