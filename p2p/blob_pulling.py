"""The asker's end of one transfer of ``blobs/2`` over a carrier; ``blob_serving.py`` is the other, and tells the flow.

Which chunk is asked of whom is the swarm's choice (``swarm.py``). The asker checks the manifest against the id and each
chunk against the manifest, in threads.
"""

from collections import deque
from collections.abc import Awaitable, Callable

import trio

from depin_node.core.errors import PeerViolation, TransportError
from depin_node.core.wire import decode, encode
from depin_node.crypto.blob import Buffer, Manifest
from depin_node.p2p import compression
from depin_node.p2p.addresses import peer_id
from depin_node.p2p.blob_messages import (
    BLOBS_PROTOCOL,
    CHUNK_HEADER,
    HAVE,
    HAVE_MAX,
    HEAD,
    OTHERS,
    OTHERS_MAX,
    PROOF,
    RAW,
    WANT,
    ZSTD,
    BlobRequest,
    Head,
    head_bytes_max,
    manifest_of,
    pack_indices,
    unpack_have,
    unpack_indices,
    unpack_keys,
)
from depin_node.p2p.blob_partial import PartialBlob
from depin_node.p2p.carrier import Carrier
from depin_node.p2p.frames import ASK, REFUSE, RequestRefusedError
from depin_node.p2p.network import PeerKey
from depin_node.p2p.swarm import Swarm
from depin_node.p2p.together import Ended, together

_LOOK_S = 0.02
_DEPTH_FIRST = 2
"""Chunks asked ahead at first, one more with each that comes: else the first to ask asks for all."""


class Incoming:
    """A blob on its way in, from several holders at once.

    Args:
        me: this node.
        request: what every holder is asked.
        swarm: makes the swarm, when it is known how many chunks there are.
        open_partial: opens the blob in the store, once.
        met: is told of peers that fetch the blob too.
        linger_s: how long a transfer waits for more to be wanted, while it ``may_linger``.
    """

    def __init__(
        self,
        request: BlobRequest,
        make_swarm: Callable[[bytearray], Swarm],
        open_partial: Callable[[Manifest], Awaitable[PartialBlob]],
        met: Callable[[tuple[PeerKey, ...]], None],
        linger_s: float = 0.0,
        may_linger: Callable[[], bool] = lambda: True,
        gives_way: Callable[[], bool] = lambda: False,
    ) -> None:
        self.request = request
        self.gives_way = gives_way
        self._linger_s = linger_s
        self._may_linger = may_linger
        self.met = met
        self.partial: PartialBlob | None = None
        self.swarm: Swarm | None = None
        self._make_swarm = make_swarm
        self._open_partial = open_partial
        self._beginning = trio.Lock()
        self._changed = trio.Event()

    async def begin(self, manifest: Manifest) -> tuple[PartialBlob, Swarm]:
        """Open the blob in the store, unless another holder was first."""
        async with self._beginning:
            if self.partial is None or self.swarm is None:
                self.partial = await self._open_partial(manifest)
                self.swarm = self._make_swarm(self.partial.needless)
        return self.partial, self.swarm

    @property
    def is_complete(self) -> bool:
        """Whether all chunks that are wanted are here."""
        return self.partial is not None and self.partial.is_complete

    async def is_over(self) -> bool:
        """Tell whether all is here and nothing more is wanted, which is waited for a little."""
        until_s = trio.current_time() + self._linger_s
        while self.is_complete and (left_s := until_s - trio.current_time()) > 0 and self._may_linger():
            await self.wait_for_change(min(left_s, _LOOK_S))
        return self.is_complete

    def changed(self) -> None:
        """Have all transfers look again what to ask for."""
        self._changed.set()
        self._changed = trio.Event()

    async def wait_for_change(self, timeout_s: float) -> None:
        """Wait until there may be something else to ask for."""
        with trio.move_on_after(timeout_s):
            await self._changed.wait()


async def prove(carrier: Carrier, request: BlobRequest, *, timeout_s: float) -> bytes:
    """Ask a holder for the proof that it has a blob, and return it. Raises as ``pull``."""
    await carrier.send(ASK, encode(request))
    return await _read_answer(carrier, PROOF, 32, timeout_s)


async def pull(carrier: Carrier, incoming: Incoming, *, timeout_s: float) -> bool:
    """Get what one holder has and is asked for, until the blob is complete. Whatever is raised, what came is good.

    Returns whether the carrier is at rest: nothing is on its way.

    Args:
        carrier: to the holder; left to the caller.
        incoming: gets the chunks.
        timeout_s: a holder that sends nothing for so long is given up.

    Raises:
        RequestRefusedError: the holder's code.
        PeerViolation: it sent something that is not this blob, or was not asked for.
        TransportError: it is gone or too slow.
        ResourceError: our disk is full.
    """
    request = incoming.request
    if incoming.partial is not None:
        request = BlobRequest(request.grant, request.blob_id, request.size_bytes_max, False, b"")
    await carrier.send(ASK, encode(request))
    body = await _read_answer(carrier, HEAD, head_bytes_max(request.size_bytes_max), timeout_s)
    head = decode(body, Head, size_bytes_max=len(body))
    if request.wants_manifest:
        manifest = manifest_of(head, request.blob_id, request.size_bytes_max)
        partial, swarm = await incoming.begin(manifest)
    else:
        assert incoming.partial is not None
        assert incoming.swarm is not None
        partial, swarm = incoming.partial, incoming.swarm
    has = unpack_have(head.have, len(partial.manifest.hashes))
    incoming.met(head.others)
    return await _Pulling(carrier, incoming, partial, swarm, timeout_s).run(has)


class _Pulling:
    """The asker's end of one transfer, after the answer."""

    def __init__(
        self, carrier: Carrier, incoming: Incoming, partial: PartialBlob, swarm: Swarm, timeout_s: float
    ) -> None:
        self._carrier = carrier
        self._incoming = incoming
        self._partial = partial
        self._swarm = swarm
        self._timeout_s = timeout_s
        self._asked: set[int] = set()
        self._chunks_received = 0
        self._times_told = 0
        self._written: deque[int] = deque()
        self._trio = trio.lowlevel.current_trio_token()

    async def run(self, has: bytearray | None) -> bool:
        """Ask, receive and write until the blob is complete; return whether nothing is owed then."""
        if await self._incoming.is_over():
            return True
        self._swarm.join(self._carrier.peer, has)
        self._incoming.changed()
        try:
            await together(self._ask, self._receive)
            return self._swarm.owed(self._carrier.peer) == 0
        finally:
            self._note_written()  # now: no thread is at work any more, and the swarm knows the holder still
            self._swarm.leave(self._carrier.peer)
            self._incoming.changed()

    async def _ask(self) -> None:
        peer, swarm = self._carrier.peer, self._swarm
        while not await self._incoming.is_over():
            if (gives_way := self._incoming.gives_way()) and not swarm.owed(peer):
                raise Ended
            wanted: list[int] = []
            while not gives_way and swarm.owed(peer) < self._depth() and (wanted or self._may_ask()):
                index = swarm.take(peer, trio.current_time())
                if index is None:
                    break
                wanted.append(index)
            if wanted:
                self._asked.update(wanted)
                await self._carrier.send(WANT, pack_indices(wanted))
            await self._incoming.wait_for_change(swarm.patience_s)
        raise Ended

    def _depth(self) -> int:
        return min(self._carrier.depth, _DEPTH_FIRST + self._chunks_received)

    def _may_ask(self) -> bool:
        """Whether it is time to ask for more: not for each chunk that comes, a request costs both ends."""
        return self._swarm.owed(self._carrier.peer) <= self._depth() // 2

    async def _receive(self) -> None:
        peer, count = self._carrier.peer, len(self._partial.manifest.hashes)
        while True:
            frame = await self._carrier.receive(4 * HAVE_MAX, self._timeout_s, self._take)
            if frame is None:
                raise TransportError(f"{peer_id(peer)} ended the transfer early")
            if frame.kind == HAVE:
                self._swarm.has(peer, self._new(unpack_indices(frame.body, count, HAVE_MAX)))
                self._incoming.changed()
            elif frame.kind == OTHERS and self._times_told < OTHERS_MAX:
                self._times_told += 1
                self._incoming.met(unpack_keys(frame.body))
            else:
                raise PeerViolation(f"{BLOBS_PROTOCOL}: a frame of kind {frame.kind} that was not asked for")

    def _new(self, indices: list[int]) -> list[int]:
        """Return what a holder has got; each chunk can be told once, so that telling is no way to keep us waiting."""
        if any(self._swarm.is_offered(self._carrier.peer, index) for index in indices):
            raise PeerViolation(f"{BLOBS_PROTOCOL}: a chunk is offered twice")
        return indices

    def _take(self, body: memoryview) -> None:
        """In a thread: check and write a chunk."""
        index, data = self._open(body)
        if not self._partial.arrivals.here[index]:
            self._partial.write(index, data)
        self._written.append(index)
        # A quarter of what may be owed at a time: to wake the trio thread costs as much as to hash a third of a chunk.
        # The last that was asked for is always told.
        if not self._asked or len(self._written) >= self._depth() // 4:
            self._trio.run_sync_soon(self._note_written, idempotent=True)

    def _open(self, body: memoryview) -> tuple[int, Buffer]:
        """Return the number of a chunk, and its bytes. Raises ``PeerViolation``: not wanted, or damaged."""
        if len(body) <= CHUNK_HEADER.size:
            raise PeerViolation(f"{BLOBS_PROTOCOL}: an empty chunk")
        index, encoding = CHUNK_HEADER.unpack_from(body)
        if index not in self._asked:
            raise PeerViolation(f"{BLOBS_PROTOCOL}: chunk {index}, which was not wanted")
        self._asked.remove(index)
        data, size_bytes = body[CHUNK_HEADER.size :], self._partial.size_of(index)
        if encoding == ZSTD:
            return index, compression.decompress(data, size_bytes)
        if encoding != RAW or len(data) != size_bytes:
            raise PeerViolation(f"{BLOBS_PROTOCOL}: chunk {index} has not the encoding or size that it should")
        return index, data

    def _note_written(self) -> None:
        """On the trio thread: say what has been written, if that has not been done."""
        if not self._written:
            return
        while self._written:
            index = self._written.popleft()
            self._chunks_received += 1
            if self._partial.arrived(index):
                self._swarm.arrived(index, trio.current_time())
            self._swarm.sent(self._carrier.peer, index)
        if self._partial.is_complete or self._may_ask():
            self._incoming.changed()


async def _read_answer(carrier: Carrier, kind: int, size_bytes_max: int, timeout_s: float) -> bytes:
    frame = await carrier.receive(max(size_bytes_max, 64), timeout_s)
    if frame is None:
        raise TransportError(f"{peer_id(carrier.peer)} ended the transfer before it began")
    if frame.kind == REFUSE:
        code = frame.body[:64].decode("ascii", "replace")
        raise RequestRefusedError(f"{peer_id(carrier.peer)} refused the blob: {code}", code)
    if frame.kind != kind or len(frame.body) > size_bytes_max:
        raise PeerViolation(f"{BLOBS_PROTOCOL}: a frame of kind {frame.kind} is no answer")
    return frame.body
