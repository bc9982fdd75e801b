"""Programs of several steps on a real mesh: slices, partial results, outputs that feed the next job where they are."""

import re
from pathlib import Path

import numpy as np
import pytest

from depin_node.client import Along, Mesh, Out, ProgramBuilder, RawKernel, quorum
from depin_node.core.errors import ConfigError, NotFoundError

pytestmark = pytest.mark.net
WAIT_S = 120
SOURCE = """
extern "C" __global__ void smooth(const float* u, float* v, int rows, int cols) {
    int x = blockIdx.x * blockDim.x + threadIdx.x, y = blockIdx.y;
    if (x < cols && y > 0 && y < rows - 1)
        v[y * cols + x] = (u[(y - 1) * cols + x] + 2 * u[y * cols + x] + u[(y + 1) * cols + x]) / 4;
}
extern "C" __global__ void sums(const float* u, float* s, int rows, int cols) {
    int x = blockIdx.x * blockDim.x + threadIdx.x;
    if (x < cols) for (int y = 0; y < rows; ++y) s[x] += u[y * cols + x];
}
extern "C" __global__ void turn(const float* u, float* t, int rows, int cols) {
    int x = threadIdx.x;
    if (x < cols) for (int y = 0; y < rows; ++y) t[x * rows + y] = u[y * cols + x];
}
"""
U = np.random.default_rng(5).random((40, 30), dtype="float32")


def smoothed(u, times):
    for _ in range(times):
        padded = np.pad(u, ((1, 1), (0, 0)), "edge")
        u = (padded[:-2] + 2 * u + padded[2:]) / 4
    return u


def smoothing(initial):
    steps = ProgramBuilder(shards=4, along=Along(0, halo=6, edge="clamp"))
    u, v = steps.inout("u", initial), steps.temp("v", "float32", U.shape)
    rows = steps.shard.rows + 12
    with steps.repeat(6):
        steps.launch(RawKernel(SOURCE, "smooth"), (1, rows), 32, (u, v, rows, 30), radius=1)
        steps.swap(u, v)
    return steps


def column_sums(array):
    steps = ProgramBuilder(shards=5, along=Along(0))
    u, s = steps.input("u", array), steps.partial("s", "float32", 30)
    steps.launch(RawKernel(SOURCE, "sums"), 1, 32, (u, s, steps.shard.rows, 30))
    steps.combine("sum")
    return steps


JOB = """
name = "turn"
[kernels.turn]
file = "turn.cu"
[arrays]
u = { in = "job:%s:u" }
t = { out = "float32", shape = ["u.shape[1]", "u.shape[0]"] }
[numbers]
rows = "u.shape[0]"
[[steps]]
launch = "turn"
grid = 1
block = 32
args = ["u", "t", "rows", "u.shape[1]"]
[verify]
k = 1
n = 1
"""


def test_results_stay_where_they_are_until_they_are_wanted(nodes, tmp_path, monkeypatch):
    monkeypatch.setenv("DEPIN_CACHE_DIR", str(tmp_path / "cache"))
    first, *_ = nodes.mesh(2)
    with Mesh(first.data_dir) as mesh:
        put = mesh.put(U)
        np.testing.assert_array_equal(mesh.get(put), U)
        smooth = mesh.run(smoothing(put), verify=quorum(2, 2), name="smooth")
        middle = smooth.ref("u", WAIT_S)
        assert (middle.dtype, middle.shape) == ("float32", U.shape)
        total = mesh.run(column_sums(middle), verify=quorum(2, 2))
        expected = smoothed(U, 6)
        np.testing.assert_allclose(mesh.get(middle), expected, 1e-6)
        np.testing.assert_array_equal(smooth.result(WAIT_S), mesh.get(middle))
        np.testing.assert_allclose(total.result(WAIT_S), expected.sum(0), 1e-5)
        assert (smooth.status().tasks_total, total.status().tasks_total) == (4, 5)
        np.testing.assert_array_equal(mesh.get(total.ref()), total.result())
        assert mesh.future(total.job_id).result().shape == (30,)  # from the node alone

        (tmp_path / "turn.cu").write_text(SOURCE)
        (tmp_path / "turn.toml").write_text(JOB % smooth.job_id[:16])
        turned = mesh.submit_file(tmp_path / "turn.toml")
        np.testing.assert_array_equal(turned.result(WAIT_S), mesh.get(middle).T)

        tiles = mesh.launch(  # tiles of two axes: the node has to put them together
            RawKernel('extern "C" __global__ void f(float* y) { y[blockIdx.y * 4 + blockIdx.x] = blockIdx.x; }', "f"),
            (4, 3), 1, (Out("float32", (3, 4), (1, 1)),), shards=5, verify=quorum(1, 1),
        )  # fmt: skip
        np.testing.assert_array_equal(mesh.get(tiles.ref("y", WAIT_S)), np.tile(np.arange(4, dtype="float32"), (3, 1)))

        page = (Path(__file__).parent.parent.parent / "docs" / "programs.md").read_text()
        blocks = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
        documented = {}
        exec(blocks[0] + blocks[3], documented)
        assert documented["chain"](mesh).shape == (60, 50)

        with pytest.raises(ConfigError, match="no output 'w'; it has: u"):
            smooth.ref("w")
        with pytest.raises(NotFoundError, match="no longer"):
            mesh.get(type(put)(bytes(32), "float32", (1,)))
