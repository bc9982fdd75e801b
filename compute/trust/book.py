"""The local book on peers: who was proven to lie, whose answers were found right, and who is there when needed.

Honesty and availability are kept apart, and both for each peer and *device class*: a node with a good processor may
have a bad GPU. One proven lie (``caught``) bans for good. Answers that were found right (``verified``) make an
*established* peer of a newcomer, but only if somebody established stood behind the finding: our own device, a listed
peer, an algebraic check, a peer that is established itself. Newcomers that agree with each other earn nothing by it,
or a hundred fresh identities of one owner would vouch for each other. Availability is the mean of a Beta distribution
over answers that came and attempts that ended without one, forgetting with time (Jøsang and Ismail, *The Beta
Reputation System*, 2002); it never costs trust.

All of it is our own experience: no praise of others is taken. Their evidence is, once we have verified it
(``evidence.py``). Time is the boot clock while we run; across a restart the wall clock bridges the gap.
"""

from collections import OrderedDict
from collections.abc import Collection, Iterable
from dataclasses import dataclass

from depin_node.core.clock import SECOND_NS, Now

ESTABLISHED_ANSWERS = 8
"""So many answers found right make a peer established. No bound rests on it: a patient liar passes any such number, and
is held by secret audits (docs/verification.md); it makes fresh identities cost work, and honest ones not much."""
HALF_LIFE_S = 7 * 86_400
"""What a peer did a week ago counts half as much for its availability."""
WEIGHT_MAX = 256.0
"""Observations that availability rests on, at most: a peer that fails from now on is seen to within a few hundred
attempts, however many it answered before."""
FORGOTTEN_S_MAX = 90 * 86_400
"""The longest gap between two runs that is believed of the wall clock; all is faded by then."""
KNOWN_MAX = 8192
"""Pairs of peer and device class that are remembered; the one unused for longest goes first. Bans never go."""
UNKNOWN_AVAILABILITY = 0.5
"""Of who was never observed."""
EVERY_CLASS = ""
"""For what happened before there was a device class: a peer that cannot be reached, for example."""


@dataclass(frozen=True)
class Standing:
    """What we think of a peer on a device class.

    ``verified`` counts answers found right with somebody established behind the finding; ``availability`` is in
    [0, 1], 0.5 where nothing is known, and rests on ``observed`` attempts, the older ones counting less.
    """

    is_newcomer: bool
    verified: int
    availability: float
    observed: float


@dataclass(frozen=True)
class Row:
    """What the journal keeps of one pair; ``at_s`` is wall time."""

    peer: bytes
    device_class: str
    verified: int
    answered: float
    failed: float
    at_s: int


class _Record:
    __slots__ = ("answered", "at_ns", "failed", "verified")

    def __init__(self, verified: int, answered: float, failed: float, at_ns: int) -> None:
        self.verified = verified
        self.answered = answered
        self.failed = failed
        self.at_ns = at_ns

    def fade(self, at_ns: int) -> float:
        return float(0.5 ** (max(0, at_ns - self.at_ns) / (HALF_LIFE_S * SECOND_NS)))

    def observe(self, answered: int, failed: int, at_ns: int) -> None:
        faded = self.fade(at_ns)
        self.answered = self.answered * faded + answered
        self.failed = self.failed * faded + failed
        self.at_ns = max(at_ns, self.at_ns)
        excess = (self.answered + self.failed) / WEIGHT_MAX
        if excess > 1:
            self.answered /= excess
            self.failed /= excess


class Book:
    """The book. ``banned`` is shared with who must not deal with those peers: the scheduler and the lender."""

    def __init__(
        self,
        banned: dict[bytes, str],
        rows: Iterable[Row] = (),
        *,
        listed: Collection[bytes] = (),
        now: Now | None = None,
    ) -> None:
        """Begin with what the journal has.

        Args:
            banned: why each banned peer is.
            rows: what was counted before.
            listed: peers that the operator trusts: never newcomers, and their agreement counts.
            now: both clocks; needed with ``rows``.
        """
        self.banned: set[bytes] = set(banned)
        self.reasons = dict(banned)
        self._listed = frozenset(listed)
        self._records: OrderedDict[tuple[bytes, str], _Record] = OrderedDict()
        self._changed: dict[tuple[bytes, str], None] = {}
        for row in rows:
            assert now is not None
            gap_s = min(FORGOTTEN_S_MAX, max(0, now.wall_ns // SECOND_NS - row.at_s))
            at_ns = now.boottime_ns - gap_s * SECOND_NS
            self._records[row.peer, row.device_class] = _Record(row.verified, row.answered, row.failed, at_ns)

    def standing(self, peer: bytes, device_class: str, now: Now) -> Standing:
        """Return what we think of a peer on a device class."""
        verified, answered, failed = 0, 0.0, 0.0
        for name in {device_class, EVERY_CLASS}:
            record = self._records.get((peer, name))
            if record is not None:
                faded = record.fade(now.boottime_ns)
                verified += record.verified
                answered += record.answered * faded
                failed += record.failed * faded
        observed = answered + failed
        return Standing(
            is_newcomer=peer not in self._listed and verified < ESTABLISHED_ANSWERS,
            verified=verified,
            availability=(answered + 1) / (observed + 2),
            observed=observed,
        )

    def is_listed(self, peer: bytes) -> bool:
        """Tell whether the operator trusts a peer."""
        return peer in self._listed

    def verified(self, peer: bytes, device_class: str, answers: int, *, by_established: bool, now: Now) -> None:
        """Note answers of ``peer`` that were found right.

        ``by_established``: the finding rests on our own device, an algebraic check, or an established peer that agrees.
        Without that the peer was there, and has earned no trust.
        """
        record = self._record(peer, device_class, now)
        record.observe(answers, 0, now.boottime_ns)
        if by_established:
            record.verified += answers

    def let_down(self, peer: bytes, device_class: str, now: Now) -> None:
        """Note an attempt or a conversation that ended without what it was for. Costs availability, not trust."""
        self._record(peer, device_class, now).observe(0, 1, now.boottime_ns)

    def lets_down(self, peer: bytes, device_classes: Iterable[str], now: Now) -> bool:
        """Tell whether a peer is there more seldom than one that nobody knows, with each of its devices: others are
        asked first."""
        standings = [self.standing(peer, name, now) for name in device_classes]
        return all(standing.availability < UNKNOWN_AVAILABILITY for standing in standings)

    def caught(self, peer: bytes, reason: str) -> bool:
        """Ban a peer for good; return whether that is new, and so to be stored with its evidence."""
        self.banned.add(peer)
        if peer in self.reasons:
            return False
        self.reasons[peer] = reason
        return True

    def changes(self, now: Now) -> list[Row]:
        """Return what has changed since this was last asked: to be stored."""
        changed, self._changed = self._changed, {}
        rows = []
        for key in changed:
            record = self._records.get(key)
            if record is not None:
                faded = record.fade(now.boottime_ns)
                at_s = now.wall_ns // SECOND_NS
                rows.append(Row(*key, record.verified, record.answered * faded, record.failed * faded, at_s))
        return rows

    def _record(self, peer: bytes, device_class: str, now: Now) -> _Record:
        key = (peer, device_class)
        record = self._records.get(key)
        if record is None:
            record = self._records[key] = _Record(0, 0.0, 0.0, now.boottime_ns)
            if len(self._records) > KNOWN_MAX:
                self._records.popitem(last=False)
        self._records.move_to_end(key)
        self._changed[key] = None
        return record
