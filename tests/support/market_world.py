"""Requesters and providers in one process, over the in-memory network; kernels run for real, in this process
or in workers."""

import random
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass

import msgspec
import numpy as np
import trio
from wat_programs import numbers, program

from depin_node.bootstrap.evidence import open_evidence
from depin_node.bootstrap.handover import open_handover
from depin_node.bootstrap.lent import LentDevice, LentDevices, offers
from depin_node.bootstrap.market import open_market
from depin_node.bootstrap.provider import open_provider
from depin_node.bootstrap.receipts import open_logs
from depin_node.bootstrap.requester import open_requester
from depin_node.bootstrap.testimony import serve_testimony
from depin_node.compute.devices.device import Input, TaskLimits
from depin_node.compute.devices.wasm import WasmDevice
from depin_node.compute.jobs.job import InputRef, Job, Limits, Quorum
from depin_node.compute.jobs.scheduler import SchedulerConfig
from depin_node.compute.market.lender import Lender, Lending
from depin_node.compute.programs.program import encode_program
from depin_node.compute.programs.shards import result_bytes, scatter
from depin_node.compute.programs.validation import decode_program
from depin_node.compute.sandbox.pool import Output, Result
from depin_node.compute.trust.credit import UNPAID_SHARE
from depin_node.core.clock import SECOND_NS, Now
from depin_node.core.errors import TaskError
from depin_node.crypto.blob import blob_id
from depin_node.crypto.identity import Identity
from depin_node.crypto.ownership import Owners, certify
from depin_node.p2p.advert import Offer
from depin_node.p2p.blob_store import BlobStore
from depin_node.p2p.blobs import Blobs
from depin_node.p2p.memory import MemoryFabric
from depin_node.p2p.mesh import open_mesh

WALL_NS = 1_800_000_000 * SECOND_NS
WASM = WasmDevice.device_class
NETWORK = "test"


def clock():
    """Trio's own clock as ours: simulated if it is."""
    ns = int(trio.current_time() * SECOND_NS)
    return Now(ns, WALL_NS + ns)


class InlinePool:
    """A pool whose leases run tasks with the real wasm device, in this process. ``behaviour(task, outputs)``
    may lie (change outputs), raise a ``TaskError``, or wait."""

    def __init__(self, behaviour=None, duration_ns=1000):
        self.behaviour = behaviour
        self.duration_ns = duration_ns
        self.maps_inputs = False
        self.tasks = []

    async def acquire(self, name):
        return InlineLease(self)

    def withdrawn(self):
        return ""

    def layers(self):
        return ()

    @asynccontextmanager
    async def beside(self):
        """Stand for a pool of one more worker."""
        yield self

    @asynccontextmanager
    async def opened(self, config):
        """Stand for a pool that is opened when it is needed."""
        yield self


class InlineLease:
    goes_on = True

    def __init__(self, pool):
        self._pool = pool
        self._give, self._results = trio.open_memory_channel(10_000)

    async def load(self, data, inputs, *, seconds, memory_limit_bytes):
        self._program = decode_program(data)
        self._limits = TaskLimits(seconds, memory_limit_bytes)
        await InlineLease.load_inputs(self, inputs)

    async def load_next(self, data, inputs, *, seconds, memory_limit_bytes):
        await InlineLease.load(self, data, inputs, seconds=seconds, memory_limit_bytes=memory_limit_bytes)
        return True

    async def load_inputs(self, inputs):
        data = {index: source if isinstance(source, bytes) else source.read_bytes() for index, source in inputs.items()}
        views = {index: Input(memoryview(source)) for index, source in data.items()}
        self._loaded = WasmDevice().load(self._program, views, self._limits)

    async def submit(self, tasks, *, named=True):
        for attempt, task in tasks:
            self._pool.tasks.append(task)
            self._give.send_nowait(await self._run(attempt, task))

    async def _run(self, attempt, task):
        results = [bytearray(result_bytes(self._program, task, output)) for output in range(len(self._program.outputs))]
        try:
            self._loaded.run(task, self._limits, [memoryview(result) for result in results])
            if self._pool.behaviour is not None:
                await self._pool.behaviour(task, results)
        except TaskError as error:
            return Result(attempt, task, (), error, 0, 1000)
        outputs = tuple(Output(blob_id(result), bytes(result)) for result in results)
        return Result(attempt, task, outputs, None, 1, self._pool.duration_ns)

    def results(self):
        return self

    def __aiter__(self):
        return self

    async def __anext__(self):
        return await self._results.receive()

    def waiting(self):
        return []

    def release(self, attempt):
        pass

    async def aclose(self):
        await trio.lowlevel.checkpoint()


async def lie(task, results):
    """Change one bit, another one in each task."""
    results[0][0] ^= 1 << task % 7


async def stall(task, results):
    """Never answer."""
    await trio.sleep_forever()


@dataclass
class Peer:
    """One node; ``scope`` ends it in order, ``world.fabric.kill(peer.key)`` at once."""

    number: int
    key: bytes
    mesh: object
    blobs: object
    context: object
    pool: object
    scope: object
    requester: object = None
    provider: object = None
    evidence: object = None
    handover: object = None
    logs: object = None


class World:
    """Starts nodes in ``nursery``, each with its own folder under ``path``."""

    def __init__(self, nursery, path, seed=1, **fabric):
        self.fabric = MemoryFabric(seed, **fabric)
        self.path = path
        self.first = None
        self.audits = InlinePool()
        self._nursery = nursery

    async def start(
        self,
        number,
        *,
        pool=None,
        lending=None,
        devices=(),
        config=None,
        group=None,
        unpaid_share=UNPAID_SHARE,
        owner=None,
        audits_here=True,
    ):
        """Start a node that requests, and lends if it has a pool, or several ``devices``. ``group``: its /16;
        ``owner``: whose certificate it has."""
        if pool is not None:
            lending = lending or Lending(WASM, slots=1, memory_mib=1024)
            devices = [LentDevice("cpu", pool, lending, "a processor")]
        settings = config, group or number, unpaid_share, owner, audits_here
        return await self._nursery.start(self._run, number, list(devices), *settings)

    async def _run(self, number, devices, config, group, unpaid_share, owner, audits_here, *, task_status):
        identity = Identity(number.to_bytes(32, "big"))
        folder = self.path / str(number)
        folder.mkdir(exist_ok=True)
        certificate = b"" if owner is None else certify(owner, NETWORK, identity.key, now=clock(), days=1)
        told = offers(devices, Lender([device.lending for device in devices]))
        offer = Offer(lending=bool(devices), devices=tuple(told))
        with trio.CancelScope() as scope:
            async with (
                self.fabric.open(identity.key, host=f"10.{group}.0.{number}") as network,
                open_mesh(
                    network,
                    identity,
                    first_peers=[self.first] if self.first else [],
                    offer=offer,
                    clock=clock,
                    rng=random.Random(number),
                    owners=Owners(NETWORK, identity.key, certificate),
                ) as mesh,
            ):
                self.first = self.first or network.addresses()[0]
                store = BlobStore(folder / "blobs", quota_bytes=1 << 30)
                blobs = Blobs(network, store, connect=mesh.connect, report=mesh.report, clock=clock)
                async with (
                    open_market(folder / "journal.db", identity, network, mesh, blobs, clock) as context,
                    open_evidence(context) as evidence,
                    open_logs(context) as logs,
                ):
                    pool = devices[0].pool if devices else None
                    peer = Peer(number, identity.key, mesh, blobs, context, pool, scope, evidence=evidence, logs=logs)
                    peer.handover = await open_handover(context)
                    config = config or SchedulerConfig()
                    async with (
                        open_requester(context, config, self.audits.opened, audits_here=audits_here) as peer.requester,
                        peer.handover.running(peer.requester),
                    ):
                        if not devices:
                            task_status.started(peer)
                            await trio.sleep_forever()
                        async with open_provider(context, LentDevices(devices, []), unpaid_share) as peer.provider:
                            serve_testimony(context, peer.provider)
                            task_status.started(peer)
                            await trio.sleep_forever()


@contextmanager
def unwritable(journal):
    """Have a node's journal refuse to be written, as one on a full disk does."""
    database = journal._writing._db
    database.execute("PRAGMA query_only = 1")
    try:
        yield
    finally:
        database.execute("PRAGMA query_only = 0")


def jump(context, seconds):
    """Have a node's wall clock set so many seconds ahead."""
    real = context.clock
    context.clock = lambda: (now := real())._replace(wall_ns=now.wall_ns + seconds * SECOND_NS)


async def knows(peer, others):
    """Wait until ``peer`` has all of ``others`` in its directory."""
    while not {other.key for other in others} <= {entry.key for entry in peer.mesh.directory.peers()}:
        await trio.sleep(0.05)


def tolerant(candidate):
    """Return the program, as if its bits were not defined."""
    kernels = tuple(msgspec.structs.replace(kernel, exact=False) for kernel in candidate.kernels)
    return msgspec.structs.replace(candidate, kernels=kernels)


def rounding(factor):
    """Behave as a device whose results are that many times the right ones."""

    async def scale(task, results):
        results[0][:] = (np.frombuffer(results[0], np.float32) * np.float32(factor)).tobytes()

    return scale


async def make_job(peer, *, key="job", candidate=None, policy=None, seconds=30, memory_mib=64, arrays=None, **more):
    """Put a program and its input (or ``arrays``) on ``peer``; return the job and the expected output of a copy."""
    candidate = candidate or program()
    data = encode_program(candidate)
    x = numbers(candidate.buffers[0].elements)
    store = peer.blobs.store
    arrays = [x] if arrays is None else arrays
    job = Job(
        key=key,
        name="copy",
        program=await store.put(data),
        program_bytes=len(data),
        inputs=tuple([InputRef(i, await store.put(array.tobytes()), array.nbytes) for i, array in enumerate(arrays)]),
        tasks=candidate.tasks,
        policy=policy or Quorum(1, 1),
        limits=Limits(seconds, memory_mib),
        created_s=WALL_NS // SECOND_NS,
        **{"device_classes": (WASM,), **more},
    )
    return job, x


async def done(peer, job):
    """Submit a job; return how it stands when it has ended."""
    view = await peer.requester.submit(job)
    return await peer.requester.wait(bytes.fromhex(view.id))


async def output_of(peer, view, candidate=None):
    """Assemble output 1 of a job that is done."""
    candidate = candidate or program()
    into = np.zeros(candidate.buffers[1].shape, candidate.buffers[1].dtype)
    data = b"".join([part async for part in peer.requester.output(bytes.fromhex(view.id), 1)])
    at = 0
    for task in range(candidate.tasks):
        size = result_bytes(candidate, task, 0)
        scatter(candidate, task, 0, data[at : at + size], into)
        at += size
    assert at == len(data)
    return into


@asynccontextmanager
async def world(path, seed=1, **fabric):
    """A world that ends with the block; a test that hangs fails after ten simulated minutes."""
    with trio.fail_after(600):
        async with trio.open_nursery() as nursery:
            yield World(nursery, path, seed, **fabric)
            nursery.cancel_scope.cancel()
