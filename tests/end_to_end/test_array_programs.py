"""Traced functions on a real mesh: slices that peers agree on, and a discrete step on an accepted tolerant result."""

import numpy as np
import pytest

from depin_node.client import Mesh, Split, algebraic, quorum, trace, xp

pytestmark = pytest.mark.net
WAIT_S = 120


def test_exact_results_are_agreed_on_and_tolerant_ones_feed_a_second_job(nodes, tmp_path, monkeypatch):
    monkeypatch.setenv("DEPIN_CACHE_DIR", str(tmp_path / "cache"))
    first, *_ = nodes.mesh(2)
    x = np.random.default_rng(0).standard_normal((8, 6))
    with Mesh(first.data_dir) as mesh:
        order = mesh.run(trace(lambda x: xp.argsort(xp.exp(x), axis=1), Split(x), shards=4), verify=quorum(2, 2))
        gram = mesh.run(trace(lambda x: x @ x.T, x), verify=quorum(1, 1))
        checked = mesh.run(trace(lambda a, b: a @ b, x, x.T.copy()), verify=algebraic())
        compared = mesh.run(trace(lambda x: xp.fft.rfft(x), x), verify=quorum(2, 2))
        np.testing.assert_array_equal(order.result(WAIT_S), np.argsort(x, axis=1))
        assert order.status().tasks_total == 4
        best = mesh.run(trace(lambda g: xp.argmax(g, axis=1), gram.ref(timeout=WAIT_S)), verify=quorum(2, 2))
        np.testing.assert_array_equal(best.result(WAIT_S), np.argmax(x @ x.T, axis=1))
        np.testing.assert_allclose(checked.result(WAIT_S), x @ x.T, rtol=1e-12, atol=1e-13)
        assert (checked.status().verification.checks, checked.status().verification.attempts) == (1, 1)
        np.testing.assert_allclose(compared.result(WAIT_S), np.fft.rfft(x), rtol=1e-12, atol=1e-13)
        assert compared.status().verification.groups == 2
