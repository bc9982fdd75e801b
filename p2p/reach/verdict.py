"""Can others call this node, and if not, who relays for it? A machine without I/O.

The flow: of each group of peers that is connected directly one is asked (``Ask``) where it sees us and whether it can
call us back at the port we listen on. What groups say are opinions, one a group, the newest counting: one peer is
never believed alone, since it may lie, sit in our own network, or be behind a firewall of its own. At least ``agree``
groups that reached us, and more than did not, make us *public*, at the hosts where at least ``agree`` of them did; as
many that failed make us *private*. Until then the verdict is *unknown*. A node that listens on loopback only is
*local*, and asks nobody.

The kind of NAT follows from what different groups see of calls that left from one local port: always the same outer
endpoint (*endpoint-independent*: holes can be punched), or another one for each (*address-dependent*: they cannot).

A node that is private, or that so far only failed to be called, looks for relays: it asks peers that it has dialled for
a place (``Reserve``), ``relays_wanted`` of them in different groups, and renews each at half of its time.
"""

from collections import Counter, OrderedDict
from collections.abc import Hashable
from dataclasses import dataclass, replace
from enum import Enum
from typing import TypeAlias

from depin_node.core.clock import SECOND_NS, Now
from depin_node.p2p.reach.messages import Answer, Outcome
from depin_node.p2p.reach.ways import is_local

OPINIONS_MAX = 32
Endpoint: TypeAlias = tuple[str, int]


class Verdict(Enum):
    """Whether others can call this node."""

    LOCAL = "local"
    """It listens on loopback: only nodes of this machine can."""
    UNKNOWN = "unknown"
    PUBLIC = "public"
    PRIVATE = "private"


class Nat(Enum):
    """What lies between this node and its peers, as far as they tell."""

    UNKNOWN = "unknown"
    NONE = "none"
    ENDPOINT_INDEPENDENT = "endpoint-independent"
    ADDRESS_DEPENDENT = "address-dependent"


@dataclass(frozen=True)
class ReachConfig:
    """How a node finds out."""

    agree: int = 2
    """Groups that must say the same."""
    ask_every_s: float = 1.0
    """Between two questions."""
    asking_max: int = 3
    """Questions under way at once: a call back that fails takes its time."""
    unhelpful_s: float = 30.0
    """Before a peer that did not answer is asked again."""
    ask_again_s: float = 300.0
    """An opinion older than this is asked for again, and one older than three times this is forgotten."""
    relays_wanted: int = 2
    relay_pause_s: float = 30.0
    """Before a peer that gave no place is asked again."""


# What happens


@dataclass(frozen=True)
class Listens:
    """Where we listen. ``ports`` are those to be called at; ``hosts`` our interfaces' addresses; both may change."""

    hosts: frozenset[str]
    ports: tuple[int, ...]
    is_local: bool


@dataclass(frozen=True)
class Came:
    """A connection to ``peer`` stands; ``direct``: without a relay; ``dialled``: by us."""

    peer: bytes
    group: Hashable
    direct: bool
    dialled: bool


@dataclass(frozen=True)
class Went:
    """The last connection to ``peer`` is gone."""

    peer: bytes


@dataclass(frozen=True)
class Seen:
    """``peer`` answered. ``asked`` is the port it was to call; ``local_port`` the one our call to it left from."""

    peer: bytes
    answer: Answer
    asked: int
    local_port: int


@dataclass(frozen=True)
class Unseen:
    """``peer`` did not answer, or refused."""

    peer: bytes


@dataclass(frozen=True)
class Placed:
    """``peer`` keeps a place for us, for ``lasts_s``."""

    peer: bytes
    lasts_s: float


@dataclass(frozen=True)
class NotPlaced:
    """``peer`` gave no place."""

    peer: bytes


@dataclass(frozen=True)
class Tick:
    """``wake_ns`` has come."""


Event: TypeAlias = Listens | Came | Went | Seen | Unseen | Placed | NotPlaced | Tick

# What is to be done


@dataclass(frozen=True)
class Ask:
    """Ask ``peer`` where it sees us, and to call ``port``; report by ``Seen`` or ``Unseen``."""

    peer: bytes
    port: int


@dataclass(frozen=True)
class Reserve:
    """Ask ``peer`` for a place; report by ``Placed`` or ``NotPlaced``."""

    peer: bytes


@dataclass(frozen=True)
class Changed:
    """``Reachability.view`` is another now."""


Effect: TypeAlias = Ask | Reserve | Changed


@dataclass(frozen=True)
class View:
    """What is known. ``external``: endpoints at which peers reached us through a NAT; ``mapped``: where peers see the
    calls that leave from ``mapped_from``, if that is the same for all; ``reached`` and ``missed``: how many groups
    could call us, and how many could not. ``skew_s``: how far the clock of the middle one of those groups is ahead of
    ours; None: no one told.
    """

    verdict: Verdict = Verdict.UNKNOWN
    nat: Nat = Nat.UNKNOWN
    external: tuple[Endpoint, ...] = ()
    mapped: Endpoint | None = None
    mapped_from: int = 0
    relays: tuple[bytes, ...] = ()
    reached: int = 0
    missed: int = 0
    skew_s: int | None = None


@dataclass(frozen=True)
class _Peer:
    group: Hashable
    direct: bool
    dialled: bool


@dataclass(frozen=True)
class _Opinion:
    answer: Answer
    asked: int
    local_port: int
    at_ns: int
    skew_s: int


@dataclass(frozen=True)
class _Place:
    renew_ns: int
    ends_ns: int


class Reachability:
    """The machine. Call ``handle`` with what happens, and with a ``Tick`` when ``wake_ns`` has come."""

    def __init__(self, config: ReachConfig, now: Now) -> None:
        self.config = config
        self._listens = Listens(frozenset(), (), is_local=False)
        self._peers: dict[bytes, _Peer] = {}
        self._opinions: OrderedDict[Hashable, _Opinion] = OrderedDict()
        self._asking: set[bytes] = set()
        self._unhelpful: dict[bytes, int] = {}
        self._reserving: set[bytes] = set()
        self._places: dict[bytes, _Place] = {}
        self._no_place_until: dict[bytes, int] = {}
        self._ask_ns = now.boottime_ns
        self._view = View()

    @property
    def view(self) -> View:
        """What is known now."""
        return self._view

    @property
    def peers(self) -> frozenset[bytes]:
        """Who is connected, as far as it was told."""
        return frozenset(self._peers)

    @property
    def wake_ns(self) -> int:
        """When (boot clock) the next ``Tick`` is due."""
        return self._ask_ns

    def handle(self, event: Event, now: Now) -> list[Effect]:
        """Take one event; return what is to be done."""
        match event:
            case Listens():
                if event != self._listens:
                    self._listens = event
                    self._opinions.clear()
                    self._unhelpful.clear()
                    self._ask_ns = now.boottime_ns
            case Came(peer, group, direct, dialled):
                self._peers[peer] = _Peer(group, direct, dialled)
                self._ask_ns = min(self._ask_ns, now.boottime_ns + SECOND_NS // 10)
            case Went(peer):
                self._forget(peer)
            case Seen():
                self._seen(event, now)
            case Unseen(peer):
                self._asking.discard(peer)
                if peer in self._peers:
                    self._unhelpful[peer] = now.boottime_ns + int(self.config.unhelpful_s * SECOND_NS)
            case Placed(peer, lasts_s):
                self._reserving.discard(peer)
                if peer in self._peers:
                    ns = now.boottime_ns
                    self._places[peer] = _Place(ns + int(lasts_s * SECOND_NS / 2), ns + int(lasts_s * SECOND_NS))
            case NotPlaced(peer):
                self._reserving.discard(peer)
                self._places.pop(peer, None)
                if peer in self._peers:
                    self._no_place_until[peer] = now.boottime_ns + int(self.config.relay_pause_s * SECOND_NS)
                    self._ask_ns = min(self._ask_ns, now.boottime_ns + SECOND_NS // 10)
            case Tick():
                return [*self._tick(now), *self._look(now)]
        return self._look(now)

    def _forget(self, peer: bytes) -> None:
        self._peers.pop(peer, None)
        self._places.pop(peer, None)
        self._reserving.discard(peer)
        self._no_place_until.pop(peer, None)
        self._unhelpful.pop(peer, None)
        self._asking.discard(peer)

    def _seen(self, event: Seen, now: Now) -> None:
        self._asking.discard(event.peer)
        peer = self._peers.get(event.peer)
        if peer is None:
            return
        if not event.answer.host:
            self._unhelpful[event.peer] = now.boottime_ns + int(self.config.unhelpful_s * SECOND_NS)
            return
        self._opinions[peer.group] = _Opinion(
            event.answer, event.asked, event.local_port, now.boottime_ns, event.answer.wall_s - now.wall_ns // SECOND_NS
        )
        self._opinions.move_to_end(peer.group)
        if len(self._opinions) > OPINIONS_MAX:
            self._opinions.popitem(last=False)
        if self._view.verdict is Verdict.UNKNOWN:
            self._ask_ns = min(self._ask_ns, now.boottime_ns + SECOND_NS // 10)

    # Asking

    def _tick(self, now: Now) -> list[Effect]:
        ns = now.boottime_ns
        self._ask_ns = ns + int(self.config.ask_every_s * SECOND_NS)
        old_ns = ns - int(3 * self.config.ask_again_s * SECOND_NS)
        for group in [group for group, opinion in self._opinions.items() if opinion.at_ns < old_ns]:
            del self._opinions[group]
        for book in (self._unhelpful, self._no_place_until):
            for peer in [peer for peer, until_ns in book.items() if until_ns <= ns]:
                del book[peer]
        if self._listens.is_local or not self._listens.ports:
            self._ask_ns = ns + int(self.config.ask_again_s * SECOND_NS)
            return []
        return [*self._ask(ns), *self._seek(ns)]

    def _ask(self, ns: int) -> list[Effect]:
        if len(self._asking) >= self.config.asking_max:
            return []
        fresh_ns = ns - int(self.config.ask_again_s * SECOND_NS)
        known = {group for group, opinion in self._opinions.items() if opinion.at_ns > fresh_ns}
        known |= {self._peers[peer].group for peer in self._asking}
        for peer, about in self._peers.items():
            if about.direct and about.group not in known and peer not in self._unhelpful:
                self._asking.add(peer)
                return [Ask(peer, self._listens.ports[0])]
        return []

    def _seek(self, ns: int) -> list[Effect]:
        """Ask for places at relays while they are needed; renew those held."""
        for peer in [peer for peer, place in self._places.items() if place.ends_ns <= ns]:
            del self._places[peer]
        if not self._needs_relays():
            return []
        renewed = [peer for peer, place in self._places.items() if place.renew_ns <= ns and peer not in self._reserving]
        held = {self._peers[peer].group for peer in (*self._places, *self._reserving) if peer in self._peers}
        asked: list[bytes] = []
        for peer, about in self._peers.items():
            if len(self._places) + len(self._reserving) + len(asked) >= self.config.relays_wanted:
                break
            if about.direct and about.dialled and about.group not in held and peer not in self._no_place_until:
                held.add(about.group)
                asked.append(peer)
        self._reserving.update(renewed, asked)
        return [Reserve(peer) for peer in (*renewed, *asked)]

    def _needs_relays(self) -> bool:
        """Whether somebody has tried to reach us, and nobody has: of those beyond a NAT, if there are any, since a
        neighbour inside is of no help to those outside.
        """
        if self._view.verdict is not Verdict.UNKNOWN:
            return self._view.verdict is Verdict.PRIVATE
        tried = Counter(opinion.answer.outcome for opinion in self._beyond() or self._opinions.values())
        return tried[Outcome.NOT_REACHED] > tried[Outcome.REACHED]

    # Judging

    def _look(self, now: Now) -> list[Effect]:
        """Form the view anew."""
        before, self._view = self._view, self._judge()
        return [Changed()] if self._view != before else []

    def _judge(self) -> View:
        relays = tuple(self._places)
        if self._listens.is_local:
            return View(Verdict.LOCAL, Nat.NONE)
        opinions = self._outside()
        reached = Counter(
            (opinion.answer.host, opinion.asked) for opinion in opinions if opinion.answer.outcome is Outcome.REACHED
        )
        missed = sum(opinion.answer.outcome is Outcome.NOT_REACHED for opinion in opinions)
        agree = self.config.agree
        endpoints = tuple(sorted(endpoint for endpoint, groups in reached.items() if groups >= agree))
        verdict = Verdict.UNKNOWN
        if self._is_hidden(opinions) or (missed >= agree and missed >= reached.total()):
            verdict = Verdict.PRIVATE
        elif endpoints and reached.total() > missed:
            verdict = Verdict.PUBLIC
        external = tuple(endpoint for endpoint in endpoints if endpoint[0] not in self._listens.hosts)
        view = View(verdict, external=external if verdict is Verdict.PUBLIC else (), reached=reached.total())
        nat, mapped, mapped_from = self._nat(opinions)
        # what relays are for ends when others can call us
        held = relays if verdict is not Verdict.PUBLIC else ()
        return replace(
            view, missed=missed, nat=nat, mapped=mapped, mapped_from=mapped_from, relays=held, skew_s=self._skew_s()
        )

    def _is_hidden(self, opinions: list[_Opinion]) -> bool:
        """Whether we cannot be called by IPv4, which many have nothing but, whatever those say that have IPv6."""
        if not any(":" not in host and is_local(host) for host in self._listens.hosts):
            return False
        told = Counter(opinion.answer.outcome for opinion in opinions if ":" not in opinion.answer.host)
        missed = told[Outcome.NOT_REACHED]
        return missed >= self.config.agree and missed >= told[Outcome.REACHED]

    def _skew_s(self) -> int | None:
        told = sorted(opinion.skew_s for opinion in self._opinions.values())
        return told[len(told) // 2] if told else None

    def _outside(self) -> list[_Opinion]:
        """Return the opinions of peers that are not inside with us, if at least two of them see us at one host; else
        all: a peer on our own side of a NAT reaches us whatever lies beyond.
        """
        beyond = self._beyond()
        hosts = Counter(opinion.answer.host for opinion in beyond)
        inside = len(self._opinions) - len(beyond)
        return beyond if beyond and (max(hosts.values()) >= 2 or not inside) else list(self._opinions.values())

    def _beyond(self) -> list[_Opinion]:
        """Return the opinions of peers that may be beyond a NAT: all but of those that see us at a private address of
        our own. At a public one everybody would.
        """
        hosts = self._listens.hosts
        return [o for o in self._opinions.values() if not (o.answer.host in hosts and is_local(o.answer.host))]

    def _nat(self, opinions: list[_Opinion]) -> tuple[Nat, Endpoint | None, int]:
        if not opinions:
            return Nat.UNKNOWN, None, 0
        if all(opinion.answer.host in self._listens.hosts for opinion in opinions):
            return Nat.NONE, None, 0
        calls = [o for o in opinions if o.answer.called and o.local_port and o.answer.host not in self._listens.hosts]
        if not calls:
            return Nat.UNKNOWN, None, 0
        port, count = Counter(call.local_port for call in calls).most_common(1)[0]
        if count < 2:
            return Nat.UNKNOWN, None, 0
        seen = Counter((call.answer.host, call.answer.port) for call in calls if call.local_port == port)
        endpoint, groups = seen.most_common(1)[0]
        if groups >= 2 and 2 * groups > count:
            return Nat.ENDPOINT_INDEPENDENT, endpoint, port
        return Nat.ADDRESS_DEPENDENT, None, 0
