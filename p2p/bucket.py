"""A token bucket: so much at once, then so much a second. No I/O and no clock of its own."""

from collections import OrderedDict

from depin_node.core.clock import SECOND_NS, Now


class Bucket:
    """``burst`` tokens at first and at most; ``per_s`` come back. What is spent may exceed what is there, once."""

    __slots__ = ("_burst", "_left", "_per_s", "_since_ns")

    def __init__(self, burst: float, per_s: float, now: Now) -> None:
        self._burst = burst
        self._per_s = per_s
        self._left = burst
        self._since_ns = now.boottime_ns

    def spend(self, tokens: float, now: Now) -> bool:
        """Take ``tokens``; return whether they were there. What was not there has to come back first."""
        self._fill(now)
        enough = self._left >= tokens
        self._left -= tokens
        return enough

    def take(self, tokens: float, now: Now) -> bool:
        """Take ``tokens`` if they are there; return whether."""
        self._fill(now)
        if self._left < tokens:
            return False
        self._left -= tokens
        return True

    def wait_s(self, now: Now) -> float:
        """Return after how many seconds nothing is owed any more; 0 if nothing is."""
        if self._left >= 0:
            return 0.0
        self._fill(now)
        return max(0.0, -self._left / self._per_s)

    def is_full(self, now: Now) -> bool:
        """Tell whether it is as if new, so that it may be forgotten."""
        self._fill(now)
        return self._left >= self._burst

    def _fill(self, now: Now) -> None:
        elapsed_ns = now.boottime_ns - self._since_ns
        if elapsed_ns > 0:
            self._left = min(self._burst, self._left + elapsed_ns / SECOND_NS * self._per_s)
            self._since_ns = now.boottime_ns


class Buckets:
    """A bucket for each of many; at most ``count_max`` are remembered, the longest untouched goes first.

    Who is forgotten begins with a full one: ``count_max`` is to be larger than the number of those who come back
    within ``burst / per_s`` seconds.
    """

    def __init__(self, burst: float, per_s: float, *, count_max: int = 4096) -> None:
        self._burst = burst
        self._per_s = per_s
        self._count_max = count_max
        self._of: OrderedDict[str | bytes, Bucket] = OrderedDict()

    def __len__(self) -> int:
        return len(self._of)

    def of(self, name: str | bytes, now: Now) -> Bucket:
        """Return the bucket of ``name``."""
        bucket = self._of.get(name)
        if bucket is None:
            bucket = self._of[name] = Bucket(self._burst, self._per_s, now)
        self._of.move_to_end(name)
        if len(self._of) > self._count_max:
            self._of.popitem(last=False)
        return bucket
