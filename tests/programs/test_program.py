from contextlib import suppress

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from wat_programs import REFUSED_MODULES, copying, program

from depin_node.compute.programs.memory import GUARD_BYTES, memory_bytes, placements
from depin_node.compute.programs.module import scan_module
from depin_node.compute.programs.program import (
    Blocks,
    Buffer,
    Kernel,
    Launch,
    Parameter,
    Program,
    Scalar,
    Unit,
    encode_program,
    program_id,
)
from depin_node.compute.programs.validation import decode_program, validate
from depin_node.core.errors import TaskRejected
from depin_node.crypto.blob import blob_id

GOOD = program(scalars=(Scalar("float32", b"\0\0\x80?"),))
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


@pytest.mark.parametrize(("bad", "reason"), BAD.values(), ids=BAD)
def test_refuses(bad, reason):
    with pytest.raises(TaskRejected, match=reason):
        validate(bad)
    with pytest.raises(TaskRejected, match=reason):
        decode_program(encode_program(bad))


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
