"""The mesh as the rest of the node uses it: who is there, what they offer, and a connection to each.

This is the trio shell of ``Discovery``: it feeds the machine with what the network and the clock tell, and carries out
its effects. Gossip and requests are handled as they come; dials and questions to peers run in tasks of their own, each
under a deadline and each bounded by the machine or by the number of neighbours.
"""

import itertools
import os
import random
from collections import Counter, OrderedDict
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from typing import TypeVar

import structlog
import trio

from depin_node.core import clock as system_clock
from depin_node.core.clock import SECOND_NS, Now
from depin_node.core.errors import ConfigError, DepinError, PeerViolation, ResourceError, TransportError
from depin_node.core.wire import Message
from depin_node.crypto.identity import Identity
from depin_node.crypto.ownership import Owners
from depin_node.p2p.addresses import Address, parse, peer_id
from depin_node.p2p.advert import Advert, DeviceOffer, Offer, sign_advert
from depin_node.p2p.choosing import REMEMBERED_MAX
from depin_node.p2p.directory import Directory, DirectoryLimits, Entry, Need
from depin_node.p2p.discovery import Discovery
from depin_node.p2p.discovery_events import (
    Announce,
    AskPeers,
    Blame,
    CatchUp,
    Changed,
    Dial,
    DialEnded,
    Disconnect,
    Effect,
    Event,
    Find,
    Follow,
    Forward,
    Gossiped,
    PeerConnected,
    PeerLost,
    Search,
    SearchEnded,
    Sighted,
    Spread,
    Tell,
    Tick,
)
from depin_node.p2p.groups import is_loopback
from depin_node.p2p.mesh_config import MeshConfig
from depin_node.p2p.mesh_questions import Answering, Asking
from depin_node.p2p.network import Connected, ConnectionEvent, Disconnected, EventsLost, Network, PeerKey, Verdict
from depin_node.p2p.shards import capabilities_of, capability_of

A = TypeVar("A")
M = TypeVar("M", bound=Message)

log = structlog.get_logger("depin_node.p2p")

_WATCHERS_MAX = 64
_WATCH_QUEUE_MAX = 256
_FAILURES_MAX = 32
_LEAVE_TIMEOUT_S = 1.0
_LEAVE_TELLS_MAX = 8
_SEARCH_EVERY_S = 20.0
_SEARCH_COUNT = 32
_NEEDS_MAX = 32


@dataclass
class _Dialling:
    """A dial under way, and how it ended."""

    peer: PeerKey
    addresses: Sequence[str]
    ended: trio.Event = field(default_factory=trio.Event)
    error: str | None = None  # a dial that is cancelled has not failed

    def check(self, wanted: Sequence[str]) -> None:
        """Raise ``TransportError`` if it failed, and what is ``wanted`` has been tried with it."""
        if self.error is not None and set(wanted) <= set(self.addresses):
            raise TransportError(f"{peer_id(self.peer)} cannot be reached: {self.error}")


class Mesh:
    """One node's place in the mesh; ``open_mesh`` makes it."""

    def __init__(
        self,
        network: Network,
        identity: Identity,
        discovery: Discovery,
        offer: Offer,
        nursery: trio.Nursery,
        clock: Callable[[], Now],
        rng: random.Random,
    ) -> None:
        self.network = network
        self.directory = discovery.directory
        self.dial: Callable[[str], Awaitable[PeerKey]] = network.dial
        """How one address is dialled; ``reach`` adds those of relays."""
        self.best_first: Callable[[Sequence[str]], Sequence[str]] = lambda addresses: addresses
        """In which order a peer's addresses are dialled."""
        self.ready = trio.Event()
        """Set when the directory holds the first other peer."""
        self._identity = identity
        self._discovery = discovery
        self._offer = offer
        self._nursery = nursery
        self._clock = clock
        self._addresses: tuple[str, ...] | None = None
        self._told: tuple[str, ...] = ()
        self._wake = trio.Event()
        self._sleeps_until_ns = 0
        self._is_open = True
        self._advert = b""
        self._seq = 0
        self._dials: dict[PeerKey, _Dialling] = {}
        self._in_use: Counter[PeerKey] = Counter()
        self._failures: OrderedDict[PeerKey, str] = OrderedDict()
        self._watchers: list[trio.MemorySendChannel[Tell]] = []
        self._topics: frozenset[str] = frozenset()
        self._numbers = itertools.count(1)
        self._searches: dict[int, tuple[trio.Event, list[PeerKey]]] = {}
        self._searched_ns: OrderedDict[Need, int] = OrderedDict()
        self._counters: Counter[str] = Counter()
        self._asking = Asking(network, discovery, lambda: self._advert, self._handle, self.report, clock, rng)
        discovery.kept = lambda peer: self._in_use[peer] > 0

    # What the node asks and tells

    @property
    def offer(self) -> Offer:
        """What this node advertises."""
        return self._offer

    def set_offer(self, devices: Sequence[DeviceOffer], *, lending: bool, price: int = 0) -> None:
        """Change what this node advertises; the mesh hears of it within seconds.

        Raises:
            ConfigError: more than fits into an advert.
        """
        offer = Offer(lending, tuple(devices), price, self._offer.software)
        if offer != self._offer:
            now, shown = self._clock(), self.owners.certificate
            sign_advert(
                self._identity, self.network.network_id, offer, (), seq=0, now=now, lifetime_s=60, certificate=shown
            )
            self._offer = offer
            self._handle(Changed())

    def candidates(
        self, need: Need, count: int, rng: random.Random, *, exclude: Collection[PeerKey] = ()
    ) -> list[Entry]:
        """Draw peers for work; see ``Directory.candidates``.

        In a mesh of several shards only some of them are known here: asking starts a search beyond, now and then.
        """
        now = self._clock()
        self.directory.expire(now)
        self._search_beyond(need, now)
        return self.directory.candidates(need, count, rng, exclude=exclude)

    async def find(self, need: Need, count: int) -> list[Entry]:
        """Return at most ``count`` peers that suit and answer, drawn uniformly over groups from the whole mesh; all are
        connected. Takes at most some 15 s.
        """
        number, ended, peers = next(self._numbers), trio.Event(), list[PeerKey]()
        self._searches[number] = (ended, peers)
        try:
            self._handle(Search(number, need, count))
            if self._is_open:
                await ended.wait()  # the machine has a deadline, and the mesh may close
        finally:
            del self._searches[number]
        entries = (self.directory.get(peer) for peer in peers)
        return [entry for entry in entries if entry is not None and entry.is_connected]

    def _search_beyond(self, need: Need, now: Now) -> None:
        bits = max((self._discovery.sharding.own(capability_of(name)).bits for name in need.device_classes), default=0)
        due_ns = self._searched_ns.get(need, 0)
        if not bits or now.boottime_ns < due_ns:
            return
        self._searched_ns[need] = now.boottime_ns + int(_SEARCH_EVERY_S * SECOND_NS)
        self._searched_ns.move_to_end(need)
        if len(self._searched_ns) > _NEEDS_MAX:
            self._searched_ns.popitem(last=False)
        self._handle(Search(next(self._numbers), need, _SEARCH_COUNT))

    def set_addresses(self, addresses: Sequence[str] | None) -> None:
        """Advertise these addresses instead of those we listen on: what was found to be reachable, or a relay's.

        Args:
            addresses: multiaddrs that end in ``/p2p/<our id>``, best first; None: what we listen on.
        """
        self._addresses = None if addresses is None else tuple(addresses)
        if (shown := self._shown()) != self._told:
            self._told = shown
            self._handle(Changed())

    @property
    def owners(self) -> Owners:
        """What is known of owners: ours, and what each has revoked."""
        return self.directory.owners

    def is_fellow(self, peer: PeerKey) -> bool:
        """Tell whether ``peer`` is certified by our own owner, and both certificates hold now."""
        return self.directory.is_fellow(peer, self._clock())

    def revoke(self, data: bytes) -> bool:
        """Take a list of revocations from our operator; return whether it is news. Fellows will ask for it.

        Raises:
            PeerViolation: not a valid list.
        """
        return self.directory.revoked(data, self._clock()) is not None

    async def connect(self, peer: PeerKey) -> None:
        """Connect to a peer of the directory, unless it is connected.

        Raises:
            TransportError: none of its addresses answered, or none is known; tells each reason.
        """
        await trio.lowlevel.checkpoint()
        if peer in self.network.peers():
            return
        addresses = self._discovery.dialable(peer, self._clock())
        if not addresses and peer in self._failures:
            raise TransportError(f"{peer_id(peer)} was dialled in vain lately, try again later: {self._failures[peer]}")
        await self._dial(peer, addresses)

    @contextmanager
    def in_use(self, peer: PeerKey) -> Iterator[None]:
        """Keep the connection to ``peer`` from being dropped to make room, as long as the block runs."""
        self._in_use[peer] += 1
        try:
            yield
        finally:
            self._in_use[peer] -= 1
            if not self._in_use[peer]:
                del self._in_use[peer]

    def report(self, peer: PeerKey, violation: PeerViolation) -> None:
        """Count a violation of any protocol against ``peer``; enough of them disconnect it and keep it out."""
        self._blame(peer, str(violation))

    def sighted(self, address: Address) -> None:
        """Take an address that was heard on a network of this machine (``lan``)."""
        self._handle(Sighted(address))

    def remembered(self) -> list[str]:
        """Return addresses to join by next time, best first, at most 64."""
        return self._discovery.remembered()

    def failures(self) -> Mapping[str, str]:
        """Return why dials failed lately, by peer id, oldest first: what to show when nobody is connected."""
        return {peer_id(peer): reason for peer, reason in self._failures.items()}

    def counters(self) -> Mapping[str, int]:
        """Return how often each kind of ``Tell`` happened."""
        return dict(self._counters)

    def watch(self) -> trio.MemoryReceiveChannel[Tell]:
        """Return a new channel of what happens from now on; it ends with the mesh. A reader that falls
        ``_WATCH_QUEUE_MAX`` behind misses the newest.

        Raises:
            ResourceError: too many watch already.
        """
        self._watchers = [watcher for watcher in self._watchers if watcher.statistics().open_receive_channels]
        if len(self._watchers) >= _WATCHERS_MAX:
            raise ResourceError(f"{_WATCHERS_MAX} readers watch the mesh already: close one")
        send, receive = trio.open_memory_channel[Tell](_WATCH_QUEUE_MAX)
        self._watchers.append(send)
        return receive

    # The machine and its effects

    def _handle(self, event: Event) -> Verdict:
        """Feed the machine; return what is to become of the advert, if it was one that came by gossip."""
        if not self._is_open:
            return Verdict.IGNORE
        effects = self._discovery.handle(event, self._clock())
        if self._discovery.wake_ns < self._sleeps_until_ns:
            self._wake.set()
        if not self.ready.is_set() and self.directory.peers():
            self.ready.set()
        for effect in effects:
            self._carry_out(effect)
        if Forward() in effects:
            return Verdict.ACCEPT
        broken = any(isinstance(effect, Blame) for effect in effects)
        return Verdict.REJECT if broken else Verdict.IGNORE

    def _carry_out(self, effect: Effect) -> None:
        start = self._nursery.start_soon
        match effect:
            case Dial(peer, addresses):
                start(self._dial_quietly, peer, addresses)
            case AskPeers(peer):
                start(self._asking.peers, peer)
            case CatchUp(peer):
                start(self._asking.catch_up, peer)
            case Find(peer, search, question):
                start(self._asking.find, peer, search, question)
            case SearchEnded(number, peers):
                if number in self._searches:
                    ended, found = self._searches[number]
                    found.extend(peers)
                    ended.set()
            case Follow(topics):
                self._follow(topics)
            case Announce():
                self._sign()
                start(self._publish, self._own_adverts())
            case Spread(adverts):
                start(partial(self._publish, adverts, by_id=True))
            case Disconnect(peer):
                start(self.network.disconnect, peer)
            case Blame(peer, reason):
                self._blame(peer, reason)
            case Tell():
                self._tell(effect)
            case Forward():
                pass  # the answer to gossip, see _handle

    def _blame(self, peer: PeerKey, reason: str) -> None:
        self._tell(Tell("violated", peer, reason))
        self.network.report(peer, reason)

    def _tell(self, tell: Tell) -> None:
        self._counters[tell.what] += 1
        if tell.what == "undialled":
            self._failures[tell.peer] = tell.detail
            self._failures.move_to_end(tell.peer)
            if len(self._failures) > _FAILURES_MAX:
                self._failures.popitem(last=False)
        elif tell.what in ("joined", "connected"):
            self._failures.pop(tell.peer, None)
        level = "warning" if tell.what in ("violated", "alone") else "debug"
        getattr(log, level)(tell.what, peer=peer_id(tell.peer), detail=tell.detail)
        for watcher in self._watchers:
            try:
                watcher.send_nowait(tell)
            except (trio.WouldBlock, trio.BrokenResourceError):
                continue

    def _shown(self) -> tuple[str, ...]:
        return tuple(self.network.addresses()) if self._addresses is None else self._addresses

    def _sign(self, *, leaving: bool = False) -> None:
        now = self._clock()
        own = self.directory.get(self._identity.key)
        lifetime_s = self._discovery.config.advert_lifetime_s(self._discovery.nodes_in_topic)
        if leaving and own is not None:  # it has to outlive every advert of ours that is still about
            left_s = own.advert.expires_s - now.wall_ns // SECOND_NS  # more than any has, if the clock was set back
            lifetime_s = min(max(lifetime_s, left_s), Advert.LIFETIME_S_MAX)
        self._told = self._shown()
        self.directory.dials_loopback = all(is_loopback(parse(address)) for address in self.network.addresses())
        self._seq = max(self._seq + 1, now.wall_ns // 1000, self.directory.own_seq_seen + 1)
        self._advert = sign_advert(
            self._identity,
            self.network.network_id,
            self._offer,
            self._told,
            seq=self._seq,
            now=now,
            lifetime_s=lifetime_s,
            leaving=leaving,
            certificate=self.owners.shown(now),
        )
        self.directory.keep_own(self._advert, now)

    def _own_adverts(self) -> list[tuple[str, bytes]]:
        lent = capabilities_of(self._offer.lending, self._offer.devices)
        return [(topic, self._advert) for topic in self._discovery.topics_published(lent)]

    async def _publish(self, adverts: Iterable[tuple[str, bytes]], *, by_id: bool = False) -> None:
        for topic, data in adverts:
            try:
                await self.network.publish(topic, data, by_id=by_id)
            except TransportError as error:
                log.debug("advert not gossiped", topic=topic, reason=str(error))

    def _follow(self, topics: frozenset[str]) -> None:
        for topic in topics - self._topics:
            self.network.subscribe(topic, self._on_gossip)
        for topic in self._topics - topics:
            self._nursery.start_soon(self.network.unsubscribe, topic)
        self._topics = topics

    async def _dial_quietly(self, peer: PeerKey, addresses: Sequence[str]) -> None:
        with suppress(TransportError):  # the machine was told
            await self._dial(peer, addresses)

    async def _dial(self, peer: PeerKey, addresses: Sequence[str]) -> None:
        """Dial the addresses in turn. Of several tasks that want the same peer at the same addresses one dials, and all
        have its outcome."""
        while (dial := self._dials.get(peer)) is not None:
            await dial.ended.wait()
            dial.check(addresses)
        if peer in self.network.peers():
            self._handle(DialEnded(peer, None))
            return
        self._dials[peer] = dial = _Dialling(peer, addresses)
        try:
            dial.error = await self._dial_each(peer, addresses)
        finally:
            del self._dials[peer]
            dial.ended.set()
            self._handle(DialEnded(peer, dial.error))
        dial.check(addresses)

    async def _dial_each(self, peer: PeerKey, addresses: Sequence[str]) -> str | None:
        reasons: list[str] = []
        for address in self.best_first(addresses):
            try:
                await self.dial(address)
                return None
            except DepinError as failure:
                reasons.append(str(failure))
            if peer in self.network.peers():  # it called while we dialled
                return None
        return "; ".join(reasons) or "no address of it is known"

    async def _on_gossip(self, peer: PeerKey, data: bytes) -> Verdict:
        return self._handle(Gossiped(peer, data))

    # Life

    async def _watch_network(self, events: trio.MemoryReceiveChannel[ConnectionEvent]) -> None:
        self._compare_with_network()  # who was connected before we listened
        async for event in events:
            match event:
                case Connected(peer, address, outbound):
                    self._handle(PeerConnected(peer, address, outbound))
                case Disconnected(peer):
                    self._handle(PeerLost(peer))
                case EventsLost():
                    self._compare_with_network()

    def _compare_with_network(self) -> None:
        connected, believed = self.network.peers(), frozenset(self._discovery.neighbours)
        for peer in connected - believed:
            self._handle(PeerConnected(peer, "", outbound=False))
        for peer in believed - connected:
            self._handle(PeerLost(peer))

    async def _keep_time(self) -> None:
        while True:
            self._wake = trio.Event()
            self._sleeps_until_ns = self._discovery.wake_ns
            wait_s = (self._sleeps_until_ns - self._clock().boottime_ns) / SECOND_NS
            with trio.move_on_after(max(0.0, wait_s)):
                await self._wake.wait()
                continue  # the machine wants to wake sooner now
            self._handle(Tick())

    async def _leave(self) -> None:
        """Say goodbye: by gossip, and to some neighbours directly, since gossip needs the connections to last."""
        self._is_open = False
        for watcher in self._watchers:
            watcher.close()
        for ended, _ in self._searches.values():
            ended.set()
        with trio.move_on_after(_LEAVE_TIMEOUT_S) as scope:
            scope.shield = True
            self._sign(leaving=True)
            await self._publish(self._own_adverts())
            async with trio.open_nursery() as nursery:
                for peer in list(self.network.peers())[:_LEAVE_TELLS_MAX]:
                    nursery.start_soon(self._asking.introduce, peer)


@asynccontextmanager
async def open_mesh(
    network: Network,
    identity: Identity,
    *,
    first_peers: Iterable[str] = (),
    remembered: Iterable[str] = (),
    offer: Offer | None = None,
    config: MeshConfig | None = None,
    limits: DirectoryLimits | None = None,
    listed: Collection[PeerKey] = (),
    owners: Owners | None = None,
    clock: Callable[[], Now] = system_clock.now,
    rng: random.Random | None = None,
) -> AsyncIterator[Mesh]:
    """Take part in the mesh as long as the block runs; on the way out tell peers that this node leaves.

    Args:
        network: open; this serves ``directory/2``, ``peers/1``, ``find/1`` and ``owners/1`` on it and subscribes to the
            topics of adverts.
        identity: that of ``network``.
        first_peers: addresses to join by.
        remembered: what ``Mesh.remembered`` returned when the node last ran; those that are damaged are left out.
        offer: what to advertise at first.
        config: intervals and bounds.
        limits: bounds of the directory.
        listed: peers that count as a group of their own, by word of the operator.
        owners: our owner's certificate, and what owners have revoked.
        clock: replaced in simulations.
        rng: replaced in simulations; seeded from the operating system otherwise.

    Raises:
        ConfigError: a first peer is not an address.
    """
    directory = Directory(
        network.network_id,
        identity.key,
        limits=limits,
        listed=listed,
        owners=owners,
    )
    rng = rng or random.Random(os.urandom(32))  # noqa: S311 - spreads load, decides no trust
    discovery = Discovery(
        directory,
        config or MeshConfig(),
        rng,
        first_peers=[parse(address) for address in first_peers],
        remembered=_readable(remembered),
        now=clock(),
    )
    async with trio.open_nursery() as nursery:
        mesh = Mesh(network, identity, discovery, offer or Offer(), nursery, clock, rng)
        mesh._sign()
        mesh._follow(discovery.sharding.topics())
        Answering(discovery, mesh._handle, mesh.report, clock).serve(network)
        nursery.start_soon(mesh._watch_network, network.connection_events())
        nursery.start_soon(mesh._keep_time)
        try:
            yield mesh
        finally:
            await mesh._leave()
            nursery.cancel_scope.cancel()


def _readable(addresses: Iterable[str]) -> list[Address]:
    """Return those that are addresses: the list may be of another version of this software, or damaged."""
    readable = []
    for text in itertools.islice(addresses, REMEMBERED_MAX):
        try:
            readable.append(parse(text))
        except ConfigError:
            log.warning("a remembered address is damaged", address=text[:100])
    return readable
