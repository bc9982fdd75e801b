"""The GPU device over an interpreted driver: ranges, faults, classes, refusals. Hardware is not shown by it."""

import re

import numpy as np
import pytest
from device_programs import N, load, make, numbers, run_all, run_task, saxpy, scalar, unit
from device_programs import buffer as array
from msgspec.structs import replace
from ptx_driver import PtxDriver

from depin_node.compute.devices.device import TaskLimits
from depin_node.compute.devices.gpu import answering, known_answers, nvrtc
from depin_node.compute.devices.gpu.cuda import CudaDevice
from depin_node.compute.devices.gpu.driver import DriverError
from depin_node.compute.programs.program import Unit
from depin_node.core.errors import (
    ResourceError,
    TaskCrashed,
    TaskOutOfMemory,
    TaskRejected,
    TaskTimedOut,
    TaskTrapped,
)


@pytest.fixture
def gpu(compile_text):
    return CudaDevice(PtxDriver(), compile_text)


def kernel_ranges(gpu):
    return [blocks for name, blocks in gpu.driver.launches if name == "run0"]


def test_a_launch_is_cut_into_ranges_that_grow(gpu):
    gpu.pacer.first = 2
    (y,) = run_all(gpu, saxpy(1), numbers())
    assert (y == np.float32(2) * numbers() + np.float32(1)).all()
    assert kernel_ranges(gpu) == [2, 14]


def test_the_deadline_counts_between_two_ranges(gpu):
    gpu.pacer.first = 2
    loaded = load(gpu, saxpy(1), numbers())
    with pytest.raises(TaskTimedOut, match=r"within 1e-09 s"):
        run_task(loaded, 0, TaskLimits(1e-9, 1 << 30))
    assert sum(kernel_ranges(gpu)) < 16
    assert not loaded.is_spent
    run_task(loaded, 0)


def failing(call, number, status, name):
    def fail(called, count):
        if (called, count) == (call, number):
            raise DriverError(status, name)

    return fail


@pytest.mark.parametrize(
    ("call", "status", "error", "spent"),
    [
        ("upload", 2, TaskOutOfMemory, False),
        ("launch", 701, TaskTrapped, False),
        ("wait", 700, TaskTrapped, True),
        ("wait", 719, TaskTrapped, True),
        ("wait", 702, TaskTimedOut, True),
        ("download", 214, TaskCrashed, True),
        ("wait", 999, TaskCrashed, True),
    ],
)
def test_what_the_driver_reports_becomes_the_tasks_error(gpu, call, status, error, spent):
    loaded = load(gpu, saxpy(1), numbers())
    gpu.driver.fail = failing(call, gpu.driver.calls.count(call) + 1, status, "CUDA_ERROR_X")
    with pytest.raises(error) as caught:
        run_task(loaded, 0)
    assert type(caught.value) is error
    assert loaded.is_spent == spent
    if not spent:
        run_task(loaded, 0)


def test_memory_that_is_not_to_be_had_is_told_at_the_load(compile_text):
    with pytest.raises(TaskOutOfMemory, match="no memory left"):
        load(CudaDevice(PtxDriver(4096), compile_text), saxpy(1), numbers())


def test_a_program_without_cuda_text_is_refused(gpu):
    program = replace(saxpy(1), units=(Unit(unit().module, ""),))
    with pytest.raises(TaskRejected, match="no CUDA text"):
        load(gpu, program, numbers())


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda text: '#include "/etc/passwd"\n' + text, "not in the language"),
        (lambda text: text.replace("run0(", "run99("), "run0 takes parameters of None"),
        (lambda text: re.sub(r"(run0\(.*shared_mem, )f32", r"\1f64", text), "takes parameters of"),
        (lambda text: "", "no CUDA text"),
    ],
)
def test_a_text_that_is_not_the_programs_is_refused(gpu, change, reason):
    program = replace(saxpy(1), units=(Unit(unit().module, change(unit().cuda)),))
    with pytest.raises(TaskRejected, match=reason):
        load(gpu, program, numbers())


def test_a_kernel_that_says_it_is_exact_and_is_not_is_refused(gpu):
    """The verdict travels; PTX shows when it is a lie. Other kernels of its unit are as exact as they are."""
    program = make([("sum_all", (16,), (64,), [0, 1, scalar(N)])], array("x", "in", N), array("y", "out", 1))
    assert not program.exact
    (y,) = run_all(gpu, program, numbers())
    assert y[0] == pytest.approx(numbers().sum())
    lie = replace(program, kernels=(replace(program.kernels[0], exact=True),))
    with pytest.raises(TaskRejected, match=r"sum_all would not give the same bits here: .*add\.f32"):
        load(gpu, lie, numbers())


def test_all_known_answers_right_is_strict(gpu):
    assert gpu.device_class == "strict-1"


def test_one_wrong_answer_is_a_class_of_its_own(gpu, monkeypatch):
    right = known_answers.known_answers()
    wrong = replace(right, cases=(right.cases[0], replace(right.cases[1], digest="00" * 32)))
    monkeypatch.setattr(known_answers, "known_answers", lambda: wrong)
    assert answering.wrong_answers(gpu.driver, gpu.compile) == [1]
    version = ".".join(map(str, nvrtc.version()))
    assert gpu.device_class.startswith(f"cuda:sm_75:nvrtc-{version}:")
    assert len(gpu.device_class) <= 64


def test_a_kernel_of_two_block_sizes_is_compiled_for_the_larger(gpu):
    sizes = []
    compile_text = gpu.compile
    gpu.compile = lambda text, options: sizes.append(text.partition("\n")[0]) or compile_text(text, options)
    program = make(
        [
            ("saxpy", (16,), (64,), [scalar(2, "float32"), 0, 1, scalar(N)]),
            ("saxpy", (4,), (256,), [scalar(2, "float32"), 0, 1, scalar(N)]),
        ],
        array("x", "in", N),
        array("y", "out", N),
    )
    run_all(gpu, program, numbers())
    assert sizes == ["#define DEPIN_THREADS 256"]


def test_without_a_gpu_the_worker_says_why(monkeypatch):
    pytest.importorskip("cupy", reason="CuPy is not installed")
    from depin_node.compute.devices.gpu.cupy import VISIBLE, CupyDevice, CupyDriver
    from depin_node.compute.devices.gpu.nvidia import find_gpus

    if find_gpus().gpus:
        pytest.skip("there is a GPU here")
    monkeypatch.setenv(VISIBLE, "GPU-1")
    with pytest.raises(ResourceError, match="there is no GPU GPU-1: no NVIDIA driver"):
        CupyDevice()
    with pytest.raises(ResourceError, match="no GPU can be used here"):
        CupyDriver()
