"""A provider's end of ``dispute/1``: it does a task again as far as it is asked, and signs what its arrays hold then.

Only for whom it works: the job's work has to be open. One at a time: the program is read in a thread, and run in a
worker beside those of its agreements. All of that time counts as used by the requester, like that of any attempt
(``trust/credit.py``), whatever comes of it.
"""

from collections.abc import Mapping
from functools import partial
from pathlib import Path

import structlog
import trio

from depin_node.bootstrap.market import MarketContext
from depin_node.bootstrap.provider import Provider
from depin_node.bootstrap.questions import Bounds, Questions
from depin_node.bootstrap.stepping import Walked, state_after, walked
from depin_node.compute.jobs.job import Limits
from depin_node.compute.market.messages import WorkBody
from depin_node.compute.programs.validation import decode_program
from depin_node.compute.verification.rules import OWN_CLASS
from depin_node.compute.verification.walk_messages import PROTOCOL, StateAt, TaskState
from depin_node.core.clock import SECOND_NS
from depin_node.core.errors import ConfigError, NotFoundError, ResourceError
from depin_node.crypto.envelope import ENVELOPE_OVERHEAD_BYTES, sign
from depin_node.crypto.identity import peer_id

log = structlog.get_logger("depin_node.provider")
ANSWER_S_MAX = 600.0
"""For one answer: longer tasks cannot be walked."""
ANSWER_BYTES_MAX = TaskState.SIZE_BYTES_MAX + ENVELOPE_OVERHEAD_BYTES
_BOUNDS = Bounds(question_bytes_max=256, answer_bytes_max=ANSWER_BYTES_MAX, burst=64, per_s=0.5, timeout_s=ANSWER_S_MAX)


class Testimony:
    """Answers for a provider, from now on."""

    def __init__(self, context: MarketContext, provider: Provider) -> None:
        self._context = context
        self._provider = provider
        self._turn = trio.CapacityLimiter(1)
        Questions(context, PROTOCOL, StateAt, _BOUNDS, self._answer)

    async def _answer(self, peer: bytes, asked: StateAt) -> bytes:
        async with self._provider.work_for(peer, asked.job, asked.task) as (body, inputs):
            return await self._answer_about(peer, asked, body, inputs)

    async def _answer_about(self, peer: bytes, asked: StateAt, body: WorkBody, inputs: Mapping[int, Path]) -> bytes:
        context, provider = self._context, self._provider
        device = next((d for d in provider.devices if d.lending.device_class == OWN_CLASS), None)
        if device is None:
            raise ResourceError("no processor is lent here")
        async with self._turn:
            data = await provider.read(body.program)
            began = context.clock()
            try:
                try:
                    task = await trio.to_thread.run_sync(partial(_walked, data, asked, inputs, body.terms.limits))
                except FileNotFoundError as error:
                    raise NotFoundError("the work was closed meanwhile") from error
                log.info("a task is done again for a dispute", peer=peer_id(peer), task=asked.task, step=asked.step)
                async with device.pool.beside() as pool:
                    state, arrays = await state_after(pool, task, asked.step)
            finally:
                now = context.clock()
                context.credit.ran(peer, (now.boottime_ns - began.boottime_ns) // 1000, now)
        if asked.keep and not all(await provider.keep(peer, [[memoryview(data) for data in arrays.values()]])):
            raise ResourceError("there is no room to keep the arrays")
        expires_s = now.wall_ns // SECOND_NS + TaskState.LIFETIME_S_MAX
        told = TaskState(peer, expires_s, context.pen.next_seq(), asked.job, asked.task, asked.step, state)
        return sign(context.identity, context.network.network_id, told)


def _walked(data: bytes, asked: StateAt, inputs: Mapping[int, Path], limits: Limits) -> Walked:
    """Return the task that is asked about. In a thread: a stranger's program can take seconds to check.

    Raises:
        TaskError: the program is refused. ConfigError: the task has no such step, or cannot be walked.
    """
    task = walked(decode_program(data), asked.task, inputs, limits)
    if asked.step > task.steps:
        raise ConfigError(f"the task has {task.steps} steps")
    return task


def serve_testimony(context: MarketContext, provider: Provider) -> None:
    """Answer requesters about the tasks that they gave."""
    Testimony(context, provider)


__all__ = ["ANSWER_BYTES_MAX", "ANSWER_S_MAX", "serve_testimony"]
