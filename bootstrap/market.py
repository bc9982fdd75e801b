"""What the requester and the provider of one node share: the network, the mesh, blobs, journal, pen and book; and the
loop that carries one conversation's frames.

One stream for each pair, one task that reads it, one that writes it. The writer asks the machine what has gathered
since its last write (``drain``), so that under load one signature covers many tasks, and a lone message leaves at once.
What the peer does not wait for (releases, receipts, the first of many answers) goes with the next message, or after
``LINGER_S``.
"""

import os
import random
from collections.abc import AsyncIterator, Callable, Collection
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import structlog
import trio

from depin_node.bootstrap.journal import JournalWriter, open_journal
from depin_node.compute.jobs import statements
from depin_node.compute.market.happenings import Evidence
from depin_node.compute.market.messages import FRAME_BYTES_MAX, LINGER_S, PROTOCOL, Kind
from depin_node.compute.market.pen import Pen
from depin_node.compute.trust.book import Book
from depin_node.compute.trust.credit import Credit
from depin_node.compute.trust.evidence import Proof
from depin_node.core import clock as system_clock
from depin_node.core.clock import Now
from depin_node.core.errors import PeerViolation, ResourceError, TransportError
from depin_node.core.ticks import sleep_to_tick
from depin_node.crypto.identity import Identity
from depin_node.crypto.replay import ReplayGuard, Sequence
from depin_node.p2p.blobs import Blobs
from depin_node.p2p.frames import Frame, FrameReader, send_frames
from depin_node.p2p.mesh import Mesh
from depin_node.p2p.network import Network, Stream

log = structlog.get_logger("depin_node.market")
TICK_S = 0.5
RESTING_TICK_S = 10.0
"""Of a node without a job: whatever begins one wakes it."""
LAST_WORDS_S = 3.0
"""After a conversation has ended its receipts are still written and confirmed: so long at most."""
TURNS = 4
"""Of the loop, until what a frame has begun has reached a worker: a work is ready, a lane takes, its lease writes."""
BOOK_S = 5.0
RESERVE_AGAIN_S = 1.0
_SEQUENCE = "sequence"


class Talk(Protocol):
    """What both machines of ``market/2`` have."""

    def is_urgent(self) -> bool:
        """Tell whether the peer waits for something that waits to be written."""

    def has_output(self) -> bool:
        """Tell whether anything waits to be written."""

    def drain(self, now: Now) -> list[tuple[int, bytes]]:
        """Return what is to be written."""


@dataclass
class MarketContext:
    """See the module."""

    identity: Identity
    network: Network
    mesh: Mesh
    blobs: Blobs
    journal: JournalWriter
    pen: Pen
    book: Book
    credit: Credit
    clock: Callable[[], Now] = system_clock.now
    rng: random.Random = field(default_factory=random.SystemRandom)
    caught: Callable[[bytes, Proof], None] = lambda accused, proof: None
    """Takes proof that a peer has lied (``bootstrap/evidence.py``)."""
    outvoted: Callable[[bytes, Evidence], None] = lambda peer, evidence: None
    """Takes an answer that lost a vote, to find out whether it is a lie."""
    look: Callable[[bytes], None] = lambda peer: None
    """Has a partner's log looked at (``bootstrap/receipts.py``)."""

    def secret(self) -> bytes:
        """Return 32 bytes from the operating system."""
        return os.urandom(32)


@asynccontextmanager
async def open_market(
    path: Path,
    identity: Identity,
    network: Network,
    mesh: Mesh,
    blobs: Blobs,
    clock: Callable[[], Now] = system_clock.now,
    *,
    listed: Collection[bytes] = (),
) -> AsyncIterator[MarketContext]:
    """Open the journal at ``path`` and what is remembered in it, as long as the block runs.

    ``listed``: peers that the operator trusts.

    Raises:
        ConfigError, ResourceError: the journal cannot be used.
    """
    async with open_journal(path) as journal:
        reader = journal.reader
        low = _Low()
        sequence = Sequence(reader.number(_SEQUENCE), clock(), low.set)
        guard = ReplayGuard(reader.floors())
        await _reserve(journal, sequence)
        pen = Pen(identity, network.network_id, sequence, guard, reader.log_head())
        book = Book(reader.bans(), reader.standings(), listed=listed, now=clock())
        credit = Credit(reader.balances(), reader.tallies(), clock(), listed=listed)
        context = MarketContext(identity, network, mesh, blobs, journal, pen, book, credit, clock)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_keep_reserved, journal, sequence, low)
            nursery.start_soon(_keep_book, context)
            try:
                yield context
            finally:
                _write_book(context)
                nursery.cancel_scope.cancel()


class _Low:
    """An event that is set again and again."""

    def __init__(self) -> None:
        self._event = trio.Event()

    def set(self) -> None:
        """Wake who waits."""
        self._event.set()

    async def wait(self) -> None:
        """Wait until it is set, and clear it."""
        await self._event.wait()
        self._event = trio.Event()


async def _keep_reserved(journal: JournalWriter, sequence: Sequence, low: _Low) -> None:
    while True:
        await low.wait()
        try:
            await _reserve(journal, sequence)
        except ResourceError as error:  # half of them is left, for as long as a disk may be full
            log.error("no sequence numbers can be reserved", reason=str(error))
            await trio.sleep(RESERVE_AGAIN_S)
            low.set()


async def _keep_book(context: MarketContext) -> None:
    """Write down what was counted of peers: soon, since it is no promise; a crash costs the last seconds of it."""
    while True:
        await sleep_to_tick(BOOK_S)
        _write_book(context)


def _write_book(context: MarketContext) -> None:
    now = context.clock()
    writes = [statements.put_standing(row) for row in context.book.changes(now)]
    writes += [statements.put_tally(tally) for tally in context.credit.changes(now)]
    if writes:
        context.journal.write_lazily(writes)


async def _reserve(journal: JournalWriter, sequence: Sequence) -> None:
    wanted = sequence.wanted()
    if wanted is not None:
        await journal.write([statements.put_number(_SEQUENCE, wanted)])
        sequence.reserve(wanted)


class Conversation:
    """One stream with its machine: ``run`` reads and writes until ``stop``, the peer's end, or an error.

    Args:
        stream: where to.
        talk: the machine.
        clock: both clocks.
        data: returns frames of bulk to follow what the machine has drained, some at a time, ready to be sent.
        take_data: takes the bodies of such frames; each is gone when it returns.
    """

    def __init__(
        self,
        stream: Stream,
        talk: Talk,
        clock: Callable[[], Now],
        data: Callable[[], memoryview] | None = None,
        take_data: Callable[[memoryview], None] | None = None,
    ) -> None:
        self._stream = stream
        self._talk = talk
        self._clock = clock
        self._data = data
        bulk: dict[int, Callable[[memoryview], None]] = {} if take_data is None else {Kind.DATA: take_data}
        self._reader = FrameReader(stream, size_bytes_max=FRAME_BYTES_MAX, bulk=bulk)
        self._wake = trio.Event()
        self._closing = False
        self._busy = False  # bulk may remain, so that the next write needs no reason
        self._written = trio.Event()
        self._listening = trio.CancelScope()
        self._broken: TransportError | None = None

    def wake(self) -> None:
        """Tell the writer that something may be waiting."""
        self._wake.set()

    def stop(self) -> None:
        """Go over to last words: the machine's conversation is over."""
        self._listening.cancel()

    async def run(self, take: Callable[[Frame], bool], is_said: Callable[[], bool]) -> None:
        """Hand each frame to ``take``. After ``stop``, do so until all ``is_said``, but not for long; then close.

        ``take`` tells whether what it has begun is to have its turns before the frame after.

        Raises:
            PeerViolation: as ``take`` does. TransportError: the stream broke. It is reset then.
        """
        failure: TransportError | PeerViolation | None = None
        ended = False
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._write)
                try:
                    with self._listening:
                        await self._read(take, lambda: False)
                    with trio.move_on_after(LAST_WORDS_S):
                        await self._read(take, is_said)
                    self._closing = True
                    self._wake.set()
                    with trio.move_on_after(LAST_WORDS_S):
                        await self._written.wait()
                except (TransportError, PeerViolation) as error:
                    failure = error
                nursery.cancel_scope.cancel()
            failure = failure or self._broken
            if failure is None:
                await self._stream.aclose()
                ended = True
        finally:
            if not ended:
                with trio.CancelScope(shield=True):
                    await self._stream.reset()
        if failure is not None:
            raise failure

    async def _read(self, take: Callable[[Frame], bool], is_said: Callable[[], bool]) -> None:
        while not is_said():
            frame = await self._reader.read()
            if frame is None:
                return
            if take(frame):
                for _ in range(TURNS):
                    await trio.lowlevel.checkpoint()

    async def _write(self) -> None:
        try:
            while True:
                await self._until_worth_it()
                frames = [Frame(*frame) for frame in self._talk.drain(self._clock())]
                data = self._data() if self._data is not None else b""
                # Never cancelled in the middle of a frame: the network's own deadline ends a stall.
                if frames or data:
                    with trio.CancelScope(shield=True):
                        await send_frames(self._stream, frames)
                        if data:
                            await self._stream.send_all(data)
                elif self._closing:
                    with trio.CancelScope(shield=True):
                        await self._stream.send_eof()
                    return
                else:
                    self._busy = False
        except TransportError as error:
            self._broken = error
            self._listening.cancel()
        finally:
            self._written.set()

    async def _until_worth_it(self) -> None:
        """Wait until the peer waits for what there is to write, or for ``LINGER_S`` since there is any."""
        while not (self._busy or self._closing or self._talk.is_urgent()):
            self._wake = trio.Event()
            if not self._talk.has_output():
                await self._wake.wait()
                continue
            with trio.move_on_after(LINGER_S):
                while not (self._closing or self._talk.is_urgent()):
                    self._wake = trio.Event()
                    await self._wake.wait()
            break
        self._busy = True


async def open_conversation_stream(context: MarketContext, peer: bytes, timeout_s: float) -> Stream:
    """Connect to a peer if need be, and open its stream.

    Raises:
        TransportError: unreachable, or it does not lend, or too slow.
    """
    with trio.move_on_after(timeout_s):
        await context.mesh.connect(peer)
        return await context.network.open_stream(peer, PROTOCOL)
    raise TransportError(f"no conversation within {timeout_s:g} s")
