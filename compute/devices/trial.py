"""Trying out whether a program's bits are defined, where the compiler cannot tell: three tasks run twice, one of the
middle and the last and the first, which are where arrays end.

The first run is what a provider does. For the second, all kernels are compiled in a variant of their own: blocks,
warps and lanes run in the reverse order, and whatever nobody has set (locals, shared memory, the memory between arrays,
which are also at other addresses) is ones instead of zeros. A program whose bits are defined does not notice. One that
reads another thread's unsynchronised writes, uninitialised memory or beyond its arrays most likely does, and is
tolerant then, not exact: peers' answers cannot be compared by hash. The variant also ends where two threads touch the
same place of an array or of shared memory, one of them changing it, without a wait that orders them (headers/races.h):
an exchange of pairs, say, that comes out alike in both orders with just these numbers, or a cell that three threads
store to, of which the one in the middle is neither the first nor the last. And it ends where an array that the kernel
was given does not have the element that is asked of it, whatever lies there.

A trial shows faults, not their absence: other inputs may take other ways. And the variant takes a hundred times as long
while a user waits: of a program that is one large launch only some blocks are run, the last ones, where arrays end;
loops of steps go round twice. Nor can a trial always be had: a task may take too long, trap, or need an input that is
not here. In ``wasm-1`` that does no harm: the device fixes the order of blocks, warps and lanes and begins with zeros,
so that equal modules give equal bits whether CUDA defines them or not. A GPU promises no such thing: there a program
that was not tried counts as tolerant (``holds_for``).
"""

import contextlib
import hashlib
import json
import re
import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import numpy as np
import numpy.typing as npt

from depin_node.compute.devices.device import Input, TaskLimits
from depin_node.compute.devices.wasm import WasmDevice, WasmProgram
from depin_node.compute.programs.builder import Bound
from depin_node.compute.programs.memory import placements
from depin_node.compute.programs.program import DTYPE_BYTES, Axis, Launch, Program, Repeat, Step, Unit, Until
from depin_node.compute.programs.shards import numpy_dtype, result_bytes, task_blocks
from depin_node.compute.programs.slices import held_bytes
from depin_node.compute.translate.cache import cache_folder
from depin_node.core.errors import TaskError, TaskTimedOut, TaskTrapped

SECONDS_MAX = 1.0
"""For a first run, a quarter of what the second may take: a task that takes longer is not tried."""
ROUNDS_MAX = 2
"""Of loops of steps: one round may read what the one before left."""
FIRST_BLOCKS, GROWTH_MAX = 4, 64
"""How many blocks are run first, and by how much more next: blocks need not burn alike."""
FUEL_MAX = 8 << 20
"""What the blocks that are tried may burn in the first run, if they are more than these; the second takes half a second
then."""
MEMORY_BYTES = 1 << 32
NOTE_CHARACTERS_MAX = 500
KEPT_MAX = 4096
_NOT_TRIED = "not tried whether its bits are defined"
Array = npt.NDArray[Any]


class Verdict(NamedTuple):
    """``exact``: the bits are defined, as far as is known. ``note``: why not, or why it was not tried; or empty.
    ``fails``: how a task ends on every ``wasm-1``, where equal modules over equal arrays do alike; or empty. ``lasts``:
    it is kept with the modules, whatever the arrays are."""

    exact: bool
    note: str = ""
    tried: bool = True
    fails: str = ""
    lasts: bool = True

    def holds_for(self, device_class: str) -> bool:
        """Whether answers of this class can be compared bit for bit."""
        return self.exact and (self.tried or device_class == WasmDevice.device_class)


class TrialDevice(WasmDevice):
    """The device of the second run."""

    gap_fill = 0xFF
    tells_sizes = True


def try_bits(bound: Bound, *, seconds: float = SECONDS_MAX, fresh: bool = False) -> Verdict:
    """Tell whether a program is exact, trying one task of it if the compiler thinks so.

    The answer is kept for as long as the program's modules stay the same, whatever its arrays are; not so that a task
    failed, or left an array.

    Args:
        bound: the program and its inputs.
        seconds: what a first run may take.
        fresh: not to take a kept answer.

    Raises:
        ConfigError: there is no compiler here.
    """
    program = bound.program
    if not program.exact:
        return Verdict(False)
    sources = [source for source in bound.sources if source is not None]
    if len(sources) < len(program.units):
        return Verdict(True)  # generated as a whole: exact by construction
    arrays = {index: array for index, array in bound.inputs.items() if isinstance(array, np.ndarray)}
    if len(arrays) < len(bound.inputs):
        return Verdict(True, f"{_NOT_TRIED}: an input is a reference", tried=False)
    path = cache_folder().with_name("trials") / f"{_key(program)}.json"
    if not fresh and (kept := _load(path)) is not None:
        return kept
    units = tuple(Unit(unit.module, unit.cuda) for unit in (source.compile(trial=True) for source in sources))
    pair = _shortened(program), _shortened(msgspec.structs.replace(program, units=units))
    for task in dict.fromkeys((program.tasks // 2, program.tasks - 1, 0)):
        try:
            verdict = _compare(*pair, arrays, task, seconds)
        except TaskError as error:  # of these arrays, and how they are cut: others are tried again
            is_whole = isinstance(error, TaskTrapped) and pair[0].steps == program.steps
            fails = f"task {task} fails: {error}" if is_whole else ""
            return Verdict(True, f"{_NOT_TRIED}: {error}"[:NOTE_CHARACTERS_MAX], tried=False, fails=fails, lasts=False)
        if not (verdict.exact and verdict.tried):
            break
    if verdict.lasts:
        _store(path, verdict)
    return verdict


def _shortened(program: Program) -> Program:
    def rounds(step: Step) -> Step:
        if isinstance(step, Repeat):
            return Repeat(min(step.count, ROUNDS_MAX), tuple(map(rounds, step.steps)))
        if isinstance(step, Until):
            return Until(step.buffer, min(step.max, ROUNDS_MAX), tuple(map(rounds, step.steps)))
        return step

    return msgspec.structs.replace(program, steps=tuple(map(rounds, program.steps)))


def _key(program: Program) -> str:
    digest = hashlib.blake2b(b"trial 3", digest_size=16)  # counts how trials have changed: older ones saw less
    for unit in program.units:
        digest.update(hashlib.blake2b(unit.module, digest_size=32).digest())
    for kernel in program.kernels:
        digest.update(bytes([kernel.unit, kernel.entry]))
    return digest.hexdigest()


def _load(path: Path) -> Verdict | None:
    with contextlib.suppress(OSError, ValueError, TypeError):
        exact, note, tried = json.loads(path.read_text())
        return Verdict(bool(exact), str(note)[:NOTE_CHARACTERS_MAX], bool(tried))
    return None


def _store(path: Path, verdict: Verdict) -> None:
    """Keep a verdict, and drop the oldest if there are too many. What cannot be kept is tried again."""
    with contextlib.suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
        try:
            temporary.write_text(json.dumps(verdict[:3]))
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)
        for old in sorted(path.parent.glob("*.json"), key=lambda file: file.stat().st_mtime_ns)[:-KEPT_MAX]:
            old.unlink(missing_ok=True)


def _compare(first: Program, second: Program, arrays: Mapping[int, Array], task: int, seconds: float) -> Verdict:
    """Try one task. Raises ``TaskError``: it has no result to compare with, whatever the order of its threads."""
    inputs = {index: Input(array.reshape(-1).view(np.uint8).data) for index, array in arrays.items()}
    limits, other_limits = TaskLimits(seconds, MEMORY_BYTES), TaskLimits(4 * seconds, MEMORY_BYTES)
    how = "if its threads run in another order, over memory that holds something else than zeros"
    try:
        wanted, last_blocks = _first_run(WasmDevice().load(first, inputs, limits), task, limits)
    except TaskTimedOut as error:
        return Verdict(True, f"{_NOT_TRIED}: {error}"[:NOTE_CHARACTERS_MAX], tried=False)
    except TaskTrapped as error:
        loaded = TrialDevice().load(second, inputs, other_limits)
        with contextlib.suppress(TaskError):  # it is the log that is wanted
            _run(loaded, task, other_limits)
        if (strayed := _strayed(loaded.log)) is None:
            raise
        raise TaskTrapped(f"{error} ({strayed})") from error
    try:
        loaded = TrialDevice().load(second, inputs, other_limits)
        loaded.last_blocks = last_blocks
        try:
            found, _ = _run(loaded, task, other_limits)
        except TaskTrapped:
            if (strayed := _strayed(loaded.log)) is not None:
                note = f"its bits are not defined: in task {task}, {strayed}"
                return Verdict(False, note[:NOTE_CHARACTERS_MAX], lasts=False)
            if (place := _raced(second, task, loaded.log)) is None:
                raise
            text = f"its bits are not defined: two threads touch {place} in task {task}, and one of them changes it, "
            return Verdict(False, f"{text}with no wait between")
    except TaskTimedOut:
        return Verdict(True, f"{_NOT_TRIED}: it takes too long {how}", tried=False)
    except TaskError as error:
        return Verdict(False, f"its bits are not defined: {how}, task {task} fails: {error}"[:NOTE_CHARACTERS_MAX])
    for index, one, two in zip(first.outputs, wanted, found, strict=True):
        if one != two:
            buffer = first.buffers[index]
            pairs = (np.frombuffer(data, np.uint8).reshape(-1, numpy_dtype(buffer).itemsize) for data in (one, two))
            others = np.flatnonzero(np.not_equal(*pairs).any(axis=1))
            return Verdict(
                False,
                f"its bits are not defined: {how}, {len(others)} of {buffer.elements} elements of {buffer.name} "
                f"are others in task {task}, the first at {int(others[0])}: "
                "look for reads beyond an array, of what other threads write, and of what nobody has written",
            )
    return Verdict(True)


def _first_run(loaded: WasmProgram, task: int, limits: TaskLimits) -> tuple[list[bytes], int]:
    """Return the results of as many of a task's last blocks as may be tried, and how many these are; 0: all.

    Of a program of several steps all blocks are run, since one step needs what the others make.
    """
    program = loaded.program
    if len(program.steps) > 1 or not isinstance(program.steps[0], Launch):
        return _run(loaded, task, limits)[0], 0
    blocks = _blocks(program, task)
    loaded.last_blocks = min(FIRST_BLOCKS, blocks)
    while True:
        wanted, fuel = _run(loaded, task, limits)
        enough = loaded.last_blocks * FUEL_MAX // max(fuel, 1)
        if loaded.last_blocks == blocks or enough < 2 * loaded.last_blocks:
            return wanted, loaded.last_blocks
        loaded.last_blocks = min(enough, GROWTH_MAX * loaded.last_blocks, blocks)


def _blocks(program: Program, task: int) -> int:
    if isinstance(program.shards, Axis):
        return program.launch.blocks(task)
    first, last = task_blocks(program, task)
    return last - first


def _run(loaded: WasmProgram, task: int, limits: TaskLimits) -> tuple[list[bytes], int]:
    """Return a task's results, and the fuel it burnt."""
    program = loaded.program
    results = [bytearray(result_bytes(program, task, output)) for output in range(len(program.outputs))]
    fuel = loaded.run(task, limits, [memoryview(result) for result in results])
    return [bytes(result) for result in results], fuel


def _strayed(log: bytes) -> str | None:
    """Return where which element was touched that an array does not have, if that is what ended a task."""
    found = re.search(rb"\noutside (.*: (.*)\[.*\]) of (\d+)\Z", log)
    if found is None:
        return None
    where, array, elements = (part.decode() for part in found.groups())
    return f"{where} is outside {array}, which has {int(elements):,} elements there"


def _raced(program: Program, task: int, log: bytes) -> str | None:
    """Return where two threads met, if that is what ended the task: its log says so last."""
    found = re.search(rb"\nrace at ([0-9a-f]{8})\Z", log)
    if found is None:
        return None
    address = int(found[1], 16)
    for buffer, start in zip(program.buffers, placements(program)[0], strict=True):
        if start <= address < start + held_bytes(program, buffer, task):
            return f"element {(address - start) // DTYPE_BYTES[buffer.dtype]} of what the task holds of {buffer.name}"
    return "one place of shared memory"
