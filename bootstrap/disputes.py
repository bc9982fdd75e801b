"""A requester's end of ``dispute/1``: carries out a walk (``verification/dispute.py``), and tells the scheduler.

The flow: the scheduler's ``Walk`` names two providers that differ. Both are asked for states, side by side; the
arrays of the one state that is needed are kept by a provider as results are, and fetched; the one step is done here,
in a sandboxed worker. ``Walked`` says who was named. What cannot be had, or takes too long, ends the walk without
names.
"""

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

import structlog
import trio

from depin_node.bootstrap.auditor import OpenPool
from depin_node.bootstrap.market import MarketContext
from depin_node.bootstrap.open_jobs import OpenJob, OpenJobs
from depin_node.bootstrap.stepping import Walked, held_outputs, needed, root_of_state, state_behind, walked
from depin_node.bootstrap.testimony import ANSWER_BYTES_MAX, ANSWER_S_MAX
from depin_node.compute.jobs import events as e
from depin_node.compute.jobs.job import Job
from depin_node.compute.programs.program import Program
from depin_node.compute.programs.walk import is_walkable, state_names
from depin_node.compute.sandbox.pool import PoolConfig, WorkerConfig
from depin_node.compute.verification.dispute import (
    GIVEN_UP,
    AskState,
    CheckResult,
    Dispute,
    DoStep,
    Effect,
    Over,
    State,
)
from depin_node.compute.verification.rules import runs_here
from depin_node.compute.verification.walk_messages import PROTOCOL, StateAt, TaskState
from depin_node.core.errors import DepinError, PeerViolation, TransportError
from depin_node.core.wire import encode
from depin_node.crypto.envelope import verify
from depin_node.crypto.identity import peer_id
from depin_node.p2p.blobs import issue_grant
from depin_node.p2p.frames import request
from depin_node.p2p.together import together

log = structlog.get_logger("depin_node.requester")

ANSWER_EXTRA_S = 30.0
"""For a worker to start, and for what the provider does for others first."""
FETCH_S = 60.0
GRANT_S = 300


def can_walk(job: Job, program: Program) -> bool:
    """Tell whether disputes over a job's tasks can be walked here: by steps that this node gets the same bits of."""
    here = runs_here(job.device_classes, is_exact=program.exact, has_tolerances=bool(job.tolerances))
    short = job.limits.seconds + ANSWER_EXTRA_S <= ANSWER_S_MAX
    some = {0, program.tasks // 2}  # the first may have rows beyond an array's end, where others have none
    return here and short and not job.tolerances and any(is_walkable(program, task) for task in some)


class Disputes:
    """Walks; ``feed`` takes what the scheduler is to hear, ``open_pool`` opens the workers of this node."""

    def __init__(
        self,
        context: MarketContext,
        nursery: trio.Nursery,
        jobs: OpenJobs,
        feed: Callable[[e.Event], None],
        open_pool: OpenPool,
    ) -> None:
        self._context = context
        self._nursery = nursery
        self._jobs = jobs
        self._feed = feed
        self._open_pool = open_pool

    def walk(self, effect: e.Walk) -> None:
        """Begin with a dispute."""
        self._nursery.start_soon(self._walk, effect, self._jobs[effect.job_id])

    async def _walk(self, effect: e.Walk, opened: OpenJob) -> None:
        over = Over((), 0, f"{GIVEN_UP}what it needs is not here")
        try:
            store = self._context.blobs.store
            paths = {item.buffer: Path(store.path(item.blob)) for item in opened.job.inputs}
            task = await trio.to_thread.run_sync(partial(walked, opened.program, effect.task, paths, opened.job.limits))
            over = await self._decide(effect, task)
        except (DepinError, OSError) as error:
            log.warning("a dispute cannot be walked", job=effect.job_id.hex(), task=effect.task, reason=str(error))
        self._feed(e.Walked(effect.job_id, effect.task, effect.sequence, over.liars, over.step, over.why))

    async def _decide(self, effect: e.Walk, task: Walked) -> Over:
        dispute = Dispute(task.steps, task.first, *effect.parties)
        todo: list[Effect] = dispute.start()
        while True:
            found: dict[int, list[Effect]] = {}

            async def one(number: int, what: Effect, found: dict[int, list[Effect]] = found) -> None:
                found[number] = await self._carry_out(dispute, effect, task, what)

            for what in todo:
                if isinstance(what, Over):
                    return what
            await together(*(partial(one, number, what) for number, what in enumerate(todo)))
            todo = [then for number in sorted(found) for then in found[number]]

    async def _carry_out(self, dispute: Dispute, effect: e.Walk, task: Walked, what: Effect) -> list[Effect]:
        if isinstance(what, AskState):
            return dispute.said(what.peer, what.step, await self._ask(effect, task, what.peer, what.step, keep=False))
        if isinstance(what, CheckResult):
            wanted = [name for name, is_same in held_outputs(task).items() if not is_same]
            arrays = await self._arrays(effect, task, task.steps, what.state, wanted, (what.party.peer,))
            if arrays is None:
                return dispute.checked(what.party.peer, None)
            return dispute.checked(what.party.peer, root_of_state(task, what.state, arrays) == what.party.root)
        assert isinstance(what, DoStep)
        return dispute.did(await self._do(effect, task, what))

    async def _do(self, effect: e.Walk, task: Walked, what: DoStep) -> State | None:
        wanted = list(needed(task, what.step, what.state))
        arrays = await self._arrays(effect, task, what.step, what.state, wanted, what.holders)
        if arrays is None:
            return None
        config = PoolConfig(WorkerConfig(), workers_max=1, spare=False)
        async with self._open_pool(config) as pool:
            return await state_behind(pool, task, what.step, what.state, arrays)

    async def _ask(self, effect: e.Walk, task: Walked, peer: bytes, step: int, *, keep: bool) -> State | None:
        """Return what a provider says of a step; None if it does not."""
        context = self._context
        timeout_s = min(ANSWER_S_MAX, task.limits.seconds + ANSWER_EXTRA_S)
        try:
            question = encode(StateAt(effect.job_id, effect.task, step, keep))
            answer = await request(
                context.network, peer, PROTOCOL, question, size_bytes_max=ANSWER_BYTES_MAX, timeout_s=timeout_s
            )
            own, now = context.identity.key, context.clock()
            told = verify(answer, TaskState, context.network.network_id, to=own, now=now)
            said = told.payload
            if told.sender != peer or (said.job, said.task, said.step) != (effect.job_id, effect.task, step):
                raise PeerViolation("dispute: an answer to another question")
        except PeerViolation as error:
            context.mesh.report(peer, error)
        except TransportError as error:
            log.info("a provider does not say its state", peer=peer_id(peer), step=step, reason=str(error))
        else:
            return said.state
        return None

    async def _arrays(
        self, effect: e.Walk, task: Walked, step: int, state: State, wanted: list[int], holders: tuple[bytes, ...]
    ) -> Mapping[int, bytes] | None:
        """Fetch arrays of a state, by name, from whoever says it; None if nobody gives them."""
        context, names = self._context, state_names(task.whole)
        if not wanted:
            return {}
        blobs = {name: state[names.index(name)] for name in wanted}
        roots = list(dict.fromkeys(blobs.values()))
        grant = issue_grant(
            context.identity,
            context.network.network_id,
            context.network.key,
            roots,
            seq=context.pen.next_seq(),
            now=context.clock(),
            lifetime_s=GRANT_S,
        )
        for peer in holders:
            if step and await self._ask(effect, task, peer, step, keep=True) != state:
                continue
            try:
                for name, blob in blobs.items():
                    size_bytes = task.whole.buffers[name].size_bytes
                    await context.blobs.fetch(blob, [peer], grant, size_bytes_max=size_bytes, timeout_s=FETCH_S)
                return {name: await context.blobs.store.read(blob) for name, blob in blobs.items()}
            except DepinError as error:
                log.info("a provider does not give its arrays", peer=peer_id(peer), reason=str(error))
        return None
