"""Who agreed on which task of a job, and which agreed results are being audited: accomplices agree, too.

A *panel* is the set of providers whose answers to a task agreed. Few differ, so a task costs two bytes. When an audit
shows that a panel agreed on something wrong, all of it is caught, and so nothing is left of any result whose panel
consists of such providers only (``void``). What was accepted before a restart has no panel any more.
"""

from array import array
from typing import NamedTuple

PANELS_MAX = 0xFFFF
"""Different panels of one job that are remembered; the tasks of further ones are nobody's."""


class Agreed(NamedTuple):
    """An accepted answer that is being audited: its root, and the attempts that gave it (or one as good)."""

    root: bytes
    device_class: str
    attempts: tuple[tuple[bytes, int], ...]


class Panels:
    """The panels of one job, and its open audits."""

    def __init__(self, tasks: int) -> None:
        self.audits = 0
        self.auditing: dict[int, Agreed] = {}
        self._of = array("H", bytes(2 * tasks))
        self._panels: list[frozenset[bytes]] = [frozenset()]
        self._known: dict[frozenset[bytes], int] = {}

    def accepted(self, task: int, peers: frozenset[bytes]) -> None:
        """Note who agreed on a task."""
        number = self._known.get(peers, 0)
        if not number and len(self._panels) <= PANELS_MAX:
            number = self._known[peers] = len(self._panels)
            self._panels.append(peers)
        self._of[task] = number

    def audit(self, task: int, agreed: Agreed) -> None:
        """Note that a task is being audited."""
        self.audits += 1
        self.auditing[task] = agreed

    def forget(self, task: int) -> None:
        """A task is to run again, whoever agreed on it."""
        self._of[task] = 0

    def void(self, caught: set[bytes]) -> list[tuple[int, int]]:
        """Forget the results that nobody but ``caught`` stands for; return their tasks, each with the size of its
        panel."""
        gone = {number: len(peers) for number, peers in enumerate(self._panels) if number and peers <= caught}
        void = [(task, gone[number]) for task, number in enumerate(self._of) if number in gone]
        for task, _ in void:
            self._of[task] = 0
            self.auditing.pop(task, None)
        return void
