"""A token bucket: so much at once, then so much a second. No I/O and no clock of its own."""

from collections import OrderedDict

from depin_node.core.clock import SECOND_NS, Now


class Bucket:
    """``burst`` tokens at first and at most; ``per_s`` come back. What is spent may exceed what is there, once.

    All that is kept is when it will be full again: each token spent puts that off by what it takes to come back (the
    generic cell rate algorithm, ITU-T I.371).
    """

    __slots__ = ("_burst_ns", "_full_ns", "_token_ns")

    def __init__(self, burst: float, per_s: float, now: Now) -> None:
        self._token_ns = SECOND_NS / per_s
        self._burst_ns = burst * self._token_ns
        self._full_ns = float(now.boottime_ns)

    def spend(self, tokens: float, now: Now) -> bool:
        """Take ``tokens``; return whether they were there. What was not there has to come back first."""
        ns, full_ns = now.boottime_ns, self._full_ns
        self._full_ns = full_ns = (full_ns if full_ns > ns else ns) + tokens * self._token_ns
        return full_ns - ns <= self._burst_ns

    def take(self, tokens: float, now: Now) -> bool:
        """Take ``tokens`` if they are there; return whether."""
        before_ns = self._full_ns
        if self.spend(tokens, now):
            return True
        self._full_ns = before_ns
        return False

    def wait_s(self, now: Now) -> float:
        """Return after how many seconds nothing is owed any more; 0 if nothing is."""
        owed_ns = self._full_ns - now.boottime_ns - self._burst_ns
        return owed_ns / SECOND_NS if owed_ns > 0 else 0.0

    def is_full(self, now: Now) -> bool:
        """Tell whether it is as if new, so that it may be forgotten."""
        return self._full_ns <= now.boottime_ns


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
