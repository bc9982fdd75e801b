"""Random numbers: Philox by its published vectors, and what is made of its words."""

import numpy as np
import pytest
from device_programs import run_all
from traced import DEVICE, LIMITS, run

from depin_node.client import Out, RawKernel, TraceError
from depin_node.compute.programs.arrays import trace
from depin_node.compute.programs.arrays.words import HELPERS
from depin_node.compute.programs.binding import bind

VECTORS = [  # Random123, examples/kat_vectors: philox4x32 10; counter, key, result
    ("00000000 00000000 00000000 00000000", "00000000 00000000", "6627e8d5 e169c58d bc57ac4c 9b00dbd8"),
    ("ffffffff ffffffff ffffffff ffffffff", "ffffffff ffffffff", "408f276d 41c83b0e a20bc7c6 6d5451fd"),
    ("243f6a88 85a308d3 13198a2e 03707344", "a4093822 299f31d0", "d16cfe09 94fdcceb 5001e420 24126ea1"),
]
SOURCE = (
    HELPERS["_philox"]
    + """
extern "C" __global__ void words(const unsigned long long* in, unsigned int* out) {
    const int i = threadIdx.x;
    const _Words found = _philox(in[3 * i], in[3 * i + 1], in[3 * i + 2]);
    for (int k = 0; k < 4; ++k) out[4 * i + k] = found.w[k];
}"""
)


def numbers(text):
    return [int(word, 16) for word in text.split()]


def wide(low, high):
    return low | high << 32


def philox(key, counter, stream=0):
    """The same in Python."""
    c, k = [counter & 0xFFFFFFFF, counter >> 32, stream, 0], [key & 0xFFFFFFFF, key >> 32]
    for _ in range(10):
        a, b = 0xD2511F53 * c[0], 0xCD9E8D57 * c[2]
        c = [b >> 32 ^ c[1] ^ k[0], b & 0xFFFFFFFF, a >> 32 ^ c[3] ^ k[1], a & 0xFFFFFFFF]
        k = [(k[0] + 0x9E3779B9) & 0xFFFFFFFF, (k[1] + 0xBB67AE85) & 0xFFFFFFFF]
    return c


def test_philox_gives_the_published_vectors():
    given, wanted = [], []
    for counter, key, result in VECTORS:
        c, k = numbers(counter), numbers(key)
        given += [wide(*k), wide(*c[:2]), wide(*c[2:])]
        wanted.append(numbers(result))
    bound = bind(RawKernel(SOURCE, "words"), 1, 3, (np.array(given, "uint64"), Out("uint32", (3, 4))))
    (found,) = run_all(DEVICE, bound.program, *bound.inputs.values(), limits=LIMITS)
    assert found.tolist() == wanted
    assert philox(0, 0) == wanted[0]


def test_arrays_are_made_of_the_words_of_their_elements():
    key = 0x0123456789ABCDEF

    def made(k):
        xp = k.__array_namespace__()
        random = xp.random
        one, other = random.split(k)
        return [
            random.bits(k, (2, 3)),
            random.bits(k, 6, dtype=xp.uint64),
            random.uniform(k, (6,)),
            random.uniform(k, (6,), dtype=xp.float32),
            random.uniform(key, (6,), low=-1.0, high=3.0),
            random.normal(k, (6,)),
            random.integers(k, -3, 4, (6,), dtype=xp.int8),
            random.bits(one, 1),
            random.bits(other, 1),
        ]

    bits, wide_bits, uniform, single, spread, normal, integers, one, other = run(made, np.array(key, "uint64"))
    words = [philox(key, element) for element in range(6)]
    pairs = [(wide(w[0], w[1]), wide(w[2], w[3])) for w in words]
    assert bits.ravel().tolist() == [w[0] for w in words]
    assert wide_bits.tolist() == [a for a, _ in pairs]
    assert uniform.tolist() == [(a >> 11) / 2**53 for a, _ in pairs]
    assert single.tolist() == [(w[0] >> 8) / 2**24 for w in words]
    np.testing.assert_array_equal(spread, uniform * 4 - 1)
    box = [np.sqrt(-2 * np.log(1 - (a >> 11) / 2**53)) * np.cos((b >> 11) / 2**53 * 2 * np.pi) for a, b in pairs]
    np.testing.assert_allclose(normal, box, rtol=1e-13)
    assert integers.tolist() == [(a * 7 >> 64) - 3 for a, _ in pairs]
    keys = [philox(key, element, 1) for element in range(2)]
    assert [one[0], other[0]] == [philox(wide(w[0], w[1]), 0)[0] for w in keys]


def test_numbers_stay_within_their_range_at_its_ends():
    """2^20 numbers of 24 bits: of those near 1 some round to ``high``, where that is 1000 times the width."""

    def ends(key):
        xp = key.__array_namespace__()
        uniform, n = xp.random.uniform, (1 << 20,)
        near = [uniform(key, n, low=low, high=low + 1, dtype=xp.float32) for low in (1000.0, -1001.0)]
        near.append(uniform(key, n, low=xp.astype(key, xp.float32) + 993.0, high=1001.0, dtype=xp.float32))
        wide = xp.random.integers(key, 2**64 - 3, 2**64, (64,), dtype=xp.uint64)
        return [f(numbers) for numbers in (*near, wide) for f in (xp.min, xp.max)]

    found = run(ends, np.array(7, "uint64"))
    for (low, high), first, last in zip(
        [(1000, 1001), (-1001, -1000), (1000, 1001)], found[:6:2], found[1:6:2], strict=True
    ):
        assert low <= first < low + 0.01
        assert high - 0.01 < last < high
    assert [int(end) for end in found[6:]] == [2**64 - 3, 2**64 - 1]


def test_the_distributions_are_what_they_are_called():
    def moments(key):
        xp = key.__array_namespace__()
        u, n = xp.random.uniform(key, (1 << 16,)), xp.random.normal(key, (1 << 16,), dtype=xp.float32)
        dice = xp.random.integers(key, 1, 7, (1 << 16,))
        return [xp.mean(u), xp.var(u), xp.mean(n), xp.var(n), xp.mean(n**4), xp.unique_counts(dice, size=7).counts]

    mean, var, n_mean, n_var, n_fourth, faces = run(moments, np.array(7, "uint64"))
    assert abs(mean - 0.5) < 0.005
    assert abs(var - 1 / 12) < 0.002
    assert abs(n_mean) < 0.02
    assert abs(n_var - 1) < 0.02
    assert abs(n_fourth - 3) < 0.15
    assert faces[6] == 0
    assert (abs(faces[:6] - (1 << 16) / 6) < 500).all()


@pytest.mark.parametrize(
    ("call", "reason"),
    [
        (lambda xp: xp.random.uniform(-1, (2,)), "from 0 to 2"),
        (lambda xp: xp.random.uniform(1.5, (2,)), "expected an integer, or an array of one uint64"),
        (lambda xp: xp.random.uniform(1, (2,), dtype=xp.int32), "makes float32 or float64"),
        (lambda xp: xp.random.uniform(1, (2,), low=1, high=1), "expected low < high"),
        (lambda xp: xp.random.uniform(1, (2,), low=-3e38, high=3e38, dtype=xp.float32), "a finite difference"),
        (lambda xp: xp.random.integers(1, 5, 5, (2,)), "expected 1 to 2"),
        (lambda xp: xp.random.integers(1, 0, 300, (2,), dtype=xp.int8), "out of the range of int8"),
        (lambda xp: xp.random.bits(1, (0,)), "expected positive integers"),
    ],
)
def test_what_makes_no_sense_is_refused(call, reason):
    with pytest.raises(TraceError, match=reason):
        trace(lambda x: call(x.__array_namespace__()), np.ones(1))
