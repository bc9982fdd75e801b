import sys
from contextlib import suppress

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from wat_programs import REFUSED_MODULES, copying, program

from depin_node.compute.programs.memory import GUARD_BYTES, memory_bytes, placements
from depin_node.compute.programs.module import scan_module
from depin_node.compute.programs.program import (
    Attribute,
    Axis,
    Blocks,
    Buffer,
    Cut,
    Kernel,
    Launch,
    Offset,
    Operation,
    Parameter,
    Program,
    Repeat,
    Scalar,
    Swap,
    Unit,
    Until,
    encode_program,
    program_id,
)
from depin_node.compute.programs.validation import decode_program, validate
from depin_node.compute.programs.work import work
from depin_node.core import wire
from depin_node.core.errors import TaskRejected
from depin_node.crypto.blob import blob_id

GOOD = program(scalars=(Scalar("float32", b"\0\0\x80?"),))
GOLDEN_STEPS = (
    "97029292c4190061736d01000000020f0103656e76066d656d6f7279020001a36f6e6592c4190061736d01000000020f0103656e7606"
    "6d656d6f7279020001a374776f9395a16600019395a178c3a7666c6f6174333201c395a179c3a7666c6f6174333201c295a16ec2a569"
    "6e74333201c2c395a56d6572676501009295a179c3a7666c6f6174333201c295a178c3a7666c6f6174333201c3c295a3656e64000091"
    "95a4646f6e65c3a4626f6f6c01c2c39496a175a5696e6f7574a7666c6f617433329204029095000001a8636f6e7374616e74c4040000"
    "803f96a176a474656d70a7666c6f617433329204029095000001a8636f6e7374616e74c4040000803f96a170a36f7574a7666c6f6174"
    "33329202039095000100a46e6f6e65c40096a4646f6e65a474656d70a4626f6f6c910190c09393a6726570656174039296a66c61756e"
    "6368009293010101930201019308010110930093a66f6666736574010293a67363616c6172a5696e743332c408040000000500000093"
    "a473776170000194a5756e74696c03059296a66c61756e63680291930101019301010100910396a66c61756e63680191930101019301"
    "01010092020095a96f7065726174696f6ea669726666746e910091019392a46178657392000192a172cb3ff000000000000092a57570"
    "7065720193a461786973029293000204930001029196a66c61756e63680191930101019303010100920001"
)
TINY_MODULE = bytes.fromhex("0061736d01000000020f0103656e76066d656d6f72790200") + b"\x01"


def replace(value, **changes):
    return msgspec.structs.replace(value, **changes)


def with_buffer(index, **changes):
    buffers = list(GOOD.buffers)
    buffers[index] = replace(buffers[index], **changes)
    return replace(GOOD, buffers=tuple(buffers))


def with_launch(**changes):
    return replace(GOOD, steps=(replace(GOOD.launch, **changes),))


def with_parameter(index, **changes):
    parameters = list(GOOD.kernels[0].parameters)
    parameters[index] = replace(parameters[index], **changes)
    return replace(GOOD, kernels=(replace(GOOD.kernels[0], parameters=tuple(parameters)),))


def test_golden_vector():
    """The encoding of a program is its identity: it may change only with its version."""
    small = Program(
        2, (Unit(TINY_MODULE, "cuda"),), (Kernel("k", 0, 0, (Parameter("y", True, "int32", 1, False),), True),),
        (Buffer("y", "out", "int32", (3, 5), (1, 5), None),), (Launch(0, ((3, 1, 1),), (5, 1, 1), 0, (0,)),),
        Blocks(3), (),
    )  # fmt: skip
    assert encode_program(small).hex() == (
        "97029192c4190061736d01000000020f0103656e76066d656d6f7279020001a4637564619195a16b00009195a179c3a5696e7433"
        "3201c2c39196a179a36f7574a5696e743332920305920105c09196a66c61756e63680091930301019305010100910092a6626c6f"
        "636b730390"
    )
    assert program_id(small).hex() == "e90acb0071bdd7f3516fac6d6a0eb8b198b6ddae8d8b4b254403fd52a3c71df3"


def test_golden_vector_of_several_steps():
    """Every kind of step, argument and cut, and a merge."""
    floats = (Parameter("x", True, "float32", 1, True), Parameter("y", True, "float32", 1, False))
    kernels = (
        Kernel("f", 0, 1, (*floats, Parameter("n", False, "int32", 1, False)), True),
        Kernel("merge", 1, 0, (floats[1], floats[0]), False),
    )
    u = Buffer("u", "inout", "float32", (4, 2), (), Cut(0, 0, 1, "constant", b"\0\0\x80?"))
    buffers = (
        u,
        replace(u, name="v", role="temp"),
        Buffer("p", "out", "float32", (2, 3), (), Cut(0, 1, 0, "none", b"")),
        Buffer("done", "temp", "bool", (1,), (), None),
    )
    ends = Kernel("end", 0, 0, (Parameter("done", True, "bool", 1, False),), True)
    count = Scalar("int32", b"\4\0\0\0\5\0\0\0")
    steps = (
        Repeat(3, (Launch(0, ((1, 1, 1), (2, 1, 1)), (8, 1, 1), 16, (0, Offset(1, 2), count)), Swap(0, 1))),
        Until(3, 5, (Launch(2, ((1, 1, 1),), (1, 1, 1), 0, (3,)), Launch(1, ((1, 1, 1),), (1, 1, 1), 0, (2, 0)))),
        Operation("irfftn", (0,), (1,), (Attribute("axes", (0, 1)), Attribute("r", 1.0), Attribute("upper", 1))),
    )
    merge = Launch(1, ((1, 1, 1),), (3, 1, 1), 0, (0, 1))
    units = (Unit(TINY_MODULE, "one"), Unit(TINY_MODULE, "two"))
    program = Program(2, units, (*kernels, ends), buffers, steps, Axis(2, ((0, 2, 4), (0, 1, 2))), (merge,))
    assert encode_program(program).hex() == GOLDEN_STEPS
    assert wire.decode(encode_program(program), Program, size_bytes_max=1000) == program
    assert not program.exact
    without = replace(program, steps=steps[:2], kernels=(kernels[0], replace(kernels[1], exact=True), ends))
    with pytest.raises(TaskRejected, match="u is not partial"):
        validate(without)
    partial = replace(without, buffers=(replace(u, role="temp"), *buffers[1:]))
    assert decode_program(encode_program(partial)) == partial
    assert partial.exact


def test_a_program_travels_as_a_blob_and_comes_back_the_same():
    data = encode_program(GOOD)
    assert decode_program(data) == GOOD
    assert program_id(GOOD) == blob_id(data)


UNUSED = Buffer("z", "in", "int8", (1,), (), None)
ONLY_READ = replace(GOOD.buffers[1], role="in", tile=())
BAD = {
    "8 GiB array": (with_buffer(0, shape=(1 << 31,)), "MiB fit"),
    "arrays beyond 4 GiB together": (
        replace(with_buffer(0, shape=(1 << 29,)), buffers=tuple(
            replace(b, shape=(1 << 29,), tile=(1 << 25,) if b.role == "out" else ()) for b in GOOD.buffers)),
        "MiB fit",
    ),
    "too many threads": (with_launch(block=(1024, 2, 1)), "threads"),
    "block too deep": (with_launch(block=(1, 1, 65)), "larger than CUDA's"),
    "grid too high": (with_launch(grids=((1, 65536, 1),)), "larger than CUDA's"),
    "grid too wide": (with_launch(grids=((1 << 31, 1, 1),)), "larger than CUDA's"),
    "more shards than blocks": (replace(GOOD, shards=Blocks(17)), "at least one block"),
    "no such kernel": (with_launch(kernel=1), "there are 1"),
    "argument missing": (with_launch(args=(0, 1)), "takes 3 arguments"),
    "argument too many": (with_launch(args=(*GOOD.launch.args, 0)), "takes 3 arguments"),
    "buffer out of range": (with_launch(args=(0, 2, GOOD.launch.args[2])), "buffer 2 of 2"),
    "scalar for a pointer": (with_launch(args=(GOOD.launch.args[2], 1, GOOD.launch.args[2])), "gets a scalar"),
    "array for a scalar": (with_launch(args=(0, 1, 0)), "gets an array"),
    "scalar of another type": (with_launch(args=(0, 1, Scalar("int32", bytes(4)))), "float32 of 4 bytes"),
    "scalar of another size": (with_launch(args=(0, 1, Scalar("float32", bytes(8)))), "float32 of 4 bytes"),
    "unused buffer": (replace(GOOD, buffers=(*GOOD.buffers, UNUSED)), "z is not an argument"),
    "twice the same name": (with_buffer(1, name="x"), "same name"),
    "array of another type": (with_buffer(0, dtype="int32"), "points to float32"),
    "const output": (with_parameter(1, const=True), "never written"),
    "input of a pointer that is not const": (with_parameter(0, const=False), "must be Out or InOut"),
    "lanes that do not divide": (with_parameter(0, lanes=3), "does not divide"),
    "no output": (replace(with_parameter(1, const=True), buffers=(GOOD.buffers[0], ONLY_READ)), "no output"),
    "input with tile": (with_buffer(0, tile=(64,)), "only outputs have owners"),
    "no tile, many shards": (with_buffer(1, tile=()), "no tile"),
    "tile of other dimensions": (with_buffer(1, tile=(64, 1)), "differ in dimensions"),
    "tile larger than the array": (with_buffer(1, tile=(2048,)), "larger than its shape"),
    "more tiles than blocks": (with_buffer(1, tile=(63,)), "17 tiles"),
}  # fmt: skip


COPY, FLAG = GOOD.kernels[0], Buffer("flag", "temp", "int32", (1,), (), None)
LAUNCH = GOOD.launch
MANY = replace(GOOD, shards=Blocks(1), buffers=(GOOD.buffers[0], replace(GOOD.buffers[1], tile=()), FLAG))
T = Buffer("t", "temp", "float32", (1024,), (), None)
ROWS = (0, 256, 512, 768, 1024)
CUT = Cut(0, 0, 2, "clamp", b"")
SLICED = replace(
    GOOD, shards=Axis(4, (ROWS,)), buffers=tuple(replace(buffer, tile=(), cut=CUT) for buffer in GOOD.buffers)
)


def steps_of(*steps, more=()):
    return replace(MANY, steps=steps, buffers=(*MANY.buffers[:2], *more))


def nested(depth):
    step = LAUNCH
    for _ in range(depth):
        step = Repeat(1, (step,))
    return steps_of(step)


def cut_as(**changes):
    return replace(SLICED, buffers=(replace(SLICED.buffers[0], cut=replace(CUT, **changes)), SLICED.buffers[1]))


def tables(*found, count=4):
    return replace(SLICED, shards=Axis(count, found))


def merging(*launches, **changes):
    rows = (0, 1, 2, 3, 4)
    partial = Buffer("y", "out", "float32", (4, 1024), (), Cut(0, 1, 0, "none", b""))
    return replace(
        SLICED, shards=Axis(4, (ROWS, rows)), buffers=(SLICED.buffers[0], replace(partial, **changes)), combine=launches
    )


MERGE = replace(LAUNCH, args=(1, 0, LAUNCH.args[2]))
BAD |= {
    "no steps": (replace(GOOD, steps=()), "malformed"),
    "empty loop": (steps_of(Repeat(1, ())), "malformed"),
    "loops too deep": (nested(9), "nested more than 8 deep"),
    "loops far too deep": (nested(150), "nested more than 8 deep"),
    "too many steps": (steps_of(*[LAUNCH] * 4097), "4097 steps"),
    "too many operations": (steps_of(*[Operation("det", (0,), (1,), ())] * 1025), "1025 array operations"),
    "too many passes": (steps_of(Repeat(1 << 24, (Repeat(2, (LAUNCH,)),))), "up to 33554432 steps"),
    "until of no such buffer": (steps_of(Until(9, 2, (LAUNCH,))), "until names buffer 9 of 2"),
    "until of many": (steps_of(Until(1, 2, (LAUNCH,))), "until looks at one integer"),
    "until of an input": (
        steps_of(Until(2, 2, (LAUNCH,)), more=(replace(FLAG, role="in"),)), "which no step can change"),
    "until of what nothing writes": (steps_of(Until(2, 2, (LAUNCH,)), more=(FLAG,)), "flag is never written"),
    "swap with an input": (steps_of(LAUNCH, Swap(0, 1)), "inputs stay what they are"),
    "swap with itself": (steps_of(LAUNCH, Swap(1, 1)), "twice"),
    "swap of no such buffer": (steps_of(LAUNCH, Swap(1, 7)), "swap names buffer 7"),
    "swap of other shapes": (steps_of(LAUNCH, Swap(1, 2), more=(FLAG,)), "differ in dtype, shape or cut"),
    "unused temp": (steps_of(LAUNCH, more=(T,)), "t is not an argument of any step"),
    "never written": (steps_of(replace(LAUNCH, args=(2, 1, LAUNCH.args[2])), more=(T,)), "x is not an argument"),
    "temp never written": (steps_of(LAUNCH, replace(LAUNCH, args=(2, 1, LAUNCH.args[2])), more=(T,)), "t is never w"),
    "tile of several steps": (replace(GOOD, shards=Blocks(1), steps=(LAUNCH, LAUNCH)), "tile, which is for a single"),
    "several steps by blocks": (replace(GOOD, steps=(LAUNCH, LAUNCH)), "cannot be cut by blocks"),
    "temp of several shards": (
        replace(GOOD, buffers=(replace(T, name="x"), GOOD.buffers[1])), "never written|share no memory"),
    "offset behind the end": (steps_of(replace(LAUNCH, args=(Offset(0, 1024), 1, LAUNCH.args[2]))), "behind its end"),
    "offset of no such buffer": (steps_of(replace(LAUNCH, args=(Offset(5, 0), 1, LAUNCH.args[2]))), "buffer 5 of 2"),
    "no such operation": (steps_of(LAUNCH, Operation("exec", (0,), (1,), ())), "no array operation 'exec'"),
    "operation of no such buffer": (steps_of(LAUNCH, Operation("det", (8,), (1,), ())), "det names buffer 8"),
    "operation on vectors": (steps_of(LAUNCH, Operation("det", (0,), (1,), ())), "at least two axes"),
    "operation into an input": (steps_of(LAUNCH, Operation("det", (1,), (0,), ())), "which is an input"),
    "operation twice into one": (steps_of(LAUNCH, Operation("qr", (0,), (1, 1), ())), "one array twice"),
    "attributes out of order": (
        steps_of(LAUNCH, Operation("svd", (0,), (1,), (Attribute("b", 1), Attribute("a", 1)))), "ascend by name"),
    "operation's flops": (steps_of(LAUNCH, Operation("svd", (0,), (1,), (Attribute("full", 7),))), "two axes|full"),
    "unit that is not there": (replace(GOOD, kernels=(replace(COPY, unit=1),)), "unit 1, there are 1"),
    "unit of no kernel": (replace(GOOD, units=GOOD.units * 2), "a unit has no kernel"),
    "kernel that is not launched": (replace(GOOD, kernels=(COPY, replace(COPY, name="k"))), "not launched"),
    "entry beyond": (replace(GOOD, kernels=(replace(COPY, entry=64),)), "malformed"),
    "63 inputs": (replace(MANY, buffers=(*MANY.buffers, *(
        Buffer(f"i{k}", "in", "int8", (1,), (), None) for k in range(63)))), "64 inputs and 1 outputs"),
    "several grids by blocks": (with_launch(grids=LAUNCH.grids * 4), "one for each task cut along an axis"),
    "cut by blocks": (with_buffer(0, cut=CUT), "is cut along an axis, the program by blocks"),
    "tile and axis": (replace(SLICED, buffers=(SLICED.buffers[0], replace(SLICED.buffers[1], tile=(64,)))), "has a ti"),
    "whole output": (
        replace(SLICED, buffers=(SLICED.buffers[0], replace(SLICED.buffers[1], cut=None))), "4 tasks would own it"),
    "axis that is not there": (cut_as(axis=1), "cut along axis 1 and has 1"),
    "table that is not there": (cut_as(table=1), "1 tables, the arrays name"),
    "unused table": (tables(ROWS, ROWS), "2 tables, the arrays name"),
    "table too short": (tables(ROWS[:-1]), "has 5 numbers, the first one 0"),
    "table from one on": (tables((1, *ROWS[1:])), "the first one 0"),
    "table that falls": (tables((0, 512, 256, 768, 1024)), "a task owns no row"),
    "empty slice": (tables((0, 256, 256, 768, 1024)), "a task owns no row"),
    "negative row": (tables((0, -1, 256, 768, 1024)), "a task owns no row"),
    "table of other rows": (tables((*ROWS[:-1], 1023)), "x has 1024 rows, its table ends at 1023"),
    "halo beyond the array": (cut_as(halo=1025), "more than clamp can fill"),
    "halo that reflects too far": (cut_as(halo=1024, edge="reflect"), "more than reflect can fill"),
    "fill of another size": (cut_as(edge="constant", fill=b"1"), "the fill of edge constant has 1 bytes"),
    "fill of no constant": (cut_as(fill=b"1234"), "the fill of edge clamp has 4 bytes"),
    "scalars of too many tasks": (
        replace(SLICED, steps=(replace(LAUNCH, args=(0, 1, Scalar("float32", bytes(20)))),)), "20 bytes"),
    "grids of too few tasks": (replace(SLICED, steps=(replace(LAUNCH, grids=LAUNCH.grids * 3),)), "has 3 grids"),
    "merge of what is whole": (replace(SLICED, combine=(MERGE,)), "x? ?.*is not partial"),
    "merge of too much": (merging(MERGE, shape=(4, 1 << 28)), "to merge all partial results takes 4096 MiB"),
    "merge by blocks": (replace(GOOD, combine=(MERGE,)), "is not partial"),
    "merge into what is read": (merging(replace(MERGE, args=(0, 1, LAUNCH.args[2]))), "y from is not const|not const"),
    "merge of no such row": (merging(replace(MERGE, args=(2, 0, LAUNCH.args[2]))), "buffer 2 of 2"),
    "merge by no such kernel": (merging(replace(MERGE, kernel=3)), "combine names a kernel|kernel is not launched"),
    "merge of numbers by task": (merging(replace(MERGE, args=(1, 0, Scalar("float32", bytes(16))))), "16 bytes"),
}  # fmt: skip
SOUND = {
    "single": GOOD,
    "steps": steps_of(LAUNCH, Swap(1, 2), Repeat(2, (LAUNCH,)), more=(T,)),
    "slices": SLICED,
    "merge": merging(MERGE),
    "nested": nested(8),
}


@pytest.mark.parametrize("program", SOUND.values(), ids=SOUND)
def test_takes(program):
    validate(program)
    assert decode_program(encode_program(program)) == program


@pytest.mark.parametrize(("bad", "reason"), BAD.values(), ids=BAD)
def test_refuses(bad, reason):
    with pytest.raises(TaskRejected, match=reason):
        decode_program(encode_program(bad))
    if "malformed" not in reason:
        with pytest.raises(TaskRejected, match=reason):
            validate(bad)


@pytest.mark.parametrize(("grid", "shape", "tile", "fits"), [
    ((26, 22, 1), (344, 403), (16, 16), True),
    ((22, 26, 1), (344, 403), (16, 16), False),  # transposed
    ((572, 1, 1), (344, 403), (16, 16), True),  # a linear grid: numbers count
    ((4, 5, 1), (20,), (1,), True),
    ((4, 5, 1), (19,), (1,), True),  # the last block owns nothing
    ((4, 5, 1), (21,), (1,), False),
    ((344, 1, 1), (344, 403), (1, 403), True),
    ((2, 3, 4), (4, 3, 2), (1, 1, 1), True),
    ((2, 3, 4), (2, 3, 4), (1, 1, 1), False),
    ((1, 1, 1), (), (), True),
])  # fmt: skip
def test_tiles_and_blocks_have_to_fit(grid, shape, tile, fits):
    candidate = replace(
        with_buffer(1, shape=shape, tile=tile), shards=Blocks(1), steps=(replace(GOOD.launch, grids=(grid,)),)
    )
    if fits:
        validate(candidate)
    else:
        with pytest.raises(TaskRejected, match="tiles"):
            validate(candidate)


@pytest.mark.parametrize(("module", "reason"), REFUSED_MODULES.values(), ids=REFUSED_MODULES)
def test_refuses_modules_by_their_outline(module, reason):
    with pytest.raises(TaskRejected, match=reason):
        scan_module(module)
    with pytest.raises(TaskRejected, match=reason):
        validate(program(module))


@given(st.data())
def test_no_damage_to_a_module_does_more_than_refuse_it(data):
    module = bytearray(copying())
    for _ in range(data.draw(st.integers(1, 4))):
        module[data.draw(st.integers(0, len(module) - 1))] = data.draw(st.integers(0, 255))
    with suppress(TaskRejected):
        scan_module(bytes(module))


LEAVES = st.sampled_from(
    (
        LAUNCH,
        Swap(1, 2),
        replace(LAUNCH, args=(1, 2, LAUNCH.args[2])),
        replace(LAUNCH, args=(Offset(0, 7), 1, LAUNCH.args[2])),
    )
)
STEPS = st.recursive(
    st.lists(LEAVES, min_size=1, max_size=4),
    lambda steps: st.lists(
        st.one_of(
            LEAVES,
            st.builds(lambda n, inner: Repeat(n, tuple(inner)), st.integers(1, 9), steps),
            st.builds(lambda n, inner: Until(3, n, tuple(inner)), st.integers(1, 9), steps),
        ),
        min_size=1,
        max_size=4,
    ),
    max_leaves=12,
)
SETS = Kernel("set", 0, 1, (Parameter("flag", True, "int32", 1, False),), True)


@given(STEPS)
def test_steps_of_any_form_come_back_the_same(steps):
    """All three arrays and the flag are used first, so that whatever follows is a valid program."""
    first = (LAUNCH, replace(LAUNCH, args=(1, 2, LAUNCH.args[2])), Launch(1, ((1, 1, 1),), (1, 1, 1), 0, (3,)))
    program = replace(
        GOOD,
        kernels=(COPY, SETS),
        buffers=(*MANY.buffers[:2], T, FLAG),
        steps=(*first, *steps),
        shards=Blocks(1),
    )
    data = encode_program(program)
    assert decode_program(data) == program
    assert program_id(decode_program(data)) == program_id(program)
    assert 3 <= work(program).steps <= 3 + 4 * 9**8


@given(st.data())
def test_no_damage_to_a_program_does_more_than_refuse_it(data):
    damaged = bytearray(encode_program(data.draw(st.sampled_from(list(SOUND.values())))))
    start = damaged.index(b"copy")  # after the module
    for _ in range(data.draw(st.integers(1, 3))):
        damaged[data.draw(st.integers(start, len(damaged) - 1))] = data.draw(st.integers(0, 255))
    with suppress(TaskRejected):
        memory_bytes(decode_program(damaged))


def test_loops_deeper_than_anything_can_read_are_refused():
    text = encode_program(nested(1))
    loop = text.index(b"\x93\xa6repeat")
    for depth in (500, 5_000, 500_000):
        with pytest.raises(TaskRejected, match=r"nested|malformed"):
            decode_program(text[:loop] + b"\x93\xa6repeat\x01\x91" * depth + text[loop:])


def test_checking_a_program_costs_the_sum_of_its_tasks_and_steps_not_their_product():
    """Counted in calls, which no busy machine changes: 64 operations times 4,096 slices would be over 500,000."""
    table = tuple(range(4097))
    cut = Cut(0, 0, 0, "none", b"")
    a = Buffer("a", "inout", "float32", (4096, 2, 2), (), cut)
    program = replace(
        GOOD,
        units=(),
        kernels=(),
        buffers=(a, replace(a, name="b", role="temp")),
        steps=tuple(Operation("inv", (step % 2,), (1 - step % 2,), ()) for step in range(64)),
        shards=Axis(4096, (table,)),
    )
    data, calls = encode_program(program), 0

    def count(frame, event, argument):
        nonlocal calls
        calls += event == "call"

    sys.setprofile(count)
    try:
        decoded = decode_program(data)
        assert work(decoded).flops
        assert memory_bytes(decoded)
    finally:
        sys.setprofile(None)
    assert calls < 100_000


@given(st.binary(max_size=200))
def test_garbage_is_refused(data):
    with pytest.raises(TaskRejected):
        decode_program(data)


def test_arrays_lie_apart_and_memory_is_known():
    addresses, size = placements(GOOD)
    assert size == memory_bytes(GOOD)
    assert size % 65536 == 0
    end = 2 * 65536
    for address, buffer in zip(addresses, GOOD.buffers, strict=True):
        assert address % 4096 == 0
        assert address - end >= GUARD_BYTES
        end = address + buffer.size_bytes
    assert size - end >= GUARD_BYTES
