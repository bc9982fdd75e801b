"""Makes ``compute/devices/gpu/known_answers.json``: ``python tests/support/make_known_answers.py``.

To be run when a bit changes on purpose (a better function in the maths header) or a function is added; the test that
checks the set says so. The answers are those of WebAssembly.
"""

import re
from pathlib import Path

import msgspec
from kernel_host import Host

from depin_node.compute.devices.gpu import known_answers
from depin_node.compute.devices.gpu.known_answers import (
    Array,
    Case,
    KnownAnswers,
    Parameter,
    Value,
    digest,
    make_argument,
)
from depin_node.compute.translate import compile_unit, frontend

N = 512
SURFACE = (Path(frontend.__file__).with_name("headers") / "surface.h").read_text()
ONE = [*re.findall(r"\bMATHS1_\((\w{2,})\)", SURFACE), "j0", "j1", "y0", "y1"]
TWO = re.findall(r"\bMATHS2_\((\w{2,})\)", SURFACE)
"""All functions of one and two floats that a kernel may call."""
FAST = "__expf __exp10f __logf __log2f __log10f __sinf __cosf __tanf __saturatef __frcp_rn __fsqrt_rn __frsqrt_rn"
INTEGER_TYPES = {"i": "int", "u": "unsigned int", "l": "long long", "v": "unsigned long long"}


def kernel(name: str, parameters: str, results: list[str], before: str = "", output: str = "o") -> str:
    """Return a kernel that stores each result in a row of its own; there is a thread for each element."""
    stores = "".join(f"  {output}[{row} * n + i] = {result};\n" for row, result in enumerate(results))
    head = (
        f'extern "C" __global__ void {name}({parameters}, int n) {{\n  int i = blockIdx.x * blockDim.x + threadIdx.x;\n'
    )
    return f"{head}{before}{stores}}}\n"


def arithmetic(t: str, suffix: str, intrinsic: str) -> list[str]:
    """Return what every strict float instruction is made of."""
    f = {"float": "f", "double": ""}[t]
    return [
        *("a + b", "a - b", "a * b", "a / b", f"sqrt{f}(a)", f"fma{f}(a, b, c)", "-a + c", f"fabs{f}(a) * b"),
        *(f"1.0{suffix} / a", "a > b ? a : b", "a < b ? a : b", "a >= b ? c : a", "a <= b ? c : b", "a == b ? c : a"),
        *("a != b ? c : b", "!(a < b) ? a : c", "!(a >= b) ? b : c", f"a * b + c * 3.0{suffix}", "a * a - b * b"),
        f"copysign{f}(2.0{suffix}, (a - a) / (b - b))",
        *(f"__{intrinsic}add_rn(a, b)", f"__{intrinsic}mul_rn(a, c)", f"__{intrinsic}div_rn(b, c)"),
        *(f"ldexp{f}(a, i - 256)", f"copysign{f}(a, i & 1 ? 1.0{suffix} : -1.0{suffix}) + 0"),
        *(f"a > 0 && b < 0 ? 1.0{suffix} : 2.0{suffix}", "isnan(a) + 2 * isinf(b) + 4 * isfinite(c) + 8 * signbit(a)"),
    ]


def others(t: str, intrinsic: str) -> tuple[str, list[str]]:
    """Return the functions of other shapes: statements that come first, and rows."""
    f, i = {"float": "f", "double": ""}[t], intrinsic
    before = f"  {t} c = x[(i * 7 + 3) % n], s1, c1, s2, c2, whole; int q, e;\n"
    before += f"  sincos{f}(a, &s1, &c1); sincospi{f}(a, &s2, &c2);\n"
    before += f"  {t} r = remquo{f}(a, b, &q), m = frexp{f}(a, &e), part = modf{f}(b, &whole);\n"
    rows = ["s1", "c1", "s2", "c2", "whole", "q", "e", "r", "m", "part", f"ilogb{f}(a)", f"jn{f}(3, a)", f"yn{f}(2, b)"]
    rows += [f"norm3d{f}(a, b, c)", f"rnorm3d{f}(a, b, c)", f"norm4d{f}(a, b, c, a)", f"rnorm4d{f}(a, b, c, b)"]
    for r in ("rz", "ru", "rd"):
        rows += [f"__{i}{name}_{r}(a, b)" for name in ("add", "sub", "mul", "div")]
        rows += [f"__{i}rcp_{r}(a)", f"__{i}sqrt_{r}(b)", f"__fma{f}_{r}(a, b, c)", f"__half_bits_{r}((double)a)"]
    rows += ["__half_bits_rn(a)", "__half_value((unsigned short)__float_as_int((float)b))"]
    return before, rows


def conversions() -> tuple[str, int, int]:
    """Return two kernels that convert between all numbers, and how many rows each makes."""
    targets = ["signed char", "unsigned char", "short", "unsigned short", *INTEGER_TYPES.values()]
    rows = [f"(long long)({target})a" for target in targets] + [f"(long long)({target})b" for target in targets]
    for r in ("rn", "rz", "ru", "rd"):
        rows += [f"(long long)__{f}2{to}_{r}({v})" for f, v in (("float", "a"), ("double", "b")) for to in _NAMES]
    rows += [
        "(long long)__float_as_int(a)",
        "__double_as_longlong(b)",
        "llrintf(a)",
        "llrint(b)",
        "lroundf(a)",
        "lround(b)",
    ]
    rows += ["(long long)__float_as_int((float)b)", "__double_as_longlong((double)a)"]
    to_integer = kernel(
        "to_integer", "const float* x, const double* y, long long* o", rows, "  float a = x[i]; double b = y[i];\n"
    )
    sources = ["(signed char)w", "(unsigned short)w", "(int)w", "(unsigned)w", "w", "(unsigned long long)w"]
    count = len(rows)
    rows = [f"(double)(float)({source})" for source in sources] + [f"(double)({source})" for source in sources]
    to_float = kernel("to_float", "const long long* x, double* o", rows, "  long long w = x[i];\n")
    return to_integer + to_float, count, len(rows)


_NAMES = ("int", "uint", "ll", "ull")


def integers() -> tuple[str, int, int]:
    """Return two kernels of integer arithmetic and functions, and how many rows each makes."""
    rows = [
        "(a + b) * 3",
        "a * b - c",
        "a / (b | 1)",
        "a % (b | 1)",
        "u / (v | 1)",
        "u % (v | 1)",
        "-a ^ ~b",
        "a << (b & 63)",
    ]
    rows += [
        "a >> (b & 63)",
        "u << (v & 63)",
        "u >> (v & 63)",
        "a << 33",
        "min(a, b)",
        "max(a, b)",
        "min(u, v)",
        "max(u, v)",
    ]
    rows += [
        "abs(a)",
        "__popc(u)",
        "__clz(a)",
        "__ffs(a)",
        "__brev(u)",
        "__mulhi(a, b)",
        "__umulhi(u, v)",
        "__mul24(a, b)",
    ]
    rows += ["__umul24(u, v)", "__sad(a, b, u)", "__usad(u, v, 7u)", "__hadd(a, b)", "__rhadd(a, b)", "__uhadd(u, v)"]
    rows += ["__urhadd(u, v)", "__byte_perm(u, v, c)", "__funnelshift_l(u, v, c)", "__funnelshift_r(u, v, c)"]
    rows += [
        "__funnelshift_lc(u, v, c & 63)",
        "__funnelshift_rc(u, v, c & 63)",
        "a < b",
        "u < v",
        "(short)a * (short)b",
    ]
    rows += ["__dp4a(a, b, c)", "__dp4a(u, v, 5u)", "__dp2a_lo(a, b, c)", "__dp2a_hi(u, v, 9u)"]
    rows += ["(signed char)a + (unsigned char)b", "a++ + b--", "(a += b, a *= 5, a -= c, a ^= 77, a)"]
    before = "  int a = x[i], b = y[i], c = x[n - 1 - i]; unsigned u = a, v = b;\n"
    text = kernel("narrow", "const int* x, const int* y, int* o", [f"(int)({row})" for row in rows], before)
    wide = [
        "(a + b) * 3",
        "a * b - c",
        "a / (b | 1)",
        "a % (b | 1)",
        "u / (v | 1)",
        "u % (v | 1)",
        "-a ^ ~b",
        "a << (b & 127)",
    ]
    wide += ["a >> (b & 127)", "u << (v & 127)", "u >> (v & 127)", "min(a, b)", "max(a, b)", "min(u, v)", "max(u, v)"]
    wide += [
        "__popcll(u)",
        "__clzll(a)",
        "__ffsll(a)",
        "__brevll(u)",
        "__umul64hi(u, v)",
        "__mul64hi(a, b)",
        "a < b",
        "u < v",
    ]
    wide += ["(long long)(int)a * (int)b", "(long long)((unsigned)a * (unsigned long long)(unsigned)b)"]
    before = "  long long a = x[i], b = y[i], c = x[n - 1 - i]; unsigned long long u = a, v = b;\n"
    stored = [f"(long long)({row})" for row in wide]
    text += kernel("wide", "const long long* x, const long long* y, long long* o", stored, before)
    return text, len(rows), len(wide)


TOGETHER = """
extern "C" __global__ void together(const int* x, unsigned* o, unsigned* cells, unsigned long long* wide, int n) {
  __shared__ unsigned box[96]; __shared__ double sums[96];
  const unsigned ALL = 0xffffffffu;
  int t = threadIdx.x, i = blockIdx.x * blockDim.x + t, lane = t & 31;
  unsigned v = i < n ? x[i] : 0u, h = 0;
  box[t] = v;
  __syncthreads();
  for (int k = 1; k < 96; k *= 2) {
    unsigned w = box[(t + k) % 96];
    __syncthreads();
    box[t] += w;
    __syncthreads();
  }
  h = h * 31 + box[95 - t];
  for (int k = 16; k; k /= 2) {
    h = h * 31 + __shfl_down_sync(ALL, v, k);
    h += __shfl_xor_sync(ALL, v, k, 8);
  }
  h = h * 31 + __shfl_sync(ALL, v, lane * 7 + 3, 16) + __shfl_up_sync(ALL, v, 3);
  double d = __shfl_sync(ALL, (double)(int)v, 31 - lane);
  sums[t] = d * 0.5;
  h = h * 31 + __ballot_sync(ALL, v & 1) + __any_sync(ALL, (v & 255) == 3) * 5 + __all_sync(ALL, v > 9);
  if (v & 4) {
    h ^= __popc(v);
    for (unsigned k = 0; k < (v >> 3 & 7); ++k) h = h * 3 + k;
  } else {
    h += 17;
  }
  __syncwarp();
  h = h * 31 + __syncthreads_count(v & 2) + __syncthreads_and(v != 0) * 3 + __syncthreads_or((v & 1023) == 9) * 7;
  switch (v % 5) {
    case 0: h += 1;
    case 1: h *= 3; break;
    case 3: h ^= 99; break;
    default: h -= 4;
  }
  int local[8];
  for (int k = 0; k < 8; ++k) local[k] = (int)(v >> k) & 15;
  h += local[h & 7] + (unsigned)sums[(t + 1) % 96];
  atomicAdd(&cells[v % 16], h); atomicMax(&cells[16], h); atomicMin(&cells[17], ~h); atomicXor(&cells[18], h);
  atomicOr(&cells[19], h & 0xf0f0u); atomicAnd(&cells[20], h | 0xffu); atomicSub(&cells[21], v);
  atomicInc(&cells[22], 1000u);
  atomicAdd((int*)&cells[24], (int)v); atomicMin((int*)&cells[25], (int)h); atomicMax((int*)&cells[26], (int)h);
  atomicAdd(&wide[0], (unsigned long long)h * h); atomicMax(&wide[1], (unsigned long long)h << 9);
  atomicXor(&wide[2], (unsigned long long)v << 20);
  if (i < n) o[i] = h;
}
"""


def source() -> tuple[str, list[tuple[str, list[Array | Value]]]]:
    """Return the CUDA source, and for each kernel its arguments but the last, which is N."""
    text, cases = "", list[tuple[str, list[Array | Value]]]()
    for t, suffix, d, intrinsic in (("float", "f", "float32", "f"), ("double", "", "float64", "d")):
        rows = arithmetic(t, suffix, intrinsic)
        before = f"  {t} a = x[i], b = y[i], c = x[(i * 7 + 3) % n];\n"
        text += kernel(f"arithmetic_{t}", f"const {t}* x, const {t}* y, {t}* o", rows, before)
        groups = [[f"{name}(a)" for name in ONE[start : start + 12]] for start in range(0, len(ONE), 12)]
        groups.append([f"{name}(a, b)" for name in TWO])
        if t == "float":
            groups.append([f"{name}(a)" for name in FAST.split()])
        more, last = others(t, intrinsic)
        names = [f"arithmetic_{t}"]
        for number, group in enumerate([*groups, last]):
            names.append(f"maths_{t}_{number}")
            before = f"  {t} a = x[i], b = y[i];\n" + (more if group is last else "")
            text += kernel(names[-1], f"const {t}* x, const {t}* y, {t}* o", group, before)
        groups.append(last)
        counts = [len(rows), *map(len, groups)]
        for name, count in zip(names, counts, strict=True):
            for fills in (("bits", "bits"), ("near", "near"), ("bits", "near")):
                inputs = [Array(d, N, fill, f"{t}{k}") for k, fill in enumerate(fills)]
                cases.append((name, [*inputs, Array(d, N * count, "zeros")]))
    converting, to_integer, to_float = conversions()
    counting, narrow, wide = integers()
    text += converting + counting + TOGETHER
    for fill in ("bits", "near"):
        pair = [Array("float32", N, fill, "float0"), Array("float64", N, fill, "double0")]
        cases.append(("to_integer", [*pair, Array("int64", N * to_integer, "zeros")]))
    cases.append(("to_float", [Array("int64", N, "bits", "wide0"), Array("float64", N * to_float, "zeros")]))
    for name, d, count in (("narrow", "int32", narrow), ("wide", "int64", wide)):
        inputs = [Array(d, N, "bits", seed) for seed in "01"]
        cases.append((name, [*inputs, Array(d, N * count, "zeros")]))
    together = [Array("int32", N, "bits", "0"), Array("uint32", N, "zeros"), Array("uint32", 32, "zeros")]
    cases.append(("together", [*together, Array("uint64", 4, "zeros")]))
    return text, cases


def make() -> KnownAnswers:
    """Compile the set and let WebAssembly answer it."""
    text, launches = source()
    names = list(dict.fromkeys(name for name, _ in launches))
    unit, host, cases = compile_unit(text, names), Host(), []
    for name, arguments in launches:
        compiled = unit.kernels[names.index(name)]
        block = 96 if name == "together" else 128
        grid = (-(-N // block), 1, 1)
        values = (*arguments, Value("int32", N))
        answer = digest(host.run(compiled, grid, (block, 1, 1), [make_argument(value) for value in values]))
        parameters = tuple(Parameter(p.name, p.pointer, p.dtype, p.lanes) for p in compiled.parameters)
        assert compiled.exact, (name, compiled.notes)
        cases.append(Case(compiled.entry, grid, (block, 1, 1), 0, parameters, values, answer))
    return KnownAnswers(unit.cuda, tuple(cases))


if __name__ == "__main__":
    target = Path(known_answers.__file__).with_suffix(".json")
    target.write_bytes(msgspec.json.format(msgspec.json.encode(make()), indent=0) + b"\n")
    print(f"{target.name}: {target.stat().st_size} bytes")
