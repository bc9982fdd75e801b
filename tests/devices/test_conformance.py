"""What every device does with a program, in the same words: the same bits, and a coded error for what goes wrong."""

import numpy as np
import pytest
from device_programs import (
    LIMITS,
    N,
    cut_stencil,
    halving,
    load,
    make,
    numbers,
    one_launch,
    product,
    run_all,
    run_task,
    saxpy,
    scalar,
    smoothing,
)
from device_programs import buffer as array

from depin_node.compute.devices.device import Input, TaskLimits
from depin_node.compute.programs.program import Blocks
from depin_node.core.errors import TaskOutOfMemory, TaskRejected, TaskTrapped

f4 = np.float32


def smoothed(a, rounds):
    for _ in range(rounds):
        left, right = np.concatenate([a[:1], a[:-1]]), np.concatenate([a[1:], a[-1:]])
        a = f4(0.5) * a + f4(0.25) * (left + right)
    return a


@pytest.mark.parametrize("tasks", [1, 3, 16])
def test_blocks_of_a_launch_are_shared_among_tasks(device, tasks):
    (y,) = run_all(device, saxpy(tasks), numbers())
    assert (y == f4(2) * numbers() + f4(1)).all()


def test_a_task_sees_the_whole_grid(device):
    (y,) = run_all(device, one_launch("last_block", tasks=5, dtype="int32"), numbers(dtype="int32"))
    assert (y == numbers(dtype="int32") + 1000 * (16 - np.arange(N) // 64)).all()


def test_an_inout_array_begins_as_its_input_in_every_task(device):
    program = one_launch("add_to", role="inout", tasks=4)
    (y,) = run_all(device, program, numbers(), np.ones(N, f4))
    assert (y == numbers() + f4(1)).all()


def test_shared_memory_begins_as_zeros(device):
    program = make(
        [("reverse", (4,), (64,), [0, 1, scalar(200)], 256)],
        array("x", "in", 200),
        array("y", "out", 200, tile=(64,)),
        shards=Blocks(2),
    )
    (y,) = run_all(device, program, numbers(200))
    padded = np.concatenate([numbers(200), np.zeros(56, f4)]).reshape(4, 64)[:, ::-1].reshape(-1)[:200]
    assert (y == padded).all()


def test_integer_atomics_add_up(device):
    x = numbers(dtype="int32")
    program = make(
        [("histogram", (16,), (64,), [0, 1, scalar(N)])], array("x", "in", N, "int32"), array("c", "out", 16, "int32")
    )
    (counts,) = run_all(device, program, x)
    assert (counts == np.bincount(x & 15, minlength=16)).all()


@pytest.mark.parametrize("rounds", [1, 4, 5])
def test_steps_repeat_and_arrays_take_turns(device, rounds):
    (a,) = run_all(device, smoothing(rounds), numbers())
    assert a.tobytes() == smoothed(numbers(), rounds).tobytes()


def test_steps_go_on_until_a_number_says_so(device):
    value, rounds = run_all(device, halving(), np.array([1000], np.int32))
    assert (value[0], rounds[0]) == (0, 10)


@pytest.mark.parametrize("edge", ["clamp", "wrap", "reflect", "constant"])
def test_arrays_are_cut_by_rows_with_a_halo(device, edge):
    x = numbers(70).reshape(10, 7)
    mode = {"clamp": "edge", "wrap": "wrap", "reflect": "reflect", "constant": "constant"}[edge]
    more = {"constant_values": 7} if edge == "constant" else {}
    padded = np.pad(x, ((1, 1), (0, 0)), mode, **more)
    (y,) = run_all(device, cut_stencil(edge), x)
    assert (y == padded[:-2] + padded[1:-1] + padded[2:]).all()


def test_the_library_multiplies_matrices(device):
    a, b = numbers(20).reshape(4, 5), numbers(15).reshape(5, 3)
    (c,) = run_all(device, product(), a, b)
    np.testing.assert_allclose(c, a @ b, rtol=1e-5)


def test_nans_are_canonical(device):
    (y,) = run_all(device, one_launch("nans"), numbers())
    assert set(y.view(np.uint32).tolist()) == {0x7FC00000}


@pytest.mark.parametrize("role", ["out", "inout"])
def test_a_task_that_writes_outside_its_tiles_fails(device, role):
    program = one_launch("spread", role=role, tasks=4)
    given = [numbers()] if role == "out" else [numbers(), np.zeros(N, f4)]
    with pytest.raises(TaskTrapped, match="wrote to y outside the tiles"):
        run_task(load(device, program, *given), 1)


@pytest.mark.parametrize("name", ["beside", "beyond"])
def test_a_task_that_writes_between_arrays_fails_and_the_next_one_does_not(device, name):
    loaded = load(device, one_launch(name, tasks=4), numbers())
    with pytest.raises(TaskTrapped, match="between its arrays"):
        run_task(loaded, 3)
    assert (np.frombuffer(run_task(loaded, 0)[0], f4) == numbers()[:256]).all()


@pytest.mark.parametrize(("name", "dtype"), [("far", "float32"), ("divide", "int32")])
def test_a_kernel_that_breaks_off_is_trapped(device, name, dtype):
    loaded = load(device, one_launch(name, dtype=dtype), numbers(dtype=dtype))
    with pytest.raises(TaskTrapped):
        run_task(loaded, 0)


def test_every_task_begins_with_zeros(device):
    """Whatever the task before it left: an ``out`` array is added to here."""
    program = make(
        [("add_to", (16,), (64,), [0, 1, scalar(N)])],
        array("x", "in", N),
        array("y", "out", N, tile=(64,)),
        shards=Blocks(2),
    )
    loaded = load(device, program, numbers())
    for _ in range(3):
        assert (np.frombuffer(run_task(loaded, 0)[0], f4) == numbers()[:512]).all()


def test_what_does_not_fit_is_out_of_memory(device):
    with pytest.raises(TaskOutOfMemory):
        load(device, saxpy(), numbers(), limits=TaskLimits(10.0, 4096))


def test_inputs_have_their_size(device):
    with pytest.raises(TaskRejected, match="does not have its 4000 bytes"):
        device.load(saxpy(), {0: Input(memoryview(b"short"))}, LIMITS)
