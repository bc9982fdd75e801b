"""A provider's end of one ``market/2`` stream: bytes in, orders for the shell out; and the other way.

The flow: an ``Offer`` is answered from the lender's book with ``Bid`` or ``Decline``. An ``Award`` takes the
slots and has the agreement stored; then ``Accept`` goes out and the shell opens its workers (``Open``).
``Work`` has blobs fetched (``Prepare``), ``Tasks`` has attempts run (``Run``). The shell reports ``finished``
and ``failed``; commitments go out as they come. A ``CommitSet`` has them shown, those whose bytes are to stay
once the shell has put these away (``Keep``); ``Release`` lets the bytes go (``Free``). A ``Receipt`` is checked
against what was committed, stored, and countersigned.

Salts come from one secret by keyed hash, so that no observed salt tells the next. The requester may say only
what its window and the phase of an attempt allow; else ``PeerViolation``, and the conversation is over. What
it says about an attempt that it has released is ignored.
"""

from collections import Counter, deque
from dataclasses import dataclass
from enum import Enum

from blake3 import blake3

from depin_node.compute.market.accounts import Account, Accounts, Owed
from depin_node.compute.market.happenings import StoreAgreement
from depin_node.compute.market.lender import Lender, Quote
from depin_node.compute.market.messages import (
    BATCH_MAX,
    FROM_REQUESTER,
    GATHERED,
    LIFETIME_S,
    LOG_BYTES_MAX,
    Accept,
    Award,
    Bid,
    Cancel,
    Commit,
    Commits,
    CommitSet,
    Countersign,
    Decline,
    DeclineCode,
    End,
    EndCode,
    FailCode,
    Failure,
    Kind,
    Meters,
    Offer,
    Output,
    Price,
    Progress,
    Receipt,
    Release,
    Reveal,
    Reveals,
    Tasks,
    Terms,
    Upload,
    Want,
    Work,
    WorkBody,
    agreement_id,
    attempt_bytes,
    digest,
    keyed_inputs,
    keyed_output,
    work_id,
)
from depin_node.compute.market.orders import Forget, Free, Keep, Open, Order, Over, Prepare, Run, StoreReceipt
from depin_node.compute.market.pen import Frame, Pen
from depin_node.compute.trust.receipts import busy_us as busy_us_of
from depin_node.core.clock import SECOND_NS, Now
from depin_node.core.errors import PeerViolation
from depin_node.core.wire import encode
from depin_node.crypto.commitment import Answer, commit, result_root
from depin_node.crypto.envelope import Verified

PROGRESS_S = 2
"""A fifth of the silence that a requester bears."""
IDLE_S = 15
EXPIRY_GRACE_S = 10
WORKS_MAX = 64
REVEAL_OUTPUTS_MAX = 512
"""Outputs named in one ``Reveals``: 45 bytes each, below its size, with the logs."""
NO_WORK = bytes(32)
_SALT_CONTEXT = "depin-node market 2026 salt v1"


class _State(Enum):
    IDLE = 1
    BID = 2
    STORING = 3
    AGREED = 4
    OVER = 5


class _Phase(Enum):
    RUNNING = 1
    COMMITTED = 2
    ASKED = 3
    REVEALED = 4


class _Attempt:
    __slots__ = (
        "commitment",
        "elapsed_us",
        "energy_mj",
        "fuel",
        "is_shown",
        "log",
        "outputs",
        "phase",
        "root",
        "salt",
        "task",
        "work",
    )

    def __init__(self, work: int, task: int) -> None:
        self.work = work
        self.task = task
        self.phase = _Phase.RUNNING
        self.is_shown = False  # stays so when its bytes are asked for once more
        self.outputs: tuple[Output, ...] = ()
        self.log = b""
        self.root = b""
        self.salt = b""
        self.commitment = b""
        self.elapsed_us = 0
        self.energy_mj = 0
        self.fuel = 0


@dataclass(frozen=True)
class _Work:
    body: WorkBody
    id: bytes


class ProviderTalk:
    """The machine. ``secret`` is 32 bytes from the operating system, for the salts of this conversation."""

    def __init__(self, pen: Pen, peer: bytes, group: str, lender: Lender, secret: bytes) -> None:
        self.peer = peer
        self.group = group
        self.agreement = b""
        self._pen = pen
        self._lender = lender
        self._secret = blake3(secret, derive_key_context=_SALT_CONTEXT).digest()
        self._state = _State.IDLE
        self._terms: Terms | None = None
        self._bid = b""
        self._quote: Quote | None = None
        self._shares: dict[int, int] = {}
        self._deadline_ns = 0
        self._idle_since_ns = 0
        self._sent_ns = 0
        self._ended_count = 0
        self._next_attempt = 0
        self._attempts: dict[int, _Attempt] = {}
        self._unended = 0
        self._to_run: Counter[int] = Counter()  # of those, by work
        self._hurries = False
        self._works: dict[int, _Work] = {}
        self._next_work = 0
        self._accounts = Accounts()
        self.energy_by = ""
        """What measures the energy that ``finished`` is told, if anything does."""
        self._out: deque[Frame] = deque()
        self._out_last: deque[Frame] = deque()  # in no hurry
        self._out_commits: deque[tuple[bytes, Commit]] = deque()  # with the id of its work
        self._out_failures: deque[Failure] = deque()
        self._out_reveals: deque[tuple[int, Want]] = deque()
        self._uploads: deque[int] = deque()

    # What the shell reports.

    def stored(self, now: Now) -> list[Order]:
        """The agreement is stored: accept the award."""
        if self._state is not _State.STORING:
            return []
        assert self._quote is not None
        assert self._terms is not None
        self._state = _State.AGREED
        self._idle_since_ns = now.boottime_ns
        self._deadline_ns = now.boottime_ns + (self._quote.duration_s + EXPIRY_GRACE_S) * SECOND_NS
        self._out.append((Kind.ACCEPT, self._pen.sign(Accept, self.peer, now, self.agreement)))
        return [Open(self.agreement, self._terms, self._shares)]

    def finished(
        self,
        attempt: int,
        outputs: tuple[Output, ...],
        elapsed_us: int,
        log: bytes = b"",
        *,
        fuel: int = 0,
        energy_mj: int = 0,
    ) -> None:
        """An attempt has its result: commit to it. Nothing happens if it was released meanwhile.

        ``log`` is what the task printed; its beginning goes with the bytes of the result. ``fuel`` and
        ``energy_mj`` are what it took, 0 where nothing measures it.
        """
        record = self._attempts.get(attempt)
        if record is None or self._state is not _State.AGREED:
            return
        assert record.phase is _Phase.RUNNING
        work = self._works[record.work]
        record.phase = _Phase.COMMITTED
        record.outputs = outputs
        record.log = log[:LOG_BYTES_MAX]
        record.elapsed_us = elapsed_us
        record.fuel = fuel
        record.energy_mj = energy_mj
        record.root = result_root(output.blob for output in outputs)
        record.salt = blake3(work.id + attempt_bytes(attempt), key=self._secret).digest()
        answer = Answer(self._pen.network, work.id, record.task, attempt_bytes(attempt), self._pen.key)
        record.commitment = commit(answer, record.root, record.salt)
        self._accounts[record.work].answered(elapsed_us)
        self._ran(record)
        self._ended_count += 1
        self._out_commits.append((work.id, Commit(attempt, record.task, record.commitment, elapsed_us)))

    def kept(self, attempt: int, *, is_here: bool) -> None:
        """The outputs of an attempt are put away, or there is no room for them: show the answer."""
        if attempt in self._attempts:
            self._show(attempt, Want.STAY if is_here else Want.ROOT)

    def failed(self, attempt: int, code: FailCode, now: Now) -> None:
        """An attempt ended without a result. Nothing happens if it was released meanwhile."""
        record = self._attempts.pop(attempt, None)
        if record is None or self._state is not _State.AGREED:
            return
        self._ran(record)
        self._ended_count += 1
        self._note_idle(now)
        self._out_failures.append(Failure(attempt, code))

    def _ran(self, record: _Attempt) -> None:
        """An attempt has ended. The last answer of a work, and what is to be shown after it, wait for no others."""
        self._unended -= 1
        self._to_run[record.work] -= 1
        self._hurries |= not self._to_run[record.work]

    def _show(self, attempt: int, want: Want) -> None:
        self._out_reveals.append((attempt, want))
        self._hurries |= not self._to_run[self._attempts[attempt].work]

    def send_countersign(self, receipt: StoreReceipt) -> None:
        """A receipt is stored: confirm it."""
        self._out_last.append((Kind.COUNTERSIGN, receipt.countersign))

    def end(self, code: EndCode) -> list[Order]:
        """End the agreement from this side."""
        if self._state is _State.OVER:
            return []
        self._out.append((Kind.END, encode(End(code))))
        return self._over(code.value)

    def ended(self) -> list[Order]:
        """The stream is gone."""
        return self._over("lost") if self._state is not _State.OVER else []

    # What the lender's book asks.

    def is_idle(self) -> bool:
        """Tell whether no attempt is open under the agreement."""
        return self._state is _State.AGREED and not self._attempts

    def give_way(self) -> None:
        """Let another requester have the slots; ``is_over`` tells the shell."""
        self.end(EndCode.IDLE)

    def is_over(self) -> bool:
        """Tell whether the conversation has ended: what is queued may still be written."""
        return self._state is _State.OVER

    def unsigned_us(self) -> int:
        """Return the work in answers that were shown, and that no receipt has come for or will."""
        return self._accounts.unsigned_us()

    def open_attempts(self) -> int:
        """Return how many attempts are not released."""
        return len(self._attempts)

    # What goes out.

    def is_urgent(self) -> bool:
        """Tell whether the requester waits for something that ``drain`` would return.

        A few answers to show or commit to, while more attempts of their works are still to run, are no hurry: theirs
        will soon share the signature.
        """
        answers = len(self._out_commits) + len(self._out_reveals)
        is_enough = self._hurries or answers >= min(GATHERED, self._unended)
        return bool(self._out or self._out_failures or (answers and is_enough))

    def has_output(self) -> bool:
        """Tell whether ``drain`` would return anything."""
        return bool(self.is_urgent() or self._out_commits or self._out_reveals or self._out_last)

    def drain(self, now: Now) -> list[Frame]:
        """Return what is to be written now, signed; at most one batch of each kind."""
        frames = list(self._out)
        self._out.clear()
        if self._out_commits or self._out_failures:
            message = self._commits(now)
            frames.append((Kind.COMMITS, message))
        if self._out_reveals:
            reveals = self._reveals()
            if reveals:
                frames.append((Kind.REVEALS, self._pen.sign(Reveals, self.peer, now, self.agreement, reveals)))
        self._hurries = bool(self._hurries and (self._out_commits or self._out_reveals))
        frames.extend(self._out_last)
        self._out_last.clear()
        if frames:
            self._sent_ns = now.boottime_ns
        return frames

    def _commits(self, now: Now) -> bytes:
        """Sign the next commitments of one work, and failures."""
        work = self._out_commits[0][0] if self._out_commits else NO_WORK
        commits: list[Commit] = []
        while self._out_commits and self._out_commits[0][0] == work and len(commits) < BATCH_MAX:
            commits.append(self._out_commits.popleft()[1])
        failures = tuple(self._out_failures.popleft() for _ in range(min(BATCH_MAX, len(self._out_failures))))
        return self._pen.sign(Commits, self.peer, now, self.agreement, work, tuple(commits), failures)

    def _reveals(self) -> tuple[Reveal, ...]:
        reveals: list[Reveal] = []
        outputs_named = log_bytes = 0
        while (
            self._out_reveals
            and len(reveals) < BATCH_MAX
            and outputs_named < REVEAL_OUTPUTS_MAX
            and log_bytes < LOG_BYTES_MAX
        ):
            attempt, want = self._out_reveals.popleft()
            record = self._attempts.get(attempt)
            if record is None:
                continue  # released before it was written
            record.phase = _Phase.REVEALED
            record.is_shown = True
            outputs, log = (record.outputs, record.log) if want else ((), b"")
            outputs_named += len(outputs)
            log_bytes += len(log)
            reveals.append(Reveal(attempt, record.root, record.salt, outputs, log))
            if want is Want.BYTES and any(output.size_bytes for output in outputs):
                self._uploads.append(attempt)
        return tuple(reveals)

    def next_upload(self) -> int | None:
        """Return the next attempt whose bytes are to follow, now that its ``Reveals`` was drained."""
        while self._uploads:
            attempt = self._uploads.popleft()
            if attempt in self._attempts:
                return attempt
        return None

    # What comes in.

    def receive(self, kind: int, body: bytes, now: Now) -> list[Order]:
        """Take one frame.

        Raises:
            PeerViolation: the requester may not say this, or not now. The conversation is over.
        """
        if self._state is _State.OVER and kind != Kind.RECEIPT:
            return []  # it may have crossed our end
        message = self._pen.read(kind, body, self.peer, FROM_REQUESTER, now)
        if isinstance(message, End):
            return self._over(message.code.value)
        if isinstance(message, Verified):
            payload = message.payload
            if isinstance(payload, Receipt):
                return self._receipt(payload, message.data, now)
            if isinstance(payload, Offer) and self._state in (_State.IDLE, _State.BID):
                return self._offer(payload, message.data, now)
            if isinstance(payload, Award) and self._state is _State.BID:
                return self._award(payload, message.data, now)
        else:
            payload = message  # type: ignore[assignment]
        if self._state is not _State.AGREED:
            raise PeerViolation(f"market: {type(payload).__name__.lower()} without an agreement")
        if isinstance(payload, Work | Tasks | Price | CommitSet) and payload.agreement != self.agreement:
            raise PeerViolation(f"{payload.TYPE}: about another agreement")
        if isinstance(payload, Work):
            return self._work(payload)
        if isinstance(payload, Tasks):
            return self._tasks(payload)
        if isinstance(payload, Price):
            return self._priced(payload)
        if isinstance(payload, CommitSet):
            return self._commit_set(payload)
        if isinstance(payload, Upload):
            return self._upload(payload)
        if isinstance(payload, Release):
            return self._release(payload.attempts, now)
        if isinstance(payload, Cancel):
            return self._cancel(payload, now)
        raise PeerViolation(f"market: {type(payload).__name__.lower()} not now ({self._state.name.lower()})")

    def _offer(self, offer: Offer, envelope: bytes, now: Now) -> list[Order]:
        quote = self._lender.quote(self.peer, self.group, offer, now)
        if isinstance(quote, DeclineCode):
            self._out.append((Kind.DECLINE, self._pen.sign(Decline, self.peer, now, digest(envelope), quote)))
            return []
        answer = self._pen.sign(
            Bid,
            self.peer,
            now,
            digest(envelope),
            quote.device_class,
            quote.window,
            quote.slots,
            quote.price,
            quote.duration_s,
            quote.speed,
        )
        self._bid = answer
        self._quote = quote
        self._terms = offer.terms
        self._state = _State.BID
        self._deadline_ns = now.boottime_ns + LIFETIME_S * SECOND_NS
        self._out.append((Kind.BID, answer))
        return []

    def _award(self, award: Award, envelope: bytes, now: Now) -> list[Order]:
        assert self._quote is not None
        if award.bid != digest(self._bid):
            raise PeerViolation("award: of another bid")
        shares = self._lender.take(self, self.group, self._quote)
        if isinstance(shares, DeclineCode):
            self._state = _State.IDLE
            self._out.append((Kind.DECLINE, self._pen.sign(Decline, self.peer, now, digest(envelope), shares)))
            return []
        self._shares = shares
        self.agreement = agreement_id(self._bid, envelope)
        self._state = _State.STORING
        return [StoreAgreement(self.agreement, self._bid, envelope, award.seq)]

    def _work(self, work: Work) -> list[Order]:
        assert self._terms is not None
        assert self._quote is not None
        if work.work < self._next_work or len(self._works) >= WORKS_MAX:
            raise PeerViolation("work: its number was used, or too many are open")
        if not self._terms.cover(work.body.terms, self._quote.device_class):
            raise PeerViolation("work: beyond the terms of the agreement")
        self._next_work = work.work + 1
        self._works[work.work] = _Work(work.body, work_id(self.agreement, work.work, work.body))
        inputs = keyed_inputs(work.receipt_key, work.body)
        self._accounts.open(work.work, Account(work.receipt_key, inputs, self._quote.speed))
        return [Prepare(work.work, work.body, work.grant)]

    def _tasks(self, tasks: Tasks) -> list[Order]:
        assert self._quote is not None
        work = self._works.get(tasks.work)
        if work is None or tasks.first_attempt < self._next_attempt:
            raise PeerViolation("tasks: of no open work, or with numbers that were used")
        if len(self._attempts) + len(tasks.tasks) > self._quote.window:
            raise PeerViolation("tasks: more than the window holds")
        if max(tasks.tasks) >= work.body.tasks:
            raise PeerViolation("tasks: beyond the number of the work's tasks")
        account = self._accounts[tasks.work]
        if account.is_asked and account.price_us is None:
            raise PeerViolation("tasks: of a work that has answers, and no price")
        if self._accounts.is_full():
            return self.end(EndCode.RECEIPTS)
        items = list(enumerate(tasks.tasks, tasks.first_attempt))
        for attempt, task in items:
            self._attempts[attempt] = _Attempt(tasks.work, task)
        self._unended += len(items)
        self._to_run[tasks.work] += len(items)
        self._next_attempt = tasks.first_attempt + len(items)
        return [Run(tasks.work, items)]

    def _priced(self, price: Price) -> list[Order]:
        account = self._accounts.get(price.work)
        if account is None or price.work not in self._works or not account.answers:
            raise PeerViolation("price: of no open work, or before its first answer")
        account.fix(price.task_us)  # a receipt may have said it already
        return []

    def _open(self, attempt: int, expected: _Phase) -> _Attempt | None:
        record = self._attempts.get(attempt)
        if record is None:
            if attempt >= self._next_attempt:
                raise PeerViolation("market: about an attempt that was never made")
            return None
        if record.phase is not expected:
            raise PeerViolation(f"market: attempt {attempt} is {record.phase.name}, not {expected.name}")
        return record

    def _commit_set(self, commit_set: CommitSet) -> list[Order]:
        staying: list[int] = []
        for entry in commit_set.entries:
            record = self._open(entry.attempt, _Phase.COMMITTED)
            if record is not None:
                record.phase = _Phase.ASKED
                self._accounts[record.work].is_asked = True
                if entry.want is Want.STAY:
                    staying.append(entry.attempt)
                else:
                    self._show(entry.attempt, entry.want)
        return [Keep(staying)] if staying else []

    def _upload(self, upload: Upload) -> list[Order]:
        for attempt in upload.attempts:
            record = self._open(attempt, _Phase.REVEALED)
            if record is not None:
                record.phase = _Phase.ASKED
                self._show(attempt, Want.BYTES)
        return []

    def _release(self, attempts: tuple[int, ...], now: Now) -> list[Order]:
        freed = []
        for attempt in attempts:
            if attempt >= self._next_attempt:
                raise PeerViolation("release: of an attempt that was never made")
            record = self._attempts.pop(attempt, None)
            if record is None:
                continue  # it has failed meanwhile
            freed.append(attempt)
            if record.phase is _Phase.RUNNING:
                self._ran(record)
            elif record.is_shown:
                self._accounts.owe(attempt, self._owed(record))
        self._note_idle(now)
        return [Free(freed)] if freed else []

    def _owed(self, record: _Attempt) -> Owed:
        output = keyed_output(self._accounts[record.work].key, record.root)
        meters = record.elapsed_us, record.fuel, record.energy_mj
        return Owed(record.work, record.task, record.commitment, output, *meters)

    def _cancel(self, cancel: Cancel, now: Now) -> list[Order]:
        if cancel.work not in self._works:
            raise PeerViolation("cancel: of no open work")
        open_attempts = tuple(attempt for attempt, record in self._attempts.items() if record.work == cancel.work)
        orders = self._release(open_attempts, now)
        del self._works[cancel.work]
        del self._to_run[cancel.work]
        self._accounts.close(cancel.work)
        return [*orders, Forget(cancel.work)]

    def _receipt(self, receipt: Receipt, envelope: bytes, now: Now) -> list[Order]:
        account = self._accounts.get(receipt.work)
        if receipt.agreement != self.agreement or account is None or self._quote is None:
            raise PeerViolation("receipt: about another agreement, or a work that has its last receipt")
        if receipt.inputs != account.inputs or receipt.device_class != self._quote.device_class:
            raise PeerViolation("receipt: of other inputs, or another device class, than was agreed")
        if receipt.final and receipt.work in self._works:
            raise PeerViolation("receipt: the last one of a work that is not closed")
        if receipt.price != self._quote.price:
            raise PeerViolation("receipt: at another price than was agreed")
        busy_us, fuel, energy_mj = self._accounts.take(receipt)
        name = digest(envelope)
        meters = Meters(busy_us, fuel, energy_mj, self.energy_by if energy_mj else "")
        countersign, entry = self._pen.sign_entry(Countersign, self.peer, now, name, meters)
        return [StoreReceipt(name, envelope, countersign, receipt.job, entry, busy_us_of(receipt))]

    # Deadlines and ends.

    def _note_idle(self, now: Now) -> None:
        if not self._attempts:
            self._idle_since_ns = now.boottime_ns

    def tick(self, now: Now) -> list[Order]:
        """Look at the deadlines, about once a second."""
        at_ns = now.boottime_ns
        if self._state is _State.BID and at_ns > self._deadline_ns:
            self._state = _State.IDLE
        if self._state is not _State.AGREED:
            return []
        if at_ns > self._deadline_ns:
            return self.end(EndCode.EXPIRED)
        if self._accounts.is_any_cheap():
            return self.end(EndCode.PRICE)
        if not self._attempts and at_ns > self._idle_since_ns + IDLE_S * SECOND_NS:
            return self.end(EndCode.IDLE)
        if self._attempts and at_ns > self._sent_ns + PROGRESS_S * SECOND_NS:
            self._sent_ns = at_ns
            self._out.append((Kind.PROGRESS, encode(Progress(self._ended_count, self._unended))))
        return []

    def _over(self, code: str) -> list[Order]:
        self._state = _State.OVER
        self._lender.free(self)
        freed = list(self._attempts)
        for attempt, record in self._attempts.items():
            if record.is_shown:
                self._accounts.owe(attempt, self._owed(record), is_ended=True)
        self._attempts.clear()
        self._works.clear()
        self._to_run.clear()
        self._unended = 0
        self._uploads.clear()
        for queue in (self._out_commits, self._out_failures, self._out_reveals):
            queue.clear()
        return [Free(freed), Over(code)] if freed else [Over(code)]
