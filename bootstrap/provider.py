"""The provider's shell: serves ``market/2`` while the node lends.

The flow: each stream gets a machine (``ProviderTalk``) over the one lender's book. Its orders are carried out
here: an agreement opens a ``Shop``, where attempts run; a work has its program and inputs fetched against the
requester's grant; what is promised is stored before the machine goes on. Results go back to the machine,
which commits to them; those that are to stay are put away before they are shown.
"""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager, nullcontext
from functools import partial
from pathlib import Path
from typing import TypeVar

import structlog
import trio

from depin_node.bootstrap.arriving import PARTS_BYTES_MIN, Inputs, comes_in_parts
from depin_node.bootstrap.finished import FinishedResults, open_finished
from depin_node.bootstrap.kept import KeptResults, open_kept
from depin_node.bootstrap.lanes import Work
from depin_node.bootstrap.lent import LentDevice, LentDevices
from depin_node.bootstrap.market import TICK_S, Conversation, MarketContext
from depin_node.bootstrap.shop import Shop
from depin_node.compute.jobs import statements
from depin_node.compute.market import orders as market
from depin_node.compute.market.happenings import StoreAgreement
from depin_node.compute.market.lender import Lender
from depin_node.compute.market.messages import PROTOCOL, EndCode, WorkBody
from depin_node.compute.market.provider import ProviderTalk
from depin_node.compute.programs.program import Program
from depin_node.compute.programs.validation import decode_program
from depin_node.compute.trust.credit import UNPAID_SHARE
from depin_node.core.clock import SECOND_NS, Now
from depin_node.core.errors import NotFoundError, PeerViolation, ResourceError, TaskError
from depin_node.core.views import DeviceView
from depin_node.crypto.identity import peer_id
from depin_node.p2p.frames import Frame
from depin_node.p2p.network import Stream
from depin_node.p2p.together import together

log = structlog.get_logger("depin_node.provider")
Order = TypeVar("Order")

CONVERSATIONS_MAX = 64
CONVERSATIONS_PER_GROUP_MAX = 4
FETCH_TIMEOUT_S = 300.0
FETCHES_AT_ONCE = 3
"""Blobs of one work: what one has to wait for, others do not. (Two who fetch from each other need a data channel each
way for each: ``DirectLimits.channels_per_peer_max``.)"""
_STRANGERS = "unknown"
"""The group of peers that the directory does not know: they share one."""


class Provider:
    """A node's lending; ``open_provider`` makes it."""

    def __init__(
        self,
        context: MarketContext,
        lent: LentDevices,
        unpaid_share: float,
        kept: KeptResults,
        finished: FinishedResults,
        nursery: trio.Nursery,
    ) -> None:
        self.context = context
        self.devices: list[LentDevice] = lent.devices
        self._left_out = lent.left_out
        self._unpaid_share = unpaid_share
        self.keep, self.put_ahead, self.let_go, self.view = kept.keep, kept.put_ahead, kept.let_go, kept.view
        self.remember, self.recall, self.forget_finished = finished.remember, finished.recall, finished.forget
        lendings = [device.lending for device in lent.devices]
        self.lender = Lender(lendings, banned=context.book.banned, credit=context.credit)
        context.credit.lend(self.lender.slots(), unpaid_share)
        self.tasks_run = 0
        self._looks = 0
        self._nursery = nursery
        self._talks: dict[ProviderTalk, tuple[Conversation, Shop]] = {}
        context.network.serve(PROTOCOL, self._serve)

    async def _serve(self, stream: Stream) -> None:
        """Hold one conversation."""
        context, peer = self.context, stream.peer
        group = self._group(peer)
        same = sum(talk.group == group for talk in self._talks)
        if len(self._talks) >= CONVERSATIONS_MAX or same >= CONVERSATIONS_PER_GROUP_MAX:
            log.info("a conversation was refused: too many", peer=peer_id(peer))
            await stream.reset()
            return
        talk = ProviderTalk(context.pen, peer, group, self.lender, context.secret())
        pools = [device.pool for device in self.devices]
        shop = Shop(self, pools, talk, context.clock, lambda: conversation.wake())
        conversation = Conversation(stream, talk, context.clock, shop.data)
        self._talks[talk] = (conversation, shop)

        def take(frame: Frame) -> bool:
            orders = talk.receive(frame.kind, frame.body, context.clock())
            self._carry_out(talk, orders)
            return any(isinstance(order, market.Run) for order in orders)  # what follows is rarely as urgent

        try:
            with context.mesh.in_use(peer):
                context.look(peer)
                await conversation.run(take, lambda: False)
        except PeerViolation as error:
            context.mesh.report(peer, error)
            raise
        finally:
            self._carry_out(talk, talk.ended())
            del self._talks[talk]
            if not self.lender.draining and talk.unsigned_us():
                context.credit.unsigned(peer, talk.unsigned_us(), context.clock())

    def _group(self, peer: bytes) -> str:
        entry = self.context.mesh.directory.get(peer)
        return entry.group if entry is not None else _STRANGERS

    def _carry_out(self, talk: ProviderTalk, orders: list[market.Order]) -> None:
        conversation, shop = self._talks[talk]
        for order in orders:
            if isinstance(order, market.Run):
                self.tasks_run += len(order.items)
                shop.add(order)
            elif isinstance(order, market.Free):
                shop.free(order.attempts)
            elif isinstance(order, market.Keep):
                self._nursery.start_soon(self._contained, talk, shop.keep, order)
            elif isinstance(order, market.Prepare):
                shop.add_work(order)
                if not shop.has_all(order):
                    self._nursery.start_soon(self._contained, talk, shop.prepare, order)
            elif isinstance(order, market.Forget):
                shop.forget(order.work)
            elif isinstance(order, market.Open):
                talk.energy_by = self._metered_by(order)
                shop.open(order)
                self._nursery.start_soon(self._contained, talk, shop.run, order)
            elif isinstance(order, market.Over):
                shop.close()
                conversation.stop()
            else:
                self._store(talk, order)
        conversation.wake()
        self._see_who_gave_way()

    async def _contained(self, talk: ProviderTalk, run: Callable[[Order], Awaitable[None]], order: Order) -> None:
        """Run something for one agreement; a fault of our own in it ends that agreement, and nothing else."""
        try:
            await run(order)
            shop = self._talks[talk][1] if talk in self._talks else None
            if isinstance(order, market.Open) and shop is not None and not shop.scope.cancel_called:
                log.warning("an agreement ends: its devices are gone", peer=peer_id(talk.peer))
                self._carry_out(talk, talk.end(EndCode.RESOURCE))
        except Exception:
            log.exception("an agreement ends by a fault of this node", peer=peer_id(talk.peer))
            if talk in self._talks:
                self._carry_out(talk, talk.end(EndCode.RESOURCE))

    def _see_who_gave_way(self) -> None:
        """An award to one may have ended the idle agreement of another."""
        for talk, (conversation, shop) in self._talks.items():
            if talk.is_over() and not shop.scope.cancel_called:
                shop.close()
                conversation.wake()
                conversation.stop()

    def _store(self, talk: ProviderTalk, order: StoreAgreement | market.StoreReceipt) -> None:
        """Journal what is promised; only then the machine goes on."""
        now_s = self.context.clock().wall_ns // SECOND_NS
        if isinstance(order, StoreAgreement):
            writes = [
                statements.put_agreement(order.agreement, "provider", talk.peer, order.bid, order.award, now_s),
                statements.put_floor(talk.peer, "market", order.seq),
            ]
        else:
            writes = [
                statements.put_receipt(
                    order.receipt,
                    "provider",
                    talk.peer,
                    order.job,
                    order.envelope,
                    order.countersign,
                    now_s,
                    order.busy_us,
                ),
                statements.put_entry(order.entry, order.receipt, "provider"),
            ]

        def then(error: ResourceError | None) -> None:
            stands = True
            if not isinstance(order, StoreAgreement):
                stands = self.context.pen.note_stored(order.entry, is_stored=error is None)
                if stands:
                    self.context.credit.gave(talk.peer, order.busy_us)
                    self.context.look(talk.peer)
            if talk not in self._talks:
                return  # the stream broke meanwhile
            if error is not None:
                log.error("the journal cannot be written: ending an agreement", reason=str(error))
                self._carry_out(talk, talk.end(EndCode.RESOURCE))
            elif isinstance(order, StoreAgreement):
                self._carry_out(talk, talk.stored(self.context.clock()))
            elif stands:
                talk.send_countersign(order)
                self._talks[talk][0].wake()

        if isinstance(order, StoreAgreement):
            self.context.journal.write_soon(writes, then)
        else:
            self.context.journal.write_lazily(writes, then)

    def at_hand(self, requester: bytes, order: market.Prepare, work: Work) -> bool:
        """Take a work's blobs if all of them are here, and stay until ``unpin``; tell whether that is so."""
        blobs, body = self.context.blobs, order.body
        names = dict.fromkeys([body.program, *(item.blob for item in body.inputs)])
        if not all(blobs.is_at_hand(blob, requester) for blob in names):
            return False
        for blob in names:
            blobs.store.pin(blob)
        work.blobs.extend(names)
        work.inputs = {item.buffer: blobs.store.path(item.blob) for item in body.inputs}
        return True

    @asynccontextmanager
    async def fetched(
        self, requester: bytes, order: market.Prepare, work: Work, *, in_parts: bool
    ) -> AsyncIterator[Inputs]:
        """Get a work's blobs; whole ones stay until ``unpin``. Where ``in_parts``, of large inputs that are cut along
        their first axis the parts of tasks come as they are wanted, as long as the block runs.

        Raises:
            TransportError, PeerViolation, ResourceError: see ``Blobs.fetch``.
        """
        blobs, body = self.context.blobs, order.body
        sizes = {body.program: body.program_bytes} | {item.blob: item.size_bytes for item in body.inputs}
        for blob in sizes:
            blobs.store.pin(blob)
            work.blobs.append(blob)
        large = {blob for blob, size in sizes.items() if size >= PARTS_BYTES_MIN and blob != body.program}
        program, in_rows = None, set[bytes]()
        if in_parts and any(blobs.may_have_parts(blob, requester) for blob in large):
            await self._fetch(requester, order, {body.program: body.program_bytes})
            program = await trio.to_thread.run_sync(_read_program, await self.read(body.program))
        if program is not None:
            whole = {
                item.blob
                for item in body.inputs
                if not comes_in_parts(program, item) or item.size_bytes != sizes[item.blob]
            }
            in_rows = {blob for blob in large - whole if blobs.may_have_parts(blob, requester)}
        async with AsyncExitStack() as stack:
            parts = {
                blob: await stack.enter_async_context(blobs.parts(blob, requester, order.grant, size_bytes=sizes[blob]))
                for blob in in_rows
            }
            await self._fetch(requester, order, {blob: size for blob, size in sizes.items() if blob not in parts})
            paths = {blob: await parts[blob].opened() if blob in parts else blobs.store.path(blob) for blob in sizes}
            work.inputs = {item.buffer: paths[item.blob] for item in body.inputs}
            arriving = {item.buffer: parts[item.blob] for item in body.inputs if item.blob in parts}
            yield Inputs(program, arriving) if arriving else Inputs()

    async def _fetch(self, requester: bytes, order: market.Prepare, sizes: dict[bytes, int]) -> None:
        blobs, turn = self.context.blobs, trio.CapacityLimiter(FETCHES_AT_ONCE)

        async def fetch(blob: bytes, size_bytes: int) -> None:
            async with turn:  # also where it is here from somebody else: the requester then proves that it has it
                await blobs.fetch(blob, [requester], order.grant, size_bytes_max=size_bytes, timeout_s=FETCH_TIMEOUT_S)

        missing = [(blob, size) for blob, size in sizes.items() if not blobs.is_at_hand(blob, requester)]
        if missing:
            await together(*(partial(fetch, blob, size_bytes) for blob, size_bytes in missing))

    async def read(self, blob: bytes) -> bytes:
        """Return the bytes of a blob that was fetched."""
        return await self.context.blobs.store.read(blob)

    def ran(self, requester: bytes, device: int, duration_ns: int) -> int:
        """Note slot time that was used for a requester, whatever came of it; return the energy that it took, in mJ."""
        self.context.credit.ran(requester, duration_ns // 1000, self.context.clock())
        lent = self.devices[device]
        return lent.power.share_mj(duration_ns, lent.lending.slots - self.lender.slots_free(device))

    def _metered_by(self, order: market.Open) -> str:
        meters = (self.devices[device].meter for device in order.shares)
        return next((meter.name for meter in meters if meter is not None), "")

    def _look_at_devices(self, now: Now) -> None:
        """Lend no more what is lost, and read a meter: one at a time, since each is a call into a driver."""
        for index in self.lender.devices():
            if self.devices[index].pool.withdrawn():
                self.lender.withdraw(index)
                self.context.credit.lend(self.lender.slots(), self._unpaid_share)
        metered = [device for index in self.lender.devices() if (device := self.devices[index]).meter is not None]
        if metered:
            self._looks += 1
            device = metered[self._looks % len(metered)]
            energy_mj = device.meter.read() if device.meter is not None else None
            if energy_mj is not None:
                device.power.reading(energy_mj, now.boottime_ns)

    @asynccontextmanager
    async def work_for(
        self, requester: bytes, job: bytes, task: int
    ) -> AsyncIterator[tuple[WorkBody, dict[int, Path]]]:
        """Yield what a job's work for a requester is about, and where its inputs lie, once that of a task is here; it
        stays as long as the block runs.

        Raises:
            NotFoundError: there is no such work open.
            TransportError: the requester does not give its inputs.
            ResourceError: no room for them here.
        """
        for talk, (_, shop) in self._talks.items():
            work = shop.work_of(job) if talk.peer == requester else None
            if work is not None:
                async with work.arriving.having(task) if work.arriving is not None else nullcontext():
                    yield work.body, work.inputs
                return
        raise NotFoundError("no work of that job is open for who asks")

    def views(self) -> list[DeviceView]:
        """Return what the operator is told of the devices."""
        lent = [device.view(self.lender.slots_free(index)) for index, device in enumerate(self.devices)]
        return lent + self._left_out

    def unpin(self, work: Work) -> None:
        """Let a work's blobs be dropped when room is needed."""
        while work.blobs:
            self.context.blobs.store.unpin(work.blobs.pop())

    async def run(self) -> None:
        """Look at deadlines, for ever."""
        while True:
            await trio.sleep(TICK_S)
            now = self.context.clock()
            self._look_at_devices(now)
            for talk in list(self._talks):
                self._carry_out(talk, talk.tick(now))

    def drain(self) -> None:
        """Take no more work, and end all agreements."""
        self.lender.draining = True
        for talk in list(self._talks):
            self._carry_out(talk, talk.end(EndCode.DRAINING))


def _read_program(data: bytes) -> Program | None:
    """Return a program, or None if it is none: who loads it tells why. In a thread: a stranger's can take seconds."""
    try:
        return decode_program(data)
    except TaskError:
        return None


@asynccontextmanager
async def open_provider(
    context: MarketContext, lent: LentDevices, unpaid_share: float = UNPAID_SHARE
) -> AsyncIterator[Provider]:
    """Lend as long as the block runs; on the way out agreements are ended.

    ``unpaid_share``: of the slot time, for peers beyond their credit together; 1 is without a limit.
    """
    async with (
        open_kept(context) as kept,
        open_finished(context, kept) as finished,
        trio.open_nursery() as nursery,
    ):
        provider = Provider(context, lent, unpaid_share, kept, finished, nursery)
        nursery.start_soon(provider.run)
        try:
            yield provider
        finally:
            provider.drain()
            nursery.cancel_scope.cancel()
