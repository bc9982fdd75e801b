"""What a requester has to sign for of one work: receipts for answers that were shown, with a verdict on each.

The flow: a verdict on an answer is ``put`` down; what has gathered becomes a receipt when it is many, when it has
waited long (``due``), or with the work's end (``close``). An answer whose verdict is provisional gets another one in a
later receipt (``settle``). Each receipt is signed here, and stored before it is sent (``StoreReceipt``).
"""

from collections.abc import Iterable, Iterator

import msgspec

from depin_node.compute.market.happenings import Event, StoreReceipt
from depin_node.compute.market.messages import (
    RECEIPT_TASKS_MAX,
    Bid,
    Receipt,
    Settled,
    Verdict,
    WorkBody,
    digest,
    keyed_inputs,
    keyed_output,
)
from depin_node.compute.market.pen import Pen
from depin_node.compute.trust.receipts import PAID
from depin_node.core.clock import SECOND_NS, Now

RECEIPT_S = 10
"""Verdicts wait so long for others to share their receipt."""


class Dues:
    """See the module; of work ``number`` under an agreement with ``peer``, which bid ``bid``."""

    def __init__(self, pen: Pen, peer: bytes, agreement: bytes, bid: Bid, number: int, body: WorkBody) -> None:
        self._pen = pen
        self._peer = peer
        self._agreement = agreement
        self._bid = bid
        self._number = number
        self._body = body
        self._key = pen.receipt_key(body.job)
        self._settled: list[Settled] = []
        self._since_ns = 0
        self._provisional: dict[int, Settled] = {}  # by task: answers that get another verdict

    def put(
        self, attempt: int, task: int, commitment: bytes, root: bytes, verdict: Verdict, price_us: int, now: Now
    ) -> list[Event]:
        """Note the verdict on an answer."""
        settled = Settled(attempt, task, commitment, keyed_output(self._key, root), verdict, price_us)
        if verdict is Verdict.PROVISIONAL:
            self._provisional[task] = settled
        return self._put(settled, now)

    def settle(self, tasks: Iterable[int], verdict: Verdict, now: Now) -> Iterator[Event]:
        """Give answers that were provisional their last verdict, in further receipts."""
        for task in tasks:
            settled = self._provisional.pop(task, None)
            if settled is not None:
                yield from self._put(msgspec.structs.replace(settled, verdict=verdict), now)

    def close(self, verified_by: str, now: Now) -> Iterator[Event]:
        """Sign the last receipt of the work."""
        # What is provisional is honest work as far as anybody knows, which nobody will settle now.
        yield from self.settle(list(self._provisional), Verdict.UNUSED, now)
        yield from self._receipt(now, final=True, verified_by=verified_by)

    def due(self, now: Now) -> list[Event]:
        """Sign for what has waited long: should this node die, little that was done for it is unsigned."""
        if not self._settled or now.boottime_ns <= self._since_ns + RECEIPT_S * SECOND_NS:
            return []
        return self._receipt(now)

    def _put(self, settled: Settled, now: Now) -> list[Event]:
        if not self._settled:
            self._since_ns = now.boottime_ns
        self._settled.append(settled)
        return self._receipt(now) if len(self._settled) >= RECEIPT_TASKS_MAX else []

    def _receipt(self, now: Now, *, final: bool = False, verified_by: str = "") -> list[Event]:
        if not self._settled:
            return []
        settled, self._settled = tuple(self._settled), []
        envelope, entry = self._pen.sign_entry(
            Receipt,
            self._peer,
            now,
            self._agreement,
            self._number,
            self._body.job,
            keyed_inputs(self._key, self._body),
            self._bid.device_class,
            settled,
            self._bid.price,
            final,
            verified_by,
        )
        busy_us = sum(item.price_us for item in settled if item.verdict in PAID)
        return [StoreReceipt(digest(envelope), envelope, self._body.job, entry, busy_us)]
