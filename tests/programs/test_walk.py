"""Tasks in steps: the first so many, and each one alone, are programs that give what the whole task goes through."""

from itertools import pairwise

import numpy as np
import pytest
from device_programs import N, buffer, halving, load, make, numbers, run_task, saxpy, scalar, smoothing
from msgspec.structs import replace

from depin_node.compute.devices.held import held_input
from depin_node.compute.devices.wasm import WasmDevice
from depin_node.compute.programs import walk
from depin_node.compute.programs.program import Axis, Cut, Launch, Repeat, Scalar, Swap
from depin_node.compute.programs.shards import numpy_dtype
from depin_node.compute.programs.validation import validate
from depin_node.crypto.blob import blob_id


@pytest.fixture(scope="module")
def device():
    return WasmDevice()


def run(device, runnable, whole, arrays, inputs):
    """Run a program of one task; return its outputs by name."""
    validate(runnable.program)
    given = []
    for number, name in sorted(runnable.inputs.items()):
        data = arrays.get(name, None)
        data = walk.first_bytes(whole, inputs, name) if data is None else data
        given.append(np.frombuffer(data, numpy_dtype(runnable.program.buffers[number])))
    results = run_task(load(device, runnable.program, *given), 0)
    return {name: bytes(result) for name, result in zip(runnable.outputs, results, strict=True)}


def states(device, program, task, arrays):
    """Return the task's own program, its inputs, and the bytes of each state, by name."""
    inputs = {
        index: held_input(program, program.buffers[index], task, array).tobytes()
        for index, array in zip(program.inputs, arrays, strict=True)
    }
    whole = walk.of_task(program, task)
    names = walk.state_names(whole)
    found = [{name: bytes(walk.first_bytes(whole, inputs, name)) for name in names}]
    for step in range(1, walk.step_count(whole.steps) + 1):
        found.append(found[0] | run(device, walk.until_step(whole, step), whole, inputs, inputs))
    return whole, inputs, found


def check(device, program, task, *arrays):
    """See that each step leads from a state to the next, and the last one to the result."""
    assert walk.is_walkable(program, task)
    whole, inputs, found = states(device, program, task, arrays)
    assert walk.first_state(whole, inputs) == tuple(map(blob_id, found[0].values()))
    for step in range(walk.step_count(whole.steps)):
        before, after = found[step], found[step + 1]
        ids = tuple(map(blob_id, before.values()))
        then = walk.swapped(whole, step, ids)
        if then is None:
            got = run(device, walk.one_step(whole, step), whole, before | inputs if step == 0 else before, inputs)
            then = walk.after_outputs(whole, ids, {name: blob_id(data) for name, data in got.items()})
        assert then == tuple(map(blob_id, after.values())), step
    results = run_task(load(device, program, *arrays), task)
    for name, result in zip(program.outputs, results, strict=True):
        cut = program.buffers[name].cut
        if cut is None or not cut.halo:
            assert found[-1][name] == bytes(result)
    return found


def test_rounds_between_arrays_that_take_turns(device):
    found = check(device, smoothing(4), 0, numbers())
    assert len(found) == 9
    assert len({tuple(state.values()) for state in found}) == 9  # each step changes something


def test_a_loop_of_unknown_length_is_one_step(device):
    inner = halving().steps[0]
    program = replace(halving(), steps=(inner, inner))
    assert walk.step_count(program.steps) == 2
    check(device, program, 0, np.array([40], "int32"))


@pytest.mark.parametrize("edge", ["none", "wrap"])
@pytest.mark.parametrize("task", [0, 1, 2])
def test_a_slice_is_walked_over_the_rows_that_it_holds(device, edge, task):
    check(device, sliced(edge), task, numbers(60).reshape(12, 5))


def test_a_slice_with_rows_that_are_filled_again_is_not_walked(device):
    assert [walk.is_walkable(sliced("clamp"), task) for task in range(3)] == [False, True, False]
    check(device, sliced("clamp"), 1, numbers(60).reshape(12, 5))


def sliced(edge, rows=12, columns=5, tasks=3):
    """Two rounds of three-row sums between arrays that take turns, by rows."""
    offsets, cut = tuple(range(0, rows + 1, rows // tasks)), Cut(0, 0, 2, edge, b"")
    held = [min(stop + 2, rows) - max(start - 2, 0) if edge == "none" else stop - start + 4
            for start, stop in pairwise(offsets)]  # fmt: skip
    own = Scalar("int32", np.array([count - 2 for count in held], "int32").tobytes())
    step = ("three", tuple((-(-((count - 2) * columns) // 32),) for count in held), (32,), [0, 1, own, scalar(columns)])
    return make(
        [Repeat(2, (step, Swap(0, 1)))],
        buffer("a", "inout", (rows, columns), cut=cut),
        buffer("b", "temp", (rows, columns), cut=cut),
        shards=Axis(tasks, (offsets,)),
    )


def test_steps_are_counted_as_they_are_done():
    a, b, c = (Launch(n, ((1, 1, 1),), (1, 1, 1), 0, ()) for n in range(3))
    steps = (a, Repeat(3, (b, Repeat(2, (c,)))), a)

    def unrolled(steps):
        for step in steps:
            if isinstance(step, Repeat):
                for _ in range(step.count):
                    yield from unrolled(step.steps)
            else:
                yield step

    flat = list(unrolled(steps))
    assert walk.step_count(steps) == len(flat) == 11
    for number in range(len(flat)):
        assert walk.step_at(steps, number) == flat[number]
        assert list(unrolled(walk.first_steps(steps, number))) == flat[:number]
    with pytest.raises(IndexError):
        walk.step_at(steps, len(flat))


def test_one_launch_is_nothing_to_walk():
    assert not walk.is_walkable(saxpy(), 0)
    assert N == 1000


def test_an_exchange_of_arrays_that_nothing_has_written_is_not_walked():
    """What a walk would run is a program of the first steps, or of one: of a swap alone there is none."""
    smooth, swap = smoothing().steps[0].steps

    def first(*steps):
        return replace(smoothing(), steps=steps)

    for program in (first(swap, smooth), first(Repeat(2, (swap, smooth)), smooth), first(Repeat(1, (swap,)), smooth)):
        validate(program)
        assert not walk.is_walkable(program, 0)
    for program in (first(smooth, swap, swap), first(smooth, Repeat(2, (swap, smooth)))):
        assert walk.is_walkable(program, 0)
        for step in range(1, walk.step_count(program.steps) + 1):
            validate(walk.until_step(walk.of_task(program, 0), step).program)
