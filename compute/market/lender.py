"""What a node lends: one book for all its conversations and devices, so that no slot is promised twice.

A bid reserves nothing; an award takes slots, if they are still free, for the agreement's duration. An agreement is
about one device class, and has what is free of all devices of that class that its terms fit. One agreement for each
group and class at a time, so that many identities of one owner get no more than one. An agreement that holds slots
without an open attempt gives way to the next award. Who is beyond its credit, or does not sign for work that was done,
is declined (``trust/credit.py``). A device that is lost is withdrawn alone: the others stay lent.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from depin_node.compute.market.messages import WINDOW_MAX, DeclineCode, Offer
from depin_node.compute.market.pricing import NOMINAL
from depin_node.compute.trust.credit import Credit
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
    """What is lent of one device. ``memory_mib`` is for one slot, and so is ``output_bytes_max``: the memory that
    results may hold until they are released."""

    device_class: str
    slots: int
    memory_mib: int
    price: int = 0
    seconds_max: int = 3600
    output_bytes_max: int = 256 << 20
    window_max: int = 256


@dataclass(frozen=True)
class Quote:
    """What the lender would give for an offer: slots of ``devices``, which are all of one class."""

    device_class: str
    window: int
    slots: int
    price: int
    duration_s: int
    devices: tuple[int, ...]
    speed: int = NOMINAL


@dataclass
class _Held:
    group: str
    device_class: str
    shares: dict[int, int]  # slots by device


@dataclass
class Lender:
    """The book. ``lent``: the devices, which go by their place in it; ``draining`` while the node is shutting down."""

    lent: Sequence[Lending]
    draining: bool = False
    banned: set[bytes] = field(default_factory=set)
    credit: Credit | None = None
    _withdrawn: set[int] = field(default_factory=set)
    _speeds: dict[int, int] = field(default_factory=dict)
    _held: dict[Holder, _Held] = field(default_factory=dict)

    def withdraw(self, device: int) -> None:
        """Lend a device no more. Agreements that have slots of it keep what they have of others."""
        self._withdrawn.add(device)

    def measured(self, device: int, speed: int) -> None:
        """Note the speed of a device's slots, in thousandths of the reference core's (``pricing``)."""
        self._speeds[device] = speed

    def devices(self) -> list[int]:
        """Return the devices that are lent now."""
        return [device for device in range(len(self.lent)) if device not in self._withdrawn]

    def slots(self) -> int:
        """Return how many slots are lent now, held or not."""
        return sum(self.lent[device].slots for device in self.devices())

    def slots_free(self, device: int) -> int:
        """Return how many slots of a device no agreement holds."""
        if device in self._withdrawn:
            return 0
        return self.lent[device].slots - sum(held.shares.get(device, 0) for held in self._held.values())

    def quote(self, peer: bytes, group: str, offer: Offer, now: Now) -> Quote | DeclineCode:
        """Decide what to answer to an offer."""
        terms = offer.terms
        if not self.devices():
            return DeclineCode.NOT_LENDING
        if self.draining:
            return DeclineCode.DRAINING
        if peer in self.banned:
            return DeclineCode.BANNED
        refusal = self.credit.refusal(peer, now) if self.credit is not None else None
        if refusal is not None:
            return DeclineCode(refusal.value)
        fitting = self._fitting(offer)
        if isinstance(fitting, DeclineCode):
            return fitting
        code = DeclineCode.BUSY
        for device_class in dict.fromkeys(self.lent[device].device_class for device in fitting):
            if self._is_engaged(group, device_class):
                code = DeclineCode.GROUP_LIMIT
                continue
            devices = tuple(device for device in fitting if self.lent[device].device_class == device_class)
            lent = [self.lent[device] for device in devices]
            slots = sum(self._within_reach(device) for device in devices)
            if slots:
                results_bytes = sum(item.output_bytes_max * item.slots for item in lent)
                held_at_once = results_bytes // max(1, terms.output_bytes_max)
                return Quote(
                    device_class,
                    window=max(1, min(WINDOW_MAX, held_at_once, *(item.window_max for item in lent))),
                    slots=slots,
                    price=max(item.price for item in lent),
                    duration_s=min(offer.duration_s, max(DURATION_S_MAX, 2 * terms.limits.seconds)),
                    devices=devices,
                    speed=min(self._speeds.get(device, NOMINAL) for device in devices),
                )
        return code

    def _fitting(self, offer: Offer) -> list[int] | DeclineCode:
        """Return the devices that what is offered fits, or the first reason why there are none."""
        terms = offer.terms
        reasons: dict[DeclineCode, Callable[[Lending], bool]] = {
            DeclineCode.UNSUPPORTED_CLASS: lambda item: item.device_class in terms.device_classes,
            DeclineCode.MEMORY: lambda item: terms.limits.memory_mib <= item.memory_mib,
            DeclineCode.TIME: lambda item: terms.limits.seconds <= item.seconds_max,
            DeclineCode.TOO_LARGE: lambda item: terms.output_bytes_max <= item.output_bytes_max,
            DeclineCode.PRICE: lambda item: item.price <= offer.price_max,
        }
        left = self.devices()
        for code, fits in reasons.items():
            left = [device for device in left if fits(self.lent[device])]
            if not left:
                return code
        return left

    def _is_engaged(self, group: str, device_class: str) -> bool:
        return any(
            (held.group, held.device_class) == (group, device_class) and not holder.is_idle()
            for holder, held in self._held.items()
        )

    def _within_reach(self, device: int) -> int:
        """Return the slots of a device that are free, or held by who would give way."""
        idle = sum(held.shares.get(device, 0) for holder, held in self._held.items() if holder.is_idle())
        return self.slots_free(device) + idle

    def take(self, holder: Holder, group: str, quote: Quote) -> dict[int, int] | DeclineCode:
        """Hold what was quoted and return the slots by device, or say why not. Idle agreements give way."""
        devices = [device for device in quote.devices if device not in self._withdrawn]
        if self.draining or not self.devices():
            return DeclineCode.DRAINING
        if self._is_engaged(group, quote.device_class):
            return DeclineCode.GROUP_LIMIT
        mine = (group, quote.device_class)
        for other in [other for other, held in self._held.items() if (held.group, held.device_class) == mine]:
            other.give_way()
        while sum(map(self.slots_free, devices)) < quote.slots:
            idle = (
                other for other, held in self._held.items() if other.is_idle() and held.shares.keys() & set(devices)
            )
            gives_way = next(idle, None)
            if gives_way is None:
                return DeclineCode.BUSY
            gives_way.give_way()
        shares, wanted = dict[int, int](), quote.slots
        for device in devices:
            if slots := min(wanted, self.slots_free(device)):
                shares[device] = slots
                wanted -= slots
        self._held[holder] = _Held(group, quote.device_class, shares)
        return shares

    def free(self, holder: Holder) -> None:
        """Give slots back; fine if none are held."""
        self._held.pop(holder, None)
