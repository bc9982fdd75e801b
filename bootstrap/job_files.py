"""A job's state in one file, for a node of the same owner that never met the one that worked on it.

What is in it: ``MAGIC``; then pieces, each a kind u8, a size u64 LE, and its bytes: the owner's certificate of the node
that wrote it, the blobs that a part of the state names, that part as the node signed it (``JobState``), the next blobs,
and so on. Whoever reads it believes nothing but signatures and hashes. Provisional results are not in it.
"""

from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import aclosing
from enum import IntEnum

from depin_node.bootstrap.job_records import blobs_of
from depin_node.bootstrap.job_states import JobStates
from depin_node.bootstrap.market import MarketContext
from depin_node.compute.jobs import copies
from depin_node.compute.jobs.handover import HAVE_BYTES_MAX, JobState, More, bits
from depin_node.core.errors import ConfigError, PeerViolation
from depin_node.crypto.blob import CHUNK_BYTES
from depin_node.crypto.envelope import ENVELOPE_OVERHEAD_BYTES, verify_signature
from depin_node.crypto.ownership import OwnerCertificate, read_certificate

MAGIC = b"depin job file 1"
_HEADER_BYTES = 9


class Piece(IntEnum):
    """What follows."""

    CERTIFICATE = 1
    STATE = 2
    BLOB = 3


def header(kind: Piece, size_bytes: int) -> bytes:
    """Return what stands before a piece."""
    return bytes([kind]) + size_bytes.to_bytes(8, "little")


class Reader:
    """Reads pieces from bytes as they come. Raises ``ConfigError`` if they are no such file, or end early."""

    def __init__(self, parts: AsyncIterator[bytes]) -> None:
        self._parts = parts
        self._waiting = bytearray()

    async def begin(self) -> None:
        """Read the beginning of the file."""
        if await self._exactly(len(MAGIC)) != MAGIC:
            raise ConfigError("this is no file that `depin-node job export` wrote, or of another version")

    async def next(self, size_bytes_max: Callable[[Piece], int]) -> tuple[Piece, int] | None:
        """Return the kind and the size of the next piece; None at the end of the file."""
        if not self._waiting and not await self._more():
            return None
        found = await self._exactly(_HEADER_BYTES)
        try:
            kind = Piece(found[0])
        except ValueError:
            raise ConfigError("the job file is damaged") from None
        size_bytes = int.from_bytes(found[1:], "little")
        if size_bytes > size_bytes_max(kind):
            raise ConfigError(f"the job file is damaged: a piece of {size_bytes} bytes")
        return kind, size_bytes

    async def whole(self, size_bytes: int) -> bytes:
        """Return a piece."""
        return await self._exactly(size_bytes)

    async def stream(self, size_bytes: int) -> AsyncGenerator[bytes, None]:
        """Yield a piece bit by bit."""
        while size_bytes:
            if not self._waiting and not await self._more():
                raise ConfigError("the job file ends early")
            part = bytes(self._waiting[:size_bytes])
            del self._waiting[: len(part)]
            size_bytes -= len(part)
            yield part

    async def _exactly(self, size_bytes: int) -> bytes:
        async with aclosing(self.stream(size_bytes)) as parts:
            return b"".join([part async for part in parts])

    async def _more(self) -> bool:
        while (part := await anext(self._parts, None)) is not None:
            if part:
                self._waiting += part
                return True
        return False


class JobFiles:
    """Writes jobs of this node as files, and reads those of nodes of its owner; ``states`` says and checks what is in
    them."""

    def __init__(self, context: MarketContext, states: JobStates) -> None:
        self._context = context
        self._states = states

    async def written(self, job: bytes) -> AsyncIterator[bytes]:
        """Yield a job's state as a file.

        Raises:
            NotFoundError: there is no such job here. ConfigError: this node shows no owner's certificate.
        """
        context = self._context
        certificate = context.mesh.owners.shown(context.clock())
        if not certificate:
            raise ConfigError("a job file is for nodes of one owner, and this one has no certificate: depin-node owner")
        yield MAGIC + header(Piece.CERTIFICATE, len(certificate)) + certificate
        own, network, told = context.identity.key, context.network.network_id, set[bytes]()
        tasks = first = 0
        have = bytearray(8 * HAVE_BYTES_MAX)
        while True:
            envelope = self._states.part(own, More(job, first, bits(have)))
            verified = verify_signature(envelope, JobState, network)
            state, asked = verified.payload, self._states.job_of(verified, own)
            tasks = asked.tasks
            assert state.results or not state.more, "a part of a job's state with nothing in it"
            blobs = [*blobs_of(asked), *(o.blob for result in state.results for o in result.outputs if o.blob)]
            for blob in dict.fromkeys(blobs):
                if blob in told:
                    continue
                told.add(blob)
                size_bytes = context.blobs.store.size_bytes(blob)
                yield header(Piece.BLOB, size_bytes)
                for index in range(-(-size_bytes // CHUNK_BYTES)):
                    yield await context.blobs.store.read_chunk(blob, index)
            yield header(Piece.STATE, len(envelope)) + envelope
            for result in state.results:
                have[result.task - first] = 1
            if not state.more:
                first, have = first + 8 * HAVE_BYTES_MAX, bytearray(8 * HAVE_BYTES_MAX)
                if first >= tasks:
                    return

    async def read(self, parts: AsyncIterator[bytes]) -> bytes:
        """Return the job of a file, whose state is a copy here by then.

        Raises:
            ConfigError: it is no job file, or not by a node of this one's owner. ResourceError: no room.
        """
        reader, store, pinned, kept = Reader(parts), self._context.blobs.store, set[bytes](), False
        job, worker = b"", (b"", b"")
        bounds = {Piece.CERTIFICATE: 4096, Piece.STATE: JobState.SIZE_BYTES_MAX + ENVELOPE_OVERHEAD_BYTES}
        try:
            await reader.begin()
            while (found := await reader.next(lambda kind: bounds.get(kind, store.quota_bytes))) is not None:
                kind, size_bytes = found
                if kind is Piece.BLOB:
                    async with aclosing(reader.stream(size_bytes)) as stream:
                        blob = await store.put_stream(stream, size_bytes_max=size_bytes, durable=True)
                    if blob not in pinned:
                        store.pin(blob)
                        pinned.add(blob)
                elif kind is Piece.CERTIFICATE:
                    worker = self._worker(await reader.whole(size_bytes))
                else:
                    job = await self._take(await reader.whole(size_bytes), worker, pinned)
                    kept = True
        except PeerViolation as error:
            raise ConfigError(f"the job file is damaged, or not by who it says: {error}") from error
        finally:
            if not kept:
                for blob in pinned:
                    store.unpin(blob)
        if not job:
            raise ConfigError("the job file ends early")
        return job

    def _worker(self, certificate: bytes) -> tuple[bytes, bytes]:
        """Return the key of who wrote a file, and its certificate, which has to be by our owner."""
        context = self._context
        network = context.network.network_id
        node = verify_signature(certificate, OwnerCertificate, network).payload.to
        if not context.mesh.owners.is_fellow(read_certificate(certificate, network, node), context.clock()):
            raise ConfigError("the job file is not by a node of this one's owner")
        return node, certificate

    async def _take(self, envelope: bytes, worker: tuple[bytes, bytes], here: set[bytes]) -> bytes:
        """Keep a part of a state, if it is news; return its job."""
        context = self._context
        verified = verify_signature(envelope, JobState, context.network.network_id)
        state, asked = verified.payload, self._states.job_of(verified, worker[0])
        named = (*blobs_of(asked), *await self._states.outputs(asked, state))
        if not here.issuperset(named):
            raise PeerViolation("blobs that it names are not in it")
        for blob in named:
            context.blobs.note_owner(blob, context.identity.key)
        reader = context.journal.reader
        known = copies.copy_of(reader, state.job)
        if reader.job(state.job) is None and (known is None or known.epoch <= state.epoch):
            await self._states.keep(*worker, asked, state)
        return state.job
