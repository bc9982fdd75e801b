"""Reading a program of a stranger: the schema, then all that the schema cannot say.

The order matters: bounds come first, so that nothing below them can cost much; then the parts by themselves (modules,
names, cuts), then the steps with the shapes that tasks hold, then who owns what, at last the sizes.
"""

from itertools import pairwise
from math import gcd, prod

from depin_node.compute.programs.combine import pair, tree
from depin_node.compute.programs.memory import LINEAR_BYTES_MAX, attributes, memory_bytes, placements, specs
from depin_node.compute.programs.module import scan_module
from depin_node.compute.programs.operations import plan
from depin_node.compute.programs.owners import validate_cut, validate_ownership, validate_tables
from depin_node.compute.programs.program import (
    DTYPE_BYTES,
    PROGRAM_BYTES_MAX,
    Axis,
    Buffer,
    Launch,
    Offset,
    Operation,
    Parameter,
    Program,
    Repeat,
    Scalar,
    Step,
    Swap,
    Until,
    flattened,
)
from depin_node.compute.programs.slices import held_shape, variants
from depin_node.compute.programs.work import unrolled
from depin_node.core import wire
from depin_node.core.errors import PeerViolation, TaskRejected

BLOCK_THREADS_MAX = 1024
BLOCK_MAX = (1024, 1024, 64)
GRID_MAX = (2**31 - 1, 65535, 65535)
"""CUDA's own limits (CUDA C++ Programming Guide, "Technical Specifications")."""
STEPS_MAX = 4096
"""As they are written, loops counted with what is in them."""
OPERATIONS_MAX = 1024
DEPTH_MAX = 8
"""Of loops in loops."""
STEPS_DONE_MAX = 1 << 24
"""As they are done, loops unrolled."""
INPUTS_MAX = 62
"""With the program 63 blobs: what one grant covers, and what fits one message between a node and its worker."""
OUTPUTS_MAX = 64


def decode_program(data: bytes | bytearray | memoryview) -> Program:
    """Decode and validate a program.

    Raises:
        TaskRejected: malformed, or against a rule of ``validate``.
    """
    try:
        program = wire.decode(data, Program, size_bytes_max=PROGRAM_BYTES_MAX)
    except PeerViolation as error:
        raise TaskRejected(f"the program cannot be read: {error}") from error
    validate(program)
    return program


def validate(program: Program) -> None:
    """Check all that the schema cannot say.

    Raises:
        TaskRejected: with the first rule that is broken.
    """
    _validate_bounds(program)
    for unit in program.units:
        scan_module(unit.module)
    for kernel in program.kernels:
        if kernel.unit >= len(program.units):
            raise TaskRejected(f"{kernel.name} is of unit {kernel.unit}, there are {len(program.units)}")
        _validate_names("parameter", [parameter.name for parameter in kernel.parameters])
    _validate_names("buffer", [buffer.name for buffer in program.buffers])
    if isinstance(program.shards, Axis):
        validate_tables(program, program.shards)
    for buffer in program.buffers:
        validate_cut(program, buffer)
    held = _Held(program)
    for step in flattened(program.steps):
        _validate_step(held, step)
    for launch in program.combine:
        held.launch(launch.kernel)
    held.check()
    for buffer in program.buffers:
        validate_ownership(program, buffer)
    _validate_size(program, "a task needs {} MiB for its arrays")
    if program.combine:
        validate(pair(program))
        _validate_size(tree(program), "to merge all partial results takes {} MiB")


def _validate_size(program: Program, what: str) -> None:
    if placements(program)[1] > LINEAR_BYTES_MAX:
        needed = what.format(memory_bytes(program) >> 20)
        raise TaskRejected(f"{needed}; at most {LINEAR_BYTES_MAX >> 20} MiB fit")


def _validate_bounds(program: Program) -> None:
    if _is_too_deep(program.steps):
        raise TaskRejected(f"loops are nested more than {DEPTH_MAX} deep")
    steps = sum(1 for _ in flattened(program.steps))
    if steps > STEPS_MAX:
        raise TaskRejected(f"the program has {steps} steps, at most {STEPS_MAX} are allowed: use repeat")
    operations = sum(isinstance(step, Operation) for step in flattened(program.steps))
    if operations > OPERATIONS_MAX:
        raise TaskRejected(f"the program has {operations} array operations, at most {OPERATIONS_MAX} are allowed")
    done = sum(times for _, times in unrolled(program.steps))
    if done > STEPS_DONE_MAX:
        raise TaskRejected(f"a task does up to {done} steps, at most {STEPS_DONE_MAX} are allowed")
    if len(program.inputs) > INPUTS_MAX or len(program.outputs) > OUTPUTS_MAX:
        raise TaskRejected(
            f"the program has {len(program.inputs)} inputs and {len(program.outputs)} outputs; "
            f"at most {INPUTS_MAX} and {OUTPUTS_MAX} are allowed"
        )
    if not program.outputs:
        raise TaskRejected("the program has no output: mark at least one pointer as Out or InOut")


def _is_too_deep(steps: tuple[Step, ...]) -> bool:
    """Whether loops are nested more than ``DEPTH_MAX`` deep: level by level, as deep as a decoder may have gone."""
    loops = [step for step in steps if isinstance(step, Repeat | Until)]
    for _ in range(DEPTH_MAX):
        loops = [step for loop in loops for step in loop.steps if isinstance(step, Repeat | Until)]
    return bool(loops)


def _validate_names(kind: str, names: list[str]) -> None:
    if len(set(names)) < len(names):
        raise TaskRejected(f"two {kind}s have the same name")


# Steps


class _Held:
    """What tasks hold, which buffers the steps name, and which they write; swapped buffers share that."""

    def __init__(self, program: Program) -> None:
        self.program = program
        self.tasks = variants(program)
        elements = [[prod(held_shape(program, buffer, task)) for task in self.tasks] for buffer in program.buffers]
        self.elements_min = [min(counts) for counts in elements]
        self.elements_gcd = [gcd(*counts) for counts in elements]
        self._named: set[int] = set()
        self._written: set[int] = set()
        self._kernels: set[int] = set()
        self._swapped = list(range(len(program.buffers)))

    def read(self, buffer: int) -> None:
        self._named.add(buffer)

    def write(self, buffer: int) -> None:
        self._named.add(buffer)
        self._written.add(buffer)

    def launch(self, kernel: int) -> None:
        self._kernels.add(kernel)

    def swap(self, a: int, b: int) -> None:
        self._named |= {a, b}
        old, new = self._swapped[a], self._swapped[b]
        self._swapped = [new if group == old else group for group in self._swapped]

    def check(self) -> None:
        written = {self._swapped[index] for index in self._written}
        for index, buffer in enumerate(self.program.buffers):
            if index not in self._named:
                raise TaskRejected(f"buffer {buffer.name} is not an argument of any step")
            if buffer.role != "in" and self._swapped[index] not in written:
                raise TaskRejected(f"buffer {buffer.name} is never written: a {buffer.role} array is what steps fill")
        if len(self._kernels & set(range(len(self.program.kernels)))) < len(self.program.kernels):
            raise TaskRejected("a kernel is not launched by any step")
        if {kernel.unit for kernel in self.program.kernels} != set(range(len(self.program.units))):
            raise TaskRejected("a unit has no kernel that is launched")


def _validate_step(held: _Held, step: Step) -> None:
    program = held.program
    if isinstance(step, Launch):
        _validate_launch(held, step)
    elif isinstance(step, Operation):
        _validate_operation(held, step)
    elif isinstance(step, Swap):
        _validate_swap(program, step)
        held.swap(step.a, step.b)
    elif isinstance(step, Until):
        flag = _buffer(program, step.buffer, "until")
        if flag.elements != 1 or flag.cut is not None or flag.dtype[0] not in "bui":
            raise TaskRejected(f"until looks at one integer: {flag.name} is {flag.dtype} {flag.shape}")
        if flag.role == "in":
            raise TaskRejected(f"until looks at {flag.name}, which no step can change")
        held.read(step.buffer)


def _buffer(program: Program, index: int, what: str) -> Buffer:
    if index >= len(program.buffers):
        raise TaskRejected(f"{what} names buffer {index} of {len(program.buffers)}")
    return program.buffers[index]


def _validate_launch(held: _Held, launch: Launch) -> None:
    program = held.program
    if launch.kernel >= len(program.kernels):
        raise TaskRejected(f"a launch names kernel {launch.kernel}, there are {len(program.kernels)}")
    kernel = program.kernels[launch.kernel]
    held.launch(launch.kernel)
    if any(n > most for n, most in zip(launch.block, BLOCK_MAX, strict=True)):
        raise TaskRejected(f"block {launch.block} is larger than CUDA's {BLOCK_MAX}")
    if prod(launch.block) > BLOCK_THREADS_MAX:
        raise TaskRejected(f"block {launch.block} has {prod(launch.block)} threads; at most {BLOCK_THREADS_MAX}")
    if len(launch.grids) > 1 and (not isinstance(program.shards, Axis) or len(launch.grids) != program.tasks):
        raise TaskRejected(f"{kernel.name} has {len(launch.grids)} grids: one, or one for each task cut along an axis")
    largest = tuple(map(max, zip(*launch.grids, strict=True)))
    if any(n > most for n, most in zip(largest, GRID_MAX, strict=True)):
        raise TaskRejected(f"grid {largest} is larger than CUDA's {GRID_MAX}")
    if len(launch.args) != len(kernel.parameters):
        raise TaskRejected(f"{kernel.name} takes {len(kernel.parameters)} arguments, {len(launch.args)} are given")
    for argument, parameter in zip(launch.args, kernel.parameters, strict=True):
        if isinstance(argument, Scalar):
            _validate_scalar(program, argument, parameter)
        else:
            _validate_pointer(held, argument, parameter)


def _validate_scalar(program: Program, argument: Scalar, parameter: Parameter) -> None:
    size = DTYPE_BYTES[parameter.dtype] * parameter.lanes
    if parameter.pointer:
        raise TaskRejected(f"parameter {parameter.name} is a pointer and gets a scalar")
    sizes = {size, size * program.tasks} if isinstance(program.shards, Axis) else {size}
    if argument.dtype != parameter.dtype or len(argument.data) not in sizes:
        raise TaskRejected(
            f"parameter {parameter.name} is {parameter.dtype} of {size} bytes, "
            f"its argument {argument.dtype} of {len(argument.data)} bytes"
        )


def _validate_pointer(held: _Held, argument: int | Offset, parameter: Parameter) -> None:
    if not parameter.pointer:
        raise TaskRejected(f"parameter {parameter.name} is a scalar and gets an array")
    index, offset = (argument.buffer, argument.elements) if isinstance(argument, Offset) else (argument, 0)
    buffer = _buffer(held.program, index, f"parameter {parameter.name}")
    if not is_element_of(buffer.dtype, parameter.dtype, parameter.lanes):
        raise TaskRejected(f"parameter {parameter.name} points to {parameter.dtype}, its array is {buffer.dtype}")
    size, item_bytes = DTYPE_BYTES[parameter.dtype] * parameter.lanes, DTYPE_BYTES[buffer.dtype]
    if held.elements_gcd[index] * item_bytes % size or offset * item_bytes % size:
        raise TaskRejected(f"array {buffer.name} of {buffer.elements} elements does not divide by {parameter.lanes}")
    if offset >= held.elements_min[index]:
        raise TaskRejected(f"parameter {parameter.name} begins {offset} elements into {buffer.name}, behind its end")
    if parameter.const:
        held.read(index)
    elif buffer.role == "in":
        raise TaskRejected(f"parameter {parameter.name} is not const: its array must be Out or InOut")
    else:
        held.write(index)


def is_element_of(array: str, dtype: str, lanes: int) -> bool:
    """Whether a pointer to ``lanes`` × ``dtype`` takes an array: complex numbers are pairs too (``float2``)."""
    pairs = {"complex64": "float32", "complex128": "float64"}
    return array == dtype or (lanes == 2 and pairs.get(array) == dtype)


def _validate_operation(held: _Held, step: Operation) -> None:
    program = held.program
    for index in step.inputs:
        _buffer(program, index, step.name)
        held.read(index)
    for index in step.outputs:
        if _buffer(program, index, step.name).role == "in":
            raise TaskRejected(f"{step.name} writes {program.buffers[index].name}, which is an input")
        held.write(index)
    if len(set(step.outputs)) < len(step.outputs):
        raise TaskRejected(f"{step.name} writes one array twice")
    names = [attribute.name for attribute in step.attributes]
    if any(name >= after for name, after in pairwise(names)):
        raise TaskRejected(f"{step.name}: attributes ascend by name")
    for task in held.tasks:
        results = plan(step.name, specs(program, step.inputs, task), attributes(step)).results
        found = specs(program, step.outputs, task)
        if results != found:
            shown = [f"{spec.dtype} {spec.shape}" for spec in results]
            given = [f"{spec.dtype} {spec.shape}" for spec in found]
            raise TaskRejected(f"{step.name} gives {', '.join(shown)}; its arrays are {', '.join(given)}")


def _validate_swap(program: Program, step: Swap) -> None:
    a, b = (_buffer(program, index, "swap") for index in (step.a, step.b))
    if step.a == step.b:
        raise TaskRejected(f"swap names {a.name} twice")
    for buffer in (a, b):
        if buffer.role == "in":
            raise TaskRejected(f"swap of {buffer.name}: inputs stay what they are, use an inout array")
    if (a.dtype, a.shape, a.cut) != (b.dtype, b.shape, b.cut):
        raise TaskRejected(f"swap of {a.name} and {b.name}: they differ in dtype, shape or cut")
