"""What a device can do, measured in about a second, by the same program on every device.

One program, three families of tasks: float32 and float64 arithmetic in registers, and a pass over memory. In each
family the tasks grow by ``GROWTH``; they are run in order until one takes ``LONG_ENOUGH_S`` longer than the first,
which does next to nothing, and the speed is its work over its time, less the time of the first: half of it at most. A
task takes what the fastest of ``RUNS`` took, since other work on the machine only ever adds to it. Arithmetic is a
multiplication and an addition, never fused, on eight chains a thread: what strict kernels get, and about half of what
fused ones could.

The compiled unit is shipped (``benchmark.json``), since a provider has no compiler; ``tests/support/make_benchmark.py``
makes it, of ``benchmark.cu``.
"""

from base64 import b64decode
from collections.abc import Generator, Sequence
from math import inf
from pathlib import Path
from typing import Annotated, Final

import msgspec

from depin_node.compute.programs.program import (
    VERSION,
    Axis,
    Buffer,
    Cut,
    Kernel,
    Launch,
    Parameter,
    Program,
    Repeat,
    Scalar,
    Unit,
)

GROWTH: Final = 4
LONG_ENOUGH_S: Final = 0.025
RUNS: Final = 3
THREADS: Final = 1 << 16
CHAINS: Final = 8
PASSES: Final = 16
STREAM_ELEMENTS_MAX: Final = 1 << 24
SHOWN: Final = 64
"""Elements of a task's result: so few that hashing it takes no time."""
_BLOCK: Final = (256, 1, 1)
_STEPS: Final = 11
"""Tasks of an arithmetic family: up to 4^10 rounds, a tenth of a second at 10 TFLOP/s."""
_FILE: Final = Path(__file__).with_suffix(".json")


SPEED_MAX: Final = 2**32 - 1
"""The most that an advert can say: more than that is a device that does not do what it is given."""
_Rate = Annotated[int, msgspec.Meta(ge=0, le=SPEED_MAX)]


class Speed(msgspec.Struct, frozen=True):
    """About what one slot of a device does: millions of float32 and float64 operations a second, and MB/s of memory."""

    mflops_f32: _Rate = 0
    mflops_f64: _Rate = 0
    mbytes_s: _Rate = 0

    def numbers(self) -> tuple[int, int, int]:
        """Return the three, as adverts and prices name them."""
        return self.mflops_f32, self.mflops_f64, self.mbytes_s


class Shipped(msgspec.Struct, frozen=True):
    """The compiled unit: its wasm module in base 64, and its CUDA text."""

    module: str
    cuda: str


def family_work() -> tuple[tuple[int, ...], ...]:
    """Return for each family the work of its tasks: floating-point operations, or bytes."""
    arithmetic = tuple(2 * CHAINS * THREADS * GROWTH**step for step in range(_STEPS))
    return arithmetic, arithmetic, tuple(2 * 4 * PASSES * count for count in _stream_elements())


def _stream_elements() -> tuple[int, ...]:
    counts, count = [], STREAM_ELEMENTS_MAX
    while count >= 1 << 12:
        counts.append(count)
        count //= GROWTH
    return tuple(reversed(counts))


def benchmark_program(shipped: Shipped | None = None) -> Program:
    """Return the program; its tasks are those of the families, one after the other."""
    unit = shipped or msgspec.json.decode(_FILE.read_bytes(), type=Shipped)
    streams = _stream_elements()
    tasks = 2 * _STEPS + len(streams)
    rounds = [GROWTH**step for step in range(_STEPS)]
    nothing = [0] * tasks
    rounds_f32 = [*rounds, *nothing[_STEPS:]]
    rounds_f64 = [*nothing[:_STEPS], *rounds, *nothing[2 * _STEPS :]]
    grids = [*[1] * (2 * _STEPS), *(count // _BLOCK[0] for count in streams)]
    one = (1, 1, 1)
    blocks = tuple((THREADS // _BLOCK[0], 1, 1) if some else one for some in rounds_f32)
    blocks_f64 = tuple((THREADS // _BLOCK[0], 1, 1) if some else one for some in rounds_f64)
    return Program(
        VERSION,
        (Unit(b64decode(unit.module), unit.cuda),),
        (
            Kernel("flops_f32", 0, 0, (_pointer("y", "float32"), _rounds()), True),
            Kernel("flops_f64", 0, 1, (_pointer("y", "float64"), _rounds()), True),
            Kernel("stream", 0, 2, (_pointer("x", "float32"), _pointer("y", "float32")), True),
            Kernel("finish", 0, 3, (_pointer("x", "float32"), _pointer("out", "float32")), True),
        ),
        (
            Buffer("singles", "temp", "float32", (THREADS,), (), None),
            Buffer("doubles", "temp", "float64", (THREADS,), (), None),
            Buffer("source", "temp", "float32", (STREAM_ELEMENTS_MAX,), (), None),
            Buffer("target", "temp", "float32", (STREAM_ELEMENTS_MAX,), (), None),
            Buffer("out", "out", "float32", (tasks, SHOWN), (), Cut(0, 0, 0, "none", b"")),
        ),
        (
            Launch(0, blocks, _BLOCK, 0, (0, _numbers(rounds_f32))),
            Launch(1, blocks_f64, _BLOCK, 0, (1, _numbers(rounds_f64))),
            Repeat(PASSES, (Launch(2, tuple((grid, 1, 1) for grid in grids), _BLOCK, 0, (2, 3)),)),
            Launch(3, (one,), (SHOWN, 1, 1), 0, (0, 4)),
        ),
        Axis(tasks, (tuple(range(tasks + 1)),)),
        (),
    )


def measuring() -> Generator[int, float, Speed]:
    """Yield the tasks to run, one after the other; is sent the seconds that each took; returns the speed."""
    speeds, first = [], 0
    for work in family_work():
        least, speed = (yield from _fastest(first)), 0.0
        for step in range(1, len(work)):
            seconds = yield from _fastest(first + step)
            speed = (work[step] - work[0]) / max(seconds - least, seconds / 2, 1e-6)
            if seconds - least >= LONG_ENOUGH_S:
                break
        speeds.append(min(SPEED_MAX, max(0, round(speed / 1e6))))
        first += len(work)
    return Speed(*speeds)


def _fastest(task: int) -> Generator[int, float, float]:
    seconds = inf
    for _ in range(RUNS):
        seconds = min(seconds, (yield task))
    return seconds


def _pointer(name: str, dtype: str) -> Parameter:
    return Parameter(name, True, dtype, 1, False)  # type: ignore[arg-type]


def _rounds() -> Parameter:
    return Parameter("rounds", False, "int32", 1, False)


def _numbers(values: Sequence[int]) -> Scalar:
    return Scalar("int32", b"".join(value.to_bytes(4, "little") for value in values))
