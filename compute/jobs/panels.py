"""Who agreed on which task of a job, and which agreed results are being audited: accomplices agree, too.

A *panel* is the set of providers whose answers to a task agreed. Few differ, so a task costs two bytes. When an audit
shows that a panel agreed on something wrong, all of it is caught, and so nothing is left of any result whose panel
consists of such providers only (``void``). Panels and drawn audits are journaled with the results, and ``restored``.
"""

from array import array
from typing import NamedTuple

PANELS_MAX = 0xFFFF
"""Different panels of one job that are remembered; the tasks of further ones are nobody's."""


class Agreed(NamedTuple):
    """An accepted answer that is being audited: its root, and the attempts that gave it (or one as good). ``outvoted``:
    who answered otherwise, and what; that is forgotten over a restart."""

    root: bytes
    device_class: str
    attempts: tuple[tuple[bytes, int], ...]
    outvoted: tuple[tuple[bytes, bytes], ...] = ()


class KeptPanels(NamedTuple):
    """What the journal has of a job's panels: their members by number, the panel of each task, the open audits as
    (task, root, device class)."""

    members: tuple[tuple[int, tuple[bytes, ...]], ...] = ()
    of: tuple[tuple[int, int], ...] = ()
    audits: tuple[tuple[int, bytes, str], ...] = ()


NO_PANELS = KeptPanels()
BEFORE = -1
"""Stands for the number of an attempt from before a restart: what was signed about it is not here any more."""


class Panels:
    """The panels of one job, and its open audits."""

    def __init__(self, tasks: int) -> None:
        self.audits = 0
        self.auditing: dict[int, Agreed] = {}
        self._of = array("H", bytes(2 * tasks))
        self._panels: list[frozenset[bytes]] = [frozenset()]
        self._known: dict[frozenset[bytes], int] = {}

    def restored(self, kept: KeptPanels) -> None:
        """Go on with what was before a restart."""
        for number, peers in kept.members:
            self._panels += [frozenset()] * (number + 1 - len(self._panels))
            self._panels[number] = frozenset(peers)
            self._known[self._panels[number]] = number
        for task, number in kept.of:
            if number < len(self._panels):
                self._of[task] = number
        for task, root, device_class in kept.audits:
            self.audit(task, Agreed(root, device_class, tuple((peer, BEFORE) for peer in self.members(task))))

    def number(self, task: int) -> int:
        """Return the number of a task's panel; 0: nobody's."""
        return self._of[task]

    def members(self, task: int) -> frozenset[bytes]:
        """Return who agreed on a task."""
        return self._panels[self._of[task]]

    def accepted(self, task: int, peers: frozenset[bytes]) -> bool:
        """Note who agreed on a task; tell whether they are a new panel."""
        number = self._known.get(peers, 0)
        is_new = not number and len(self._panels) <= PANELS_MAX
        if is_new:
            number = self._known[peers] = len(self._panels)
            self._panels.append(peers)
        self._of[task] = number
        return is_new

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
