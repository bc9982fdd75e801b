"""benchmarks/wild.py counts the kernels of a small suite rightly: a wrong cut would make its share worthless."""

import json
import subprocess
import sys
from pathlib import Path

TOOL = Path(__file__).parents[2] / "benchmarks" / "wild.py"

MAIN_CU = r"""#include <iostream>
#include <vector>
#include "real.h"
#include <helper_cuda.h>
#define GLOBAL __global__ void
#ifdef STRIDE
int main() {
#else
int main(int argc, char** argv) {
#endif
  std::vector<Real> host(WIDTH);
  const int TILE = 8;
  char brace = '{'; // {
  const char* text = "} __global__ void not_one(int* p) {";
  launched<Real, Doubled, TILE><<<1, WIDTH>>>(host.data());
  return 0;
}
struct Doubled { __device__ Real operator()(Real x) const { return x * 2; } };
static __device__ Real operator+(const float2& a, int b) { return a.x + a.y + b; }

template <typename T, class Op, int N = 4>
__global__ void __launch_bounds__(WIDTH) launched(T* p) { __shared__ T tile[N]; tile[0] = Op()(p[0]); p[1] = tile[0]; }
template <class T> __global__ void deduced(T* p) { p[threadIdx.x] = std::numeric_limits<T>::max(); }
namespace outer { namespace {
template <bool up, typename T> GLOBAL guessed(T* p) { if (up) p[0] += make_float2(1, 2) + 3; }
} }  // namespace
extern "C" {
__global__ void plain(Real* p, int n) { if (n > STRIDE) p[n] = WIDTH; }
__global__ void declared_only(int* p);
}
__global__ void refused(int* p) { p[0] = clock(); }
std::ostream& operator<<(std::ostream& out, const Doubled& d) { return out << WIDTH; }
"""
PYTHON = """
import cupy
code = 'extern "C" __global__ void k(float* x) { x[0] = 1; }'
k = cupy.RawKernel(code, "k")
square = cupy.ElementwiseKernel("T x", "T y", "y = x * x", "square")
other = cupy.ElementwiseKernel("T x", "T y", "y = nobody_knows(x)", "other")
"""


def test_all_kernels_of_a_suite_are_counted_once_with_their_reasons(tmp_path):
    suite = tmp_path / "suite"
    (suite / "common").mkdir(parents=True)
    (suite / "program").mkdir()
    (suite / "common" / "real.h").write_text("#pragma once\ntypedef float Real;\n#define WIDTH 32\n")
    (suite / "program" / "Makefile").write_text("NVCC = nvcc -O3 -DSTRIDE=3 -I../common\n")
    (suite / "program" / "main.cu").write_text(MAIN_CU)
    (suite / "program" / "again.cu").write_text('#include "main.cu"\n')
    (suite / "kernels.py").write_text(PYTHON)
    run = subprocess.run(
        [sys.executable, TOOL, "--json", "--jobs", "1", suite], capture_output=True, text=True, check=True, timeout=100
    )
    *lines, sums = map(json.loads, run.stdout.splitlines())
    assert {(line["kernel"], line["kind"]) for line in lines} == {
        ("launched", "translated"),
        ("deduced", "translated"),
        ("outer::guessed", "translated"),
        ("plain", "translated"),
        ("refused", "refused"),
        ("RawKernel 0", "translated"),
        ("ElementwiseKernel 1", "translated"),
        ("ElementwiseKernel 2", "refused"),
    }, run.stderr
    reasons = {line["kernel"]: line["reason"] for line in lines if line["reason"]}
    assert reasons["refused"].startswith("clock is not supported: ")
    assert "nobody_knows" in reasons["ElementwiseKernel 2"]
    assert sums == {
        "kernels": 8, "translated": 6, "refused": 2, "failed": 0,
        "translated_share": 0.75, "suite_share": 0.75, "suite_kernels": 8,
    }  # fmt: skip
