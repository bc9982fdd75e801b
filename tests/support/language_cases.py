"""The part of the corpus that is about C++: what numeric kernels use of it, beside arithmetic."""

from typing import Any

import numpy as np
from kernel_cases import Case

f4, i4 = np.float32, np.int32
CAMERA = np.dtype([("width", "i4"), ("focal", "f8"), ("centre", "f4", 2), ("flags", "u1")], align=True)
CAMERA2 = np.dtype({"names": ["camera", "seed"], "formats": [CAMERA, "i8"], "offsets": [0, 32], "itemsize": 40})


def language_cases(waits: tuple[str, ...]) -> list[Case]:
    """Return the cases; ``waits``: the shapes of kernels that synchronise."""
    rng = np.random.default_rng(20261)
    n = 300
    x, ints = rng.random(n, dtype=f4), rng.integers(-100, 100, n, dtype=i4)
    out, i = np.zeros(n, f4), np.arange(n)
    grid, block = [5], [64]
    camera = np.array((200, 1.5, (0.25, -0.5), 200), CAMERA)
    matrix = tuple(float(v) for v in range(1, 10))
    camera2 = np.array(((7, 0.0, (1.0, 0.5), 3), 2**40 + 17), CAMERA2)
    table, samples = rng.random((40, 6), dtype=f4), rng.integers(0, 256, n, dtype=np.uint8)
    weights, offsets = np.array([1, 2, 4, 8, 16], f4), np.array([[0, 10], [0, 20]], f4)
    stencil = np.array((0.75, -3), np.dtype([("centre", "f4"), ("reach", "i2")], align=True))
    square = np.array([[1, 2], [3, 4]], f4)

    def case(name: str, arguments: list[Any], reference: Any, **more: Any) -> Case:
        return Case(name, more.pop("grid", grid), more.pop("block", block), arguments, reference, **more)

    return [
        case("lambdas", [x, out, n], lambda x, y, n: {1: _lambdas(x)}, tolerance=1e-5),
        case("inheritance", [x, out, n], lambda x, y, n: {1: _inheritance(x)}, tolerance=1e-5),
        case("packs", [x, out, n], lambda x, y, n: {1: _packs(x)}, tolerance=1e-5),
        case(
            "device_tables",
            [x, np.zeros(n), n],
            lambda x, y, n: {
                1: x * np.array([0.5, 1.5, 2.5, 3.5], f4)[i & 3]
                + 24
                + np.array([10, 20])[i % 2]
                + 1 / 3
                + np.array([2, 5])[i % 2]
                + (4 + i % 3)
                + 2.5
                + 3
            },
            tolerance=1e-5,
        ),
        case(
            "host_constants",
            [x, out, n, weights, stencil, offsets, square],
            lambda x, y, n, *_: {
                1: np.where(i > 0, weights[i % 5] * x + square[i % 2, 1], f4(0.75)) - 3 + offsets[i & 1, 1] + f4(0.5)
            },
            tolerance=1e-6,
        ),
        case("memory", [ints, np.zeros(n, i4), n], lambda x, y, n: {1: _memory(x)}, shapes=waits),
        case("object_arrays", [ints, np.zeros(n, i4), n], lambda x, y, n: {1: _object_arrays(x)}),
        case("views", [table, np.zeros((40, 6), f4), 40, 6], lambda x, y, r, c: {1: _views(x)}, tolerance=1e-6),
        case(
            "struct_parameters",
            [out, camera.tobytes(), matrix, camera2.tobytes(), n],
            lambda y, *_: {
                0: np.where(
                    i < 200,
                    1.5 * np.array([0.25, -0.5])[i & 1]
                    + 200
                    + np.arange(1, 10)[i % 3 * 3 + i // 3 % 3]
                    + (2**40 + 17) % 100
                    + 7.5,
                    0,
                ).astype(f4)
            },
        ),
        case(
            "shared_shapes",
            [x, out, n],
            lambda x, y, n: {1: _shared_shapes(x)},
            grid=[10],
            block=[32],
            shared_mem=32 * 12,
            tolerance=1e-6,
            shapes=waits,
            exact=False,
        ),
        case("qualifiers", [x, out, n], lambda x, y, n: {1: _qualifiers(x)}, tolerance=1e-6),
        case(
            "long_indices", [samples, np.zeros(4 * n, "i8"), n, 2**33 + 1], lambda x, y, n, s: {1: _long_indices(x, s)}
        ),
        case("printing", [x, out, n], lambda x, y, n: {1: x * 2}),
    ]


def _lambdas(x: np.ndarray) -> np.ndarray:
    i = np.arange(len(x))
    parabola = sum((k / 8) ** 2 * x for k in range(8)) / 8
    calls = 8 + 2
    local3 = 1.5
    shifted = x * x + 1 + 4 + 5
    area = sum((x * (k * 0.5) + 0.25) * 0.5 for k in range(4))
    most = np.maximum(np.maximum(x, 2), local3)
    return parabola + shifted + area + most + calls * 100 + (2 * x + x) + 3 * (i % 3)


def _inheritance(x: np.ndarray) -> np.ndarray:
    side, y = 9, x + 1
    density = 30 / (side * side)
    grown = (2 * x, 2 * y)  # of other.b, before it is halved again
    torque = (grown[0] + 2 * grown[1]) * 30
    return density + torque + (x + y) + 40 + 7 + side


def _packs(x: np.ndarray) -> np.ndarray:
    i = np.arange(len(x))
    chain = ((x * x * 0.5) ** 2) * 0.5
    weights = np.array([0.5, 0.25, 0.125])[i % 3] * 8
    total = x * x + x / 2 + chain + 6 + 0 + (3 + x) + np.maximum(i % 7, 3) + weights + 9 + 7
    return total + (x + 6) / 4 + 81 + x


def _memory(x: np.ndarray) -> np.ndarray:
    """Return what thread ``i`` finds at its neighbour's: three bytes of ``x``, the fourth is 255; and 5 twice over."""
    tile = np.full(-(-len(x) // 64) * 64, -1, i4)
    tile[: len(x)] = (x & 0xFFFFFF) | i4(-1 << 24)
    return tile[np.arange(len(x)) ^ 1] + i4(0x0505)


def _object_arrays(x: np.ndarray) -> np.ndarray:
    wide = x.astype("i8")
    last = 3 + wide + 2 + wide
    return (3 + (6 + 2 * wide) * 10 + 18 * 100 + (3 + wide) + 6 + (wide + 1) + last * 1000 + 1).astype(i4)


def _views(x: np.ndarray) -> np.ndarray:
    y = np.empty_like(x)
    y[:, 0] = x.sum(1) + (7 + 2 * x[:, 0])
    y[:, 1:] = x[:, :0:-1] * 2
    return y


def _shared_shapes(x: np.ndarray) -> np.ndarray:
    n = len(x)
    padded = np.append(x, np.zeros(-n % 32, f4)).reshape(-1, 32)
    other = 31 - np.arange(32)
    values = 4 * padded[:, ::-1] + other + other * other - other + 3
    return values.ravel()[:n]


def _qualifiers(x: np.ndarray) -> np.ndarray:
    i = np.arange(len(x))
    ones = np.array([bin(k).count("1") for k in i])
    first = np.array([((k + 1) & -(k + 1)).bit_length() for k in i.tolist()])
    bits = 2 * ones + first + (32 - len(x).bit_length())
    middle = x + f4(0.25) * (3 - x)
    return middle + np.minimum(i, 5) + np.maximum(3, i % 4) + np.minimum(x, 0.5) + np.clip(bits, 5, 9) + 2 + x


def _long_indices(x: np.ndarray, stride: int) -> np.ndarray:
    y = np.zeros((len(x), 4), "i8")
    for i in range(len(x)):
        wide = i * stride + 12345
        u = 4_000_000_000 + 3 * i
        low = (u + 2**31) % 2**32 - 2**31
        back = 12345
        y[i] = wide, (i // 64 + 70000) * 70000 * 64 + (wide >> 40), int(x[wide % len(x)]) + int(x[i]), back + low
    return y.ravel()
