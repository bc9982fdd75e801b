"""Who may still have work done: credit between two nodes, and a bounded share for everybody else.

Work is counted in µs of the reference core, as receipts that both sides signed say (``receipts.busy_us``;
``market/pricing.py``). A peer's *debt* is
what we gave it less what it gave us. It is on credit as long as the debt is below a limit that grows with what both
have done for each other: the smaller of the two amounts. A stranger's limit is therefore 0, whatever it calls itself.

Who is beyond its limit (strangers, and those who only borrow) draws on one share of our slot time for all of them
together, 20 % by default: a bucket that fills while we lend and holds a day of it. Identities are free, so the bound
is on the sum. Within the share, a group has one agreement at a time (``market/lender.py``).

Apart from that, who does not sign for work that was shown to it finds no taker: unsigned work above a grace is
remembered, fades with a half-life, and refused on. Peers that the operator listed are never refused.

What this cannot do: clear a debt between one who only borrows and one who only lends, since there is no third party
and no token; see that a receipt was omitted from a log that nobody else holds; or tell an owner's second identity
from a stranger.
"""

from collections import OrderedDict
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from enum import StrEnum

from depin_node.core.clock import SECOND_NS, Now

SECOND_US = 1_000_000
UNPAID_SHARE = 0.2
WINDOW_S = 86_400
"""The share is of the slot time of so long: what was not drawn for longer is gone."""
UNSIGNED_US_MAX = 600 * SECOND_US
UNSIGNED_PART_MAX = 0.1
"""Unsigned work that is borne: ten minutes of a slot, or a tenth of what was signed for. Nodes crash, connections end,
and work that is not verified yet is then unsigned."""
UNSIGNED_HALF_LIFE_S = 6 * 3600
ACCOUNTS_MAX = 65_536
STRANGERS = b"strangers"
"""The name under which the journal keeps what is left of the share."""


class Refusal(StrEnum):
    """Why a peer finds no taker here; the same words decline an offer."""

    CREDIT = "credit"
    UNSIGNED = "unsigned"


@dataclass
class Account:
    """What lies between a peer and us, in µs: ``given`` we worked for it, ``received`` it for us; ``unsigned`` is of
    one of our slots."""

    given_us: int = 0
    received_us: int = 0
    unsigned_us: float = 0.0
    at_ns: int = 0

    def debt_us(self) -> int:
        """Return how much more we gave than we got."""
        return self.given_us - self.received_us

    def limit_us(self) -> int:
        """Return up to which debt the peer is on credit: what both have done for each other."""
        return min(self.given_us, self.received_us)


@dataclass(frozen=True)
class Tally:
    """What the journal keeps beside the receipts: unsigned work of a peer, or what is left of the strangers' share.
    ``at_s`` is wall time."""

    name: bytes
    amount_us: float
    at_s: int


class Credit:
    """The ledger. All amounts follow from receipts, but for unsigned work and the share that is left."""

    def __init__(
        self,
        balances: Iterable[tuple[bytes, int, int]],
        tallies: Iterable[Tally],
        now: Now,
        *,
        listed: Collection[bytes] = (),
    ) -> None:
        """Begin with what the journal has.

        Args:
            balances: (peer, given, received) in µs, from the receipts.
            tallies: what was stored of ``changes``.
            now: both clocks.
            listed: peers that the operator trusts.
        """
        self._listed = frozenset(listed)
        self._accounts: OrderedDict[bytes, Account] = OrderedDict()
        self._changed: dict[bytes, None] = {}
        self._slots = 0
        self._share = UNPAID_SHARE
        self._left_us: float | None = None
        self._left_ns = now.boottime_ns
        for peer, given_us, received_us in balances:
            self._accounts[peer] = Account(given_us, received_us)
        for tally in tallies:
            gap_s = max(0, now.wall_ns // SECOND_NS - tally.at_s)
            at_ns = now.boottime_ns - min(gap_s, WINDOW_S * 30) * SECOND_NS
            if tally.name == STRANGERS:
                self._left_us, self._left_ns = tally.amount_us, at_ns
            else:
                account = self._account(tally.name)
                account.unsigned_us, account.at_ns = tally.amount_us, at_ns

    def lend(self, slots: int, share: float) -> None:
        """Begin to lend ``slots``, ``share`` of their time unpaid; 1 is without any limit."""
        self._slots = slots
        self._share = share
        if self._left_us is None:
            self._left_us = self._full_us()

    # What happened.

    def gave(self, peer: bytes, busy_us: int) -> None:
        """Note work of ours that ``peer`` has signed for."""
        self._account(peer).given_us += busy_us

    def received(self, peer: bytes, busy_us: int) -> None:
        """Note work of ``peer`` for us, signed by both."""
        self._account(peer).received_us += busy_us

    def unsigned(self, peer: bytes, busy_us: int, now: Now) -> None:
        """Note answers that were shown to ``peer``, which it has ended without signing for them."""
        account = self._account(peer)
        account.unsigned_us = self._unsigned_us(account, now) + busy_us
        account.at_ns = now.boottime_ns
        self._changed[peer] = None

    def ran(self, peer: bytes, busy_us: int, now: Now) -> None:
        """Note slot time used for ``peer``, with a result or without: beyond its limit it is unpaid."""
        if peer not in self._listed and not self.is_on_credit(peer):
            self._left_us = self.left_us(now) - busy_us
            self._left_ns = now.boottime_ns
            self._changed[STRANGERS] = None

    # What follows.

    def is_on_credit(self, peer: bytes) -> bool:
        """Tell whether a peer's debt is below its limit."""
        account = self._accounts.get(peer)
        return account is not None and account.debt_us() < account.limit_us()

    def refusal(self, peer: bytes, now: Now) -> Refusal | None:
        """Return why we do not work for ``peer`` now, or None."""
        if peer in self._listed:
            return None
        account = self._accounts.get(peer) or Account()
        borne_us = max(UNSIGNED_US_MAX, UNSIGNED_PART_MAX * account.given_us)
        if self._unsigned_us(account, now) > borne_us:
            return Refusal.UNSIGNED
        if self._share < 1 and not self.is_on_credit(peer) and self.left_us(now) <= 0:
            return Refusal.CREDIT
        return None

    def left_us(self, now: Now) -> float:
        """Return how much slot time there is for those beyond their limit."""
        passed_s = max(0, now.boottime_ns - self._left_ns) / SECOND_NS
        left_us = (self._left_us or 0.0) + passed_s * self._share * self._slots * SECOND_US
        return min(left_us, self._full_us())

    def accounts(self, now: Now) -> list[tuple[bytes, Account]]:
        """Return every partner's account, the largest first; ``unsigned_us`` as of now."""
        return sorted(
            (
                (
                    peer,
                    Account(item.given_us, item.received_us, self._unsigned_us(item, now), now.boottime_ns),
                )
                for peer, item in self._accounts.items()
            ),
            key=lambda pair: -(pair[1].given_us + pair[1].received_us),
        )

    def changes(self, now: Now) -> list[Tally]:
        """Return what has changed since this was last asked, beside the receipts: to be stored."""
        changed, self._changed = self._changed, {}
        at_s = now.wall_ns // SECOND_NS
        return [
            Tally(name, self.left_us(now) if name == STRANGERS else self._unsigned_us(self._account(name), now), at_s)
            for name in changed
        ]

    def _full_us(self) -> float:
        return self._share * self._slots * WINDOW_S * SECOND_US

    def _unsigned_us(self, account: Account, now: Now) -> float:
        age_s = max(0, now.boottime_ns - account.at_ns) / SECOND_NS
        return float(account.unsigned_us * 0.5 ** (age_s / UNSIGNED_HALF_LIFE_S))

    def _account(self, peer: bytes) -> Account:
        account = self._accounts.get(peer)
        if account is None:
            account = self._accounts[peer] = Account()
            if len(self._accounts) > ACCOUNTS_MAX:  # the journal still has its receipts
                self._accounts.popitem(last=False)
        self._accounts.move_to_end(peer)
        return account
