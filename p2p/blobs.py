"""Blobs between nodes: who may fetch what, from whom, and how a fetch finds its way.

A blob is served only against a ``Grant`` that its owner signed and that names the asking peer. The owner is this node
itself, or a node under whose grant this node got the blob; so providers of one job can serve each other its inputs,
and nobody learns whether a node holds a blob of somebody else.

``fetch`` tries one holder after another and goes on at the chunk where the last one failed. Several fetches of one
blob share one transfer. Where a holder sends something else than the blob, that is reported as its violation.
"""

from collections import Counter, OrderedDict
from collections.abc import Awaitable, Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass

import structlog
import trio

from depin_node.core import clock as system_clock
from depin_node.core.clock import SECOND_NS, Now
from depin_node.core.errors import PeerViolation, TransportError
from depin_node.core.wire import decode
from depin_node.crypto.blob import Manifest
from depin_node.crypto.envelope import sign, verify, verify_signature
from depin_node.crypto.identity import Identity
from depin_node.p2p.addresses import peer_id
from depin_node.p2p.blob_store import BlobMissingError, BlobStore, BlobWriter
from depin_node.p2p.blob_transfer import (
    BLOBS_PROTOCOL,
    REQUEST_BYTES_MAX,
    BlobRequest,
    Grant,
    Incoming,
    receive_blob,
    refuse,
    send_blob,
)
from depin_node.p2p.frames import ASK, FrameReader
from depin_node.p2p.network import Network, PeerKey, Stream

log = structlog.get_logger("depin_node.p2p")

_OWNED_MAX = 65_536
_OWNERS_MAX = 8


@dataclass(frozen=True)
class BlobLimits:
    """What serving and fetching may use, and how long they wait."""

    served_max: int = 32
    """Transfers to all peers together; above it a peer is told ``busy``."""
    served_per_peer_max: int = 8
    stall_timeout_s: float = 30.0
    """A peer that sends neither bytes nor credit for so long is given up."""
    rounds_max: int = 3
    """How often all holders are tried."""
    round_pause_s: float = 0.5
    """Pause between rounds; each is twice as long."""


def issue_grant(
    identity: Identity, network_id: str, peer: PeerKey, roots: Sequence[bytes], *, seq: int, now: Now, lifetime_s: int
) -> bytes:
    """Return a signed grant: ``peer`` may fetch ``roots`` (1 to 64 blob ids) for ``lifetime_s`` (at most a day)."""
    expires_s = now.wall_ns // SECOND_NS + lifetime_s
    return sign(identity, network_id, Grant(to=peer, expires_s=expires_s, seq=seq, roots=tuple(roots)))


class Blobs:
    """This node's blobs, served to peers and fetched from them.

    Args:
        network: ``blobs/1`` is served on it from now on.
        store: where they are kept.
        connect: makes sure that a peer is connected (``Mesh.connect``).
        report: is told of violations (``Mesh.report``).
        clock: replaced in simulations.
        limits: bounds.
    """

    def __init__(
        self,
        network: Network,
        store: BlobStore,
        *,
        connect: Callable[[PeerKey], Awaitable[None]] | None = None,
        report: Callable[[PeerKey, PeerViolation], None] | None = None,
        clock: Callable[[], Now] = system_clock.now,
        limits: BlobLimits | None = None,
    ) -> None:
        self.store = store
        self._network = network
        self._connect = connect
        self._report = report
        self._clock = clock
        self._limits = limits or BlobLimits()
        self._owners: OrderedDict[bytes, tuple[PeerKey, ...]] = OrderedDict()
        self._serving: Counter[PeerKey] = Counter()
        self._fetching: dict[bytes, trio.Event] = {}
        network.serve(BLOBS_PROTOCOL, self._serve)

    # Serving

    async def _serve(self, stream: Stream) -> None:
        peer = stream.peer
        if self._serving.total() >= self._limits.served_max or self._serving[peer] >= self._limits.served_per_peer_max:
            await refuse(stream, "busy")
            return
        self._serving[peer] += 1
        try:
            await self._answer(stream)
        except PeerViolation as error:
            self._note_violation(peer, error)
            raise
        finally:
            self._serving[peer] -= 1
            if not self._serving[peer]:
                del self._serving[peer]

    async def _answer(self, stream: Stream) -> None:
        reader, timeout_s = FrameReader(stream, size_bytes_max=REQUEST_BYTES_MAX), self._limits.stall_timeout_s
        frame = None
        with trio.move_on_after(timeout_s):
            frame = await reader.read()
        if frame is None:
            return
        if frame.kind != ASK:
            raise PeerViolation(f"{BLOBS_PROTOCOL}: a frame of kind {frame.kind} is no request")
        request = decode(frame.body, BlobRequest, size_bytes_max=REQUEST_BYTES_MAX)
        refusal = self._why_not(stream.peer, request)
        if refusal is not None:
            await refuse(stream, refusal)
            return
        await send_blob(stream, reader, request, self.store, timeout_s=timeout_s)

    def _why_not(self, peer: PeerKey, request: BlobRequest) -> str | None:
        """Return the code of why ``request`` is refused, or None. Raises ``PeerViolation`` for a forged grant."""
        network_id, now = self._network.network_id, self._clock()
        owner = verify_signature(request.grant, Grant, network_id).sender
        try:
            grant = verify(request.grant, Grant, network_id, to=peer, now=now).payload
        except PeerViolation as error:  # somebody else's, or too old: no crime by itself
            log.info("a blob was refused", peer=peer_id(peer), reason=str(error))
            return "not_granted"
        if request.blob_id not in grant.roots:
            return "not_granted"
        is_owner = owner == self._network.key or owner in self._owners.get(request.blob_id, ())
        return None if is_owner and self.store.has(request.blob_id) else BlobMissingError.code

    # Fetching

    async def fetch(
        self,
        blob_id: bytes,
        holders: Sequence[PeerKey],
        grant: bytes,
        *,
        size_bytes_max: int,
        timeout_s: float,
        durable: bool = False,
    ) -> None:
        """Make sure that the store holds a blob; pin it first if it has to stay.

        Args:
            blob_id: which.
            holders: who may have it, best first.
            grant: the owner's, naming this node.
            size_bytes_max: a larger blob is not taken.
            timeout_s: for all of it.
            durable: as in ``BlobStore.put``.

        Raises:
            TransportError: no holder gave it in time; tells each one's reason.
            PeerViolation: the grant is not for this node or not for this blob.
            ResourceError: no room for it here.
        """
        network_id = self._network.network_id
        granted = verify(grant, Grant, network_id, to=self._network.key, now=self._clock())
        if blob_id not in granted.payload.roots:
            raise PeerViolation("the grant is for other blobs")
        with trio.move_on_after(timeout_s):
            while not await self._is_here(blob_id):
                running = self._fetching.get(blob_id)
                if running is not None:
                    await running.wait()  # then it is here, or it is our turn
                    continue
                self._fetching[blob_id] = ended = trio.Event()
                try:
                    await self._fetch(blob_id, holders, grant, size_bytes_max, durable)
                    self.note_owner(blob_id, granted.sender)
                finally:
                    del self._fetching[blob_id]
                    ended.set()
            return
        raise TransportError(f"blob {blob_id.hex()} did not arrive within {timeout_s:g} s")

    async def _is_here(self, blob_id: bytes) -> bool:
        try:
            await self.store.verify(blob_id)
        except BlobMissingError:
            return False
        return True

    async def _fetch(
        self, blob_id: bytes, holders: Sequence[PeerKey], grant: bytes, size_bytes_max: int, durable: bool
    ) -> None:
        reasons: dict[PeerKey, str] = {}
        with ExitStack() as stack:

            def open_writer(manifest: Manifest) -> BlobWriter:
                return stack.enter_context(self.store.writer(size_bytes_max=size_bytes_max, expected=manifest))

            incoming = Incoming(blob_id, grant, size_bytes_max, open_writer)
            liars: set[PeerKey] = set()
            for round_ in range(self._limits.rounds_max):
                if round_:
                    await trio.sleep(self._limits.round_pause_s * 2 ** (round_ - 1))
                for holder in holders:
                    if holder in liars:
                        continue
                    try:
                        await self._fetch_from(holder, incoming)
                    except PeerViolation as error:
                        liars.add(holder)
                        reasons[holder] = str(error)
                        self._note_violation(holder, error)
                    except TransportError as error:
                        reasons[holder] = str(error)
                    if incoming.is_complete:
                        assert incoming.writer is not None
                        await incoming.writer.finish(durable=durable)
                        return
        told = "; ".join(f"{peer_id(holder)}: {reason}" for holder, reason in reasons.items())
        raise TransportError(f"blob {blob_id.hex()} could not be fetched: {told or 'nobody is said to hold it'}")

    async def _fetch_from(self, holder: PeerKey, incoming: Incoming) -> None:
        if self._connect is not None:
            await self._connect(holder)
        opening_s = trio.current_time()
        stream = await self._network.open_stream(holder, BLOBS_PROTOCOL)
        round_trip_s = (trio.current_time() - opening_s) / 3
        done = False
        try:
            await receive_blob(stream, incoming, round_trip_s=round_trip_s, timeout_s=self._limits.stall_timeout_s)
            done = True
        finally:
            if done:
                await stream.aclose()
            else:
                await stream.reset()

    def note_owner(self, blob_id: bytes, owner: PeerKey) -> None:
        """Serve a blob under the grants of ``owner`` too."""
        owners = self._owners.pop(blob_id, ())
        self._owners[blob_id] = (*(known for known in owners if known != owner), owner)[-_OWNERS_MAX:]
        if len(self._owners) > _OWNED_MAX:
            self._owners.popitem(last=False)

    def _note_violation(self, peer: PeerKey, error: PeerViolation) -> None:
        log.warning("a peer broke the blob protocol", peer=peer_id(peer), reason=str(error))
        if self._report is not None:
            self._report(peer, error)
