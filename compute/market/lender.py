"""What a node lends: one book for all its conversations, so that no slot is promised twice.

A bid reserves nothing; an award takes slots, if they are still free, for the agreement's duration. One
agreement for each group at a time, so that many identities of one owner get no more than one. An agreement
that holds slots without an open attempt gives way to the next award. Who is beyond its credit, or does not sign for
work that was done, is declined (``trust/credit.py``).
"""

from dataclasses import dataclass, field
from typing import Protocol

from depin_node.compute.market.messages import WINDOW_MAX, DeclineCode, Offer
from depin_node.compute.trust.credit import UNPAID_SHARE, Credit
from depin_node.core.clock import Now

DURATION_S_MAX = 600
"""An agreement ends after so long at the most (or twice the limit of one task), so that others get their
turn."""


class Holder(Protocol):
    """An agreement that can be asked to give way."""

    def is_idle(self) -> bool:
        """Tell whether no attempt is open."""

    def give_way(self) -> None:
        """End the agreement; its slots are free from now on."""


@dataclass(frozen=True)
class Lending:
    """What is lent. ``output_bytes_max`` is the memory that results may hold until they are released, per
    slot."""

    device_classes: tuple[str, ...]
    slots: int
    memory_mib: int
    price: int = 0
    seconds_max: int = 3600
    output_bytes_max: int = 256 << 20
    window_max: int = 256
    unpaid_share: float = UNPAID_SHARE
    """Of the slot time, for peers beyond their credit together; 1 is without a limit."""


@dataclass(frozen=True)
class Quote:
    """What the lender would give for an offer."""

    device_class: str
    window: int
    slots: int
    price: int
    duration_s: int


@dataclass
class _Held:
    group: str
    slots: int


@dataclass
class Lender:
    """The book. ``lending`` is None while the node lends nothing; ``draining`` while it is shutting down."""

    lending: Lending | None
    draining: bool = False
    banned: set[bytes] = field(default_factory=set)
    credit: Credit | None = None
    _held: dict[Holder, _Held] = field(default_factory=dict)

    def slots_free(self) -> int:
        """Return how many slots no agreement holds."""
        total = self.lending.slots if self.lending else 0
        return max(0, total - sum(held.slots for held in self._held.values()))

    def quote(self, peer: bytes, group: str, offer: Offer, now: Now) -> Quote | DeclineCode:
        """Decide what to answer to an offer."""
        lending, terms = self.lending, offer.terms
        if lending is None:
            return DeclineCode.NOT_LENDING
        if self.draining:
            return DeclineCode.DRAINING
        if peer in self.banned:
            return DeclineCode.BANNED
        refusal = self.credit.refusal(peer, now) if self.credit is not None else None
        if refusal is not None:
            return DeclineCode(refusal.value)
        device_class = next((name for name in lending.device_classes if name in terms.device_classes), None)
        if device_class is None:
            return DeclineCode.UNSUPPORTED_CLASS
        if terms.limits.memory_mib > lending.memory_mib:
            return DeclineCode.MEMORY
        if terms.limits.seconds > lending.seconds_max:
            return DeclineCode.TIME
        if terms.output_bytes_max > lending.output_bytes_max:
            return DeclineCode.TOO_LARGE
        if lending.price > offer.price_max:
            return DeclineCode.PRICE
        if any(held.group == group and not holder.is_idle() for holder, held in self._held.items()):
            return DeclineCode.GROUP_LIMIT
        slots = self.slots_free() + sum(held.slots for holder, held in self._held.items() if holder.is_idle())
        if not slots:
            return DeclineCode.BUSY
        held_at_once = lending.output_bytes_max * lending.slots // max(1, terms.output_bytes_max)
        return Quote(
            device_class,
            window=max(1, min(lending.window_max, WINDOW_MAX, held_at_once)),
            slots=slots,
            price=lending.price,
            duration_s=min(offer.duration_s, max(DURATION_S_MAX, 2 * terms.limits.seconds)),
        )

    def take(self, holder: Holder, group: str, slots: int) -> DeclineCode | None:
        """Hold ``slots`` for an agreement, or say why not. Idle agreements give way."""
        if self.draining or self.lending is None:
            return DeclineCode.DRAINING
        if any(held.group == group and not other.is_idle() for other, held in self._held.items()):
            return DeclineCode.GROUP_LIMIT
        for other in [other for other, held in self._held.items() if held.group == group]:
            other.give_way()
        while self.slots_free() < slots:
            idle = next((other for other in self._held if other.is_idle()), None)
            if idle is None:
                return DeclineCode.BUSY
            idle.give_way()
        self._held[holder] = _Held(group, slots)
        return None

    def free(self, holder: Holder) -> None:
        """Give slots back; fine if none are held."""
        self._held.pop(holder, None)
