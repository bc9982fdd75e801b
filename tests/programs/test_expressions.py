import operator
from contextlib import suppress
from fractions import Fraction
from math import ceil, floor

import pytest
from hypothesis import given
from hypothesis import strategies as st

from depin_node.compute.programs.expressions import evaluate
from depin_node.core.errors import ConfigError

NAMES = {"cols": 403, "rows": 344, "z": (344, 403), "one": 1, "min": 7}


@pytest.mark.parametrize(("text", "value"), [
    ("ceil(cols / 16)", 26),
    ("ceil(rows/16)", 22),
    (" z.shape [ 0 ] ", 344),
    ("z.shape[-1] * 2", 806),
    ("z.size % 7", 344 * 403 % 7),
    ("z.ndim", 2),
    ("-(-cols // 16)", 26),
    ("--3", 3),
    ("2 - 3 - 4", -5),
    ("2 + 3 * 4", 14),
    ("12 / 5 * 5", 12),
    ("-7 // 2", -4),
    ("-7 % 3", 2),
    ("max(1, 2, one + 3)", 4),
    ("abs(-3)", 3),
    ("floor(-7 / 2)", -4),
    ("min", 7),  # a user's name comes before ours
    ("ceil(9007199254740993 / 9007199254740992)", 2),  # in floats this is 1
    ("((((((((1))))))))", 1),
])  # fmt: skip
def test_values(text, value):
    assert evaluate(text, NAMES) == value


@pytest.mark.parametrize(("text", "reason"), [
    ("cols / 16", "403/16, not an integer: use ceil"),
    ("ceil(cols / )", "at character 13: expected a number, a name or '\\(', found '\\)'"),
    ("ceil(cols / 16", "expected '\\)', found the end"),
    ("columns + 1", "at character 1: 'columns' is not known here; known are: cols"),
    ("z", "say z.shape"),
    ("z.shape", "expected '\\['"),
    ("z.shape[2]", "z has 2 axes"),
    ("z.shape[-3]", "z has 2 axes"),
    ("z.shape[one]", "number of an axis"),
    ("z.__class__", "shape\\[…\\], size and ndim"),
    ("cols.shape[0]", "cols is a number"),
    ("1 / 0", "divides by zero"),
    ("1 % (one - 1)", "divides by zero"),
    ("ceil(1, 2)", "ceil takes one argument"),
    ("max()", "expected a number"),
    ("1 2", "'2' is not expected"),
    ("2 ** 3", "found '\\*'"),
    ("0x10", "'x10' is not expected"),
    ("1.5", "'.' is not expected"),
    ("", "found the end"),
    ("  ", "found the end"),
    ("3 $ 4", "at character 3: '\\$' means nothing"),
    ("3 + é", "'é' means nothing"),
    ("__import__('os').system('true')", "not known"),
    ("open", "not known"),
    ("(" * 17 + "1" + ")" * 17, "more than 16 levels"),
    ("-" * 250 + "x", "not known"),
    ("1" * 257, "at most 256"),
    ("9" * 100, "too large"),
    ("*".join(["9999999999"] * 20), "too large"),
])  # fmt: skip
def test_mistakes_are_answered_with_their_place(text, reason):
    with pytest.raises(ConfigError, match=reason):
        evaluate(text, NAMES)


@given(st.text("0123456789()+-*/%., abcez[]shap", max_size=40))
def test_no_text_does_more_than_fail(text):
    with suppress(ConfigError):
        assert isinstance(evaluate(text, {"a": 3, "z": (2,)}), int)


OPERATIONS = {"+": operator.add, "-": operator.sub, "*": operator.mul}
LEAVES = st.integers(0, 50).map(lambda n: (str(n), Fraction(n)))
TREES = st.recursive(
    LEAVES,
    lambda inner: st.builds(
        lambda a, sign, b: (f"({a[0]} {sign} {b[0]})", OPERATIONS[sign](a[1], b[1])),
        inner,
        st.sampled_from("+-*"),
        inner,
    ),
    max_leaves=8,
)


@given(TREES, st.integers(1, 9))
def test_agrees_with_exact_arithmetic(tree, divisor):
    text, value = tree
    assert evaluate(f"ceil({text} / {divisor})", {}) == ceil(value / divisor)
    assert evaluate(f"floor({text} / {divisor})", {}) == floor(value / divisor)
