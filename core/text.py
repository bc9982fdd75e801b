"""Text for people: what strangers wrote must not steer a terminal, and a wrong word deserves the right one."""

import difflib
import unicodedata
from collections.abc import Iterable

_STEERING = frozenset(
    ("Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp")
)  # controls, bidi and other format marks, non-characters


def printable(text: str, *, keep: str = "", length_max: int = 4096) -> str:
    r"""Return ``text`` cut short, its control and format characters (but those in ``keep``) spelled out: ``\x1b``.

    For everything that is printed or logged and came from a peer, a file or a network.
    """
    if len(text) > length_max:
        text = text[: length_max - 1] + "…"
    if text.isascii() and text.isprintable():
        return text
    return "".join(
        char if char in keep or unicodedata.category(char) not in _STEERING else ascii(char)[1:-1] for char in text
    )


def counted(number: int, noun: str) -> str:
    """Return ``"1 peer"``, ``"2 peers"``."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def did_you_mean(wrong: str, known: Iterable[str]) -> str:
    """Return ``"; did you mean 'x'?"``, or nothing where no known word is near."""
    near = difflib.get_close_matches(wrong, list(known), n=1, cutoff=0.75)
    return f"; did you mean {near[0]!r}?" if near else ""
