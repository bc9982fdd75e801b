"""The shell's side of numbers: answers are compared with each other, or checked, in a thread; the scheduler is told.

The flow: the scheduler's ``Compare`` has the bytes of different answers to one task, its ``Check`` those of the only
one. Both become arrays of the program's dtypes; inputs are mapped from the blob store. ``verification.comparing`` and
``verification.algebraic`` do the rest. One at a time, so that the node goes on: a task's bytes are bounded by what may
arrive for one job.
"""

from collections.abc import Callable
from functools import partial
from os import PathLike
from typing import Any

import numpy as np
import numpy.typing as npt
import structlog
import trio

from depin_node.bootstrap.market import MarketContext
from depin_node.bootstrap.open_jobs import OpenJobs
from depin_node.compute.jobs import events as e
from depin_node.compute.jobs.job import Job
from depin_node.compute.programs.program import Buffer, Program
from depin_node.compute.programs.shards import numpy_dtype
from depin_node.compute.verification.checkable import check_task, output_arrays
from depin_node.compute.verification.comparing import nearness
from depin_node.compute.verification.findings import Finding, Nearness, Outcome

log = structlog.get_logger("depin_node.judge")


class Judge:
    """Compares and checks answers of open jobs; ``feed`` takes what the scheduler is to hear."""

    def __init__(
        self, context: MarketContext, nursery: trio.Nursery, jobs: OpenJobs, feed: Callable[[e.Event], None]
    ) -> None:
        self._context = context
        self._nursery = nursery
        self._jobs = jobs
        self._feed = feed
        self._turn = trio.CapacityLimiter(1)

    def take(self, effect: e.Compare | e.Check) -> None:
        """Look at answers, soon."""
        opened = self._jobs[effect.job_id]
        work = self._compare if isinstance(effect, e.Compare) else self._check
        self._nursery.start_soon(work, effect, opened.job, opened.program)

    async def _compare(self, effect: e.Compare, job: Job, program: Program) -> None:
        roots = tuple(shown.root for shown in effect.answers)
        found = Nearness()
        try:
            found = await trio.to_thread.run_sync(partial(compare, program, job, effect.answers), limiter=self._turn)
        except (ValueError, MemoryError) as error:  # they then agree with themselves only
            log.error("answers cannot be compared", job=effect.job_id.hex(), task=effect.task, reason=str(error))
        self._feed(e.Compared(effect.job_id, effect.task, effect.sequence, roots, found))

    async def _check(self, effect: e.Check, job: Job, program: Program) -> None:
        store = self._context.blobs.store
        try:
            inputs = {item.buffer: _mapped(program.buffers[item.buffer], store.path(item.blob)) for item in job.inputs}
            finding = await trio.to_thread.run_sync(
                partial(check_task, program, effect.task, inputs, effect.outputs, effect.seed), limiter=self._turn
            )
        except (OSError, ValueError, MemoryError, np.linalg.LinAlgError) as error:
            finding = Finding(Outcome.UNCHECKED, f"it cannot be checked here: {error}")
        self._feed(e.Checked(effect.job_id, effect.task, effect.sequence, effect.root, finding))


def _mapped(buffer: Buffer, path: str | PathLike[str]) -> npt.NDArray[Any]:
    return np.memmap(path, numpy_dtype(buffer), "r", shape=buffer.shape)


def compare(program: Program, job: Job, answers: tuple[e.Shown, ...]) -> Nearness:
    """Compare answers to one task. Those of one device class may differ only if the program is tolerant.

    Who gave an answer of another class beside that class's own devices may lie about its device: the others do not.
    """
    arrays = {shown.root: output_arrays(program, shown.outputs) for shown in answers}
    classes = {shown.root: shown.device_classes for shown in answers}
    return nearness(arrays, job.tolerances, lambda a, b: not program.exact or len(classes[a] | classes[b]) > 1)
