"""An elementwise and a reduction kernel on a real mesh: two lenders agree on every bit, and NumPy on the result."""

import numpy as np
import pytest

from depin_node.client import ElementwiseKernel, Mesh, Out, ReductionKernel, quorum

pytestmark = pytest.mark.net
WAIT_S = 120


def test_cupys_other_kernels_on_a_mesh(nodes, tmp_path, monkeypatch):
    monkeypatch.setenv("DEPIN_CACHE_DIR", str(tmp_path / "cache"))
    first, *_ = nodes.mesh(2)
    x = np.random.default_rng(1).random((300, 70), dtype="float32")
    centred = ElementwiseKernel("T x, T m", "T z, bool low", "z = x - m; low = x < m", "centred")
    norm = ReductionKernel("T x", "T y", "x * x", "a + b", "y = sqrt(a)", "0", "l2norm")
    with Mesh(first.data_dir) as mesh:
        rows = mesh.launch(norm, args=(x,), axis=1, keepdims=True, shards=4, verify=quorum(2, 2))
        total = mesh.launch(norm, args=(x,), verify=quorum(2, 2), name="everything")
        parts = mesh.launch(centred, args=(x, x.mean(0)), shards=5, verify=quorum(2, 2))
        into = mesh.launch(centred, args=(x, 0.5, Out("float32", x.shape), Out("bool", x.shape)), verify=quorum(1, 1))
        np.testing.assert_allclose(rows.result(WAIT_S), np.sqrt((x * x).sum(1, keepdims=True)), 1e-6)
        np.testing.assert_allclose(total.result(WAIT_S), np.sqrt((x * x).sum()), 1e-6)
        assert total.result(WAIT_S).shape == ()
        z, low = parts.result(WAIT_S)
        np.testing.assert_array_equal(z, x - x.mean(0))
        np.testing.assert_array_equal(low, x < x.mean(0))
        assert list(into.outputs(WAIT_S)) == ["z", "low"]
        assert (rows.status().tasks_total, rows.status().name, total.status().name) == (4, "l2norm", "everything")
        again = mesh.future(rows.job_id)  # from the node alone: the shape is the program's
        np.testing.assert_array_equal(again.result(WAIT_S), rows.result(WAIT_S))
