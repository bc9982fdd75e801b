"""Blobs between nodes: who may fetch what, from whom, and how a fetch finds its way.

A blob is served only against a ``Grant`` that its owner signed and that names the asking peer. The owner is this node
itself, or a node under whose grant this node got the blob; so providers of one job can serve each other its inputs,
chunk by chunk while they still fetch them, and nobody learns whether a node holds a blob of somebody else. Nor is a
blob that is here already used for somebody who only knows its id: who names it has to prove that they have it.

``fetch`` gets a blob from its holders (``blob_fetch.py``) and goes on where an earlier try broke. Several fetches of
one blob share one transfer. Where a holder sends something else than the blob, that is reported as its violation.
Large blobs go by a data channel of their own (``direct.py``) where two nodes can reach each other, else by a stream.
"""

import hmac
import os
from collections import Counter, OrderedDict
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TypeVar
from weakref import WeakValueDictionary

import structlog
import trio

from depin_node.core import clock as system_clock
from depin_node.core.clock import SECOND_NS, Now
from depin_node.core.errors import DepinError, PeerViolation, TransportError
from depin_node.crypto.envelope import sign, verify, verify_signature
from depin_node.crypto.identity import Identity
from depin_node.p2p.addresses import peer_id
from depin_node.p2p.blob_fetch import SWARM_BYTES_MIN, Fetch
from depin_node.p2p.blob_messages import BLOBS_PROTOCOL, OTHERS_MAX, BlobRequest, Grant
from depin_node.p2p.blob_parts import TURNS, Parts
from depin_node.p2p.blob_pulling import prove
from depin_node.p2p.blob_serving import Serving
from depin_node.p2p.blob_store import BlobMissingError, BlobStore
from depin_node.p2p.carrier import Carrier, StreamCarrier, Window
from depin_node.p2p.compression import Sample
from depin_node.p2p.direct import DirectChannels
from depin_node.p2p.frames import REFUSE
from depin_node.p2p.network import Network, NoDirectPathError, PeerKey, Stream

T = TypeVar("T")
log = structlog.get_logger("depin_node.p2p")

_OWNED_MAX = 65_536
_OWNERS_MAX = 8
_SAMPLES_MAX = 1024
_WINDOWS_MAX = 256
DIRECT_BYTES_MIN = 2 << 20
"""Smaller blobs arrive by a stream before a channel is open."""

RELAYED_BYTES_MAX = 8 << 20
"""Larger blobs do not go by a relay that is for control: a program does."""


@dataclass(frozen=True)
class BlobLimits:
    """What serving and fetching may use, and how long they wait."""

    served_max: int = 32
    """Transfers to all peers together; above it a peer is told ``busy``."""
    served_per_peer_max: int = 8
    stall_timeout_s: float = 30.0
    """A peer that sends neither bytes nor credit for so long is given up."""
    rounds_max: int = 3
    """How often a holder is tried without progress."""
    round_pause_s: float = 0.5
    """Pause between rounds; each is twice as long."""
    direct_timeout_s: float = 5.0
    """For opening a data channel, before a stream is used."""
    direct_retry_s: float = 300.0
    """How long no data channel is tried to a peer to whom none could be opened."""


def issue_grant(
    identity: Identity, network_id: str, peer: PeerKey, roots: Sequence[bytes], *, seq: int, now: Now, lifetime_s: int
) -> bytes:
    """Return a signed grant: ``peer`` may fetch ``roots`` (1 to 64 blob ids) for ``lifetime_s`` (at most a day)."""
    expires_s = now.wall_ns // SECOND_NS + lifetime_s
    return sign(identity, network_id, Grant(to=peer, expires_s=expires_s, seq=seq, roots=tuple(roots)))


class Blobs:
    """This node's blobs, served to peers and fetched from them.

    Args:
        network: ``blobs/2`` is served on it from now on.
        store: where they are kept.
        connect: makes sure that a peer is connected (``Mesh.connect``).
        report: is told of violations (``Mesh.report``).
        clock: replaced in simulations.
        limits: bounds.
        direct: the data port; without it all goes by streams.
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
        direct: DirectChannels | None = None,
    ) -> None:
        self.store = store
        self.sent_bytes = 0
        """What has left this node, blobs only."""
        self._network = network
        self._connect = connect
        self._report = report
        self._clock = clock
        self._limits = limits or BlobLimits()
        self._direct = direct
        self._no_direct_until_s: OrderedDict[PeerKey, float] = OrderedDict()
        self._owners: OrderedDict[bytes, tuple[PeerKey, ...]] = OrderedDict()
        self._samples: OrderedDict[bytes, Sample] = OrderedDict()
        self._windows: OrderedDict[PeerKey, Window] = OrderedDict()
        self._serving: Counter[PeerKey] = Counter()
        self._askers: dict[bytes, list[Serving]] = {}
        self._fetching: dict[bytes, Fetch] = {}
        self._parts: dict[tuple[PeerKey, bytes], Parts] = {}
        self._turns: WeakValueDictionary[PeerKey, trio.CapacityLimiter] = WeakValueDictionary()
        network.serve(BLOBS_PROTOCOL, self._serve_stream)
        if direct is not None:
            direct.serve(self._serve)

    # Serving

    async def _serve_stream(self, stream: Stream) -> None:
        await self._serve(StreamCarrier(stream, timeout_s=self._limits.stall_timeout_s))

    async def _serve(self, carrier: Carrier) -> None:
        peer = carrier.peer
        if self._serving.total() >= self._limits.served_max or self._serving[peer] >= self._limits.served_per_peer_max:
            await carrier.send(REFUSE, b"busy")
            return
        self._serving[peer] += 1
        try:
            await Serving(carrier, self, timeout_s=self._limits.stall_timeout_s).run()
        except PeerViolation as error:
            self.note_violation(peer, error)
            raise
        finally:
            self._serving[peer] -= 1
            if not self._serving[peer]:
                del self._serving[peer]

    def why_not(self, peer: PeerKey, request: BlobRequest) -> str | None:
        """Return the code of why ``request`` is refused, or None. Raises ``PeerViolation`` for a forged grant."""
        network_id, now = self._network.network_id, self._clock()
        owner = verify_signature(request.grant, Grant, network_id).sender
        try:
            grant = verify(request.grant, Grant, network_id, to=peer, now=now).payload
        except PeerViolation as error:  # somebody else's, or too old: no crime by itself
            log.info("a blob was refused", peer=peer_id(peer), reason=str(error))
            return "not_granted"
        blob_id, fetch = request.blob_id, self._fetching.get(request.blob_id)
        if blob_id not in grant.roots:
            return "not_granted"
        if fetch is not None and fetch.owner == owner and self.store.partials.coming(blob_id) is not None:
            fetch.wanted_by(peer)
            return None
        return None if self._is_owner(blob_id, owner) and self.store.has(blob_id) else BlobMissingError.code

    def begun(self, blob_id: bytes, serving: Serving) -> tuple[PeerKey, ...]:
        """Note that a peer fetches a blob, tell the others that do, and return them; of small blobs nobody is told."""
        others = self._askers.setdefault(blob_id, [])
        peers = tuple(dict.fromkeys(other.peer for other in others if other.peer != serving.peer))[-OTHERS_MAX:]
        is_large = self.store.partials.coming(blob_id) is not None or self.store.size_bytes(blob_id) >= SWARM_BYTES_MIN
        if is_large and serving.peer not in (other.peer for other in others):
            for other in others:
                other.tell(serving.peer)
        others.append(serving)
        return peers if is_large else ()

    def done(self, blob_id: bytes, serving: Serving) -> None:
        """A peer does not fetch a blob from us any more."""
        others = self._askers.get(blob_id, [])
        if serving in others:
            others.remove(serving)
        if not others:
            self._askers.pop(blob_id, None)

    def sent(self, peer: PeerKey, size_bytes: int) -> None:
        """Bytes of a blob have left this node."""
        self.sent_bytes += size_bytes

    def sample(self, blob_id: bytes) -> Sample | None:
        """Return how a blob compresses, if it is known already."""
        return self._samples.get(blob_id)

    def note_sample(self, blob_id: bytes, sample: Sample) -> None:
        """Keep how a blob compresses."""
        _keep(self._samples, blob_id, sample, _SAMPLES_MAX)

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
            TransportError: no holder gave it in time; tells each one's reason. Or it is here from somebody else's
                job, and none of the holders could prove to have it.
            PeerViolation: the grant is not for this node or not for this blob.
            ResourceError: no room for it here.
        """
        owner = self._granting(grant, blob_id)
        request = BlobRequest(grant, blob_id, size_bytes_max, True, b"")
        with trio.move_on_after(timeout_s):
            while not await self._is_here(blob_id):
                running = self._fetching.get(blob_id)
                if running is not None:
                    await running.ended.wait()  # then it is here, or it is our turn
                    continue
                await self._fetch(request, owner, holders, durable)
            if not self._is_owner(blob_id, owner):
                await self._have_proven(request, holders)
                self.note_owner(blob_id, owner)
            return
        raise TransportError(f"blob {blob_id.hex()} did not arrive within {timeout_s:g} s")

    async def _fetch(self, request: BlobRequest, owner: PeerKey, holders: Sequence[PeerKey], durable: bool) -> None:
        limits = self._limits
        self._fetching[request.blob_id] = fetch = Fetch(
            self,
            self._network.key,
            owner,
            request,
            holders,
            rounds_max=limits.rounds_max,
            round_pause_s=limits.round_pause_s,
            timeout_s=limits.stall_timeout_s,
        )
        try:
            await fetch.run(durable=durable)
            self.note_owner(request.blob_id, owner)
        finally:
            del self._fetching[request.blob_id]
            fetch.ended.set()

    def may_have_parts(self, blob_id: bytes, owner: PeerKey) -> bool:
        """Tell whether ``parts`` can be used: nothing of the blob is on its way for this owner, nor is it here."""
        return (owner, blob_id) not in self._parts and blob_id not in self._fetching and not self.store.has(blob_id)

    @asynccontextmanager
    async def parts(self, blob_id: bytes, holder: PeerKey, grant: bytes, *, size_bytes: int) -> AsyncIterator[Parts]:
        """Bring what ``Parts.want`` asks for, as long as the block runs.

        Args:
            blob_id: which; ``may_have_parts`` of it.
            holder: who has it.
            grant: the owner's, naming this node.
            size_bytes: of the whole blob.

        Raises:
            PeerViolation: the grant is not for this node or not for this blob.
        """
        limits, owner = self._limits, self._granting(grant, blob_id)
        if owner != holder:  # ``may_have_parts`` was asked about who holds it
            raise PeerViolation("the grant is somebody else's")
        turn = self._turns.setdefault(owner, trio.CapacityLimiter(TURNS))
        request = BlobRequest(grant, blob_id, size_bytes, True, b"")
        self._parts[owner, blob_id] = parts = Parts(
            self, self._network.key, owner, request, [holder], turn=turn,
            rounds_max=limits.rounds_max, round_pause_s=limits.round_pause_s, timeout_s=limits.stall_timeout_s,
        )  # fmt: skip
        failure: DepinError | None = None
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(parts.bring)
                try:
                    yield parts
                except DepinError as error:  # as it is, not in a group
                    failure = error
                nursery.cancel_scope.cancel()
            if failure is not None:
                raise failure
        finally:
            del self._parts[owner, blob_id]
            if parts.has_all and self.store.has(blob_id):
                self.note_owner(blob_id, owner)

    def _granting(self, grant: bytes, blob_id: bytes) -> PeerKey:
        """Return whose grant it is. Raises ``PeerViolation``: not for this node, or not for the blob."""
        granted = verify(grant, Grant, self._network.network_id, to=self._network.key, now=self._clock())
        if blob_id not in granted.payload.roots:
            raise PeerViolation("the grant is for other blobs")
        return granted.sender

    def is_at_hand(self, blob_id: bytes, owner: PeerKey) -> bool:
        """Tell whether a blob is here, whole, and known to be ``owner``'s too: nothing is left to fetch then."""
        return self._is_owner(blob_id, owner) and self.store.is_whole(blob_id)

    async def _is_here(self, blob_id: bytes) -> bool:
        try:
            await self.store.verify(blob_id)
        except BlobMissingError:
            return False
        return True

    async def _have_proven(self, request: BlobRequest, holders: Sequence[PeerKey]) -> None:
        """Have one of the holders prove that it has a blob which is here, but not from this owner: else whoever learned
        an id could have other people's data computed on."""
        nonce = os.urandom(32)
        question = BlobRequest(request.grant, request.blob_id, request.size_bytes_max, False, nonce)
        expected, reasons = await self.store.prove(request.blob_id, nonce), []
        for holder in holders:
            try:
                carrier = await self._open_stream(holder)
                try:
                    shown = await prove(carrier, question, timeout_s=self._limits.stall_timeout_s)
                finally:
                    with trio.CancelScope(shield=True):
                        await carrier.aclose()
                if hmac.compare_digest(shown, expected):
                    return
                raise PeerViolation("a proof of another blob")
            except PeerViolation as error:
                self.note_violation(holder, error)
                reasons.append(f"{peer_id(holder)}: {error}")
            except TransportError as error:
                reasons.append(f"{peer_id(holder)}: {error}")
        raise TransportError(f"nobody proved to have blob {request.blob_id.hex()}: {'; '.join(reasons)}")

    # Carriers

    async def open_carrier(self, holder: PeerKey, size_bytes_max: int) -> Carrier:
        """Connect to a holder: by a data channel if the blob may be large and one can be had.

        Raises:
            NoDirectPathError: only by a relay, which is not for so many bytes.
            TransportError: it cannot be reached.
        """
        if self._connect is not None:
            await self._connect(holder)
        path = self._network.path(holder)
        if path is not None and path.relayed and not path.bulk and size_bytes_max > RELAYED_BYTES_MAX:
            raise NoDirectPathError(
                f"{peer_id(holder)} is reached by a relay only, and the relay is not for bulk: have one of the two"
                " nodes reachable, or use a relay that offers it"
            )
        may_be_had = self._no_direct_until_s.get(holder, 0.0) <= trio.current_time()
        direct = self._direct
        if direct is not None and size_bytes_max >= DIRECT_BYTES_MIN and may_be_had and direct.has_room(holder):
            with trio.move_on_after(self._limits.direct_timeout_s):
                try:
                    return await direct.open(holder)
                except TransportError as error:
                    log.debug("no data channel", peer=peer_id(holder), reason=str(error))
            retry_s = trio.current_time() + self._limits.direct_retry_s
            _keep(self._no_direct_until_s, holder, retry_s, _WINDOWS_MAX)
        return await self._open_stream(holder)

    async def _open_stream(self, holder: PeerKey) -> StreamCarrier:
        if self._connect is not None:
            await self._connect(holder)
        began_s = trio.current_time()
        stream = await self._network.open_stream(holder, BLOBS_PROTOCOL)
        window = self._windows.get(holder)
        if window is None:
            window = Window(round_trip_s=(trio.current_time() - began_s) / 3)
            _keep(self._windows, holder, window, _WINDOWS_MAX)
        return StreamCarrier(stream, timeout_s=self._limits.stall_timeout_s, window=window)

    # Owners

    def note_owner(self, blob_id: bytes, owner: PeerKey) -> None:
        """From now on grants by ``owner`` hold for a blob of this store, and its jobs may use it."""
        owners = self._owners.pop(blob_id, ())
        self._owners[blob_id] = (*(known for known in owners if known != owner), owner)[-_OWNERS_MAX:]
        if len(self._owners) > _OWNED_MAX:
            self._owners.popitem(last=False)

    def _is_owner(self, blob_id: bytes, peer: PeerKey) -> bool:
        return peer == self._network.key or peer in self._owners.get(blob_id, ())

    def note_violation(self, peer: PeerKey, error: PeerViolation) -> None:
        """A peer broke the protocol."""
        log.warning("a peer broke the blob protocol", peer=peer_id(peer), reason=str(error))
        if self._report is not None:
            self._report(peer, error)


def _keep(kept: OrderedDict[bytes, T], key: bytes, value: T, count_max: int) -> None:
    kept[key] = value
    kept.move_to_end(key)
    while len(kept) > count_max:
        kept.popitem(last=False)
