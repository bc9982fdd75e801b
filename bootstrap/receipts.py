"""Partners look at each other's logs: ``receipts/1``.

The flow: when two nodes begin to deal, and when a receipt of theirs has both signatures, each asks how the other's log
went on since it last looked, every ``LOOK_S`` at most. The answer is a signed run of links (``trust/heads.py``), beside
the newest runs of some other logs that the answerer has seen. A contradiction is proof of a fork, and goes to
``bootstrap/evidence.py``.

Who is asked also learns something: a link of its own log that it does not know means that it was restored from a
backup, or lost its disk. Then it lists the receipts that the partner holds of the two, and takes back those it lacks,
each checked like any other. Its log goes on in the epoch that it began when it was started: a branch, no fork.
"""

from collections import OrderedDict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import structlog
import trio

from depin_node.bootstrap.market import MarketContext
from depin_node.bootstrap.questions import Bounds, Questions
from depin_node.compute.jobs import statements
from depin_node.compute.market.messages import Countersign, Receipt, digest
from depin_node.compute.trust.chain import Entry, link, origin
from depin_node.compute.trust.evidence import fork
from depin_node.compute.trust.export import RECORD_BYTES_MAX, Record
from depin_node.compute.trust.heads import RUN_MAX, Run, Step, Witness
from depin_node.compute.trust.log_messages import (
    FETCHED_MAX,
    LISTED_MAX,
    OTHERS_MAX,
    PROTOCOL,
    RUN_BYTES_MAX,
    Fetch,
    Fetched,
    Listed,
    Listing,
    Question,
    Shown,
    Since,
)
from depin_node.compute.trust.receipts import busy_us, verify_receipt
from depin_node.core.clock import SECOND_NS
from depin_node.core.errors import PeerViolation, ResourceError, TransportError
from depin_node.core.wire import encode
from depin_node.crypto.envelope import NOBODY, sign, verify_signature
from depin_node.crypto.identity import peer_id

log = structlog.get_logger("depin_node.receipts")

FIRST_LOOK = 64
"""Entries of a log that a new partner is shown."""
LOOK_S = 10.0
"""A partner's log is looked at so often at most."""
ROUNDS_MAX = 64
WITNESSES_MAX = 512
RUN_LIFETIME_S = 600
_BOUNDS = Bounds(
    question_bytes_max=16 * 1024,
    answer_bytes_max=max((OTHERS_MAX + 1) * (RUN_BYTES_MAX + 8), FETCHED_MAX * (RECORD_BYTES_MAX + 16)),
    burst=2 * ROUNDS_MAX,
    per_s=2.0,
)


class Logs:
    """What a node sees of its partners' logs, and shows of its own; ``open_logs`` makes it."""

    def __init__(self, context: MarketContext, nursery: trio.Nursery) -> None:
        self._context = context
        self._nursery = nursery
        self._witnesses: OrderedDict[bytes, Witness] = OrderedDict()
        self._looked_ns: OrderedDict[bytes, int] = OrderedDict()
        self._due: set[bytes] = set()
        """Whose log is looked at when the last look is old enough."""
        self._restoring: set[bytes] = set()
        self.restored = 0
        self._questions = Questions(context, PROTOCOL, Question, _BOUNDS, self._answer)

    def witness(self, owner: bytes) -> Witness:
        """Return what we have seen of a log."""
        witness = self._witnesses.get(owner)
        if witness is None:
            runs = self._context.journal.reader.runs(owner)
            witness = self._witnesses[owner] = Witness(owner, self._context.network.network_id, runs)
            if len(self._witnesses) > WITNESSES_MAX:
                self._witnesses.popitem(last=False)
        self._witnesses.move_to_end(owner)
        return witness

    # Looking at others.

    def look(self, peer: bytes) -> None:
        """Look at a partner's log soon: if that was just done, as soon as it was ``LOOK_S`` ago."""
        now_ns = self._context.clock().boottime_ns
        wait_ns = self._looked_ns.get(peer, -SECOND_NS * 10**6) + int(LOOK_S * SECOND_NS) - now_ns
        if wait_ns > 0:
            if peer not in self._due and len(self._due) < WITNESSES_MAX:
                self._due.add(peer)
                self._nursery.start_soon(self._look_later, peer, wait_ns / SECOND_NS)
            return
        self._looked_ns[peer] = now_ns
        self._looked_ns.move_to_end(peer)
        if len(self._looked_ns) > WITNESSES_MAX:
            self._looked_ns.popitem(last=False)
        self._nursery.start_soon(self._look, peer)

    async def _look_later(self, peer: bytes, wait_s: float) -> None:
        await trio.sleep(wait_s)
        self._due.discard(peer)
        if peer in self._context.network.peers():  # who has left is looked at when it is back
            self.look(peer)

    async def _look(self, peer: bytes) -> None:
        try:
            for _ in range(ROUNDS_MAX):
                haves = tuple(self.witness(peer).haves()) if self.witness(peer).last() else ()
                shown = await self._questions.ask_for(Shown, peer, Question(Since(haves)))
                for run in shown.others:
                    self._compare(run)
                if not shown.run or not self._take(peer, shown.run):
                    return
        except PeerViolation as error:
            self._context.mesh.report(peer, error)
        except TransportError as error:
            log.debug("a partner did not show its log", peer=peer_id(peer), reason=str(error))

    def _take(self, owner: bytes, envelope: bytes) -> bool:
        """Take a run that its owner has shown; return whether it goes on."""
        witness = self.witness(owner)
        branches = witness.branches
        is_new, forked = witness.take(envelope)
        if forked is not None:
            log.warning("a peer keeps two logs", peer=peer_id(owner))
            self._context.caught(owner, fork(*forked))
            return False
        if is_new:
            self._context.journal.write_lazily(statements.put_run(owner, envelope))
        if witness.branches > branches:
            log.info("a partner's log has a branch: it was restored, or lost its disk", peer=peer_id(owner))
        return is_new and verify_signature(envelope, Run, self._context.network.network_id).payload.more

    def _compare(self, envelope: bytes) -> None:
        """Compare a run that somebody else has seen with what its owner has shown us."""
        run = verify_signature(envelope, Run, self._context.network.network_id)
        if run.sender == self._context.identity.key or not self.witness(run.sender).last():
            return
        forked = self.witness(run.sender).contradiction(run)
        if forked is not None:
            log.warning("a peer shows different logs to different partners", peer=peer_id(run.sender))
            self._context.caught(run.sender, fork(*forked))

    # Showing our own.

    async def _answer(self, peer: bytes, asked: Question) -> bytes:
        question = asked.what
        reader = self._context.journal.reader
        if isinstance(question, Since):
            return encode(self._since(peer, question.haves))
        if isinstance(question, Listing):
            names = reader.receipts_with(peer, question.before, LISTED_MAX)
            after = names[-1][0] if len(names) == LISTED_MAX else 0
            return encode(Listed(tuple(name for _, name in names), after))
        records = (reader.record_with(peer, name) for name in question.receipts)
        return encode(Fetched(tuple(Record(one[0], one[1] or b"") for one in records if one is not None)))

    def _since(self, peer: bytes, haves: tuple[bytes, ...]) -> Shown:
        context = self._context
        reader, stored = context.journal.reader, context.pen.log.stored
        home = origin(context.identity.key)
        known = [name for name in haves if name == home or reader.has_link(name)]
        if haves and haves[0] not in known:
            self._nursery.start_soon(self.restore, peer)
        first, previous, steps = reader.log_since(stored, known, home, first_look=FIRST_LOOK, limit=RUN_MAX + 1)
        run = b""
        if steps or first:
            now_s = context.clock().wall_ns // SECOND_NS
            taken = tuple(Step(epoch, name) for epoch, name in steps[:RUN_MAX])
            message = Run(
                NOBODY,
                now_s + RUN_LIFETIME_S,
                context.pen.next_seq(),
                context.pen.log.epoch,
                first,
                previous,
                taken,
                len(steps) > RUN_MAX,
            )
            run = sign(context.identity, context.network.network_id, message)
        return Shown(run, self._others(peer))

    def _others(self, peer: bytes) -> tuple[bytes, ...]:
        runs = [witness.last() for owner, witness in self._witnesses.items() if owner != peer]
        return tuple([run for run in runs if run][-OTHERS_MAX:])

    # Taking back what we have lost.

    async def restore(self, partner: bytes) -> None:
        """Take back the receipts between a partner and us that we no longer have."""
        if partner in self._restoring:
            return
        self._restoring.add(partner)
        try:
            before = 0
            for _ in range(ROUNDS_MAX):
                listed = await self._questions.ask_for(Listed, partner, Question(Listing(before)))
                missing = [name for name in listed.receipts if not self._context.journal.reader.has_receipt(name)]
                for at in range(0, len(missing), FETCHED_MAX):
                    await self._take_back(partner, tuple(missing[at : at + FETCHED_MAX]))
                if not listed.next:
                    break
                before = listed.next
        except PeerViolation as error:
            self._context.mesh.report(partner, error)
        except (TransportError, ResourceError) as error:
            log.info("receipts could not be had back", peer=peer_id(partner), reason=str(error))
        finally:
            self._restoring.discard(partner)

    async def _take_back(self, partner: bytes, names: tuple[bytes, ...]) -> None:
        for record in (await self._questions.ask_for(Fetched, partner, Question(Fetch(names)))).records:
            await self._keep(partner, record, names)

    async def _keep(self, partner: bytes, record: Record, names: tuple[bytes, ...]) -> None:
        """Check one receipt of the two of us, and store it where it stood in our log."""
        context = self._context
        own, network = context.identity.key, context.network.network_id
        name = digest(record.receipt)
        verified = verify_receipt(record.receipt, record.countersign or None, network)
        receipt: Receipt = verified.payload
        if name not in names or {verified.sender, receipt.to} != {own, partner}:
            raise PeerViolation("receipts: another receipt than was asked for")
        role = "requester" if verified.sender == own else "provider"
        if role == "requester":
            place, ours = receipt.place, name
        elif record.countersign:
            place, ours = (
                verify_signature(record.countersign, Countersign, network).payload.place,
                digest(record.countersign),
            )
        else:
            return  # we have not signed it
        entry = Entry(place.epoch, place.index, place.previous, ours, link(place, ours))
        at_s, work_us = receipt.expires_s, busy_us(receipt)
        signed = record.countersign or None
        await context.journal.write(
            [
                statements.put_receipt(name, role, partner, receipt.job, record.receipt, signed, at_s, work_us),
                statements.put_entry(entry, name, role),
            ]
        )
        self.restored += 1
        if role == "provider":
            context.credit.gave(partner, work_us)
        elif signed:
            context.credit.received(partner, work_us)


@asynccontextmanager
async def open_logs(context: MarketContext) -> AsyncIterator[Logs]:
    """Look at partners' logs as long as the block runs; ``context.look`` asks for it."""
    async with trio.open_nursery() as nursery:
        logs = Logs(context, nursery)
        context.look = logs.look
        try:
            yield logs
        finally:
            context.look = lambda _: None  # receipts are still written while the journal closes
            nursery.cancel_scope.cancel()
