"""What a task costs: reference-seconds, fixed for a work by its first answer, which is its probe.

A *reference-second* is what one core of class ``wasm-1`` does in a second if the micro-benchmark
(``devices/benchmark.py``) finds the speeds of ``REFERENCE`` on it. A slot's *speed* is the geometric mean of what it
was measured at over those, in thousandths: its bid says it, and a time measured there, times its speed, is
reference-seconds. All of that is the provider's word.

The flow: a bid names a rate (thousandths of a credit for a reference-second; 0 among fellows) and a speed. The first
answer of a work is the probe (of several that come in one message, the middle one): what it took is what the provider
asks for each task. The requester holds that against
the time that it saw pass, and against what others ask for tasks of the same job (``Prices``); the price that comes of
it is fixed for the work, the probe included, and every answer that counts as work is paid so much, however long it
took. A provider for which that is too little ends the agreement, and so does a requester for which it is too much
(``price``). What answers really took, fuel and energy are reported with the countersignature, and priced by nobody.
"""

from collections.abc import Iterable
from math import prod
from typing import Final

REFERENCE: Final = (2500, 1250, 2500)
"""Millions of float32 and of float64 operations a second, and MB/s of memory: about one core of the server that this
was first measured on (an AMD EPYC)."""
NOMINAL: Final = 1000
"""The speed of the reference core, and of a slot that nobody has measured."""
SPEED_MAX: Final = 100_000_000
"""Several times the fastest GPUs there are: 60 TFLOP/s, 30 of them double, and 3 TB/s come to about 10 million."""
CAP: Final = 2
"""So many times what others ask, and no more, is paid for a task."""
JUDGES_MIN: Final = 2
"""Others whose probes are needed for that: one alone could ask for next to nothing, to drive another out."""
TOO_FAR: Final = 4
"""So many times what is usual ends an agreement: tasks of one job differ, and clocks are not of one mind."""
LEAST_US: Final = 10_000
"""Below this nobody leaves for the price: it is what starting up, and other work on the machine, make of it."""
FORGIVEN_US: Final = 250_000
"""Of one work a provider gives away so much of a slot's time before it leaves: a new agreement costs both about a
second, and one answer that had to wait for the processor is no reason for that."""
PRICE_MAX_US: Final = 2**48
"""Of one task, nine years of the reference core. So are all times in messages: sums of a few receipts fit 64 bits."""
ASKED_MAX: Final = 256
"""Providers of one job whose probes are remembered."""


def reference_speed(*measured: int) -> int:
    """Return the speed of a slot in thousandths of the reference core's, from what ``REFERENCE`` names; ``NOMINAL`` if
    it was not measured."""
    product = prod(speed / reference for speed, reference in zip(measured, REFERENCE, strict=True))
    return min(SPEED_MAX, max(1, round(NOMINAL * product ** (1 / 3)))) if product else NOMINAL


def reference_us(elapsed_us: int, speed: int) -> int:
    """Return what ``elapsed_us`` on a slot of ``speed`` is worth, in µs of the reference core, rounded up; no more than
    ``PRICE_MAX_US``."""
    return min(PRICE_MAX_US, -(-elapsed_us * speed // NOMINAL))


class Prices:
    """What the providers of one job ask for one of its tasks, in µs of the reference core."""

    def __init__(self) -> None:
        self._asked: dict[bytes, int] = {}

    def fix(self, peer: bytes, asked_us: int) -> int:
        """Note what a provider's probe asks; return what is paid for each task."""
        usual_us = self._usual_us(peer)
        if peer in self._asked or len(self._asked) < ASKED_MAX:
            self._asked[peer] = asked_us
        return asked_us if usual_us is None else min(asked_us, CAP * usual_us)

    def forget(self, peer: bytes) -> None:
        """A peer was found out: what it asked for is not what is usual."""
        self._asked.pop(peer, None)

    def is_too_much(self, peer: bytes, price_us: int) -> bool:
        """Tell whether the price of a work is far beyond what others ask: they may have come later."""
        usual_us = self._usual_us(peer)
        return usual_us is not None and price_us > max(LEAST_US, TOO_FAR * usual_us)

    def _usual_us(self, peer: bytes) -> int | None:
        """Return the middle one of what others ask, the higher of two; None while there are too few."""
        return _middle(asked_us for other, asked_us in self._asked.items() if other != peer)


def _middle(asked: Iterable[int]) -> int | None:
    ordered = sorted(asked)
    return ordered[len(ordered) // 2] if len(ordered) >= JUDGES_MIN else None


def is_too_little(price_us: int, ran_us: int, answers: int, speed: int) -> bool:
    """Tell whether a provider whose ``answers`` took ``ran_us`` on a slot of ``speed`` had better leave."""
    paid_us = price_us * NOMINAL // speed
    return ran_us > max(LEAST_US, TOO_FAR * paid_us) * answers + FORGIVEN_US
