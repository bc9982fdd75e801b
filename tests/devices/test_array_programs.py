"""Traced array programs on every device: generated kernels give the same bits, operations of the library run."""

import numpy as np
from traced import DEVICE, run

from depin_node.client import xp


def exact(x, key):
    e = xp.exp(x - xp.max(x, axis=1, keepdims=True))
    return {
        "softmax": e / xp.sum(e, axis=1, keepdims=True),
        "order": xp.argsort(x, axis=1),
        "sums": xp.cumulative_sum(x[0, :]),
        "best": xp.argmin(x, axis=0),
        "chance": xp.random.normal(key, (40,), dtype=xp.float32),
        "joined": xp.concat([x[:2, ::2], xp.roll(x, 1)[:2, 1::2]], axis=1),
    }


def test_generated_kernels_give_the_same_bits_on_every_device(device):
    x = np.random.default_rng(3).standard_normal((5, 70)).astype("float32")
    x[1, 3] = np.nan
    found, wanted = (run(exact, x, np.array(11, "uint64"), device=one) for one in (device, DEVICE))
    assert [a.tobytes() for a in found] == [b.tobytes() for b in wanted]


def test_operations_of_the_library_run_between_kernels(device):
    x = np.random.default_rng(3).standard_normal((5, 7))
    (found,) = run(lambda x: xp.linalg.solve(x @ x.T + xp.eye(5), x * 2), x, device=device)
    np.testing.assert_allclose(found, np.linalg.solve(x @ x.T + np.eye(5), x * 2), rtol=1e-9)
