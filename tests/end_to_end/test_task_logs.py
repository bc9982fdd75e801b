"""What kernels print on a provider, as the user of the requester sees it."""

import numpy as np
import pytest

from depin_node.client import Mesh, Out, RawKernel, quorum

pytestmark = pytest.mark.net
WAIT_S = 120
SOURCE = r"""
extern "C" __global__ void talk(float* y) {
    if (threadIdx.x == 0 && blockIdx.x < 2) printf("\x1b[31mblock %d of %d\n", blockIdx.x, gridDim.x);
    if (blockIdx.x == 2) printf("sixty-four bytes of a line that each of these threads writes: %3d\n", threadIdx.x);
    y[blockIdx.x * 64 + threadIdx.x] = threadIdx.x;
}
"""


def test_what_tasks_print_comes_back_and_is_shown_harmless(nodes, tmp_path, monkeypatch):
    monkeypatch.setenv("DEPIN_CACHE_DIR", str(tmp_path / "cache"))
    first, *_ = nodes.mesh(2)
    with Mesh(first.data_dir) as mesh:
        kernel = RawKernel(SOURCE, "talk")
        job = mesh.launch(kernel, 4, 64, (Out("float32", 256, (64,)),), shards=4, verify=quorum(2, 2))
        np.testing.assert_array_equal(job.result(WAIT_S), np.tile(np.arange(64, dtype="float32"), 4))
        zero, one, two = job.logs().tasks
        assert (zero.task, zero.text, zero.cut) == (0, "\\x1b[31mblock 0 of 4\n", False)
        assert job.log(1) == one.text == "\\x1b[31mblock 1 of 4\n"
        assert (two.task, len(two.text), two.cut) == (2, 4096, True)
        assert job.log(3) == ""
    shown = first.run("job", "log", job.job_id[:12]).stdout.splitlines()
    assert shown[:2] == ["task 0: \\x1b[31mblock 0 of 4", "task 1: \\x1b[31mblock 1 of 4"]
    assert shown[-1] == "task 2: (cut here: no more is kept of one task)"
    assert first.json("job", "log", job.job_id, "--task", 1) == {
        "tasks": [{"task": 1, "text": "\\x1b[31mblock 1 of 4\n", "cut": False}], "full": False,
    }  # fmt: skip
    assert first.run("job", "log", job.job_id, "--task", 3).stdout == "nothing was printed\n"
    beyond = first.run("job", "log", job.job_id, "--task", 4)
    assert beyond.returncode == 2
    assert "has the tasks 0 to 3, and no task 4" in beyond.stderr
