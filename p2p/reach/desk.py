"""The desk of a relay: who has a place, which circuits are open, and what each may still carry. No I/O.

A peer that cannot be called reserves a place; others ask for circuits to it. Everything is counted: places and circuits
in all, for each group and for each peer; bytes and seconds for each circuit; bytes a second for all circuits of a group
together. A place lasts as long as its peer stays connected, and must be renewed. (Circuit relay v2 of libp2p has the
same kinds of limits.)
"""

from collections import Counter
from collections.abc import Hashable
from dataclasses import dataclass

from depin_node.core.clock import SECOND_NS, Now
from depin_node.core.errors import DepinError


@dataclass(frozen=True)
class RelayLimits:
    """What one relay gives away."""

    places_max: int = 128
    places_per_group_max: int = 16
    """Nodes behind one provider's network share a group."""
    place_s: int = 1800
    circuits_max: int = 256
    circuits_per_peer_max: int = 16
    """That one peer asked for, or that lead to it: each counts."""
    circuits_per_group_max: int = 64
    circuit_s: int = 7200
    circuit_bytes_max: int = 64 << 20
    """Both ways together: control takes some 100 bytes a second; jobs' messages far more, for their time."""
    group_bytes_s: float = 512 * 1024
    """All circuits that peers of one group asked for."""
    bulk: bool = False
    """Whether blobs may go through: circuits then have no limit of bytes."""


class RelayRefused(DepinError):
    """The relay does not do this: ``refusal`` is the code that the peer gets."""

    code = "relay_refused"

    def __init__(self, refusal: str) -> None:
        super().__init__(f"the relay refuses: {refusal}")
        self.code = refusal


@dataclass(eq=False)
class Circuit:
    """One circuit from ``source`` to ``target``; kept by the desk until ``close``."""

    source: bytes
    target: bytes
    group: Hashable
    ends_ns: int
    bytes_left: int | None
    """None: no limit."""


class RelayDesk:
    """See the module. All methods that refuse raise ``RelayRefused``."""

    def __init__(self, limits: RelayLimits) -> None:
        self.limits = limits
        self._places: dict[bytes, tuple[Hashable, int]] = {}
        self._circuits: set[Circuit] = set()
        self._budgets: dict[Hashable, tuple[float, int]] = {}

    @property
    def places(self) -> int:
        """How many peers have a place."""
        return len(self._places)

    @property
    def circuits(self) -> int:
        """How many circuits are open."""
        return len(self._circuits)

    def reserve(self, peer: bytes, group: Hashable, now: Now) -> None:
        """Keep a place for ``peer``, or renew it."""
        self._expire(now)
        others = [held for held, _ in (place for who, place in self._places.items() if who != peer)]
        if len(others) >= self.limits.places_max or others.count(group) >= self.limits.places_per_group_max:
            raise RelayRefused("no_place")
        self._places[peer] = (group, now.boottime_ns + self.limits.place_s * SECOND_NS)

    def lost(self, peer: bytes) -> None:
        """``peer`` is no longer connected: its place is free. (Its circuits end with their streams.)"""
        self._places.pop(peer, None)

    def open(self, source: bytes, group: Hashable, target: bytes, now: Now) -> Circuit:
        """Open a circuit to a peer that has a place."""
        self._expire(now)
        if target not in self._places or target == source:
            raise RelayRefused("no_reservation")
        ends: Counter[bytes] = Counter()
        for circuit in self._circuits:
            ends.update((circuit.source, circuit.target))
        groups = [circuit.group for circuit in self._circuits]
        limits = self.limits
        if (
            len(self._circuits) >= limits.circuits_max
            or groups.count(group) >= limits.circuits_per_group_max
            or max(ends[source], ends[target]) >= limits.circuits_per_peer_max
        ):
            raise RelayRefused("too_many_circuits")
        bytes_left = None if limits.bulk else limits.circuit_bytes_max
        circuit = Circuit(source, target, group, now.boottime_ns + limits.circuit_s * SECOND_NS, bytes_left)
        self._circuits.add(circuit)
        return circuit

    def carry(self, circuit: Circuit, size_bytes: int, now: Now) -> float:
        """Count bytes of a circuit; return how many seconds to wait before they are passed on.

        Raises:
            RelayRefused: the circuit has carried all it may, or is over.
        """
        if now.boottime_ns >= circuit.ends_ns:
            raise RelayRefused("circuit_over")
        if circuit.bytes_left is not None:
            if size_bytes > circuit.bytes_left:
                raise RelayRefused("circuit_full")
            circuit.bytes_left -= size_bytes
        rate = self.limits.group_bytes_s
        left, since_ns = self._budgets.get(circuit.group, (rate, now.boottime_ns))
        left = min(rate, left + rate * (now.boottime_ns - since_ns) / SECOND_NS) - size_bytes
        self._budgets[circuit.group] = (left, now.boottime_ns)
        return max(0.0, -left / rate)

    def close(self, circuit: Circuit) -> None:
        """Forget a circuit."""
        self._circuits.discard(circuit)
        if not any(other.group == circuit.group for other in self._circuits):
            self._budgets.pop(circuit.group, None)

    def _expire(self, now: Now) -> None:
        over = [peer for peer, (_, ends_ns) in self._places.items() if now.boottime_ns >= ends_ns]
        for peer in over:
            del self._places[peer]
