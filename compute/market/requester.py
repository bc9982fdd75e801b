"""A requester's end of one ``market/2`` stream: bytes in, events for the scheduler out; and the other way.

The flow: ``propose`` offers terms; a bid is awarded as soon as the agreement is stored; ``Accept`` opens it
(``Agreed``). Then ``assign`` sends attempts, whose commitments come back as ``Committed`` and whose failures
as ``Failed``. The first commitments of a work fix what each of its tasks costs (``Priced``), which is told
before the next ones are sent. ``ask`` sends the commit set, whose openings are checked and come back as
``Revealed``, with bytes as ``Delivered``, or as ``Stayed`` where the provider keeps them; ``release`` ends an
attempt. ``settle`` and ``close_work`` make receipts, which are stored before they are sent.

What goes out waits in queues that the stream's one writer empties with ``drain``: what has gathered since its
last write leaves as one signed message. Anything that a peer may not say raises ``PeerViolation``; the
conversation is then over, and the shell tells it (``ended``) and the scheduler. Late commits, failures and
data of attempts that were released are ignored: they may have crossed the release.

Deadlines: ``NEGOTIATE_S`` for a bid or an acceptance; ``SILENCE_S`` without any frame while attempts are
open; the oldest attempt that has not ended must end within its limit and ``GRACE_S`` of becoming the oldest
(providers run in order), the first of a work also gets the time to fetch its blobs, others that for a task's part of
them; an opening within
``GRACE_S``; bytes at ``SLOWEST_BYTES_PER_S``.
"""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from enum import Enum
from typing import TypeVar

from depin_node.compute.market.dues import Dues
from depin_node.compute.market.happenings import (
    Agreed,
    BidHeard,
    Committed,
    Declined,
    Delivered,
    Ended,
    Event,
    Evidence,
    Failed,
    Priced,
    Revealed,
    Stayed,
    StoreAgreement,
    StoreCountersign,
    StoreReceipt,
)
from depin_node.compute.market.messages import (
    BATCH_MAX,
    FROM_PROVIDER,
    GATHERED,
    Accept,
    Award,
    Bid,
    Cancel,
    Commit,
    Commits,
    CommitSet,
    Countersign,
    Decline,
    End,
    EndCode,
    FailCode,
    Kind,
    Offer,
    Price,
    Progress,
    Release,
    Reveal,
    Reveals,
    SetEntry,
    Tasks,
    Terms,
    Upload,
    Verdict,
    Want,
    Work,
    WorkBody,
    agreement_id,
    attempt_bytes,
    digest,
    work_id,
)
from depin_node.compute.market.pen import Frame, Pen
from depin_node.compute.market.pricing import Prices, reference_us
from depin_node.compute.market.transfer import Incoming, check_sizes, header_of
from depin_node.compute.trust.evidence import Proof, bad_opening, two_results
from depin_node.core.clock import SECOND_NS, Now
from depin_node.core.errors import PeerViolation
from depin_node.core.wire import encode
from depin_node.crypto.commitment import Answer, result_root, verify_opening
from depin_node.crypto.envelope import Verified

NEGOTIATE_S = 10
SILENCE_S = 8
"""Four signs of life that did not come; with a tick of ours, a frozen provider is given up within 10 s."""
GRACE_S = 10
SLOWEST_BYTES_PER_S = 1_000_000
"""A provider that moves less is no use; one tenth of what a home line uploads."""
LENDERS_AT_A_LINE = 16
"""So many may get parts of inputs from a requester at the same time, and share its line."""
RECEIPTS_OPEN_MAX = 64
CLAIM_GRACE_US = 1_000_000
"""What a provider may say to have run beyond what its slots can have: its clock is not ours."""
_Item = TypeVar("_Item")


class _State(Enum):
    IDLE = 1
    OFFERED = 2
    AWARDED = 3
    AGREED = 4
    OVER = 5


class _Phase(Enum):
    SENT = 1
    COMMITTED = 2
    ASKED = 3
    REVEALED = 4
    UPLOADING = 5


class _Attempt:
    __slots__ = (
        "asked_ns",
        "commitment",
        "commits",
        "incoming",
        "phase",
        "reveals",
        "root",
        "stays",
        "task",
        "work",
    )

    def __init__(self, work: "_Work", task: int) -> None:
        self.work = work
        self.task = task
        self.phase = _Phase.SENT
        self.commitment = b""
        self.root = b""
        self.asked_ns = 0
        self.incoming: Incoming | None = None
        self.stays = False  # its bytes are asked to stay with the provider
        self.commits = b""  # the envelopes that hold the answer and its opening: evidence, should it come to that
        self.reveals = b""


class _Work:
    __slots__ = (
        "answered",
        "blob_bytes",
        "body",
        "dues",
        "id",
        "is_priced",
        "number",
        "price_us",
        "prices",
        "sizes",
    )

    def __init__(
        self,
        number: int,
        body: WorkBody,
        work: bytes,
        sizes: Callable[[int], tuple[int, ...]],
        dues: Dues,
        prices: Prices,
    ) -> None:
        self.number = number
        self.prices = prices
        self.price_us: int | None = None  # of each task, once the probe has been answered
        self.is_priced = False  # the provider has been told
        self.body = body
        self.dues = dues
        self.id = work
        self.sizes = sizes
        self.blob_bytes = body.program_bytes + sum(item.size_bytes for item in body.inputs)
        self.answered = False


class ProvenLie(PeerViolation):
    """The peer signed two things that cannot both be true: ``proof`` convinces a third party (``evidence.Proof``)."""

    code = "proven_lie"

    def __init__(self, message: str, evidence: Evidence, proof: Proof) -> None:
        super().__init__(message)
        self.evidence = evidence
        self.proof = proof


class RequesterTalk:
    """The machine. All times come in as ``now``; nothing here waits."""

    def __init__(self, pen: Pen, peer: bytes) -> None:
        self.peer = peer
        self.agreement = b""
        self._pen = pen
        self._state = _State.IDLE
        self._deadline_ns = 0
        self._heard_ns = 0
        self._head_since_ns = 0
        self._agreed_ns = 0
        self._claimed_us = 0
        self._terms: Terms | None = None
        self._price_max = 0
        self._offer = b""
        self._award = b""
        self._bid: Bid | None = None
        self._attempts: dict[int, _Attempt] = {}
        self._unended: deque[int] = deque()  # sent and neither committed nor failed, oldest first; others are skipped
        self._next_attempt = 0
        self._works: dict[int, _Work] = {}
        self._receipts: dict[bytes, int] = {}
        self._out: deque[Frame] = deque()
        self._out_last: deque[Frame] = deque()  # behind all else: nobody waits for them
        self._out_sets: deque[SetEntry] = deque()
        self._out_tasks: deque[tuple[int, int, int]] = deque()  # attempt, work, task
        self._out_releases: deque[int] = deque()
        self._out_uploads: deque[int] = deque()

    @property
    def device_class(self) -> str:
        """The class that the provider has bid, empty before."""
        return self._bid.device_class if self._bid is not None else ""

    # What the scheduler asks for.

    def propose(self, terms: Terms, price_max: int, duration_s: int, now: Now) -> None:
        """Offer ``terms``; once a conversation."""
        assert self._state is _State.IDLE
        self._terms = terms
        self._price_max = price_max
        envelope = self._pen.sign(Offer, self.peer, now, terms, price_max, duration_s)
        self._offer = digest(envelope)
        self._state = _State.OFFERED
        self._deadline_ns = now.boottime_ns + NEGOTIATE_S * SECOND_NS
        self._out.append((Kind.OFFER, envelope))

    def stored(self, now: Now) -> None:
        """The agreement that ``StoreAgreement`` named is stored: award it."""
        if self._state is _State.AWARDED:
            self._deadline_ns = now.boottime_ns + NEGOTIATE_S * SECOND_NS
            self._out.append((Kind.AWARD, self._award))

    def open_work(
        self,
        number: int,
        body: WorkBody,
        grant: bytes,
        sizes: Callable[[int], tuple[int, ...]],
        prices: Prices,
        now: Now,
    ) -> None:
        """Announce a job's work. ``sizes`` tells the bytes of each output of a task, ``prices`` what others ask."""
        assert self._bid is not None
        key = self._pen.receipt_key(body.job)
        dues = Dues(self._pen, self.peer, self.agreement, self._bid, number, body)
        self._works[number] = _Work(number, body, work_id(self.agreement, number, body), sizes, dues, prices)
        self._out.append((Kind.WORK, self._pen.sign(Work, self.peer, now, self.agreement, number, body, grant, key)))

    def assign(self, work: int, first_attempt: int, tasks: list[int], now: Now) -> None:
        """Send one attempt for each of ``tasks``, numbered from ``first_attempt`` on: higher than all before."""
        assert first_attempt >= self._next_attempt
        if not self._attempts:
            self._heard_ns = now.boottime_ns  # nothing was to be heard until now
        if self._head() is None:
            self._head_since_ns = now.boottime_ns
        for attempt, task in enumerate(tasks, first_attempt):
            self._attempts[attempt] = _Attempt(self._works[work], task)
            self._unended.append(attempt)
            self._out_tasks.append((attempt, work, task))
        self._next_attempt = first_attempt + len(tasks)

    def ask(self, attempt: int, set_digest: bytes, want: Want, now: Now) -> None:
        """Fix the set of answers that this one is in, and have it shown; ``want`` says what of its bytes."""
        record = self._attempts[attempt]
        assert record.phase is _Phase.COMMITTED
        record.phase = _Phase.ASKED
        record.asked_ns = now.boottime_ns
        record.incoming = _EXPECTED if want is Want.BYTES else None
        record.stays = want is Want.STAY
        self._out_sets.append(SetEntry(attempt, set_digest, want))

    def ask_upload(self, attempt: int, now: Now) -> None:
        """Have the bytes of a revealed answer sent."""
        record = self._attempts[attempt]
        assert record.phase is _Phase.REVEALED
        record.phase = _Phase.ASKED
        record.incoming = _EXPECTED
        record.stays = False
        record.asked_ns = now.boottime_ns
        self._out_uploads.append(attempt)

    def release(self, attempt: int, verdict: Verdict | None, now: Now) -> list[Event]:
        """End an attempt. With a ``verdict`` it goes into a receipt; without one it had no answer that
        counts."""
        record = self._attempts.pop(attempt)
        if self._out_tasks and attempt >= self._out_tasks[0][0]:  # never sent
            self._out_tasks = deque(item for item in self._out_tasks if item[0] != attempt)
        else:
            self._out_releases.append(attempt)
        if verdict is None:
            return []
        work = record.work
        assert work.price_us is not None  # it was answered
        return work.dues.put(attempt, record.task, record.commitment, record.root, verdict, work.price_us, now)

    def settle(self, number: int, tasks: Iterable[int], verdict: Verdict, now: Now) -> list[Event]:
        """Give answers that were provisional their last verdict, in further receipts."""
        return list(self._works[number].dues.settle(tasks, verdict, now))

    def close_work(self, number: int, verified_by: str, now: Now) -> list[Event]:
        """End a work with its last receipt. What is open is void: the caller has released it."""
        work = self._works.pop(number)
        self._out_tasks = deque(item for item in self._out_tasks if item[1] != number)
        self._out_last.append((Kind.CANCEL, encode(Cancel(number))))
        return list(work.dues.close(verified_by, now))

    def send_receipt(self, receipt: StoreReceipt) -> None:
        """A receipt is stored: send it."""
        if len(self._receipts) >= RECEIPTS_OPEN_MAX:  # a provider that does not countersign loses only its copies
            self._receipts.pop(next(iter(self._receipts)))
        self._receipts[receipt.receipt] = receipt.busy_us
        self._out_last.append((Kind.RECEIPT, receipt.envelope))

    def end(self, code: EndCode) -> None:
        """End the agreement from this side."""
        self._state = _State.OVER
        self._out_last.append((Kind.END, encode(End(code))))

    def shown(self) -> list[int]:
        """Return the attempts whose answers were shown, and that are not released."""
        return [attempt for attempt, record in self._attempts.items() if record.root]

    def evidence(self, attempt: int) -> Evidence | None:
        """Return the signed messages that fix an answer, while its attempt is not released."""
        record = self._attempts.get(attempt)
        return None if record is None else self._evidence(attempt, record)

    def _evidence(self, attempt: int, record: _Attempt) -> Evidence:
        work = record.work
        return Evidence(
            self.agreement, work.id, record.task, attempt, record.commits, record.reveals, work.number, work.body
        )

    # What goes out.

    def is_urgent(self) -> bool:
        """Tell whether the provider waits for something that ``drain`` would return.

        A few tasks are no hurry as long as it has plenty: more will soon share their signature.
        """
        tasks = len(self._out_tasks)
        return bool(
            self._out
            or self._out_sets
            or self._out_uploads
            or (tasks and (tasks >= GATHERED or len(self._unended) - tasks < 2 * GATHERED))
        )

    def has_output(self) -> bool:
        """Tell whether ``drain`` would return anything."""
        return bool(self.is_urgent() or self._out_tasks or self._out_releases or self._out_last)

    def drain(self, now: Now) -> list[Frame]:
        """Return what is to be written now, signed: at most one batch of each signed kind."""
        frames = list(self._out)
        self._out.clear()
        if self._out_sets:
            entries = tuple(_take(self._out_sets))
            frames.append((Kind.COMMIT_SET, self._pen.sign(CommitSet, self.peer, now, self.agreement, entries)))
        if self._out_uploads:
            frames.append((Kind.UPLOAD, encode(Upload(tuple(_take(self._out_uploads))))))
        while self._out_releases:  # all, and before new tasks: these may count on the room that those give
            frames.append((Kind.RELEASE, encode(Release(tuple(_take(self._out_releases))))))
        if self._out_tasks:
            work = self._works[self._out_tasks[0][1]]
            if work.price_us is not None and not work.is_priced:
                work.is_priced = True
                price = self._pen.sign(Price, self.peer, now, self.agreement, work.number, work.price_us)
                frames.append((Kind.PRICE, price))
            frames.append((Kind.TASKS, self._tasks(now)))
        frames.extend(self._out_last)
        self._out_last.clear()
        return frames

    def _tasks(self, now: Now) -> bytes:
        """Sign the next tasks of one work with consecutive numbers."""
        first, work, task = self._out_tasks.popleft()
        tasks = [task]
        while self._out_tasks and len(tasks) < BATCH_MAX and self._out_tasks[0][:2] == (first + len(tasks), work):
            tasks.append(self._out_tasks.popleft()[2])
        return self._pen.sign(Tasks, self.peer, now, self.agreement, work, first, tuple(tasks))

    # What comes in.

    def receive(self, kind: int, body: bytes | memoryview, now: Now) -> list[Event]:
        """Take one frame; of one with data nothing is kept but its bytes.

        Raises:
            PeerViolation: the provider may not say this, or not now. The conversation is over.
        """
        self._heard_ns = now.boottime_ns
        if self._state is _State.OVER and kind != Kind.COUNTERSIGN:
            return []  # it may have crossed our end
        if kind == Kind.DATA:
            return self._data(memoryview(body))
        message = self._pen.read(kind, bytes(body), self.peer, FROM_PROVIDER, now)
        if isinstance(message, End):
            self._state = _State.OVER
            return [Ended(message.code.value)]
        if isinstance(message, Progress):
            return []
        assert isinstance(message, Verified)
        payload = message.payload
        if isinstance(payload, Countersign):
            return self._countersigned(payload, message.data)
        if isinstance(payload, Bid) and self._state is _State.OFFERED:
            return self._bid_heard(payload, message.data, now)
        if isinstance(payload, Decline) and self._state in (_State.OFFERED, _State.AWARDED):
            return self._declined(payload)
        if isinstance(payload, Accept) and self._state is _State.AWARDED:
            return self._accepted(payload, now)
        if isinstance(payload, Commits | Reveals) and self._state is _State.AGREED:
            if payload.agreement != self.agreement:
                raise PeerViolation(f"{payload.TYPE}: about another agreement")
            if isinstance(payload, Commits):
                return self._commits(payload, message.data, now)
            return self._reveals(payload, message.data)
        raise PeerViolation(f"{payload.TYPE}: not now ({self._state.name.lower()})")

    def _bid_heard(self, bid: Bid, envelope: bytes, now: Now) -> list[Event]:
        if bid.offer != self._offer:
            raise PeerViolation("bid: answers another offer")
        assert self._terms is not None
        if bid.device_class not in self._terms.device_classes or bid.price > self._price_max:
            raise PeerViolation("bid: a device class that was not asked for, or above the price offered")
        self._bid = bid
        self._award = self._pen.sign(Award, self.peer, now, digest(envelope))
        self.agreement = agreement_id(envelope, self._award)
        self._state = _State.AWARDED
        self._deadline_ns = now.boottime_ns + NEGOTIATE_S * SECOND_NS
        return [
            BidHeard(bid.slots, bid.window, bid.price),
            StoreAgreement(self.agreement, envelope, self._award, bid.seq),
        ]

    def _declined(self, decline: Decline) -> list[Event]:
        if decline.about != (self._offer if self._state is _State.OFFERED else digest(self._award)):
            raise PeerViolation("decline: of something else")
        self._state = _State.OVER
        return [Declined(decline.code.value)]

    def _accepted(self, accept: Accept, now: Now) -> list[Event]:
        if accept.agreement != self.agreement:
            raise PeerViolation("accept: of another agreement")
        assert self._bid is not None
        assert self._terms is not None
        self._state = _State.AGREED
        self._agreed_ns = now.boottime_ns
        bid = self._bid
        return [Agreed(self.agreement, bid.device_class, bid.slots, bid.window, self._terms, bid.duration_s)]

    def _countersigned(self, countersign: Countersign, envelope: bytes) -> list[Event]:
        if countersign.receipt not in self._receipts:
            raise PeerViolation("countersign: of no receipt that is open")
        busy_us = self._receipts.pop(countersign.receipt)
        return [StoreCountersign(countersign.receipt, envelope, busy_us)]

    def _open(self, attempt: int, expected: _Phase) -> _Attempt | None:
        """Return an attempt that is in the phase expected, or None if it was released."""
        record = self._attempts.get(attempt)
        if record is None:
            if attempt >= self._next_attempt:
                raise PeerViolation("market: about an attempt that was never made")
            return None
        if record.phase is not expected:
            raise PeerViolation(f"market: attempt {attempt} is {record.phase.name}, not {expected.name}")
        return record

    def _commits(self, commits: Commits, envelope: bytes, now: Now) -> list[Event]:
        if not commits.commits and not commits.failures:
            raise PeerViolation("commits: empty")
        committed: list[tuple[int, bytes, int]] = []
        failed: list[tuple[int, FailCode]] = []
        answered: _Work | None = None
        head = self._head()
        for commit in commits.commits:
            record = self._uncommitted(commit, envelope)
            if record is not None:
                if (commits.work, commit.task) != (record.work.id, record.task):
                    raise PeerViolation("commits: to another task than the attempt's")
                record.phase = _Phase.COMMITTED
                record.commitment = commit.commitment
                elapsed_us = self._believable(commit.elapsed_us, now)
                record.commits = envelope
                record.work.answered = True
                answered = record.work
                committed.append((commit.attempt, commit.commitment, elapsed_us))
        for failure in commits.failures:
            record = self._open(failure.attempt, _Phase.SENT)
            if record is not None:
                record.work.answered = True
                del self._attempts[failure.attempt]
                failed.append((failure.attempt, failure.code))
        if self._head() != head:
            self._head_since_ns = now.boottime_ns
        events: list[Event] = []
        if answered is not None and answered.price_us is None:
            events.append(self._fix_price(answered, [elapsed_us for *_, elapsed_us in committed]))
        if committed:
            events.append(Committed(committed))
        if failed:
            events.append(Failed(failed))
        return events

    def _fix_price(self, work: _Work, answered_us: list[int]) -> Priced:
        """The first answers of a work are in: fix what each of its tasks costs."""
        assert self._bid is not None
        probe_us = sorted(answered_us)[(len(answered_us) - 1) // 2]  # the very first one also warms up a worker
        limit_us = work.body.terms.limits.seconds * 1_000_000  # what is said to have taken longer would have been ended
        work.price_us = work.prices.fix(self.peer, reference_us(min(probe_us, limit_us), self._bid.speed))
        return Priced(work.body.job, work.price_us)

    def _believable(self, elapsed_us: int, now: Now) -> int:
        """Return what a provider says to have run, as far as its slots can have in the time that has passed."""
        assert self._bid is not None
        passed_us = self._bid.slots * (now.boottime_ns - self._agreed_ns) // 1000 + CLAIM_GRACE_US
        believed_us = min(elapsed_us, max(0, passed_us - self._claimed_us))
        self._claimed_us += believed_us
        return believed_us

    def _uncommitted(self, commit: Commit, envelope: bytes) -> _Attempt | None:
        record = self._attempts.get(commit.attempt)
        if record is not None and record.commits and commit.commitment != record.commitment:
            evidence = self._evidence(commit.attempt, record)
            raise ProvenLie("commits: two answers to one attempt", evidence, two_results(record.commits, envelope))
        return self._open(commit.attempt, _Phase.SENT)

    def _reveals(self, reveals: Reveals, envelope: bytes) -> list[Event]:
        revealed: list[tuple[int, bytes]] = []
        stayed: list[Event] = []  # told first: who keeps an answer is known when it is decided
        delivered: list[Event] = []
        for reveal in reveals.reveals:
            record = self._open(reveal.attempt, _Phase.ASKED)
            if record is None:
                continue
            if not record.root:
                record.reveals = envelope
                self._check_opening(record, reveal)
                record.root = reveal.root
                revealed.append((reveal.attempt, reveal.root))
            elif reveal.root != record.root:
                evidence = self._evidence(reveal.attempt, record)
                raise ProvenLie("reveals: two answers to one attempt", evidence, two_results(record.reveals, envelope))
            record.phase = _Phase.REVEALED
            if record.incoming is None and not record.stays:
                if reveal.outputs or reveal.log:
                    raise PeerViolation("reveals: outputs or a log that were not asked for")
                continue
            if record.stays and not reveal.outputs:
                continue  # it has no room to keep them
            if result_root(output.blob for output in reveal.outputs) != reveal.root:
                raise PeerViolation("reveals: the outputs do not have the root")
            check_sizes(reveal.outputs, record.work.sizes(record.task))
            if record.stays:
                blobs = tuple(output.blob for output in reveal.outputs)
                stayed.append(Stayed(reveal.attempt, reveal.root, blobs, reveal.log))
                continue
            record.incoming = Incoming(reveal.outputs, reveal.log)
            record.phase = _Phase.UPLOADING
            if record.incoming.is_complete():
                delivered.append(self._delivered(reveal.attempt, record))
        return [*stayed, Revealed(revealed), *delivered] if revealed else [*stayed, *delivered]

    def _check_opening(self, record: _Attempt, reveal: Reveal) -> None:
        answer = Answer(self._pen.network, record.work.id, record.task, attempt_bytes(reveal.attempt), self.peer)
        try:
            verify_opening(record.commitment, answer, reveal.root, reveal.salt)
        except PeerViolation as error:
            proof = bad_opening(record.commits, record.reveals, reveal.attempt)
            raise ProvenLie(str(error), self._evidence(reveal.attempt, record), proof) from error

    def _data(self, body: memoryview) -> list[Event]:
        attempt = header_of(body)
        record = self._attempts.get(attempt)
        if record is None and attempt < self._next_attempt:
            return []
        if record is None or record.phase is not _Phase.UPLOADING or record.incoming is None:
            raise PeerViolation("market: data that was not asked for")
        record.incoming.add(body)
        if not record.incoming.is_complete():
            return []
        return [self._delivered(attempt, record)]

    def _delivered(self, attempt: int, record: _Attempt) -> Delivered:
        assert record.incoming is not None
        incoming, record.incoming = record.incoming, None
        record.phase = _Phase.REVEALED
        return Delivered(attempt, record.root, incoming.buffers, incoming.log)

    # Deadlines.

    def _head(self) -> int | None:
        """Return the oldest attempt that has not ended."""
        while self._unended:
            record = self._attempts.get(self._unended[0])
            if record is not None and record.phase is _Phase.SENT:
                return self._unended[0]
            self._unended.popleft()
        return None

    def tick(self, now: Now) -> list[Event]:
        """Look at the deadlines, about once a second."""
        reason = self._overdue(now.boottime_ns)
        if reason is None and self._is_dear():
            self.end(EndCode.PRICE)
            return [Ended("dear")]
        if reason is None:
            return self._receipts_due(now)
        self._state = _State.OVER
        return [Ended(reason)]

    def _is_dear(self) -> bool:
        """Tell whether some work costs far more here than others ask for it."""
        return any(
            work.price_us is not None and work.prices.is_too_much(self.peer, work.price_us)
            for work in self._works.values()
        )

    def _receipts_due(self, now: Now) -> list[Event]:
        """Sign for what has waited long: should this node die, little that was done for it is unsigned."""
        return [receipt for work in self._works.values() for receipt in work.dues.due(now)]

    def _overdue(self, at_ns: int) -> str | None:
        if self._state in (_State.OFFERED, _State.AWARDED):
            return "no_answer" if at_ns > self._deadline_ns else None
        if self._state is not _State.AGREED or not self._attempts:
            return None
        if at_ns > self._heard_ns + SILENCE_S * SECOND_NS:
            return "silent"
        head = self._head()
        if head is not None:
            work = self._attempts[head].work
            allowed_s = work.body.terms.limits.seconds + GRACE_S
            if not work.answered:
                allowed_s += GRACE_S + work.blob_bytes // SLOWEST_BYTES_PER_S
            else:  # it may get its part of them now, as others do theirs
                allowed_s += LENDERS_AT_A_LINE * work.blob_bytes // work.body.tasks // SLOWEST_BYTES_PER_S
            if at_ns > self._head_since_ns + allowed_s * SECOND_NS:
                return "stalled"
        return "stalled" if any(self._overdue_opening(at_ns)) else None

    def _overdue_opening(self, at_ns: int) -> Iterator[bool]:
        for record in self._attempts.values():
            if record.phase in (_Phase.ASKED, _Phase.UPLOADING):
                moves = record.incoming is not None or record.stays
                output_bytes = sum(record.work.sizes(record.task)) if moves else 0
                # Others' bytes may be before it, in the stream or on their way to a disk.
                allowed_s = GRACE_S + len(self._attempts) * output_bytes // SLOWEST_BYTES_PER_S
                yield at_ns > record.asked_ns + allowed_s * SECOND_NS


_EXPECTED = Incoming(())
"""Stands for bytes that were asked for and are not announced yet."""


def _take(queue: deque[_Item]) -> Iterator[_Item]:
    for _ in range(min(len(queue), BATCH_MAX)):
        yield queue.popleft()
