"""What is decided about a piece of work before it is sent."""

import numpy as np
import pytest

from depin_node.client import ElementwiseKernel, Limits, RawModule, ReductionKernel, confidence, local
from depin_node.client.work import prepare_launch
from depin_node.compute.jobs.job import Quorum, Tolerance
from depin_node.compute.programs.kernel import Out, RawKernel
from depin_node.core.errors import ConfigError

TRAPS = 'extern "C" __global__ void k(const int* x, int* out) { if (!*x) __trap(); out[threadIdx.x] = *x; }'


@pytest.fixture(autouse=True)
def _cache(tmp_path, monkeypatch):
    monkeypatch.setenv("DEPIN_CACHE_DIR", str(tmp_path))


def prepare(x, **options):
    return prepare_launch(RawKernel(TRAPS, "k"), 1, 64, [x, Out("int32", 64)], **options)


def test_a_program_that_cannot_be_tried_is_compared_only_where_the_device_fixes_its_bits():
    zeros, ones = np.zeros(64, np.int32), np.ones(64, np.int32)
    compared = prepare(zeros, device_class="strict-1")
    assert "not tried whether its bits are defined: the kernel trapped" in compared.notes[0]
    assert compared.tolerances == (Tolerance(0.0, 0.0),)
    assert "compared as numbers (not tried" in compared.notes[-1]
    alone = prepare(zeros, device_class="strict-1", verify=Quorum(1, 1))
    assert not alone.bound.program.exact
    tried = prepare(ones, device_class="strict-1")
    assert tried.bound.program.exact
    assert tried.notes == ()
    assert prepare(zeros, device_class="strict-1").bound.program.exact  # found out, and kept with the module


def test_what_would_fail_with_every_provider_is_not_sent():
    with pytest.raises(ConfigError, match=r"^k: task 0 fails: the kernel trapped.*, here and so with any lender: mend"):
        prepare(np.zeros(64, np.int32))
    elsewhere = 'extern "C" __global__ void k(int* out) { out[threadIdx.x + 32 & 63] = 1; }'
    out = Out("int32", 64, tile=32)
    with pytest.raises(
        ConfigError, match="task 0 fails: the kernel wrote to out outside the tiles of its blocks, here"
    ):
        prepare_launch(RawKernel(elsewhere, "k"), 2, 32, [out], shards=2)


@pytest.mark.parametrize(
    ("kernel", "args"),
    [
        (RawKernel(TRAPS, "k"), "grid, block, args"),
        (RawModule(code=TRAPS).get_function("k"), "grid, block, args"),
        (ElementwiseKernel("T x", "T y", "y = x"), "args=(…)"),
        (ReductionKernel("T x", "T y", "x", "a + b", "y = a", 0), "args=(…)"),
    ],
    ids=lambda value: type(value).__name__ if not isinstance(value, str) else "",
)
def test_a_kernel_that_is_called_as_in_cupy_says_what_to_write(kernel, args):
    with pytest.raises(ConfigError) as caught:
        kernel((1,), (64,), (np.zeros(64, np.int32),), shared_mem=0)
    assert f"mesh.launch(kernel, {args}), or depin_node.client.local.launch(kernel, {args})" in str(caught.value)


@pytest.mark.parametrize(("option", "hint"), [("shard", "; did you mean 'shards'?"), ("local", "")])
def test_an_unknown_option_of_a_local_launch_is_named(option, hint):
    with pytest.raises(ConfigError) as caught:
        local.launch(RawKernel(TRAPS, "k"), 1, 64, [], **{option: 3})
    assert str(caught.value) == f"launch has no option '{option}'{hint}"


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"verify": "quorum"}, "verify: give quorum(k, n), lead(d), confidence(p, f) or algebraic(), not 'quorum'"),
        ({"verify": None}, "verify: give quorum(k, n), lead(d), confidence(p, f) or algebraic(), not None"),
        ({"verify": (2, 3)}, "verify: give quorum(k, n), lead(d), confidence(p, f) or algebraic(), not (2, 3)"),
        ({"verify": confidence(99.9, 0.2)}, "verify: p: Expected `float` <= 0.999999; it is 99.9"),
        ({"limits": {"seconds": 5}}, "limits: give Limits(seconds, memory_mib), not {'seconds': 5}"),
        ({"limits": Limits(0.5, 64)}, "limits: seconds: Expected `int`, got `float`; it is 0.5"),
        ({"tolerance": 0.1}, "tolerance: give Tolerance(relative, absolute), not 0.1"),
        ({"shards": 2.5}, "shards = 2.5: expected a positive integer"),
        ({"shards": "4"}, "shards = '4': expected a positive integer"),
    ],
    ids=str,
)
def test_a_setting_that_no_job_can_have_is_named(options, says):
    x = np.zeros((8, 8), np.int32)
    reduction = ReductionKernel("T x", "T y", "x", "a + b", "y = a", 0)
    for kernel, axis in ((ElementwiseKernel("T x", "T y", "y = x"), None), (reduction, 1)):
        with pytest.raises(ConfigError) as caught:
            prepare_launch(kernel, args=[x], axis=axis, **options)
        assert str(caught.value) == says


def test_limits_have_the_defaults_of_a_job_file_and_no_others():
    assert (Limits(), Limits(memory_mib=64)) == (Limits(60, 512), Limits(60, 64))
    with pytest.raises(
        ConfigError, match=r"no 'memory_mb'; did you mean 'memory_mib'.; it takes seconds and memory_mib"
    ):
        Limits(memory_mb=64)
    with pytest.raises(ConfigError, match=r"no 'deadline_s'; it takes .* are arguments of launch"):
        Limits(deadline_s=64)


def test_what_is_run_is_a_program_and_a_kernel_is_launched():
    with pytest.raises(ConfigError, match=r"run takes a ProgramBuilder, .*not RawKernel; a kernel is launched"):
        local.run(RawKernel(TRAPS, "k"))
