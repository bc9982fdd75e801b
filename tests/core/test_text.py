import pytest

from depin_node.core.text import did_you_mean, printable


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain", "plain"),
        ("Grüße, 世界 🎉", "Grüße, 世界 🎉"),
        ("\x1b[31mred", r"\x1b[31mred"),
        ("a\rb\x00\x7f\x9b", r"a\rb\x00\x7f\x9b"),
        ("right\u202eleft\u2066", r"right\u202eleft\u2066"),
        ("\u2028\ud800\ufffe", r"\u2028\ud800\ufffe"),
        ("tab\tline\n", r"tab\tline\n"),
    ],
)
def test_nothing_that_steers_a_terminal_comes_through(text, shown):
    assert printable(text) == shown


def test_some_may_be_kept_and_long_text_is_cut():
    assert printable("a\n\tb\x1b", keep="\n\t") == "a\n\tb\\x1b"
    assert printable("x" * 10, length_max=4) == "xxx…"
    assert len(printable("x" * 10_000)) == 4096


def test_the_nearest_word_is_offered_if_it_is_near():
    assert did_you_mean("stat", ["start", "status", "peers"]) == "; did you mean 'start'?"
    assert did_you_mean("banana", ["start", "status"]) == ""
