"""One blob fetched: from whom, how often tried, and from how many at once.

The flow: a small blob is asked of one holder after the other. A large one is asked of all at once, of those too that
turn out to fetch it at the same time: its owner names them, or they ask us. What an earlier try has left is kept. A
holder that fails is tried again after a pause, ``rounds_max`` times without progress; one that sends something else
than the blob is reported, and not asked again.
"""

import math
import random
from collections.abc import Sequence
from contextlib import AsyncExitStack
from typing import Protocol

import trio

from depin_node.core.errors import PeerViolation, ResourceError, TransportError
from depin_node.crypto.blob import Manifest
from depin_node.p2p.addresses import peer_id
from depin_node.p2p.blob_messages import BlobRequest
from depin_node.p2p.blob_partial import PartialBlob
from depin_node.p2p.blob_pulling import Incoming, pull
from depin_node.p2p.blob_store import BlobStore
from depin_node.p2p.carrier import Carrier
from depin_node.p2p.frames import RequestRefusedError
from depin_node.p2p.network import PeerKey
from depin_node.p2p.swarm import Swarm

SWARM_BYTES_MIN = 4 << 20
"""Smaller blobs are fetched from one holder: finding others would take longer."""
HOLDERS_MAX = 16


class Source(Protocol):
    """What a fetch asks of its node."""

    store: BlobStore

    async def open_carrier(self, holder: PeerKey, size_bytes_max: int) -> Carrier:
        """Connect to a holder."""

    def note_violation(self, peer: PeerKey, error: PeerViolation) -> None:
        """A holder broke the protocol."""


class Fetch:
    """One blob on its way; ``run`` gets it."""

    def __init__(
        self,
        source: Source,
        me: PeerKey,
        owner: PeerKey,
        request: BlobRequest,
        holders: Sequence[PeerKey],
        *,
        rounds_max: int,
        round_pause_s: float,
        timeout_s: float,
        linger_s: float = 0.0,
    ) -> None:
        """``linger_s``: see ``Incoming``."""
        self.owner = owner
        self.ended = trio.Event()
        self._source = source
        self._me = me
        self._request = request
        self._holders = list(dict.fromkeys(holders))
        self._rounds_max = rounds_max
        self._round_pause_s = round_pause_s
        self._timeout_s = timeout_s
        self._reasons: dict[PeerKey, str] = {}
        self._failed: ResourceError | None = None
        self._excused = False
        """Whether the last try brought nothing for others' sake: it does not count. Who fetches has a deadline."""
        self._nursery: trio.Nursery | None = None
        self._stack = AsyncExitStack()
        self._incoming = Incoming(
            request,
            self._make_swarm,
            self._open_partial,
            self._meet,
            linger_s=linger_s,
            may_linger=self._may_linger,
            gives_way=self._gives_way,
        )

    async def run(self, *, durable: bool) -> None:
        """Get the blob into the store.

        Raises:
            TransportError: no holder gave it; tells each one's reason.
            ResourceError: no room for it here.
        """
        store, blob_id = self._source.store, self._request.blob_id
        async with self._stack:
            left = await store.partials.left(blob_id)
            if left is not None and left.size <= self._request.size_bytes_max:
                await self._incoming.begin(left)
            await self._bring()
            assert self._incoming.partial is not None
            await self._incoming.partial.finish(durable=durable)

    async def _bring(self) -> None:
        """Get all that is wanted. Raises as ``run`` does."""
        while not self._incoming.is_complete:
            self._reasons.clear()
            await (self._one_by_one() if self._request.size_bytes_max < SWARM_BYTES_MIN else self._at_once())
            if self._failed is not None:
                raise self._failed
            told = "; ".join(f"{peer_id(holder)}: {reason}" for holder, reason in self._reasons.items())
            if not self._incoming.is_complete and (told or not self._holders):  # else more is wanted since
                blob_id = self._request.blob_id.hex()
                raise TransportError(f"blob {blob_id} could not be fetched: {told or 'nobody is said to hold it'}")

    def wanted_by(self, peer: PeerKey) -> None:
        """A peer that asks us for the blob fetches it too, and soon has chunks that we lack."""
        self._meet((peer,))

    def _make_swarm(self, here: bytearray) -> Swarm:
        return Swarm(self._me, here, random.Random())  # noqa: S311 - an order of chunks is no secret

    async def _open_partial(self, manifest: Manifest) -> PartialBlob:
        return await self._stack.enter_async_context(self._source.store.partials.open(self._request.blob_id, manifest))

    def _may_linger(self) -> bool:
        """Whether a transfer may wait for more to be wanted."""
        return True

    def _gives_way(self) -> bool:
        """Whether a transfer is to end though more is wanted."""
        return False

    def _meet(self, peers: tuple[PeerKey, ...]) -> None:
        """Share the blob out with peers that fetch it too, and ask them as well."""
        for peer in peers:
            if self._nursery is None or peer == self._me:
                continue
            if peer not in self._holders and len(self._holders) < HOLDERS_MAX:
                self._holders.append(peer)
                self._nursery.start_soon(self._keep_pulling, peer)
            if peer in self._holders and self._incoming.swarm is not None:
                self._incoming.swarm.wants(peer)

    async def _one_by_one(self) -> None:
        liars: set[PeerKey] = set()
        for round_ in range(self._rounds_max):
            if round_:
                await self._pause(round_)
            for holder in self._holders:
                if holder not in liars and not await self._try(holder):
                    liars.add(holder)
                if self._incoming.is_complete or self._failed is not None:
                    return

    async def _at_once(self) -> None:
        async with trio.open_nursery() as nursery:
            self._nursery = nursery
            for holder in self._holders[:HOLDERS_MAX]:
                nursery.start_soon(self._keep_pulling, holder)
        self._nursery = None

    async def _keep_pulling(self, holder: PeerKey) -> None:
        round_ = 0
        while round_ < self._rounds_max and not self._incoming.is_complete:
            before = self._chunks_come()
            may_again = await self._try(holder)
            if not may_again or self._incoming.is_complete or self._failed is not None:
                break
            round_ = round_ + 1 if self._chunks_come() == before and not self._excused else 1
            if self._incoming.swarm is not None:  # its share is not waited for while it cannot be had
                self._incoming.swarm.leave(holder)
            if round_ < self._rounds_max:
                await self._pause(round_)
        if self._incoming.swarm is not None:
            self._incoming.swarm.leave(holder)
        if self._failed is not None and self._nursery is not None:
            self._nursery.cancel_scope.cancel()

    def _chunks_come(self) -> int:
        partial = self._incoming.partial
        return 0 if partial is None else partial.arrivals.total

    async def _pause(self, round_: int) -> None:
        """Wait before a holder is tried again; not any longer once others have brought all that was missing."""
        with trio.move_on_after(self._round_pause_s * 2 ** (round_ - 1)):
            while not self._incoming.is_complete:
                await self._incoming.wait_for_change(math.inf)

    async def _try(self, holder: PeerKey) -> bool:
        """Get from one holder what it has; return whether it may be asked again."""
        self._reasons.pop(holder, None)
        self._excused = False
        try:
            await self._pull(holder)
        except PeerViolation as error:
            self._reasons[holder] = str(error)
            self._source.note_violation(holder, error)
            return False
        except TransportError as error:
            self._reasons[holder] = str(error)
            self._excused = isinstance(error, RequestRefusedError) and error.refusal == "busy"
        except ResourceError as error:
            self._failed = error
        return True

    async def _pull(self, holder: PeerKey) -> None:
        carrier = await self._source.open_carrier(holder, self._request.size_bytes_max)
        done = False
        try:
            done = await pull(carrier, self._incoming, timeout_s=self._timeout_s)
        finally:
            if done:
                await carrier.aclose()
            else:
                with trio.CancelScope(shield=True):
                    await carrier.reset()
