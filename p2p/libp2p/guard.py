"""The shell of ``admission.Admission``: what happens on libp2p's connections goes in, and its refusals are carried out.

The mends call it from inside the library: ``arriving`` around an inbound handshake (``inbound_slots``), ``opens`` and
``received`` from yamux's reader (``yamux_rules``). ``use_for`` puts it before the swarm takes a connection.
"""

import itertools
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import structlog
import trio
from libp2p.network.exceptions import SwarmException

from depin_node.core import clock
from depin_node.core.errors import ConfigError, TransportError
from depin_node.p2p.addresses import peer_id
from depin_node.p2p.admission import Admission, Refusal
from depin_node.p2p.libp2p.mends.registry import abort, tcp_of
from depin_node.p2p.libp2p.terms import key_of_id
from depin_node.p2p.network import PeerKey
from depin_node.p2p.strikes import STRIKES_MAX

log = structlog.get_logger("depin_node.p2p")

_RECOUNT_BYTES = 256 * 1024  # so much may come before what waits is counted anew


class Guard:
    """Knows every connection by a number, and what it holds."""

    def __init__(self, admission: Admission, counters: Counter[str]) -> None:
        self.admission = admission
        self._counters = counters
        self._numbers = itertools.count(1)
        self._handshakes: dict[int, trio.CancelScope] = {}
        self._connections: dict[int, Any] = {}

    def use_for(self, swarm: Any) -> None:
        """Be asked before ``swarm`` takes a connection."""
        add_conn = swarm.add_conn

        async def add(muxed: Any, direction: str = "unknown") -> Any:
            refusal = self._admit(muxed, direction)
            if refusal is not None:
                self._counters["connections_refused"] += 1
                log.debug("connection refused", peer=str(muxed.peer_id), reason=refusal.value)
                abort(muxed)
                raise SwarmException(refusal.value)
            swarm.manager.run_task(self._see_off, muxed)
            return await add_conn(muxed, direction=direction)

        swarm.depin_guard = self
        swarm.add_conn = add

    # Connections

    @contextmanager
    def arriving(self, socket: Any) -> Iterator[bool]:
        """Ask whether a socket may begin its handshakes, which are cut off if others need the place."""
        number = socket.depin_number = next(self._numbers)
        refusal, evicted = self.admission.arrived(number, _host_of(socket), clock.now())
        if evicted is not None and evicted in self._handshakes:
            self._counters["handshakes_evicted"] += 1
            self._handshakes[evicted].cancel()
        if refusal is not None:
            self._counters["connections_refused"] += 1
            yield False
            return
        with trio.CancelScope() as scope:
            self._handshakes[number] = scope
            try:
                yield True
            finally:
                del self._handshakes[number]
                if number not in self._connections:
                    self.admission.ended(number)

    def check(self, peer: PeerKey) -> None:
        """Raise ``TransportError`` if ``peer`` must not be connected."""
        refusal = self.admission.refuses(peer, clock.now())
        if refusal is not None:
            raise TransportError(f"{peer_id(peer)} is not called: {refusal.value}")

    def _admit(self, muxed: Any, direction: str) -> Refusal | None:
        try:
            carrier, peer, now = tcp_of(muxed), key_of_id(muxed.peer_id), clock.now()
        except ConfigError:
            return Refusal.FOREIGN_KEY
        number = getattr(carrier, "depin_number", None)
        if direction == "outbound":
            number = next(self._numbers)
            refusal = self.admission.refuses(peer, now)
            if refusal is None:
                self.admission.dialled(number, _host_of(carrier), peer, now)
        else:
            if number is None:  # by way of a relay, or through a hole
                number = next(self._numbers)
                refusal, _ = self.admission.arrived(number, _host_of(carrier), now)
                if refusal is not None:
                    return refusal
            refusal = self.admission.proven(number, peer, now)
        if refusal is None:
            muxed.depin_number = number
            self._connections[number] = muxed
        return refusal

    async def _see_off(self, muxed: Any) -> None:
        await muxed.event_closed.wait()
        self._connections.pop(muxed.depin_number, None)
        self.admission.ended(muxed.depin_number)

    # Streams

    def opens(self, muxed: Any) -> bool:
        """Say whether the peer may have one more stream."""
        refusal = self.admission.stream_opened(muxed.depin_number, _streams_of(muxed), clock.now())
        if refusal in (Refusal.FULL, Refusal.GROUP_FULL, Refusal.PEER_FULL):  # by old counts, perhaps
            for number, other in self._connections.items():
                self.admission.has_streams(number, _streams_of(other))
            refusal = self.admission.may_have_another(muxed.depin_number)
        if refusal is not None:
            self._counters["streams_refused"] += 1
        return refusal is None

    # Memory

    def received(self, muxed: Any, size_bytes: int) -> None:
        """Bytes came in that wait to be read."""
        muxed.depin_uncounted = muxed.__dict__.get("depin_uncounted", 0) + size_bytes
        if muxed.depin_uncounted < _RECOUNT_BYTES:
            return
        muxed.depin_uncounted = 0
        if not self.admission.holds(muxed.depin_number, _held_by(muxed)):
            return
        for number, other in self._connections.items():  # what was read meanwhile
            self.admission.holds(number, _held_by(other))
        for number in self.admission.too_much():
            self._counters["connections_overfull"] += 1
            log.warning("too much waits to be read: closing", peer=str(self._connections[number].peer_id))
            self._end(number)

    # Rules

    def broke(self, peer: PeerKey, reason: str, *, weight: float = STRIKES_MAX) -> None:
        """``peer`` broke a rule: it is disconnected, and kept out, once that weighs enough."""
        if self.admission.broke(peer, clock.now(), weight=weight):
            self._counters["peers_kept_out"] += 1
            log.warning("peer broke the rules: disconnecting", peer=peer_id(peer), reason=reason)
            for number, muxed in list(self._connections.items()):
                if key_of_id(muxed.peer_id) == peer:
                    self._end(number)

    def _end(self, number: int) -> None:
        abort(self._connections[number])
        self.admission.holds(number, 0)


def guard_of(muxed: Any) -> Guard | None:
    """Return the guard of the host that a yamux connection belongs to."""
    guard: Guard | None = getattr(getattr(muxed, "swarm", None), "depin_guard", None)
    return guard


def _host_of(carrier: Any) -> str:
    stream = getattr(carrier, "stream", None)  # none in a ``Carrier``
    try:
        return str(stream.socket.getpeername()[0]) if stream is not None else ""
    except OSError:  # it is gone already
        return ""


def _held_by(muxed: Any) -> int:
    return sum(map(len, muxed.stream_buffers.values()))


def _streams_of(muxed: Any) -> int:
    return sum(not stream.is_initiator for stream in muxed.streams.values())
