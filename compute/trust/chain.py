"""A node's log: everything that it has signed about finished work, in one chain of hashes.

Entry after entry names its *place*: the index, the link before it, and an *epoch*, the sequence number with which the
node began to write when it was last started. The link behind an entry covers all of this and the entry's digest, so
that a head (index and link) stands for all that came before it.

An honest node never signs two entries for one place, whatever happens to it: what was not stored when it died was
never sent, and a node that is restored from a backup begins a new epoch, which is a branch and no fork. So two links
for one epoch and index, or a statement of an old epoch signed after a newer one had begun, are proof of fraud
(``heads.py``), and a restored node is told by its partners what it has lost.
"""

from dataclasses import dataclass

from blake3 import blake3

from depin_node.core.wire import Digest, Message, Uint

_ORIGIN_LABEL = b"depin/log-origin/v1\0"
_LINK_LABEL = b"depin/log-link/v1\0"


class Place(Message, frozen=True):
    """Where an entry stands in its signer's log."""

    epoch: Uint
    index: Uint
    previous: Digest


@dataclass(frozen=True)
class Head:
    """How far a log goes: ``size`` entries, the last of which has this ``link`` behind it."""

    size: int
    link: bytes


@dataclass(frozen=True)
class Entry:
    """One entry of our own log: its place, its digest, and the link behind it."""

    epoch: int
    index: int
    previous: bytes
    digest: bytes
    link: bytes


def origin(owner: bytes) -> bytes:
    """Return the link before the first entry of a node's log."""
    return blake3(_ORIGIN_LABEL + owner).digest()


def link(place: Place, digest: bytes) -> bytes:
    """Return the 32-byte link behind the entry at ``place`` whose envelope has ``digest``."""
    numbers = place.epoch.to_bytes(8, "little") + place.index.to_bytes(8, "little")
    return blake3(_LINK_LABEL + place.previous + numbers + digest).digest()


class Log:
    """The writer's end of our own log. What it hands out is signed at once, and stored in the same order."""

    def __init__(self, owner: bytes, epoch: int, stored: Head | None = None) -> None:
        """Go on from what is stored. ``epoch`` is a sequence number that was never used before."""
        self.epoch = epoch
        self.stored = stored or Head(0, origin(owner))
        self._head = self.stored

    def place(self) -> Place:
        """Return where the next entry goes; sign it there and ``add`` it."""
        return Place(self.epoch, self._head.size, self._head.link)

    def add(self, digest: bytes) -> Entry:
        """Take the entry that was signed for ``place``."""
        place = self.place()
        entry = Entry(place.epoch, place.index, place.previous, digest, link(place, digest))
        self._head = Head(place.index + 1, entry.link)
        return entry

    def note_stored(self, entry: Entry) -> bool:
        """An entry is on disk. Return whether it stands: it does not if one before it was lost, and is not to be
        sent then."""
        if entry.previous != self.stored.link or entry.epoch != self.epoch:
            return False
        self.stored = Head(entry.index + 1, entry.link)
        return True

    def note_lost(self, entry: Entry, epoch: int) -> None:
        """An entry could not be stored, and was never sent: go on from what is, in a new ``epoch``."""
        if entry.epoch == self.epoch:
            self.epoch = epoch
            self._head = self.stored
