"""Whose attempts run next under an agreement: those of the work that has had least of the slots' time.

A requester has one agreement with a provider for all its jobs, so that a small job would wait for what was sent of a
large one before it. A slot changes works only when the other is ``TURN_S`` behind, since that may need another worker
process; and leaves out works whose blobs are still on their way. Bounded by the agreement's window.
"""

from collections import deque
from collections.abc import Collection, Iterable

TURN_S = 2.0
"""Several times what a change of worker takes (0.1 to 0.5 s)."""


class Turns:
    """Queued attempts as (attempt, task), by the number of their work, in the order in which they came."""

    def __init__(self) -> None:
        self._queues: dict[int, deque[tuple[int, int]]] = {}
        self._served_s: dict[int, float] = {}
        self._ready: set[int] = set()

    def open(self, work: int) -> None:
        """Note a work; its attempts wait until it is ``ready``."""
        self._served_s[work] = 0.0

    def ready(self, work: int) -> None:
        """Let the attempts of a work run, if it is still open."""
        if work in self._served_s:
            self._ready.add(work)

    def is_ready(self, work: int) -> bool:
        """Tell whether attempts of a work may run."""
        return work in self._ready

    def close(self, work: int) -> None:
        """Forget a work, and what is queued of it."""
        self._queues.pop(work, None)
        self._served_s.pop(work, None)
        self._ready.discard(work)

    def add(self, work: int, items: Iterable[tuple[int, int]]) -> None:
        """Queue attempts of an open work. One that had nothing queued is owed a turn at most for that time."""
        queue = self._queues.get(work)
        if queue is None:
            least_s = min((self._served_s[other] for other in self._queues), default=0.0)
            self._served_s[work] = max(self._served_s[work], least_s - TURN_S)
            queue = self._queues[work] = deque()
        queue.extend(items)

    def served(self, work: int, seconds: float) -> None:
        """Note slot time that a work has had."""
        if work in self._served_s:
            self._served_s[work] += seconds

    def next(self, staying: int) -> int | None:
        """Return the work whose attempts are next; None: there are none.

        Args:
            staying: the work of which the slot has run attempts; -1: none.
        """
        if len(self._queues) == 1:  # as it is with most agreements
            (work,) = self._queues
            return work if work in self._ready else None
        waiting = [work for work in self._queues if work in self._ready]
        if not waiting:
            return None
        least = min(waiting, key=self._served_s.__getitem__)
        stays = staying in waiting and self._served_s[staying] < self._served_s[least] + TURN_S
        return staying if stays else least

    def take(self, work: int, count: int) -> list[tuple[int, int]]:
        """Take at most ``count`` attempts of a work, the oldest first."""
        queue = self._queues.get(work)
        if queue is None:
            return []
        taken = [queue.popleft() for _ in range(min(count, len(queue)))]
        if not queue:
            del self._queues[work]
        return taken

    def put_back(self, work: int, items: Collection[tuple[int, int]]) -> None:
        """Have attempts that were taken, and did not run, before the others of their work."""
        if items and work in self._served_s:
            self._queues.setdefault(work, deque()).extendleft(reversed(list(items)))

    def drop(self, attempts: Collection[int]) -> None:
        """Forget queued attempts."""
        for work, queue in list(self._queues.items()):
            kept = deque(item for item in queue if item[0] not in attempts)
            if kept:
                self._queues[work] = kept
            else:
                del self._queues[work]
