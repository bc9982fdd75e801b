"""Reachability as the node uses it: the trio shell of ``Reachability`` and of the relay.

It feeds the machine with connections, with the machine's addresses (looked at every few seconds, since they change) and
with what peers answer; carries out its questions and reservations; serves the four protocols of ``messages``; and tells
by ``advertise`` where this node can be called. ``dial`` is how the mesh dials: an address of a relay becomes a circuit,
over which both ends try to meet directly. It waits a little for that, since a circuit ends, with all that was begun on
it, once they have met; and who asked for the circuit proposes to meet again, as long as nothing better is there.
"""

from collections import Counter, OrderedDict
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Hashable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TypeVar

import structlog
import trio

from depin_node.core import clock as system_clock
from depin_node.core.clock import SECOND_NS, Now
from depin_node.core.errors import DepinError, PeerViolation, ResourceError, TransportError
from depin_node.core.ticks import sleep_to_tick
from depin_node.core.wire import Message, decode, encode
from depin_node.crypto.envelope import SKEW_S_MAX
from depin_node.p2p.addresses import Address, parse, peer_id
from depin_node.p2p.directory_protocol import Allowance
from depin_node.p2p.frames import request, serve_requests
from depin_node.p2p.groups import group_of, is_loopback, own_group
from depin_node.p2p.network import Connected, ConnectionEvent, Disconnected, EventsLost, Network, Path, PeerKey
from depin_node.p2p.reach import verdict as machine
from depin_node.p2p.reach.desk import RelayDesk, RelayLimits
from depin_node.p2p.reach.messages import (
    MESSAGE_BYTES_MAX,
    PUNCH_PROTOCOL,
    REACH_PROTOCOL,
    Answer,
    Incoming,
    Meeting,
    Outcome,
    Question,
)
from depin_node.p2p.reach.relay import RelayServer, address_of, connect_through, reserve, serve_relayed
from depin_node.p2p.reach.verdict import Nat, Reachability, ReachConfig, Verdict, View
from depin_node.p2p.reach.ways import best_first, is_callable, is_local

M = TypeVar("M", bound=Message)

log = structlog.get_logger("depin_node.p2p")

PROBES_MAX = 8
"""Calls back under way at once."""
_MEETINGS_MAX = 8
_MET_MAX = 1024
_MEET_AGAIN_S = 60.0
_PROPOSE_AGAIN_S, _PROPOSE_SELDOM_S = 66.0, 1056.0
"""After a meeting that did not come about: longer than the other end asks for, and twice as long each time."""
_MEET_FIRST_S = 3.0
"""So long a dial waits for the meeting."""

PortMapper = Callable[[str, int], Awaitable[tuple[str, int] | None]]
"""Asks the gateway of the network that our address is on to pass a port on to us; returns its outer endpoint."""


@dataclass(frozen=True)
class ReachSettings:
    """What the operator chose, and how often things are looked at."""

    relay: bool = True
    """Whether to serve circuits, once this node can be called."""
    relay_always: bool = False
    """Serve them whether or not anybody has found that it can: for first peers, and tests."""
    limits: RelayLimits = field(default_factory=RelayLimits)
    addresses_every_s: float = 5.0
    map_every_s: float = 1200.0
    """Port mappings are leased for twice as long."""
    config: ReachConfig = field(default_factory=ReachConfig)


class Reach:
    """See the module; ``open_reach`` makes it."""

    def __init__(
        self,
        network: Network,
        settings: ReachSettings,
        listed: Collection[PeerKey],
        advertise: Callable[[Sequence[str] | None], None],
        clock: Callable[[], Now],
        nursery: trio.Nursery,
    ) -> None:
        self._network = network
        self._settings = settings
        self._listed = frozenset(listed)
        self._advertise = advertise
        self._clock = clock
        self._nursery = nursery
        self._machine = Reachability(settings.config, clock())
        self._wake = trio.Event()
        self._clock_is_off = False
        self._mapped: tuple[str, int] | None = None
        self._probes = trio.CapacityLimiter(PROBES_MAX)
        self._allowance = Allowance(burst=4, per_s=0.2)
        self._seen_by_relay: OrderedDict[PeerKey, tuple[PeerKey, str, int]] = OrderedDict()
        self._meeting: set[PeerKey] = set()
        self._asking: set[PeerKey] = set()
        self._proposing: dict[PeerKey, trio.CancelScope] = {}
        self._settled: dict[PeerKey, trio.Event] = {}
        """By peer that a dial waits for: set when the two have met, or will not."""
        self._met_ns: OrderedDict[PeerKey, int] = OrderedDict()
        self._counters: Counter[str] = Counter()
        self.desk = RelayDesk(settings.limits)
        self._server = RelayServer(network, self.desk, self._group, clock, network.limits.dial_timeout_s)
        self._server.is_open = settings.relay and settings.relay_always
        serve_relayed(network, lambda peer: peer in self.view.relays, self._taken)
        timeout_s = network.limits.dial_timeout_s + network.limits.open_timeout_s
        for name, handler in ((REACH_PROTOCOL, self._on_question), (PUNCH_PROTOCOL, self._on_meeting)):
            serve_requests(network, name, handler, size_bytes_max=MESSAGE_BYTES_MAX, timeout_s=timeout_s)
        self._timeout_s = timeout_s + 1.0

    # What the node asks

    @property
    def view(self) -> View:
        """What is known of how this node can be reached."""
        return self._machine.view

    @property
    def serves_circuits(self) -> bool:
        """Whether this node is a relay now."""
        return self._server.is_open

    def counters(self) -> dict[str, int]:
        """Return how often peers were called back, circuits asked for, and holes punched."""
        return dict(self._counters)

    async def dial(self, address: str) -> PeerKey:
        """Connect as ``Network.dial``, also by way of a relay. Raises the same errors."""
        target = parse(address)
        if not target.relay:
            return await self._network.dial(address)
        await trio.lowlevel.checkpoint()
        if target.peer in self._network.peers():
            return target.peer
        if target.relay == self._network.key:
            raise TransportError(f"{address}: this node is the relay itself, and the peer is not connected to it")
        await self._network.dial(str(Address(target.kind, target.host, target.port, target.relay)))
        try:
            terms = await connect_through(self._network, target, timeout_s=self._network.limits.dial_timeout_s)
        except PeerViolation as error:
            raise TransportError(f"{address}: the relay breaks the protocol: {error}") from error
        self._counters["circuits_dialled"] += 1
        self._remember(target.peer, target.relay, terms.host, terms.port)
        settled = self._settled[target.peer] = trio.Event()
        self._nursery.start_soon(self._keep_proposing, target.peer)
        with trio.move_on_after(_MEET_FIRST_S):
            await settled.wait()
        if self._settled.get(target.peer) is settled:
            del self._settled[target.peer]
        return target.peer

    def best_first(self, addresses: Sequence[str]) -> list[str]:
        """Return a peer's addresses in the order in which to dial them from here."""
        return best_first(addresses, [parse(address).host for address in self._network.addresses()])

    # The machine

    def _handle(self, event: machine.Event) -> None:
        for effect in self._machine.handle(event, self._clock()):
            match effect:
                case machine.Ask(peer, port):
                    self._nursery.start_soon(self._ask, peer, port)
                case machine.Reserve(peer):
                    self._nursery.start_soon(self._reserve, peer)
                case machine.Changed():
                    self._changed()
        self._wake.set()

    def _changed(self) -> None:
        view = self.view
        log.info(
            "reachability",
            verdict=view.verdict.value,
            nat=view.nat.value,
            relays=[peer_id(p)[-8:] for p in view.relays],
        )
        is_off = view.skew_s is not None and abs(view.skew_s) > SKEW_S_MAX
        if is_off and not self._clock_is_off:
            log.warning(
                "this machine's clock is off: what peers tell counts as expired; set it (NTP)", behind_s=view.skew_s
            )
        self._clock_is_off = is_off
        settings = self._settings
        self._server.is_open = settings.relay and (settings.relay_always or view.verdict is Verdict.PUBLIC)
        self._advertise(self.addresses())

    def addresses(self) -> list[str] | None:
        """Return where this node can be called, best first; None: where it listens."""
        view, own = self.view, peer_id(self._network.key)
        outer = [f"/{_kind(host)}/{host}/tcp/{port}/p2p/{own}" for host, port in view.external]
        circuits = []
        for relay in view.relays:
            path = self._network.path(relay)
            at = address_of(path) if path is not None and not path.relayed else None
            if at is not None:
                circuits.append(str(Address(at.kind, at.host, at.port, self._network.key, relay)))
        return [*outer, *circuits, *self._network.addresses()] if outer or circuits else None

    async def _ask(self, peer: PeerKey, port: int) -> None:
        path = self._network.path(peer)
        try:
            answer = await self._request(peer, REACH_PROTOCOL, Question(port), Answer)
            if answer.host and not is_callable(answer.host):
                raise TransportError(f"{peer_id(peer)} says it sees us at {answer.host!r}, where nobody can be")
        except TransportError as error:
            log.debug("nobody told how we are reached", peer=peer_id(peer), reason=str(error))
            self._handle(machine.Unseen(peer))
            return
        local_port = path.local_port if path is not None and path.outbound else 0
        self._handle(machine.Seen(peer, answer, port, local_port))

    async def _request(self, peer: PeerKey, protocol: str, message: Message, kind: type[M]) -> M:
        body = encode(message)
        try:
            answer = await request(
                self._network, peer, protocol, body, size_bytes_max=MESSAGE_BYTES_MAX, timeout_s=self._timeout_s
            )
            return decode(answer, kind, size_bytes_max=MESSAGE_BYTES_MAX)
        except PeerViolation as error:
            raise TransportError(f"{peer_id(peer)} breaks {protocol}: {error}") from error

    async def _reserve(self, peer: PeerKey) -> None:
        try:
            terms = await reserve(self._network, peer, timeout_s=self._network.limits.dial_timeout_s)
        except (TransportError, PeerViolation) as error:
            log.debug("no place at a relay", peer=peer_id(peer), reason=str(error))
            self._handle(machine.NotPlaced(peer))
            return
        self._handle(machine.Placed(peer, float(terms.lasts_s)))

    # What peers ask

    def _group(self, peer: PeerKey, path: Path) -> Hashable:
        address = address_of(path)
        return own_group(peer) if peer in self._listed or address is None else group_of(address)

    async def _on_question(self, peer: PeerKey, body: bytes) -> bytes:
        """Tell ``peer`` where we see it, and call it back there; never anywhere else."""
        question = decode(body, Question, size_bytes_max=MESSAGE_BYTES_MAX)
        path = self._network.path(peer)
        where = address_of(path) if path is not None and not path.relayed else None
        if path is None or where is None:
            return encode(Answer("", 0, called=False, outcome=Outcome.NOT_TRIED, wall_s=self._wall_s()))
        outcome = Outcome.NOT_TRIED
        if question.port and path.outbound and question.port == where.port:
            outcome = Outcome.REACHED  # it was, for this very connection
        elif question.port:
            self._allowance.spend(str(self._group(peer, path)).encode(), self._clock())
            if self._probes.available_tokens < 1:
                raise ResourceError("too many calls back are under way")
            async with self._probes:
                outcome = await self._call_back(Address(where.kind, where.host, question.port, peer))
        called = not path.outbound
        return encode(Answer(where.host, where.port, called=called, outcome=outcome, wall_s=self._wall_s()))

    def _wall_s(self) -> int:
        return self._clock().wall_ns // SECOND_NS

    async def _call_back(self, address: Address) -> Outcome:
        self._counters["called_back"] += 1
        try:
            await self._network.probe(str(address))
        except TransportError as error:
            log.debug("cannot call back", address=str(address), reason=str(error))
            return Outcome.NOT_REACHED
        return Outcome.REACHED

    # Meeting directly

    def _taken(self, relay: PeerKey, source: PeerKey, incoming: Incoming) -> None:
        self._counters["circuits_taken"] += 1
        self._remember(source, relay, incoming.host, incoming.port)

    def _remember(self, peer: PeerKey, relay: PeerKey, host: str, port: int) -> None:
        self._seen_by_relay[peer] = (relay, host, port)
        self._seen_by_relay.move_to_end(peer)
        if len(self._seen_by_relay) > _MET_MAX:
            self._seen_by_relay.popitem(last=False)

    def _own_meeting(self) -> Meeting:
        view = self.view
        ports = [port for _, port in view.external] or [parse(address).port for address in self._network.addresses()]
        open_port = ports[0] if view.verdict is Verdict.PUBLIC and ports else 0
        return Meeting(open_port, punchable=not open_port and view.nat is not Nat.ADDRESS_DEPENDENT)

    async def _keep_proposing(self, peer: PeerKey) -> None:
        """Having asked for the circuit to ``peer``: propose to meet directly, again as long as that is all there is."""
        if peer in self._proposing:
            self._proposing[peer].cancel()  # about a circuit of before
        with trio.CancelScope() as scope:
            self._proposing[peer] = scope
            pause_s = _PROPOSE_AGAIN_S
            while (path := self._network.path(peer)) is not None and path.relayed:
                if not await self._propose(peer):
                    self._settle(peer)
                await trio.sleep(pause_s)
                pause_s = min(2 * pause_s, _PROPOSE_SELDOM_S)
        if self._proposing.get(peer) is scope:
            del self._proposing[peer]

    async def _propose(self, peer: PeerKey) -> bool:
        """Propose to meet; return whether the peer will call."""
        own = self._own_meeting()
        self._asking.add(peer)
        try:
            theirs = await self._request(peer, PUNCH_PROTOCOL, own, Meeting)
        except TransportError as error:
            log.debug("will not meet", peer=peer_id(peer), reason=str(error))
            return False
        finally:
            self._asking.discard(peer)
        await self._try_to_meet(peer, own, theirs, asked=True)
        return bool(own.open_port)

    def _settle(self, peer: PeerKey) -> None:
        if peer in self._settled:
            self._settled[peer].set()

    async def _on_meeting(self, peer: PeerKey, body: bytes) -> bytes:
        theirs = decode(body, Meeting, size_bytes_max=MESSAGE_BYTES_MAX)
        path = self._network.path(peer)
        if path is None or not path.relayed:
            raise PeerViolation("punch: only a relayed connection can become a direct one")
        if peer in self._asking and self._network.key < peer:
            raise ResourceError("both have asked: ours counts")  # else both would begin the handshake, or neither
        ns = self._clock().boottime_ns
        if ns - self._met_ns.get(peer, -(1 << 62)) < _MEET_AGAIN_S * SECOND_NS or len(self._meeting) >= _MEETINGS_MAX:
            raise ResourceError("met too often")
        self._met_ns[peer] = ns
        self._met_ns.move_to_end(peer)
        if len(self._met_ns) > _MET_MAX:
            self._met_ns.popitem(last=False)
        own = self._own_meeting()
        self._nursery.start_soon(self._try_to_meet, peer, own, theirs)
        return encode(own)

    async def _try_to_meet(self, peer: PeerKey, own: Meeting, theirs: Meeting, asked: bool = False) -> None:
        """Call the peer where the relay sees it, if it can be called there; or both call at once, if both have NATs
        that let calls meet. (If only we can be called, the peer does so.) Who asked begins the handshake.
        """
        relay, host, port = self._seen_by_relay.get(peer, (b"", "", 0))
        way = self._network.path(relay)
        if peer in self._meeting or not host or way is None or not is_callable(host):
            return
        local_port, outbound = 0, True
        if theirs.open_port:
            port = theirs.open_port
        elif own.punchable and theirs.punchable and way.outbound and port:
            local_port, outbound = way.local_port, asked
        else:
            return
        self._meeting.add(peer)
        try:
            await self._network.punch(peer, host, port, local_port=local_port, outbound=outbound)
            self._counters["met"] += 1
        except DepinError as error:
            self._counters["not_met"] += 1
            log.debug("did not meet", peer=peer_id(peer), reason=str(error))
        finally:
            self._meeting.discard(peer)

    # Life

    async def watch_network(self, events: trio.MemoryReceiveChannel[ConnectionEvent]) -> None:
        """Tell the machine who is connected, as long as the network lasts."""
        self._compare()
        async for event in events:
            match event:
                case Connected(peer):
                    self._came(peer)
                case Disconnected(peer):
                    self._went(peer)
                case EventsLost():
                    self._compare()

    def _compare(self) -> None:
        connected = self._network.peers()
        for peer in self._machine.peers - connected:
            self._went(peer)
        for peer in connected - self._machine.peers:
            self._came(peer)

    def _came(self, peer: PeerKey) -> None:
        path = self._network.path(peer)
        if path is not None and not path.relayed:
            self._settle(peer)
        if path is not None:
            self._handle(machine.Came(peer, self._group(peer, path), not path.relayed, path.outbound))

    def _went(self, peer: PeerKey) -> None:
        self.desk.lost(peer)
        self._handle(machine.Went(peer))

    async def watch_addresses(self) -> None:
        """Tell the machine where we listen, and again when it changes."""
        known: list[str] | None = None
        mapped: tuple[str, int] | None = None
        while True:
            now = self._network.addresses()
            if now != known or mapped != self._mapped:
                changed, known, mapped = known is not None and now != known, now, self._mapped
                self._listens()
                if changed:
                    log.info("our addresses have changed", addresses=now)
                    self._advertise(self.addresses())
            await sleep_to_tick(self._settings.addresses_every_s)

    def _listens(self) -> None:
        own = [parse(address) for address in self._network.addresses()]
        ports = [address.port for address in own]
        if self._mapped is not None:
            ports.insert(0, self._mapped[1])
        hosts = frozenset(address.host for address in own)
        self._handle(machine.Listens(hosts, tuple(dict.fromkeys(ports)), all(map(is_loopback, own))))

    async def keep_mapped(self, mapper: PortMapper) -> None:
        """Have the gateway pass our port on, if we listen at a private address; renew it."""
        while True:
            own = [parse(address) for address in self._network.addresses()]
            private = [address for address in own if address.kind == "ip4" and is_local(address.host)]
            if private:
                self._mapped = await mapper(private[0].host, private[0].port)
                self._listens()
            await trio.sleep(self._settings.map_every_s)

    async def keep_time(self) -> None:
        """Wake the machine when it wants to be woken."""
        while True:
            self._wake = trio.Event()
            wait_s = (self._machine.wake_ns - self._clock().boottime_ns) / SECOND_NS
            with trio.move_on_after(max(0.0, wait_s)):
                await self._wake.wait()
                continue
            self._handle(machine.Tick())


@asynccontextmanager
async def open_reach(
    network: Network,
    *,
    advertise: Callable[[Sequence[str] | None], None],
    settings: ReachSettings | None = None,
    listed: Collection[PeerKey] = (),
    mapper: PortMapper | None = None,
    clock: Callable[[], Now] = system_clock.now,
) -> AsyncIterator[Reach]:
    """Find out how this node can be reached, and help others to, as long as the block runs.

    Args:
        network: open; this serves ``reach/1``, ``relay/1``, ``relayed/1`` and ``punch/1`` on it.
        advertise: told where we can be called, whenever that changes; see ``Mesh.set_addresses``.
        settings: what to serve, and how often to look.
        listed: peers that count as groups of their own.
        mapper: asks the gateway for a port; None: nobody is asked.
        clock: replaced in simulations.
    """
    async with trio.open_nursery() as nursery:
        reach = Reach(network, settings or ReachSettings(), listed, advertise, clock, nursery)
        nursery.start_soon(reach.watch_network, network.connection_events())
        nursery.start_soon(reach.watch_addresses)
        nursery.start_soon(reach.keep_time)
        if mapper is not None:
            nursery.start_soon(reach.keep_mapped, mapper)
        try:
            yield reach
        finally:
            nursery.cancel_scope.cancel()


def _kind(host: str) -> str:
    return "ip6" if ":" in host else "ip4"
