"""The holder's end of one transfer of ``blobs/2`` over a carrier. Who may have what is ``blobs.py``'s business.

The flow: the asker (``blob_pulling.py``) sends a ``BlobRequest``. The holder answers with a ``Head``: the manifest,
which chunks it has, who else fetches the blob. The asker then names chunks (``WANT``) and gets them in that order
(``CHUNK``), compressed where that pays; a holder that is still fetching the blob itself tells of each chunk that it
gets (``HAVE``). When the asker has all it ends the carrier, or asks for another blob on it.
"""

import time
from collections import deque
from dataclasses import dataclass, field
from typing import Protocol

import trio

from depin_node.core.errors import PeerViolation, TransportError
from depin_node.core.wire import decode, encode
from depin_node.crypto.blob import CHUNK_BYTES, Buffer, Manifest
from depin_node.p2p import compression
from depin_node.p2p.blob_messages import (
    ASKED_BYTES_MAX,
    BLOBS_PROTOCOL,
    CHUNK,
    CHUNK_HEADER,
    HAVE,
    HAVE_MAX,
    HEAD,
    OTHERS,
    OTHERS_MAX,
    PROOF,
    RAW,
    WANT,
    WANTED_MAX,
    ZSTD,
    BlobRequest,
    Head,
    pack_have,
    pack_indices,
    unpack_indices,
)
from depin_node.p2p.blob_partial import Arrivals
from depin_node.p2p.blob_store import BlobMissingError, BlobStore, ChunkReader
from depin_node.p2p.carrier import FRAME_HEADER, Carrier
from depin_node.p2p.frames import ASK, REFUSE
from depin_node.p2p.network import PeerKey
from depin_node.p2p.together import Ended, together


class Desk(Protocol):
    """What the holder's side asks of its node."""

    store: BlobStore

    def why_not(self, peer: PeerKey, request: BlobRequest) -> str | None:
        """Return the code of why a request is refused, or None. Raises ``PeerViolation`` for a forged grant."""

    def begun(self, blob_id: bytes, serving: "Serving") -> tuple[PeerKey, ...]:
        """Note that a peer fetches a blob, tell the others that do, and return them."""

    def done(self, blob_id: bytes, serving: "Serving") -> None:
        """The peer does not fetch it any more."""

    def sent(self, peer: PeerKey, size_bytes: int) -> None:
        """Bytes of a blob have left this node."""

    def sample(self, blob_id: bytes) -> compression.Sample | None:
        """Return how a blob compresses, if it is known already."""

    def note_sample(self, blob_id: bytes, sample: compression.Sample) -> None:
        """Keep how a blob compresses."""


@dataclass
class _Transfer:
    """The blob that a carrier is about."""

    blob_id: bytes
    manifest: Manifest
    arrivals: Arrivals | None
    """Of a blob that is still being fetched."""
    read: ChunkReader
    told: int = 0
    """How many of ``arrivals`` the asker knows."""
    wanted: deque[int] = field(default_factory=deque)

    @property
    def has_news(self) -> bool:
        """Whether chunks have come that the asker does not know of."""
        return self.arrivals is not None and len(self.arrivals.order) > self.told


class Serving:
    """The holder's end of one carrier; ``run`` serves it to its end."""

    def __init__(self, carrier: Carrier, desk: Desk, *, timeout_s: float) -> None:
        self.peer = carrier.peer
        self._carrier = carrier
        self._desk = desk
        self._timeout_s = timeout_s
        self._request: BlobRequest | None = None
        self._others: list[PeerKey] = []
        self._told_others = 0
        self._transfer: _Transfer | None = None
        self._is_over = False
        self._wake = trio.Event()
        self._buffer = bytearray()  # for a chunk and what is before it
        self._pace = compression.Pace()

    async def run(self) -> None:
        """Answer requests until the asker ends.

        Raises:
            PeerViolation: the asker breaks the protocol.
            TransportError: it is gone, or takes nothing.
        """
        try:
            await together(self._read, self._write)
        finally:
            self._leave()

    async def _read(self) -> None:
        idle_s = 2 * self._timeout_s
        while (frame := await self._carrier.receive(ASKED_BYTES_MAX, idle_s)) is not None:
            body, transfer = frame.body, self._transfer
            if frame.kind == ASK and self._request is None and (transfer is None or not transfer.wanted):
                self._request = decode(body, BlobRequest, size_bytes_max=ASKED_BYTES_MAX)
            elif frame.kind == WANT and self._request is None and transfer is not None:
                self._note_wanted(transfer, unpack_indices(body, len(transfer.manifest.hashes), WANTED_MAX))
            else:
                raise PeerViolation(f"{BLOBS_PROTOCOL}: a frame of kind {frame.kind} at the wrong time")
            self._notify()
        self._is_over = True
        self._notify()

    def tell(self, other: PeerKey) -> None:
        """Have the asker told that another peer fetches the blob too."""
        if self._told_others < OTHERS_MAX:
            self._told_others += 1
            self._others.append(other)
            self._notify()

    def _note_wanted(self, transfer: _Transfer, indices: list[int]) -> None:
        if len(transfer.wanted) + len(indices) > WANTED_MAX:
            raise PeerViolation(f"{BLOBS_PROTOCOL}: more than {WANTED_MAX} chunks wanted at once")
        if transfer.arrivals is not None and not all(transfer.arrivals.here[index] for index in indices):
            raise PeerViolation(f"{BLOBS_PROTOCOL}: a chunk is wanted that was not offered")
        transfer.wanted.extend(indices)

    def _notify(self) -> None:
        self._wake.set()
        self._wake = trio.Event()

    async def _write(self) -> None:
        while True:
            transfer = self._transfer
            if self._request is not None:
                await self._answer(self._request)
            elif transfer is not None and self._others:
                others, self._others = self._others, []
                await self._carrier.send(OTHERS, b"".join(others))
            elif transfer is not None and transfer.arrivals is not None and transfer.has_news:
                news = transfer.arrivals.order[transfer.told : transfer.told + HAVE_MAX]
                transfer.told += len(news)
                await self._carrier.send(HAVE, pack_indices(news))
            elif transfer is not None and transfer.wanted:
                await self._send_chunks(transfer)
            elif self._is_over:
                raise Ended
            else:
                await self._wake.wait()

    # One request

    async def _answer(self, request: BlobRequest) -> None:
        self._leave()
        refusal = self._desk.why_not(self._carrier.peer, request)
        if refusal is None:
            try:
                await self._accept(request)
                return
            except BlobMissingError as error:  # damaged on disk, or just dropped
                refusal = error.code
        await self._reply(REFUSE, refusal.encode())

    async def _reply(self, kind: int, body: Buffer) -> None:
        """Answer the request: from now on the asker may go on, maybe before we hear that the answer has left."""
        self._request = None
        await self._carrier.send(kind, body)

    async def _accept(self, request: BlobRequest) -> None:
        store, blob_id = self._desk.store, request.blob_id
        if request.nonce:
            if len(request.nonce) != 32:
                raise PeerViolation(f"{BLOBS_PROTOCOL}: a nonce has 32 bytes")
            await self._reply(PROOF, await store.prove(blob_id, request.nonce))
            return
        coming = store.partials.coming(blob_id)
        arrivals = None if coming is None else coming.arrivals
        if coming is not None:
            manifest = coming.manifest
        else:
            with store.pinned(blob_id):
                manifest = await store.manifest(blob_id)
        if manifest.size > request.size_bytes_max:
            await self._reply(REFUSE, b"too_large")
            return
        chunk_bytes = FRAME_HEADER.size + CHUNK_HEADER.size + min(manifest.size, CHUNK_BYTES)
        if len(self._buffer) < chunk_bytes:
            self._buffer = bytearray(chunk_bytes)
        store.pin(blob_id)
        self._transfer = transfer = _Transfer(blob_id, manifest, arrivals, store.chunk_reader(blob_id))
        have = b""
        if arrivals is not None:
            transfer.told, have = len(arrivals.order), pack_have(arrivals.here)
            arrivals.listeners.add(self._notify)
        hashes = b"".join(manifest.hashes) if request.wants_manifest else b""
        await self._reply(HEAD, encode(Head(manifest.size, hashes, have, self._desk.begun(blob_id, self))))

    def _leave(self) -> None:
        if self._transfer is not None:
            self._desk.store.unpin(self._transfer.blob_id)
            self._desk.done(self._transfer.blob_id, self)
            self._others, self._told_others = [], 0
            if self._transfer.arrivals is not None:
                self._transfer.arrivals.listeners.discard(self._notify)
            self._transfer = None

    # Chunks

    async def _send_chunks(self, transfer: _Transfer) -> None:
        """Send what is wanted, until there is something else to send."""
        sample = self._desk.sample(transfer.blob_id)
        if sample is None and transfer.arrivals is None:
            sample = await trio.to_thread.run_sync(lambda: compression.sample(transfer.read, transfer.manifest.size))
            self._desk.note_sample(transfer.blob_id, sample)
        sent, last_bytes, began_s = 0, 0, 0.0

        def make(may_wait: bool) -> memoryview | None:
            nonlocal sent, last_bytes, began_s
            if last_bytes:
                self._pace.note(time.perf_counter() - began_s, last_bytes)
                sent, last_bytes = sent + last_bytes, 0
            if not transfer.wanted or self._others or transfer.has_news:
                return None
            body = self._body(transfer, transfer.wanted[0], sample, may_wait=may_wait)
            transfer.wanted.popleft()
            last_bytes, began_s = len(body) - FRAME_HEADER.size, time.perf_counter()
            return body

        try:
            await self._carrier.send_bulk(CHUNK, make)
        except BlobMissingError as error:
            raise TransportError(f"{BLOBS_PROTOCOL}: {error}") from error
        finally:
            self._desk.sent(self._carrier.peer, sent)

    def _body(
        self, transfer: _Transfer, index: int, sample: compression.Sample | None, *, may_wait: bool
    ) -> memoryview:
        packs = sample is not None and sample.pays(self._pace.send_s)
        if packs and not may_wait:
            raise BlockingIOError
        frame, begin = memoryview(self._buffer), FRAME_HEADER.size + CHUNK_HEADER.size
        end, encoding = begin + transfer.read(index, frame[begin:], may_wait), RAW
        if packs:
            packed = compression.compress(frame[begin:end])
            if begin + len(packed) < end:
                end, encoding = begin + len(packed), ZSTD
                frame[begin:end] = packed
        CHUNK_HEADER.pack_into(frame, FRAME_HEADER.size, index, encoding)
        return frame[:end]
