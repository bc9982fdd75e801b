"""What is decided about a piece of work before it is sent."""

import numpy as np
import pytest

from depin_node.client.work import prepare_launch
from depin_node.compute.jobs.job import Quorum, Tolerance
from depin_node.compute.programs.kernel import Out, RawKernel

TRAPS = 'extern "C" __global__ void k(const int* x, int* out) { if (!*x) __trap(); out[threadIdx.x] = *x; }'


@pytest.fixture(autouse=True)
def _cache(tmp_path, monkeypatch):
    monkeypatch.setenv("DEPIN_CACHE_DIR", str(tmp_path))


def prepare(x, **options):
    return prepare_launch(RawKernel(TRAPS, "k"), 1, 64, [x, Out("int32", 64)], **options)


def test_a_program_that_cannot_be_tried_is_compared_only_where_the_device_fixes_its_bits():
    zeros, ones = np.zeros(64, np.int32), np.ones(64, np.int32)
    work = prepare(zeros)  # traps: not tried
    assert work.bound.program.exact
    assert "not tried whether its bits are defined: the kernel trapped" in work.notes[0]
    compared = prepare(zeros, device_class="strict-1")
    assert compared.tolerances == (Tolerance(0.0, 0.0),)
    assert "compared as numbers (not tried" in compared.notes[-1]
    alone = prepare(zeros, device_class="strict-1", verify=Quorum(1, 1))
    assert not alone.bound.program.exact
    tried = prepare(ones, device_class="strict-1")
    assert tried.bound.program.exact
    assert tried.notes == ()
    assert prepare(zeros, device_class="strict-1").bound.program.exact  # found out, and kept with the module
