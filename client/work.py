"""A piece of work, compiled and checked, before anybody runs it: from a job file or a call in Python.

All that can be wrong with a kernel, its arrays or its cut shows here, in the submitting process, before anything
is sent.
"""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import msgspec

from depin_node.client.settings import check_settings
from depin_node.compute.jobs.job import (
    AGREED_AUDITS,
    DEVICE_CLASSES_MAX,
    Algebraic,
    Confidence,
    Limits,
    Policy,
    Quorum,
    Results,
    Tolerance,
)
from depin_node.compute.programs.arrays import Traced, bind_traced
from depin_node.compute.programs.binding import Bound, bind
from depin_node.compute.programs.builder import ProgramBuilder
from depin_node.compute.programs.generated import Lowered, ReductionKernel, adopt
from depin_node.compute.programs.generated.rows import in_rows
from depin_node.compute.programs.job_arrays import References
from depin_node.compute.programs.jobfile import DEVICE_CLASS, load_job
from depin_node.compute.programs.kernel import Along, RawKernel
from depin_node.compute.programs.memory import memory_bytes
from depin_node.compute.programs.program import Operation, encode_program, flattened
from depin_node.core.errors import ConfigError

DEFAULT_POLICY = Quorum(2, 3, AGREED_AUDITS)
"""Two of at most three answers agree: a result is believed only when verified."""
DEFAULT_SECONDS = 60
MEMORY_MIB_MIN = 64
"""What a task may use by default if its arrays need less."""
NAME_LENGTH_MAX = 64


@dataclass(frozen=True)
class Work:
    """A program with its inputs, and how it is to be run. ``notes`` are the compiler's, for the user.

    ``tolerances``: how far the numbers of each output may be apart; none: answers are compared bit for bit.
    """

    name: str
    bound: Bound
    policy: Policy
    limits: Limits
    notes: tuple[str, ...] = ()
    device_classes: tuple[str, ...] = (DEVICE_CLASS,)
    results: Results = Results.COME
    deadline_s: int = 0
    budget_s: int = 0
    tolerances: tuple[Tolerance, ...] = ()

    @cached_property
    def program_bytes(self) -> bytes:
        """The program as it travels."""
        return encode_program(self.bound.program)


def prepare_launch(
    kernel: Any,
    grid: int | Sequence[int] | None = None,
    block: int | Sequence[int] | None = None,
    args: Sequence[Any] = (),
    *,
    shared_mem: int = 0,
    size: int | None = None,
    axis: int | Sequence[int] | None = None,
    keepdims: bool = False,
    shards: int = 1,
    along: Along | None = None,
    constants: Mapping[str, Any] | None = None,
    verify: Policy = DEFAULT_POLICY,
    limits: Limits | None = None,
    name: str | None = None,
    device_class: str | Sequence[str] = DEVICE_CLASS,
    tolerance: Tolerance | None = None,
    results: str = "come",
    local: bool = False,
) -> Work:
    """Compile and bind a launch; the arguments are those of ``Mesh.launch``.

    Raises:
        ConfigError: kernel, arguments or cut are wrong; says where.
    """
    ours = adopt(kernel)
    if isinstance(ours, RawKernel):
        _refuse(f"{ours.name} is a raw kernel", size=size, axis=axis, keepdims=keepdims or None)
        if grid is None or block is None:
            raise ConfigError(f"{ours.name} is a raw kernel: give grid and block")
        launch = Lowered(ours, grid, block, args)
    else:
        why = f"{ours.name} is {'a reduction' if isinstance(ours, ReductionKernel) else 'an elementwise'} kernel"
        _refuse(why, grid=grid, block=block, shared_mem=shared_mem or None, along=along, constants=constants)
        is_reduction = isinstance(ours, ReductionKernel)
        _refuse(why, **({"size": size} if is_reduction else {"axis": axis, "keepdims": keepdims or None}))
        counts_parts = isinstance(verify, Confidence) and verify.parts > 1  # of tasks that are cut by blocks
        if size is None and not counts_parts and (program := in_rows(ours, args, shards, axis=axis, keepdims=keepdims)):
            bound, title, notes = program.build(), name or ours.name, program.notes
            return _work(bound, verify, limits, title, notes, device_class, tolerance, _results(results), local)
        if isinstance(ours, ReductionKernel):
            launch = ours.lower(args, axis=axis, keepdims=keepdims, shards=shards)
        else:
            launch = ours.lower(args, size=size, shards=shards)
    raw = launch.kernel
    bound = bind(
        raw,
        launch.grid,
        launch.block,
        launch.args,
        shared_mem=shared_mem,
        shards=shards,
        along=along,
        constants=constants,
    )
    notes = tuple(raw.compile().notes)
    return _work(bound, verify, limits, name or raw.name, notes, device_class, tolerance, _results(results), local)


def prepare_program(
    program: ProgramBuilder | Traced,
    arrays: Sequence[Any] = (),
    *,
    verify: Policy = DEFAULT_POLICY,
    limits: Limits | None = None,
    name: str | None = None,
    device_class: str | Sequence[str] = DEVICE_CLASS,
    tolerance: Tolerance | None = None,
    results: str = "come",
    local: bool = False,
) -> Work:
    """Compile and bind a program of several steps, or a traced function; the arguments are those of ``Mesh.run``.

    Raises:
        ConfigError: a kernel, an array or the cut is wrong; says where.
    """
    if isinstance(program, Traced):
        bound, name = bind_traced(program, arrays), name or program.name
        return _work(bound, verify, limits, name, (), device_class, tolerance, _results(results), local)
    if not isinstance(program, ProgramBuilder):
        raise ConfigError(
            f"run takes a ProgramBuilder, or what trace gave, not {type(program).__name__}; a kernel is launched:"
            " launch(kernel, …)"
        )
    if arrays:
        raise ConfigError("a program of steps has its arrays already: give them to its input and inout")
    bound = program.build()
    return _work(
        bound, verify, limits, name or "program", program.notes, device_class, tolerance, _results(results), local
    )


def _work(
    bound: Bound,
    verify: Policy,
    limits: Limits | None,
    name: str,
    notes: tuple[str, ...],
    device_class: str | Sequence[str],
    tolerance: Tolerance | None,
    results: Results,
    local: bool,
) -> Work:
    check_settings(verify=verify, limits=limits, tolerance=tolerance)
    limits = limits or Limits(DEFAULT_SECONDS, max(MEMORY_MIB_MIN, _memory_mib(bound)))
    _check_memory(bound, limits, "limits")
    classes = (device_class,) if isinstance(device_class, str) else tuple(dict.fromkeys(device_class))
    if not 1 <= len(classes) <= DEVICE_CLASSES_MAX:
        raise ConfigError(f"device_class: give one to {DEVICE_CLASSES_MAX} names")
    work = Work(name[:NAME_LENGTH_MAX], bound, verify, limits, notes, classes, results)
    return _decided(work, tolerance, local)


def _decided(work: Work, tolerance: Tolerance | None, local: bool, fresh: bool = False) -> Work:
    """Find out whether the program is exact, and say how the answers of several peers are compared.

    Raises:
        ConfigError: its policy does not go with the program; or a task fails here as it would with any provider.
    """
    from depin_node.compute.devices.trial import Verdict, try_bits

    program = work.bound.program
    verdict = Verdict(program.exact) if local and not fresh else try_bits(work.bound, fresh=fresh)
    holds = all(map(verdict.holds_for, work.device_classes))
    if not local and not verdict.tried and not holds:
        verdict = try_bits(work.bound, fresh=True)  # what is kept may be from inputs that failed
        holds = all(map(verdict.holds_for, work.device_classes))
    if verdict.fails and DEVICE_CLASS in work.device_classes:
        raise ConfigError(f"{work.name}: {verdict.fails}, here and so with any lender: mend the kernel or its arrays")
    if verdict.note:
        work = replace(work, notes=(*work.notes, verdict.note))
    if program.exact and not holds:
        kernels = tuple(msgspec.structs.replace(kernel, exact=False) for kernel in program.kernels)
        bound = replace(work.bound, program=msgspec.structs.replace(program, kernels=kernels))
        work = replace(work, bound=bound)
    return work if local else _compared(work, tolerance)


def _compared(work: Work, tolerance: Tolerance | None) -> Work:
    """Say how far answers may be apart, where they are not compared bit for bit."""
    program = work.bound.program
    if isinstance(work.policy, Algebraic):
        from depin_node.compute.verification.algebraic import CHECKS
        from depin_node.compute.verification.checkable import operation_of

        if operation_of(program) is None:
            raise ConfigError(
                f"{work.name}: algebraic() checks programs of one array operation ({', '.join(CHECKS)}) from input "
                "arrays to outputs, without halo; use quorum(2, 3) or confidence(p, f)"
            )
    if program.exact and len(work.device_classes) == 1:
        if tolerance is not None:
            work = replace(work, notes=(*work.notes, "its bits are defined: answers are compared bit for bit"))
        return work
    from depin_node.compute.verification.comparing import TOLERANCES, default_tolerance

    dtypes = [program.buffers[index].dtype for index in program.outputs]
    tolerances = tuple(
        tolerance if tolerance is not None and dtype in TOLERANCES else default_tolerance(dtype) for dtype in dtypes
    )
    why = _why_tolerant(work) if not program.exact else "its device classes differ"
    shown = "; ".join(
        f"{program.buffers[index].name} within {one.relative:.2g} relative, {one.absolute:.2g} of the largest"
        for index, one in zip(program.outputs, tolerances, strict=True)
    )
    note = f"answers are compared as numbers ({why}): {shown}"
    return replace(work, tolerances=tolerances, notes=(*work.notes, note))


def _why_tolerant(work: Work) -> str:
    operations = [step.name for step in flattened(work.bound.program.steps) if isinstance(step, Operation)]
    if operations:
        return f"{operations[0]} is done by each machine's own library, whose last bits differ"
    return "; ".join(work.notes) or "its bits are not defined"


def _results(word: str) -> Results:
    try:
        return Results(word)
    except ValueError:
        raise ConfigError(f'results={word!r}: they "come" to the node, or "stay" with those who compute them') from None


def _refuse(why: str, **options: Any) -> None:
    for option, value in options.items():
        if value is not None:
            raise ConfigError(f"{why}: {option} does not go with it")


def _memory_mib(bound: Bound) -> int:
    return -(-memory_bytes(bound.program) >> 20)


def _check_memory(bound: Bound, limits: Limits, source: str) -> None:
    needed = _memory_mib(bound)
    if limits.memory_mib < needed:
        raise ConfigError(f"{source}: a task holds the kernel and all arrays: {needed} MiB, not {limits.memory_mib}")


def prepare_file(
    path: str | os.PathLike[str], *, local: bool = False, fresh: bool = False, references: References | None = None
) -> Work:
    """Read a job file, compile its kernels and bind its arrays.

    Args:
        path: of the file.
        local: whether it only runs on this machine, so that nothing has to be compared.
        fresh: to try anew whether its bits are defined (``compute/devices/trial.py``).
        references: gives what ``job:ID:output`` stands for; without it such inputs are refused.

    Raises:
        ConfigError: the file, its kernel or its arrays are wrong; says where.
    """
    job = load_job(Path(path), references)
    bound, notes = job.compiled()
    policy, limits = job.policy, Limits(job.seconds, job.memory_mib)
    _check_memory(bound, limits, f"{path}: [limits] memory_mib")
    work = Work(job.name, bound, policy, limits, notes, job.device_classes, _results(job.results))
    return _decided(replace(work, deadline_s=job.deadline_s, budget_s=job.budget_s), job.tolerance, local, fresh)
