"""What a provider's requester owes it under one agreement: receipts of answers that were shown, at the price of a task.

The flow: an account is ``open``ed for each work. Its first answers let the requester fix what a task costs (``price``).
An answer that was shown and released is owed a receipt (``owe``). A receipt is taken if it names just such answers
(``take``); the last one of a work says by what it leaves out what is not paid.
"""

from typing import NamedTuple

from depin_node.compute.market.messages import Receipt, Verdict
from depin_node.compute.market.pricing import is_too_little
from depin_node.core.errors import PeerViolation

UNRECEIPTED_MAX = 8192


class Owed(NamedTuple):
    """An answer that was shown and released: a receipt has to come. ``output`` is its root, keyed."""

    work: int
    task: int
    commitment: bytes
    output: bytes
    busy_us: int
    fuel: int
    energy_mj: int


class Account:
    """What receipts of a work have to name, how many of its answers wait for one, and what a task costs.

    ``is_asked`` once an answer was asked for: the requester knows of one then, and so the price. ``ran_us`` is what
    ``answers`` took on a slot of ``speed``.
    """

    __slots__ = ("answers", "inputs", "is_asked", "is_closed", "key", "price_us", "ran_us", "speed", "waiting")

    def __init__(self, key: bytes, inputs: bytes, speed: int) -> None:
        self.key = key
        self.inputs = inputs
        self.speed = speed
        self.waiting = 0
        self.is_closed = False
        self.price_us: int | None = None
        self.is_asked = False
        self.answers = 0
        self.ran_us = 0

    def answered(self, elapsed_us: int) -> None:
        """Note an answer, and what it took."""
        self.answers += 1
        self.ran_us += elapsed_us

    def fix(self, price_us: int) -> None:
        """Take what a task costs. Raises ``PeerViolation``: it is fixed, and otherwise."""
        if self.price_us not in (None, price_us):
            raise PeerViolation("market: a task at another price than was fixed for the work")
        self.price_us = price_us

    def is_cheap(self) -> bool:
        """Tell whether a task costs the requester far less than it takes us."""
        return self.price_us is not None and is_too_little(self.price_us, self.ran_us, self.answers, self.speed)


class Accounts:
    """Those of the works of one agreement, by their numbers."""

    def __init__(self) -> None:
        self._accounts: dict[int, Account] = {}
        self._owed: dict[int, Owed] = {}  # by attempt
        self._owed_at_end: dict[int, Owed] = {}  # a receipt may be on its way, and need not
        self._omitted_us = 0

    def open(self, work: int, account: Account) -> None:
        """Begin with a work."""
        self._accounts[work] = account

    def __getitem__(self, work: int) -> Account:
        return self._accounts[work]

    def get(self, work: int) -> Account | None:
        """Return the account of a work, as long as a receipt of it may come."""
        return self._accounts.get(work)

    def close(self, work: int) -> None:
        """A work is closed: its account goes with the last of its answers that waits for a receipt."""
        self._accounts[work].is_closed = True
        self._forget(work)

    def owe(self, attempt: int, owed: Owed, *, is_ended: bool = False) -> None:
        """Expect a receipt of an answer; ``is_ended``: the conversation is over, and it need not come."""
        self._accounts[owed.work].waiting += 1
        (self._owed_at_end if is_ended else self._owed)[attempt] = owed

    def is_full(self) -> bool:
        """Tell whether too many answers wait for their receipts."""
        return len(self._owed) > UNRECEIPTED_MAX

    def is_any_cheap(self) -> bool:
        """Tell whether some work costs the requester far less than it takes us."""
        return any(account.is_cheap() for account in self._accounts.values())

    def unsigned_us(self) -> int:
        """Return the work in answers that were shown, and that no receipt has come for or will."""
        return self._omitted_us + sum(owed.busy_us for owed in self._owed.values())

    def take(self, receipt: Receipt) -> tuple[int, int, int]:
        """Take a receipt of a work that has an account; return busy time (µs), fuel and energy (mJ) of its answers.

        Raises:
            PeerViolation: it names an answer that was not given, or another price than was fixed.
        """
        account = self._accounts[receipt.work]
        busy_us = fuel = energy_mj = 0
        for settled in receipt.settled:
            owed = self._owed.get(settled.attempt) or self._owed_at_end.get(settled.attempt)
            if owed is None or owed[:4] != (receipt.work, settled.task, settled.commitment, settled.output):
                raise PeerViolation("receipt: of an answer that was not given")
            account.fix(settled.price_us)
            if settled.verdict is not Verdict.PROVISIONAL:  # those come once more
                (self._owed if settled.attempt in self._owed else self._owed_at_end).pop(settled.attempt)
                account.waiting -= 1
                busy_us += owed.busy_us
                fuel += owed.fuel
                energy_mj += owed.energy_mj
        if receipt.final:
            for attempt in [attempt for attempt, owed in self._owed.items() if owed.work == receipt.work]:
                self._omitted_us += self._owed.pop(attempt).busy_us
            del self._accounts[receipt.work]
        else:
            self._forget(receipt.work)
        return busy_us, fuel, energy_mj

    def _forget(self, work: int) -> None:
        account = self._accounts.get(work)
        if account is not None and account.is_closed and not account.waiting:
            del self._accounts[work]
