"""Random kernels whose result is defined: to find out whether the code shapes, and whoever else runs them, agree.

A kernel is drawn from a ``random.Random`` (a seed, or hypothesis' own: ``st.randoms(use_true_random=False)``) as CUDA C
with a launch. Threads write only what is theirs, what others wrote is read behind a barrier, barriers and warp
functions stand under control flow that is uniform over the block or warp. ``strict`` leaves out what is defined by this
project's order of threads only: results of atomics, and shuffles from lanes that are not there.

Every kernel takes ``(const int* x, const float* y, int* out, float* fout, int* sums, int n)``. ``x`` and ``y`` have
``TABLE`` elements, ``out`` and ``fout`` one for each thread, ``sums`` has four.
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

TABLE = 64
DEPTH_MAX = 3
STATEMENTS_MAX = 40
BLOCKS = ((32,), (64,), (96,), (128,), (40,), (7,), (16, 4), (8, 8), (32, 2), (16, 16), (48, 2), (4, 3, 5), (32, 2, 2))
HELPERS = """
__device__ int mix(int a, int b) { int c = a * 31 + b; if (c & 1) return c ^ (c >> 7); return c + 5; }
__device__ void twist(int& a, float& b) { a = a * 7 + 1; b = b * 0.5f + (float)(a & 15); }
__device__ int place() { return threadIdx.x + blockDim.x * (threadIdx.y + blockDim.y * threadIdx.z); }
template <class T> __device__ T warp_sum(T v) {
    for (int d = 16; d > 0; d >>= 1) v += __shfl_down_sync(0xffffffffu, v, d);
    return v;
}
__device__ int exchange(int* s, int v, int k, int size) {
    int t = place();
    __syncthreads();
    s[t] = v;
    __syncthreads();
    return s[(t + k) % size];
}
"""


@dataclass(frozen=True)
class Generated:
    """A kernel; ``source`` lacks ``HELPERS``, which a unit has once."""

    name: str
    source: str
    grid: tuple[int, ...]
    block: tuple[int, ...]

    def arguments(self) -> list[Any]:
        """Return a launch's arguments, the same for each kernel but for the sizes of the outputs."""
        rng = np.random.default_rng(1)
        threads = int(np.prod(self.grid) * np.prod(self.block))
        x = rng.integers(-100, 100, TABLE, dtype=np.int32)
        y = (rng.random(TABLE, dtype=np.float32) - np.float32(0.5)) * np.float32(20)
        outputs = [np.zeros(threads, np.int32), np.zeros(threads, np.float32), np.zeros(4, np.int32)]
        return [x, y, *outputs, TABLE]


def generate(draw: random.Random, name: str, *, waits: bool = True, strict: bool = False) -> Generated:
    """Draw a kernel; without ``waits`` it has neither barriers nor warp functions."""
    return _Generator(draw, name, waits=waits, strict=strict).kernel()


def unit(kernels: Sequence[Generated]) -> str:
    """Return the source of several kernels."""
    return HELPERS + "\n".join(kernel.source for kernel in kernels)


class _Generator:
    def __init__(self, draw: random.Random, name: str, *, waits: bool, strict: bool) -> None:
        self.draw, self.name, self.waits, self.strict = draw, name, waits, strict
        self.block = draw.choice(BLOCKS)
        self.grid = draw.choice(((1,), (3,), (2, 2)))
        self.threads = int(np.prod(self.block))
        self.count = 0
        self.left = STATEMENTS_MAX
        self.ints: list[str] = []
        self.floats: list[str] = []
        self.uniform: list[str] = ["n", "7"]
        self.lines: list[str] = []
        self.indent = 1
        self.ended = False

    def kernel(self) -> Generated:
        parameters = "const int* x, const float* y, int* out, float* fout, int* sums, int n"
        self.line("const int t = place();" if self.draw.random() < 0.5 else _PLACE)
        self.line("const int block = blockIdx.x + gridDim.x * blockIdx.y;")
        self.line(f"const int i = block * {self.threads} + t;")
        if self.waits:
            self.line(f"__shared__ int s[{self.threads}], a[8]; __shared__ float f[{self.threads}];")
        self.ints, self.floats = ["t", "i"], ["y[i & 63]"]
        self.uniform += ["block", "(int)blockDim.x"]
        self.line("int v1 = t * 3; float g2 = 0.25f;")
        self.ints.append("v1")
        self.floats.append("g2")
        self.count = 2
        self.statements(self.draw.randint(3, 9), control="block", depth=0)
        self.line(f"out[i] = {' * 31 + '.join(self.ints[2:])};")
        self.line(f"fout[i] = {' + '.join(self.floats)};")
        head = f'extern "C" __global__ void {self.name}({parameters}) {{\n'
        return Generated(self.name, head + "\n".join(self.lines) + "\n}\n", self.grid, self.block)

    # ---- text

    def line(self, text: str) -> None:
        self.lines.append("    " * self.indent + text)

    def fresh(self, prefix: str) -> str:
        self.count += 1
        return f"{prefix}{self.count}"

    # ---- expressions

    def int_(self, depth: int = 2) -> str:
        kind = self.draw.randrange(9) if depth else self.draw.randrange(2)
        if kind == 0:
            return str(self.draw.randint(-9, 99))
        if kind in (1, 2):
            return self.draw.choice(self.ints)
        a, b = self.int_(depth - 1), self.int_(depth - 1)
        if kind == 3:
            return f"x[({a}) & {TABLE - 1}]"
        if kind == 4:
            return f"({a} {self.draw.choice(['<', '==', '>='])} {b} ? {self.int_(depth - 1)} : {b})"
        if kind == 5:
            return f"({a} {self.draw.choice(['/', '%'])} {self.draw.randint(2, 9)})"
        if kind == 6:
            return self.draw.choice([f"mix({a}, {b})", f"min({a}, {b})", f"__popc({a})", f"(int)({self.float_(1)})"])
        if kind == 7:
            return f"({a} {self.draw.choice(['<<', '>>'])} {self.draw.randint(0, 5)})"
        return f"({a} {self.draw.choice(['+', '-', '*', '&', '|', '^'])} {b})"

    def float_(self, depth: int = 2) -> str:
        kind = self.draw.randrange(7) if depth else self.draw.randrange(2)
        if kind == 0:
            return f"{self.draw.randint(-40, 40) / 8}f"
        if kind == 1:
            return self.draw.choice(self.floats)
        if kind == 2:
            return f"y[({self.int_(1)}) & {TABLE - 1}]"
        if kind == 3:
            return f"(float)({self.int_(1)} & 255)"
        a, b = self.float_(depth - 1), self.float_(depth - 1)
        if kind == 4:
            return self.draw.choice([f"fabsf({a})", f"sqrtf(fabsf({a}))", f"fminf({a}, {b})", f"fmaf({a}, {b}, 0.5f)"])
        return f"({a} {self.draw.choice(['+', '-', '*'])} {b})"

    def truth(self) -> str:
        if self.draw.random() < 0.3:
            return f"{self.float_(1)} < {self.float_(1)}"
        text = f"({self.int_()}) {self.draw.choice(['<', '>', '!='])} {self.int_(1)}"
        return f"{text} && t % 3" if self.draw.random() < 0.2 else text

    def same(self) -> str:
        """Return an integer that is the same in the whole block."""
        a, b = self.draw.choice(self.uniform), self.draw.choice(self.uniform)
        return self.draw.choice([a, f"({a} + {b})", f"x[({a}) & {TABLE - 1}]", f"({a} * 3 ^ {b})"])

    # ---- statements

    def statements(self, count: int, *, control: str, depth: int, loop: bool = False) -> None:
        """Write statements; ``control`` is how uniform the flow is that reaches them: block, warp, lane."""
        known = len(self.ints), len(self.floats), len(self.uniform)
        for _ in range(count):
            if self.left <= 0:
                break
            self.left -= 1
            self.draw.choice(self.choices(control, depth, loop))(control=control, depth=depth)
        if depth == 0:
            return
        for names, start, keep in ((self.ints, known[0], "v1 = v1 * 3 +"), (self.floats, known[1], "g2 = g2 * 0.5f +")):
            for name in names[start:]:
                self.line(f"{keep} {name};")
            del names[start:]
        del self.uniform[known[2] :]

    def choices(self, control: str, depth: int, loop: bool) -> list[Any]:
        found: list[Any] = [self.declare, self.assign, self.assign, self.add_up]
        if depth < DEPTH_MAX:
            found += [self.if_lane, self.if_same, self.for_same, self.for_lane, self.while_lane, self.switch]
        if control == "lane":
            found += [self.leave] if loop else []
            return found
        if not self.waits:
            return [*found, *([self.return_] if depth == 0 else [])]
        if self.warps:
            found += [self.shuffle, self.shuffle, self.vote, self.sum_warp]
            found += [self.if_warp] if depth < DEPTH_MAX else []
        if control == "block":
            found += [self.exchange, self.exchange, self.share, self.count_votes, self.histogram, self.set_same]
            found += [self.return_] if depth < 2 and not loop else []
        return found

    @property
    def warps(self) -> bool:
        return not self.strict or (not self.ended and self.threads % 32 == 0)

    def declare(self, **_: Any) -> None:
        if self.draw.random() < 0.6:
            value, name = self.int_(), self.fresh("v")
            self.line(f"int {name} = {value};")
            self.ints.append(name)
        else:
            value, name = self.float_(), self.fresh("g")
            self.line(f"float {name} = {value};")
            self.floats.append(name)

    def target(self) -> str | None:
        own = [name for name in self.ints if name.startswith("v")]
        return self.draw.choice(own) if own else None

    def assign(self, **_: Any) -> None:
        own = [name for name in self.floats if name.startswith("g")]
        if own and self.draw.random() < 0.4:
            self.line(f"{self.draw.choice(own)} {self.draw.choice(['=', '+=', '*='])} {self.float_()};")
        elif target := self.target():
            texts = [
                f"{target} = {self.int_()};",
                f"{target} += {self.int_()};",
                f"{target}++;",
                f"{target} ^= t * {self.int_(1)};",
            ]
            texts += [f"twist({target}, {own[0]});"] if own else []
            texts += [f"{{ int q[4] = {{1, t}}; q[{target} & 3] += {self.int_()}; {target} = q[1] + q[t & 3]; }}"]
            self.line(self.draw.choice(texts))

    def add_up(self, **_: Any) -> None:
        self.line(f"atomicAdd(&sums[({self.int_(1)}) & 3], {self.int_(1)});")

    def nested(self, head: str, *, control: str, depth: int, loop: bool = False, more: str = "}") -> None:
        self.line(head)
        self.indent += 1
        self.statements(self.draw.randint(1, 3), control=control, depth=depth + 1, loop=loop)
        self.indent -= 1
        self.line(more)

    def if_lane(self, *, depth: int, **_: Any) -> None:
        more = "} else {" if self.draw.random() < 0.3 else "}"
        self.nested(f"if ({self.truth()}) {{", control="lane", depth=depth, more=more)
        if more != "}":
            self.indent += 1
            self.assign()
            self.indent -= 1
            self.line("}")

    def if_same(self, *, control: str, depth: int) -> None:
        self.nested(f"if ({self.same()} & {self.draw.randint(1, 3)}) {{", control=control, depth=depth)

    def if_warp(self, *, control: str, depth: int) -> None:
        test = self.draw.choice(["t / 32 == 0", "(t >> 5) & 1", f"__any_sync(0xffffffffu, {self.truth()})"])
        self.nested(f"if ({test}) {{", control="warp", depth=depth)

    def for_same(self, *, control: str, depth: int) -> None:
        name = self.fresh("c")
        head = self.draw.choice(
            [
                f"for (int {name} = 0; {name} < {self.draw.randint(2, 5)}; ++{name}) {{",
                f"for (int {name} = {self.draw.randint(4, 20)}; {name} > 0; {name} >>= 1) {{",
                f"for (int {name} = 0; {name} < ({self.same()} & 3); ++{name}) {{",
            ]
        )
        self.line(head)
        self.indent += 1
        self.uniform.append(name)
        self.ints.append(name)
        if self.draw.random() < 0.2:
            self.line(f"if ({name} * 3 + {self.same()} == 5) {self.draw.choice(['break', 'continue'])};")
        self.statements(self.draw.randint(1, 3), control=control, depth=depth + 1, loop=True)
        self.ints.remove(name)
        self.uniform.remove(name)
        self.indent -= 1
        self.line("}")

    def for_lane(self, *, depth: int, **_: Any) -> None:
        name = self.fresh("c")
        bound, step = f"({self.int_(1)} & 7)", self.draw.choice([f"++{name}", f"{name} += 2"])
        self.line(f"for (int {name} = 0; {name} < {bound}; {step}) {{")
        self.indent += 1
        self.ints.append(name)
        if self.draw.random() < 0.4:
            self.line(f"if ({self.truth()}) {self.draw.choice(['break', 'continue'])};")
        self.statements(self.draw.randint(1, 2), control="lane", depth=depth + 1)
        self.ints.remove(name)
        self.indent -= 1
        self.line("}")

    def while_lane(self, *, depth: int, **_: Any) -> None:
        name = self.fresh("c")
        self.line(f"int {name} = {self.int_()} & 15;")
        do = self.draw.random() < 0.3
        end = f"}} while (--{name} > 0);" if do else "}"
        self.nested("do {" if do else f"while ({name}-- > 0) {{", control="lane", depth=depth, more=end)

    def switch(self, **_: Any) -> None:
        if target := self.target():
            cases = "".join(f"case {k}: {target} += {self.int_(1)}; {'break; ' if k & 1 else ''}" for k in range(3))
            self.line(f"switch (({self.int_()}) & 3) {{ {cases}default: {target} ^= 9; }}")

    def leave(self, **_: Any) -> None:
        self.line(f"if ({self.truth()}) break;")

    def return_(self, **_: Any) -> None:
        test = f"{self.same()} == 3" if self.draw.random() < 0.3 else f"({self.int_(1)} & 7) == 1"
        self.line(f"if ({test}) {{ out[i] = {self.int_(1)}; return; }}")
        self.ended = True

    def shuffle(self, **_: Any) -> None:
        kind, width = self.draw.choice(["", "_up", "_down", "_xor"]), self.draw.choice([32, 32, 16, 8])
        amount = self.draw.choice(["1", "3", "16", f"({self.same()} & 15)", f"({self.int_(1)} & 31)"])
        if kind in ("_up", "_down", "_xor") and self.strict:
            amount = self.draw.choice(["1", "5", "16"])
        real = self.draw.random() < 0.4
        value, name = self.float_(1) if real else self.int_(1), self.fresh("g" if real else "v")
        text = f"__shfl{kind}_sync(0xffffffffu, {value}, {amount}, {width})"
        prefix = f"{self.int_(1)} + " if not real and self.draw.random() < 0.5 else ""
        self.line(f"{'float' if real else 'int'} {name} = {prefix}{text};")
        (self.floats if real else self.ints).append(name)

    def vote(self, **_: Any) -> None:
        name, function = self.fresh("v"), self.draw.choice(["ballot", "any", "all"])
        self.line(f"int {name} = (int)__{function}_sync(0xffffffffu, {self.truth()});")
        self.ints.append(name)

    def sum_warp(self, **_: Any) -> None:
        name = self.fresh("g")
        self.line(f"float {name} = warp_sum({self.float_(1)});")
        self.floats.append(name)

    def exchange(self, **_: Any) -> None:
        name = self.fresh("v")
        self.line(f"int {name} = exchange(s, {self.int_()}, {self.draw.randint(0, 9)}, {self.threads});")
        self.ints.append(name)

    def share(self, **_: Any) -> None:
        name = self.fresh("g")
        self.line("__syncthreads();")
        test = f"if ({self.truth()}) " if self.draw.random() < 0.4 else ""
        self.line(f"{test}f[t] = {self.float_()};")
        self.line("__syncthreads();")
        self.line(f"float {name} = f[{self.threads - 1} - t] * 0.5f;")
        self.floats.append(name)

    def count_votes(self, **_: Any) -> None:
        name, kind = self.fresh("v"), self.draw.choice(["count", "and", "or"])
        self.line(f"int {name} = __syncthreads_{kind}({self.truth()});")
        self.ints.append(name)
        self.uniform.append(name)

    def histogram(self, **_: Any) -> None:
        name = self.fresh("v")
        self.line("__syncthreads();")
        self.line("if (t < 8) a[t] = t;")
        self.line("__syncthreads();")
        used = not self.strict and self.draw.random() < 0.3
        kind = self.draw.choice(["Add", "Max", "Xor"])
        call = f"atomic{kind}(&a[({self.int_(1)}) & 7], {self.int_(1)});"
        if used:
            other = self.fresh("v")
            self.line(f"int {other} = {call}")
            self.ints.append(other)
        else:
            self.line(call)
        self.line("__syncthreads();")
        self.line(f"int {name} = a[({self.int_(1)}) & 7];")
        self.ints.append(name)

    def set_same(self, **_: Any) -> None:
        name = self.fresh("u")
        self.line(f"int {name} = {self.same()};")
        self.uniform.append(name)


_PLACE = "const int t = threadIdx.x + blockDim.x * (threadIdx.y + blockDim.y * threadIdx.z);"
