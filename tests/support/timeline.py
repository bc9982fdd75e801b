"""Simulated time: one queue of calls, drawn up by millisecond.

Calls that are due in the same millisecond are one list, appended to and walked through; only the milliseconds are
kept in a heap. With a million calls waiting that is several times quicker than a heap of calls, and as deterministic.
"""

import heapq

from depin_node.core.clock import SECOND_NS, Now

WALL_NS = 1_800_000_000 * SECOND_NS
TURN_NS = 1_000_000


class Timeline:
    """``now`` and ``now_ns`` hold while a call runs."""

    def __init__(self) -> None:
        self._turns: dict = {}
        self._due: list = []
        self._set(0)

    def _set(self, turn):
        self._turn = turn
        self.now_ns = ns = turn * TURN_NS
        self.now = Now(ns, WALL_NS + ns)

    def at(self, ns, function, *arguments):
        """Have ``function`` called at ``ns``, or as soon after as a millisecond begins."""
        self.in_turns(-(-max(0, ns - self.now_ns) // TURN_NS), function, *arguments)

    def in_turns(self, count, function, *arguments):
        """Have ``function`` called so many milliseconds from now."""
        turn = self._turn + count
        calls = self._turns.get(turn)
        if calls is None:
            calls = self._turns[turn] = []
            heapq.heappush(self._due, turn)
        calls.append((function, arguments))

    def after(self, seconds, function, *arguments):
        """Have ``function`` called so many seconds from now."""
        self.at(self.now_ns + int(seconds * SECOND_NS), function, *arguments)

    def run(self, until_s):
        """Let simulated time pass."""
        end = int(until_s * SECOND_NS) // TURN_NS
        while self._due and self._due[0] <= end:
            turn = self._due[0]
            self._set(turn)
            for function, arguments in self._turns[turn]:  # grows while it is walked through
                function(*arguments)
            heapq.heappop(self._due)
            del self._turns[turn]
        self._set(end)
