"""The examples of docs/arrays.md run."""

import re
from pathlib import Path

import numpy as np

PAGE = Path(__file__).parents[2] / "docs" / "arrays.md"


def test_the_examples_run():
    names: dict[str, object] = {}
    for block in re.findall(r"^```python\n(.*?)^```", PAGE.read_text(), re.M | re.S):
        exec(compile(block, str(PAGE), "exec"), names)
    x, result = names["x"], names["result"]
    assert len(names["traced"].recording.steps) == 4
    np.testing.assert_allclose(result, np.exp(x) / np.exp(x).sum(1, keepdims=True), rtol=1e-5)
    assert names["best"].tolist() == names["gram"].argmax(1).tolist()
    assert len(names["exact"].recording.steps) == 1
    assert names["estimates"].shape == (8,)
    assert abs(names["estimates"].mean() - np.pi) < 0.02
