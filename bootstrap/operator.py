"""What the operator of a node can ask of it: the ``Backend`` of the control API, over the node's parts."""

import os
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterable

import trio

from depin_node.bootstrap.config import NodeConfig
from depin_node.bootstrap.handover import Handover
from depin_node.bootstrap.market import MarketContext
from depin_node.bootstrap.provider import Provider
from depin_node.bootstrap.requester import Requester
from depin_node.compute.jobs.events import JobEvent
from depin_node.compute.jobs.explain import ExplainView
from depin_node.compute.jobs.job import Job, JobView, SignedJob
from depin_node.compute.jobs.schema import StoredReceipt
from depin_node.compute.market.messages import Countersign, Meters
from depin_node.compute.trust.credit import SECOND_US
from depin_node.compute.trust.receipts import busy_us, count, verify_receipt
from depin_node.core.clock import Now
from depin_node.core.errors import ConfigError, NotFoundError
from depin_node.core.local import DataDir
from depin_node.core.version import software_version
from depin_node.core.views import (
    AccountView,
    CopyView,
    CreditView,
    DeviceView,
    LanView,
    LogsView,
    PeerView,
    ReachView,
    ReceiptView,
    StatusView,
)
from depin_node.crypto.blob import BLOB_BYTES_MAX, CHUNK_BYTES
from depin_node.crypto.envelope import read_kept, verify_signature
from depin_node.crypto.identity import peer_id
from depin_node.p2p.blob_store import BlobStore
from depin_node.p2p.directory import Entry
from depin_node.p2p.lan import Lan
from depin_node.p2p.reach.service import Reach

UPLOAD_KEPT_S = 600.0
"""How long what a client has uploaded waits for the job that it is for."""
PUT_KEPT_S = 3_600.0
"""How long what a user has put stays, whatever jobs use it."""
UPLOADS_KEPT_MAX = 1_024
JOBS_COUNTED_MAX = 200


class Operator:
    """See the module."""

    def __init__(
        self,
        config: NodeConfig,
        data_dir: DataDir,
        join_by: tuple[str, ...],
        market: MarketContext,
        reach: Reach,
        lan: Lan | None,
        requester: Requester | None,
        handover: Handover | None,
        provider: Provider | None,
    ) -> None:
        self._config = config
        self._data_dir = data_dir
        self._join_by = join_by
        self._market = market
        self._store = market.blobs.store
        self._reach = reach
        self._lan = lan
        self._jobs_of = requester
        self._handover = handover
        self._provider = provider
        self._uploads = Uploads(self._store)
        self._started_s = time.time()

    @property
    def _requester(self) -> Requester:
        if self._jobs_of is None:
            raise ConfigError("this node is a first peer and takes no jobs (--bootstrap-only): submit to another node")
        return self._jobs_of

    # How the node is

    def status(self) -> StatusView:
        """Return how the node is."""
        market = self._market
        jobs = Counter(view.state for view in self._jobs_of.jobs(JOBS_COUNTED_MAX)) if self._jobs_of else Counter[str]()
        return StatusView(
            peer=peer_id(market.identity.key),
            version=software_version(),
            network_id=self._config.network_id,
            pid=os.getpid(),
            data_dir=str(self._data_dir.path),
            started_s=self._started_s,
            addresses=tuple(self._reach.addresses() or market.network.addresses()),
            lending=self._provider is not None,
            slots=self._provider.lender.slots() if self._provider else 0,
            peers_connected=len(market.network.peers()),
            peers_known=len(market.mesh.directory.peers()),
            jobs=dict(jobs),
            tasks_lent=self._provider.tasks_run if self._provider else 0,
            blobs_bytes=self._store.used_bytes,
            counters=dict(Counter(market.network.counters()) + Counter(market.mesh.counters())),
            reach=self._reach_view(),
            lan=LanView(self._lan.networks, self._lan.sightings, self._lan.error) if self._lan else None,
            first_peers=self._join_by,
        )

    def _reach_view(self) -> ReachView:
        reach, view = self._reach, self._reach.view
        relays = tuple(peer_id(relay) for relay in view.relays)
        return ReachView(
            view.verdict.value,
            view.nat.value,
            view.reached,
            view.missed,
            relays,
            reach.serves_circuits,
            reach.desk.places,
            reach.desk.circuits,
            view.skew_s,
        )

    def peers(self) -> list[PeerView]:
        """Return the peers that are known, connected ones first, then by peer id."""
        market, now = self._market, self._market.clock()
        views = [_peer_view(entry, market, now) for entry in market.mesh.directory.peers()]
        return sorted(views, key=lambda view: (not view.connected, view.peer))

    def devices(self) -> list[DeviceView]:
        """Return what this node lends, and what it cannot lend."""
        return self._provider.views() if self._provider else []

    async def receipts(self, limit: int) -> list[ReceiptView]:
        """Return the newest receipts."""
        stored = self._market.journal.reader.receipts(limit)
        return [_receipt_view(receipt, self._config.network_id) for receipt in stored]

    def credit(self, limit: int) -> CreditView:
        """Return what lies between this node and its partners, the largest accounts first."""
        now, credit = self._market.clock(), self._market.credit
        accounts = tuple(
            AccountView(
                peer=peer_id(peer),
                gave_s=account.given_us / SECOND_US,
                got_s=account.received_us / SECOND_US,
                limit_s=account.limit_us() / SECOND_US,
                unsigned_s=round(account.unsigned_us / SECOND_US, 6),
                refused=credit.refusal(peer, now) or "",
            )
            for peer, account in credit.accounts(now)[:limit]
        )
        return CreditView(accounts, round(credit.left_us(now) / SECOND_US, 6))

    # Blobs

    def has_blob(self, blob_id: bytes, *, for_an_hour: bool) -> bool:
        """Tell whether the blob is here; if so, it stays for an hour, or long enough to submit a job."""
        if not self._store.has(blob_id):
            return False
        self._uploads.keep(blob_id, for_an_hour=for_an_hour)
        return True

    async def put_blob(self, blob_id: bytes, chunks: AsyncIterator[bytes], *, for_an_hour: bool) -> None:
        """Store a blob. Raises ``ConfigError`` if the bytes have another id, ``ResourceError`` if there is no room."""
        self._uploads.keep(blob_id, for_an_hour=for_an_hour)
        stored = await self._store.put_stream(chunks, size_bytes_max=BLOB_BYTES_MAX, durable=True)
        if stored != blob_id:
            raise ConfigError(f"these bytes are blob {stored.hex()}, not {blob_id.hex()}")

    # Jobs

    async def submit(self, job: Job) -> JobView:
        """Take responsibility for ``job``: when this returns, it is journalled.

        Raises:
            NotFoundError: its program or an input is not here; upload it and submit again.
            ConfigError, ResourceError: see ``Requester.submit``.
        """
        blobs = [job.program, *(item.blob for item in job.inputs)]
        for blob in blobs:
            if not self._store.has(blob):
                raise NotFoundError(f"blob {blob.hex()} is not on this node: upload the program and the inputs first")
        view = await self._requester.submit(job)
        self._uploads.submitted(blobs)
        return view

    def jobs(self, limit: int) -> list[JobView]:
        """Return the newest jobs."""
        return self._requester.jobs(limit)

    def job(self, job_id: bytes) -> JobView:
        """Return one job. Raises ``NotFoundError``."""
        return self._requester.job(job_id)

    async def changed(self, job_id: bytes, seen: JobView) -> None:
        """Wait until the job's view may differ from ``seen``. Cancelling loses nothing."""
        await self._requester.changed(job_id, seen)

    async def cancel(self, job_id: bytes) -> JobView:
        """Stop a job; one that has ended stays as it is. Raises ``NotFoundError``."""
        return await self._requester.cancel(job_id)

    def copies(self) -> list[CopyView]:
        """Return the jobs of nodes of the same owner that this node could go on with."""
        return self._handover.copies() if self._handover is not None else []

    async def attach(self, job_id: bytes) -> JobView:
        """Go on with such a job. Raises ``NotFoundError``, ``ConfigError``, ``ResourceError``."""
        if self._handover is None:
            raise ConfigError("this node is a first peer and takes no jobs (--bootstrap-only): attach on another node")
        return await self._handover.attach(job_id)

    def export(self, job_id: bytes) -> AsyncIterator[bytes]:
        """Yield a job's state as a file. Raises ``NotFoundError``, ``ConfigError``."""
        if self._handover is None:
            raise ConfigError("this node is a first peer and has no jobs (--bootstrap-only)")
        return self._handover.export(job_id)

    async def attach_file(self, parts: AsyncIterator[bytes]) -> JobView:
        """Go on with the job of such a file. Raises ``ConfigError``, ``ResourceError``."""
        if self._handover is None:
            raise ConfigError("this node is a first peer and takes no jobs (--bootstrap-only): attach on another node")
        return await self._handover.attach_file(parts)

    async def program(self, job_id: bytes) -> bytes:
        """Return a job's encoded program. Raises ``NotFoundError``."""
        stored = self._market.journal.reader.job(job_id)
        if stored is None:
            raise NotFoundError(f"there is no job {job_id.hex()} on this node")
        job = read_kept(stored.envelope, SignedJob, self._config.network_id).job
        return await self._store.read(job.program)

    def story(self, job_id: bytes) -> list[JobEvent]:
        """Return what happened to a job. Raises ``NotFoundError``."""
        self._requester.job(job_id)
        return self._requester.story(job_id)

    def explain(self, job_id: bytes) -> ExplainView:
        """Return why a job is as it is. Raises ``NotFoundError``."""
        return self._requester.explain(job_id)

    def logs(self, job_id: bytes) -> LogsView:
        """Return what the accepted tasks of a job printed. Raises ``NotFoundError``."""
        self._requester.job(job_id)
        return self._requester.logs(job_id)

    def output(self, job_id: bytes, buffer: int) -> AsyncIterator[bytes]:
        """Return an output's bytes, task by task. Raises ``ConfigError`` unless the job is done and has that output."""
        return self._requester.output(job_id, buffer)

    def parts(self, job_id: bytes, *, in_order: bool) -> AsyncIterator[bytes]:
        """Return what tasks returned, as it is accepted. Raises ``ConfigError`` if it stays with providers."""
        return self._requester.parts(job_id, in_order=in_order)

    async def assemble(self, job_id: bytes, buffer: int) -> bytes:
        """Put an output together as one blob. Raises as ``output``, and ``ResourceError`` if there is no room."""
        blob = await self._requester.assemble(job_id, buffer)
        self._uploads.keep(blob, for_an_hour=False)
        return blob

    def blob(self, blob_id: bytes) -> AsyncIterator[bytes]:
        """Return a blob's bytes. Raises ``NotFoundError``."""
        if not self._store.has(blob_id):
            raise NotFoundError(f"blob {blob_id.hex()} is not on this node, or no longer")
        return self._chunks(blob_id)

    async def _chunks(self, blob_id: bytes) -> AsyncIterator[bytes]:
        with self._store.pinned(blob_id):
            for index in range(-(-self._store.size_bytes(blob_id) // CHUNK_BYTES)):
                yield await self._store.read_chunk(blob_id, index)


class Uploads:
    """Blobs that the client has brought, or asked about: for a job to come, kept until then or ``UPLOAD_KEPT_S``; or
    for any number of jobs, kept for ``PUT_KEPT_S``. One blob may be here as both."""

    def __init__(self, store: BlobStore) -> None:
        self._store = store
        self._until_s: dict[tuple[bytes, bool], float] = {}

    def keep(self, blob_id: bytes, *, for_an_hour: bool) -> None:
        """Pin a blob for a while, and let go of those whose while is over; beyond so many, of the oldest."""
        now_s, upload = trio.current_time(), (blob_id, for_an_hour)
        self._let_go([known for known, until_s in self._until_s.items() if until_s < now_s])
        if upload in self._until_s:
            del self._until_s[upload]  # so that it becomes the newest
        else:
            self._store.pin(blob_id)
        self._until_s[upload] = now_s + (PUT_KEPT_S if for_an_hour else UPLOAD_KEPT_S)
        if len(self._until_s) > UPLOADS_KEPT_MAX:
            self._let_go([next(iter(self._until_s))])

    def submitted(self, blob_ids: Iterable[bytes]) -> None:
        """Let go of what was kept for a job that holds it now."""
        self._let_go([(blob_id, False) for blob_id in blob_ids])

    def _let_go(self, uploads: Iterable[tuple[bytes, bool]]) -> None:
        for upload in uploads:
            if self._until_s.pop(upload, None) is not None:
                self._store.unpin(upload[0])


def _peer_view(entry: Entry, market: MarketContext, now: Now) -> PeerView:
    book, path = market.book, market.network.path(entry.key)
    classes = {device.device_class for device in entry.advert.devices}
    standings = [book.standing(entry.key, name, now) for name in classes]
    return PeerView(
        peer=entry.name,
        address=str(next(iter(entry.addresses), entry.seen_at) or ""),
        connected=entry.is_connected,
        lending=entry.advert.lending,
        devices=tuple(
            DeviceView(
                device.device_class,
                device.memory_mib,
                device.slots,
                device.free_slots,
                model=device.model,
                mflops_f32=device.mflops_f32,
                mflops_f64=device.mflops_f64,
                mbytes_s=device.mbytes_s,
            )
            for device in entry.advert.devices
        ),
        price_millicredits=entry.advert.price,
        version=entry.advert.software,
        group=entry.group,
        banned=book.reasons.get(entry.key, ""),
        protocol_min=entry.advert.protocol_min,
        protocol_max=entry.advert.protocol_max,
        owner=peer_id(entry.owner) if entry.owner else "",
        verified=max((standing.verified for standing in standings), default=0),
        availability=max((standing.availability for standing in standings if standing.observed), default=None),
        relayed=path is not None and path.relayed,
    )


def _receipt_view(stored: StoredReceipt, network_id: str) -> ReceiptView:
    verified = verify_receipt(stored.receipt, stored.countersign, network_id)
    accepted, refused = count(verified.payload)
    meters = Meters(0, 0, 0, "")
    if stored.countersign is not None:
        meters = verify_signature(stored.countersign, Countersign, network_id).payload.meters
    return ReceiptView(
        id=stored.id.hex(),
        role=stored.role,
        peer=peer_id(stored.peer),
        job=stored.job.hex(),
        tasks_accepted=accepted,
        tasks_refused=refused,
        verified_by=verified.payload.verified_by,
        issued_s=float(stored.at_s),
        signed_by=("requester",) if stored.countersign is None else ("requester", "provider"),
        device_class=verified.payload.device_class,
        cost_s=busy_us(verified.payload) / SECOND_US,
        rate_millicredits=verified.payload.price,
        ran_s=meters.busy_us / SECOND_US,
        fuel=meters.fuel,
        energy_j=meters.energy_mj / 1000,
    )
