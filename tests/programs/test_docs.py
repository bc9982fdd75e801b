"""The examples of docs/programs.md, as they stand there."""

import re
from pathlib import Path

import numpy as np
import pytest
from program_host import ProgramHost

from depin_node.compute.programs.combine import tree
from depin_node.compute.programs.jobfile import load_job

PAGE = (Path(__file__).parent.parent.parent / "docs" / "programs.md").read_text()
POWER = """
extern "C" __global__ void multiply(const double* m, const double* x, double* y, int n) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < n) for (int j = 0; j < n; ++j) y[i] = (j ? y[i] : 0) + m[i * n + j] * x[j];
}
extern "C" __global__ void scale(double* x, const double* y, int* done, int n, double tolerance) {
    double square = 0, change = 0;
    for (int i = 0; i < n; ++i) square += y[i] * y[i];
    for (int i = 0; i < n; ++i) {
        double next = y[i] / sqrt(square);
        change = fmax(change, fabs(next - x[i]));
        x[i] = next;
    }
    done[0] = change < tolerance;
}
"""
SUMS = """
extern "C" __global__ void sums(const float* x, float* s, int rows, int cols) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < rows) for (int j = 0; j < cols; ++j) s[i] += x[i * cols + j];
}
"""


def examples(language):
    return re.findall(rf"```{language}\n(.*?)```", PAGE, re.DOTALL)


@pytest.fixture(scope="module")
def host():
    return ProgramHost()


def diffused(u, times):
    for _ in range(times):
        padded = np.pad(u, ((1, 1), (0, 0)), "edge")
        u = (padded[:-2] + 2 * u + padded[2:]) / 4
    return u


def test_python(host):
    names = {}
    several, sliced, partial, references = examples("python")
    exec(several, names)
    found = host.run(names["steps"].build())["u"]
    np.testing.assert_allclose(found, diffused(names["start"], 100), 1e-5)
    exec(sliced, names)
    found = host.run(names["steps"].build())["u"]
    np.testing.assert_allclose(found, diffused(names["start"], 10), 1e-5)
    exec(partial, names)
    bound = names["counting"].build()
    counts = host.run(type(bound)(tree(bound.program), {0: host.run(bound)["counts"]}))["counts"][0]
    np.testing.assert_array_equal(counts, np.bincount(names["data"], minlength=256))
    compile(references, "programs.md", "exec")  # end_to_end/test_programs.py runs it


def test_job_files(host, tmp_path):
    single, several = examples("toml")
    generator = np.random.default_rng(3)
    x, m = generator.random((150, 9), dtype="float32"), generator.random((70, 70))
    for name, array in {"x": x, "m": m, "start": np.ones(70)}.items():
        np.save(tmp_path / f"{name}.npy", array)
    (tmp_path / "power.cu").write_text(POWER)
    (tmp_path / "sums.cu").write_text(SUMS)
    (tmp_path / "single.toml").write_text(single)
    (tmp_path / "several.toml").write_text(several)
    np.testing.assert_allclose(host.run(load_job(tmp_path / "single.toml").bind())["s"], x.sum(1), 1e-5)
    found = host.run(load_job(tmp_path / "several.toml").bind())["x"]
    values, vectors = np.linalg.eig(m)
    expected = vectors[:, np.argmax(abs(values))].real
    np.testing.assert_allclose(found, abs(expected), 1e-9)
