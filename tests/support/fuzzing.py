"""Fuzzing: targets that make an input from a seed and see what the code does with it.

A target is a function of a seeded generator. It returns the input it made if the code did what it should, which
includes refusing it with a coded error, and raises ``Finding`` with the input if not. ``make fuzz`` runs all targets
for minutes, the tests a few seeds of each. A finding's seed brings it back; its input, made small, becomes a test.
"""

import random
from collections.abc import Callable

TARGETS: dict[str, Callable[[random.Random], bytes]] = {}


class Finding(Exception):
    """The code failed on an input."""

    def __init__(self, text: str, data: bytes) -> None:
        super().__init__(text)
        self.data = data


def target(function: Callable[[random.Random], bytes]) -> Callable[[random.Random], bytes]:
    """Make a function a target, by its name."""
    TARGETS[function.__name__] = function
    return function


def mutate(data: bytes, chance: random.Random, other: bytes = b"") -> bytes:
    """Return a neighbour of some bytes: flipped, cut, repeated, spliced with another input, with telling numbers."""
    out = bytearray(data)
    for _ in range(chance.choice((1, 1, 1, 2, 4, 16))):
        at = chance.randrange(len(out) + 1)
        end = min(len(out), at + chance.choice((1, 1, 2, 4, 8, 64)))
        match chance.randrange(7):
            case 0:
                out[at : at + 1] = bytes([chance.randrange(256)])
            case 1 if at < len(out):
                out[at] ^= 1 << chance.randrange(8)
            case 2:
                del out[at:end]
            case 3:
                out[at:at] = out[at:end] * chance.choice((1, 2, 50))
            case 4 if other:
                start = chance.randrange(len(other))
                out[at:end] = other[start : start + chance.choice((1, 4, 32, 200))]
            case 5:
                edge = chance.choice(
                    (0, 1, 0x7F, 0x80, 0xFF, 0x7FFF, 0xFFFF, 2**31 - 1, 2**32 - 1, 2**63 - 1, 2**64 - 1)
                )
                size = max(1, (edge.bit_length() + 7) // 8)
                out[at : at + size] = edge.to_bytes(size, "big")
            case _:
                out[at:at] = bytes([chance.choice((0x80, 0x90, 0xC0, 0xC1, 0xC4, 0xC6, 0xCB, 0xCF, 0xD9, 0xDC, 0xDF))])
    return bytes(out)
