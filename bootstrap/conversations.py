"""The requester's conversations: one stream and one machine (``RequesterTalk``) for each provider.

The flow: the scheduler's ``Ask`` starts a conversation in a task of its own. What is heard there goes to the scheduler,
except for what the journal is to keep: agreements before they are awarded, receipts before they are sent, and what
proves a lie. The scheduler's other effects are handed to the machine of the peer that they are for.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import structlog
import trio

from depin_node.bootstrap.job_records import blobs_of
from depin_node.bootstrap.market import Conversation, MarketContext, open_conversation_stream
from depin_node.compute.jobs import events as e
from depin_node.compute.jobs import statements
from depin_node.compute.jobs.events import OutputSizes
from depin_node.compute.jobs.job import Job
from depin_node.compute.jobs.patience import ORDERLY
from depin_node.compute.market import happenings as market
from depin_node.compute.market.messages import TASK_FAULTS, Kind, Terms, WorkBody
from depin_node.compute.market.pen import Pen
from depin_node.compute.market.pricing import Prices
from depin_node.compute.market.requester import ProvenLie, RequesterTalk
from depin_node.core.clock import SECOND_NS, Now
from depin_node.core.errors import PeerViolation, ResourceError, TransportError
from depin_node.core.text import printable
from depin_node.crypto.identity import peer_id
from depin_node.p2p.blob_messages import Grant
from depin_node.p2p.blobs import issue_grant
from depin_node.p2p.frames import Frame

log = structlog.get_logger("depin_node.requester")

CONNECT_TIMEOUT_S = 20.0
DETAIL_CHARACTERS_MAX = 200
GRANTS_KEPT_MAX = 64
EVIDENCE_KEPT_MAX = 4096
UNAUDITED_KEPT_MAX = 65_536
"""Answers whose signed messages are kept until they are settled: they share the messages that they came in."""
_TO_STORE = (market.StoreAgreement, market.StoreReceipt, market.StoreCountersign)

WorkOf = Callable[[bytes], tuple[Job, Terms, OutputSizes]]
"""An open job, what its attempts may use, and the bytes of each output of its tasks."""


@dataclass(eq=False)
class _Partner:
    """One conversation."""

    talk: RequesterTalk
    clock: Callable[[], Now]
    grant_s: int
    """Grants are used again for the next job under the same agreement, and so outlive it."""
    conversation: Conversation | None = None
    receipts_open: int = 0
    grants: dict[tuple[bytes, ...], bytes] = field(default_factory=dict)

    def wake(self) -> None:
        if self.conversation is not None:
            self.conversation.wake()

    def award_stored(self, error: ResourceError | None) -> None:
        """Send the award; without the journal there is none, and the provider is let go in time."""
        if error is None:
            self.talk.stored(self.clock())
            self.wake()

    def receipt_stored(self, pen: Pen, receipt: market.StoreReceipt, error: ResourceError | None) -> None:
        """Send a receipt that is stored."""
        if pen.note_stored(receipt.entry, is_stored=error is None):
            self.talk.send_receipt(receipt)
            self.wake()
        else:
            self.receipts_open -= 1


class Conversations:
    """All that a node's jobs say to providers.

    Args:
        context: of the node.
        nursery: where conversations run.
        feed: takes what the scheduler is to hear.
        work_of: describes the work of an open job.
    """

    def __init__(
        self, context: MarketContext, nursery: trio.Nursery, feed: Callable[[e.Event], None], work_of: WorkOf
    ) -> None:
        self._context = context
        self._nursery = nursery
        self._feed = feed
        self._work_of = work_of
        self._partners: dict[bytes, _Partner] = {}
        self._evidence: dict[tuple[bytes, int], market.Evidence] = {}
        self._prices: dict[bytes, Prices] = {}
        self._unaudited: dict[bytes, dict[tuple[int, bytes], market.Evidence]] = {}  # by job; task and peer
        self._says = self._effects()

    # What the scheduler wants.

    def ask(self, effect: e.Ask) -> None:
        """Begin a conversation."""
        talk, grant_s = RequesterTalk(self._context.pen, effect.peer), min(Grant.LIFETIME_S_MAX, 2 * effect.duration_s)
        self._partners[effect.peer] = _Partner(talk, self._context.clock, grant_s)
        self._nursery.start_soon(self._converse, effect)

    def tell(self, effect: e.TalkEffect, now: Now) -> None:
        """Hand an effect to a conversation's machine."""
        partner = self._partners.get(effect.peer)
        if partner is None:
            return
        self._says[type(effect)](partner, effect, now)
        partner.wake()

    def _effects(self) -> dict[type, Callable[[_Partner, Any, Now], None]]:
        """Return how each effect is handed to a machine."""
        return {
            e.OpenWork: self._open_work,
            e.Assign: lambda to, it, now: to.talk.assign(it.work, it.first_attempt, it.tasks, now),
            e.AskReveal: lambda to, it, now: to.talk.ask(it.attempt, it.set_digest, it.want, now),
            e.AskUpload: lambda to, it, now: to.talk.ask_upload(it.attempt, now),
            e.ReleaseAttempt: self._release,
            e.SettleAttempts: lambda to, it, now: self._take(to, to.talk.settle(it.work, it.tasks, it.verdict, now)),
            e.CloseWork: lambda to, it, now: self._take(to, to.talk.close_work(it.work, it.verified_by, now)),
            e.EndAgreement: self._end,
        }

    def _release(self, partner: _Partner, effect: e.ReleaseAttempt, now: Now) -> None:
        if effect.keeps:
            self._keep_until_audited(partner.talk, effect.attempt)
        self._take(partner, partner.talk.release(effect.attempt, effect.verdict, now))

    def _end(self, partner: _Partner, effect: e.EndAgreement, now: Now) -> None:
        partner.talk.end(effect.code)
        self._part(partner)

    def _open_work(self, partner: _Partner, effect: e.OpenWork, now: Now) -> None:
        job, terms, sizes = self._work_of(effect.job_id)
        body = WorkBody(effect.job_id, job.program, job.program_bytes, job.inputs, job.tasks, terms, job.tolerances)
        prices = self._prices.setdefault(effect.job_id, Prices())
        partner.talk.open_work(effect.work, body, self._grant(partner, effect.peer, job, now), sizes, prices, now)

    def forget(self, job_id: bytes) -> None:
        """A job has ended: nobody's prices for it are of interest, and nothing of it will be audited any more."""
        self._prices.pop(job_id, None)
        self._unaudited.pop(job_id, None)

    def _grant(self, partner: _Partner, peer: bytes, job: Job, now: Now) -> bytes:
        context, roots = self._context, tuple(blobs_of(job))
        grant = partner.grants.get(roots)
        if grant is None:
            grant = issue_grant(
                context.identity,
                context.network.network_id,
                peer,
                roots,
                seq=context.pen.next_seq(),
                now=now,
                lifetime_s=partner.grant_s,
            )
            if len(partner.grants) >= GRANTS_KEPT_MAX:
                partner.grants.clear()
            partner.grants[roots] = grant
        return grant

    # Evidence.

    def caught(self, effect: e.Caught) -> None:
        """Keep what shows that a peer's answer is wrong, and ban it; what lost a vote is run again first."""
        partner = self._partners.get(effect.peer)
        evidence = partner.talk.evidence(effect.attempt) if partner is not None else None
        evidence = evidence or self._evidence.get((effect.peer, effect.attempt))
        evidence = evidence or self._audited(effect.peer, effect.job_id, effect.task)
        now_s = self._context.clock().wall_ns // SECOND_NS
        writes = [statements.put_catch(effect.peer, effect.job_id)]
        if evidence is not None:  # else what showed it is from before a restart
            writes.append(
                statements.put_evidence(effect.peer, effect.job_id, effect.task, effect.reason, evidence, now_s)
            )
        self._forget_prices(effect.peer)
        if not effect.is_opinion and self._context.book.caught(effect.peer, effect.reason):
            writes.append(statements.put_ban(effect.peer, effect.reason, now_s))
        self._context.journal.write_soon(writes)
        if evidence is not None:
            self._context.outvoted(effect.peer, evidence)

    def contradicted(self, effect: e.Ban) -> None:
        """This node has run a task itself and got something else: make a case of it, if the messages are here."""
        self._forget_prices(effect.peer)
        evidence = self._audited(effect.peer, effect.job_id, effect.task)
        if evidence is not None:
            self._ban(effect.peer, effect.job_id, effect.task, effect.reason, evidence)
            self._context.outvoted(effect.peer, evidence)

    def _forget_prices(self, peer: bytes) -> None:
        """Who was found out may have answered at once, whatever the work: honest ones are not held against that."""
        for prices in self._prices.values():
            prices.forget(peer)

    def _keep_until_audited(self, talk: RequesterTalk, attempt: int) -> None:
        evidence = talk.evidence(attempt)
        if evidence is None or evidence.body is None:
            return
        kept = self._unaudited.setdefault(evidence.body.job, {})
        kept[(evidence.task, talk.peer)] = evidence
        if sum(map(len, self._unaudited.values())) > UNAUDITED_KEPT_MAX:
            del kept[next(iter(kept))]

    def _audited(self, peer: bytes, job: bytes, task: int) -> market.Evidence | None:
        return self._unaudited.get(job, {}).get((task, peer))

    def _keep_evidence(self, talk: RequesterTalk) -> None:
        """A conversation is over, but what was shown in it still counts in ballots."""
        for attempt in talk.shown():
            evidence = talk.evidence(attempt)
            if evidence is not None:
                self._evidence[(talk.peer, attempt)] = evidence
        while len(self._evidence) > EVIDENCE_KEPT_MAX:
            del self._evidence[next(iter(self._evidence))]

    def _ban(self, peer: bytes, job: bytes, task: int, reason: str, evidence: market.Evidence) -> None:
        now_s = self._context.clock().wall_ns // SECOND_NS
        writes = [statements.put_evidence(peer, job, task, reason, evidence, now_s)]
        if self._context.book.caught(peer, reason):
            writes.append(statements.put_ban(peer, reason, now_s))
        self._context.journal.write_soon(writes)

    # Conversations.

    async def _converse(self, ask: e.Ask) -> None:
        """Talk to one provider until either side ends it; whatever goes wrong stays here."""
        partner = self._partners[ask.peer]
        code, detail = "unreachable", ""
        try:
            with self._context.mesh.in_use(ask.peer):
                stream = await open_conversation_stream(self._context, ask.peer, CONNECT_TIMEOUT_S)
                code = "lost"
                self._context.look(ask.peer)
                clock = self._context.clock
                partner.conversation = Conversation(
                    stream, partner.talk, clock, take_data=partial(self._take_frame, partner, Kind.DATA)
                )
                partner.talk.propose(ask.terms, ask.price_max, ask.duration_s, clock())
                await partner.conversation.run(
                    lambda frame: self._receive(partner, frame), lambda: not partner.receipts_open
                )
        except TransportError as error:
            detail = str(error)
            log.info("a provider was lost", peer=peer_id(ask.peer), reason=detail)
        except PeerViolation as error:
            code, detail = error.code, str(error)
            self._context.mesh.report(ask.peer, error)
            if isinstance(error, ProvenLie):
                self._context.caught(ask.peer, error.proof)
                self._forget_prices(ask.peer)
                self._ban(ask.peer, b"", error.evidence.task, str(error), error.evidence)
        except Exception:  # the per-peer border: a fault met with one peer costs that conversation, and is logged
            code = "fault"
            log.exception("a conversation failed", peer=peer_id(ask.peer))
        finally:
            self._keep_evidence(partner.talk)
            if self._partners.get(ask.peer) is partner:
                self._let_down(partner)
                self._feed(e.Gone(ask.peer, code, printable(detail, length_max=DETAIL_CHARACTERS_MAX)))
                self._partners.pop(ask.peer, None)

    def _receive(self, partner: _Partner, frame: Frame) -> bool:
        self._take_frame(partner, frame.kind, frame.body)
        return False

    def _take_frame(self, partner: _Partner, kind: int, body: bytes | memoryview) -> None:
        self._take(partner, partner.talk.receive(kind, body, self._context.clock()))

    def _take(self, partner: _Partner, happened: list[market.Event]) -> None:
        """Do what a conversation's machine asks for, and tell the scheduler the rest."""
        peer = partner.talk.peer
        for event in happened:
            if isinstance(event, _TO_STORE) or self._partners.get(peer) is not partner:
                self._store(partner, event)
                continue
            self._feed(e.Heard(peer, event))
            if isinstance(event, market.Failed):
                for _, code in event.items:
                    if code not in TASK_FAULTS:
                        self._let_down(partner)
            elif isinstance(event, market.Ended | market.Declined):
                if isinstance(event, market.Ended) and event.code not in ORDERLY:
                    self._let_down(partner)
                self._part(partner)

    def _store(self, partner: _Partner, event: market.Event) -> None:
        peer, journal = partner.talk.peer, self._context.journal
        now_s = self._context.clock().wall_ns // SECOND_NS
        if isinstance(event, market.StoreAgreement):
            writes = [
                statements.put_agreement(event.agreement, "requester", peer, event.bid, event.award, now_s),
                statements.put_floor(peer, "market", event.seq),
            ]
            journal.write_soon(writes, partner.award_stored)
        elif isinstance(event, market.StoreReceipt):
            partner.receipts_open += 1
            writes = [
                statements.put_receipt(
                    event.receipt, "requester", peer, event.job, event.envelope, None, now_s, event.busy_us
                ),
                statements.put_entry(event.entry, event.receipt, "requester"),
            ]
            journal.write_lazily(writes, partial(partner.receipt_stored, self._context.pen, event))
        elif isinstance(event, market.StoreCountersign):
            partner.receipts_open -= 1
            write = statements.put_countersign(event.receipt, event.envelope)
            journal.write_lazily([write], partial(self._confirmed, peer, event.busy_us))

    def _confirmed(self, peer: bytes, busy_us: int, error: ResourceError | None) -> None:
        if error is None:
            self._context.credit.received(peer, busy_us)
            self._context.look(peer)

    def _let_down(self, partner: _Partner) -> None:
        """Note that a provider was not there when it was needed."""
        self._context.book.let_down(partner.talk.peer, partner.talk.device_class, self._context.clock())

    def _part(self, partner: _Partner) -> None:
        """The conversation is over, and the scheduler knows."""
        self._keep_evidence(partner.talk)
        if self._partners.get(partner.talk.peer) is partner:
            del self._partners[partner.talk.peer]
        if partner.conversation is not None:
            partner.conversation.wake()
            partner.conversation.stop()

    def __len__(self) -> int:
        return len(self._partners)

    def tick(self, now: Now) -> None:
        """Look at the deadlines of all conversations."""
        for partner in list(self._partners.values()):
            self._take(partner, partner.talk.tick(now))
