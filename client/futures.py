"""What ``launch`` returns: a job that goes on whether anybody waits for it or not."""

import logging
import math
import time
from collections.abc import Iterator

import numpy as np

from depin_node.client.api import Control
from depin_node.client.outputs import Array, Outputs
from depin_node.client.parts import Part, read_parts
from depin_node.compute.jobs.events import JobEvent
from depin_node.compute.jobs.explain import ExplainView
from depin_node.compute.jobs.job import END_STATES, JobView
from depin_node.compute.programs.combine import combined
from depin_node.compute.programs.kernel import Reference
from depin_node.compute.programs.program import Program
from depin_node.compute.programs.validation import decode_program
from depin_node.core.errors import ConfigError, TaskError, TransportError
from depin_node.core.views import LogsView

_log = logging.getLogger("depin_node.client")


class JobFailed(TaskError):
    """A job ended without a result. ``view`` is how it stands; ``code`` is why, as the node says."""

    def __init__(self, view: JobView) -> None:
        self.view = view
        if view.error is not None:
            self.code = view.error.code
            super().__init__(f"job {view.id[:12]} ({view.name}) {view.state}: {view.error.message}")
        else:
            self.code = view.state
            super().__init__(f"job {view.id[:12]} ({view.name}) was {view.state}")


class NobodySuitable(JobFailed, TransportError):
    """No peer was there that could and would run the job."""


class Future:
    """A job on a node. It stays there when this object goes; ``Mesh.future(id)`` finds it again."""

    def __init__(self, control: Control, view: JobView, program: Program | None = None) -> None:
        self.job_id = view.id
        self._control = control
        self._view = view
        self._program = program

    def __repr__(self) -> str:
        return f"<Future of job {self.job_id[:12]}: {self._view.state}>"

    @property
    def last_view(self) -> JobView:
        """How the job stood when it was last heard of."""
        return self._view

    def status(self) -> JobView:
        """Return how the job stands now."""
        if self._view.state not in END_STATES:
            self._view = self._control.job(self.job_id)
        return self._view

    def done(self) -> bool:
        """Tell whether the job has ended, in whichever way."""
        return self.status().state in END_STATES

    def story(self) -> list[JobEvent]:
        """Return what happened to the job so far: who was found, who bid, who disagreed, who was caught."""
        return self._control.story(self.job_id)

    def explain(self) -> ExplainView:
        """Return why the job is as it is: who could run it and what others lack, where time went, what was rejected."""
        return self._control.explain(self.job_id)

    def logs(self) -> LogsView:
        """Return what the accepted tasks have printed so far, of each task the first 4 KiB.

        It is what providers say: the answers of a task were compared, what it printed was not.
        """
        return self._control.logs(self.job_id)

    def log(self, task: int = 0) -> str:
        """Return what one task has printed so far, as of ``logs``; empty if nothing."""
        return next((found.text for found in self.logs().tasks if found.task == task), "")

    def cancel(self) -> bool:
        """Stop the job; tell whether it is cancelled (one that had ended before is not)."""
        self._view = self._control.cancel(self.job_id)
        return self._view.state == "cancelled"

    def views(self, timeout: float | None = None) -> Iterator[JobView]:
        """Yield how the job stands whenever that changes, and every ten seconds or so, until it has ended.

        Raises:
            TimeoutError: it has not ended within ``timeout`` seconds. It goes on.
        """
        deadline = math.inf if timeout is None else time.monotonic() + timeout
        while self._view.state not in END_STATES:
            left_s = deadline - time.monotonic()
            if left_s <= 0:
                raise TimeoutError(f"job {self.job_id[:12]} has not ended within {timeout:g} s; it goes on")
            for view in self._control.events(self.job_id, left_s):
                self._view = view or self._view
                yield self._view
                if time.monotonic() > deadline or (view is None and timeout is not None):
                    break  # look at the clock, and ask again

    def wait(self, timeout: float | None = None) -> JobView:
        """Wait until the job has ended, and return how; log a warning, once, that too few are known who could do it.

        Raises:
            TimeoutError: as ``views``.
        """
        told = False
        for view in self.views(timeout):
            if view.lacks and not told:
                _log.warning("job %s (%s) is %s: %s; see explain()", view.id[:12], view.name, view.state, view.lacks)
                told = True
        return self._view

    def outputs(self, timeout: float | None = None) -> dict[str, Array]:
        """Wait for the job and return its outputs by the names of the kernel's parameters.

        Raises:
            JobFailed: it ended without a result; ``NobodySuitable`` if for want of providers.
            TimeoutError: as ``views``.
            TransportError: the node went away.
            ResourceError: this machine's memory does not hold an output; ``in_order`` and ``ref`` need less.
        """
        return self._fetch(timeout).named()

    def result(self, timeout: float | None = None) -> Array | tuple[Array, ...]:
        """Wait for the job and return its output as a new array; a tuple, in the kernel's order, if it has several.

        Raises:
            As ``outputs``.
        """
        return self._fetch(timeout).value()

    def as_completed(self) -> Iterator[Part]:
        """Yield what each task returned as soon as it is accepted, in whichever order; see ``Part``. What is void later
        comes again, before the end.

        Every wait is bounded: the node tells every ten seconds that the job goes on.

        Raises:
            JobFailed: the job ended without a result; what was accepted before was yielded.
            ConfigError: its results stay with providers, or are partial and combined at the end.
            TransportError: the node went away.
        """
        return self._parts(in_order=False)

    def in_order(self) -> Iterator[Part]:
        """Yield as ``as_completed``, in task order; what comes again does so behind all others."""
        return self._parts(in_order=True)

    def __iter__(self) -> Iterator[Part]:
        """Yield the results of the tasks in their order, as they come."""
        return self.in_order()

    def _parts(self, *, in_order: bool) -> Iterator[Part]:
        program = self._known_program()
        if program.combine:
            raise ConfigError("the tasks' results are partial, and combined when all are there: wait for result()")
        with self._control.parts(self.job_id, in_order=in_order) as stream:
            yield from read_parts(program, stream)
        view = self.wait()
        if view.state != "done":
            raise failure(view)

    def ref(self, name: str | None = None, timeout: float | None = None) -> Reference:
        """Wait for the job, and return what stands for an output on the node: an argument for other jobs.

        The node puts the tasks' results together in its own store; nothing comes here, unless the job combines partial
        results, which happens here.

        Args:
            name: of the output; may be left out if there is one.
            timeout: as of ``views``.

        Raises:
            ConfigError: there is no such output.
            As ``outputs``.
        """
        view = self.wait(timeout)
        if view.state != "done":
            raise failure(view)
        program = self._known_program()
        names = [program.buffers[index].name for index in program.outputs]
        if name is None and len(names) == 1:
            name = names[0]
        if name not in names:
            raise ConfigError(f"the job has no output {name!r}; it has: {', '.join(names)}")
        position = names.index(name)
        buffer = combined(program, position)
        if program.combine:
            blob = self._control.put_blob(np.ascontiguousarray(self.outputs()[name]).data)
        else:
            blob = self._control.assemble(self.job_id, program.outputs[position])
        return Reference(blob, buffer.dtype, buffer.shape)

    def _known_program(self) -> Program:
        if self._program is None:
            self._program = decode_program(self._control.program(self.job_id))
        return self._program

    def _fetch(self, timeout: float | None) -> Outputs:
        view = self.wait(timeout)
        if view.state != "done":
            raise failure(view)
        program = self._known_program()
        outputs = Outputs(program)
        for position, buffer in enumerate(program.outputs):
            with self._control.output(self.job_id, buffer) as parts:
                for task, part in enumerate(_resized(parts, outputs.sizes(position))):
                    outputs.put(task, position, part)
        outputs.combine()
        return outputs


def failure(view: JobView) -> JobFailed:
    """Return the error of a job that ended without a result."""
    if view.error is not None and view.error.code == "nobody_suitable":
        return NobodySuitable(view)
    return JobFailed(view)


def _resized(parts: Iterator[bytes], sizes: list[int]) -> Iterator[memoryview]:
    """Cut a stream anew, into pieces of ``sizes``. Raises ``TransportError`` if it is not that long."""
    have, at = b"", 0
    for size in sizes:
        if len(have) - at < size:
            pieces = [have[at:]]
            missing = size - len(pieces[0])
            while missing > 0:
                part = next(parts, None)
                if part is None:
                    raise TransportError("the result broke off; ask again for it")
                pieces.append(part)
                missing -= len(part)
            have, at = b"".join(pieces), 0
        yield memoryview(have)[at : at + size]
        at += size
    if at < len(have) or any(parts):
        raise TransportError("the node sent more than the result")
