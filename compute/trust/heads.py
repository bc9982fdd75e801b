"""Logs as others see them: signed runs of links, what a partner keeps of them, and when they prove a fork.

The flow: partners ask each other how their logs went on since they last looked (``receipts/1``). The answer is a *run*,
signed: the digests and epochs of the entries since then, from which all links follow; what the entries say stays
private. A ``Witness`` keeps the links of one log. As every run begins where the last one ended, what two partners keep
overlaps from the later one's first look on; so if the owner shows them two logs, some link differs in both, and the
two signed runs are proof (``conflict``).

A node that was restored from a backup begins a new epoch at an older link. Its run then begins at a link that is
known, only not the last one: a branch, counted and told to it, so that it learns what it has lost; no fork.
"""

from collections.abc import Iterable, Iterator
from typing import Annotated, ClassVar, NamedTuple

import msgspec

from depin_node.compute.trust.chain import Head, Place, link, origin
from depin_node.core.errors import PeerViolation
from depin_node.core.wire import Digest, Message, Uint
from depin_node.crypto.envelope import Signed, Verified, verify_signature

RUN_MAX = 512
"""Entries in one run: 23 KiB. Longer ones are asked for in turn."""
LINKS_MAX = 8192
"""Links of one log that are kept; the oldest go first."""
RUNS_MAX = 64
HAVES_MAX = 24


class Step(Message, frozen=True):
    """One entry of a log, by its epoch and its digest."""

    epoch: Uint
    digest: Digest


class Run(Signed, frozen=True):
    """Entries ``first``, ``first + 1``, … of the signer's log, after ``previous``; ``epoch`` is the one that it writes
    in as it signs this. ``more``: there are further ones."""

    TYPE: ClassVar[str] = "log_run"
    SIZE_BYTES_MAX: ClassVar[int] = 32 * 1024

    epoch: Uint
    first: Uint
    previous: Digest
    steps: Annotated[tuple[Step, ...], msgspec.Meta(max_length=RUN_MAX)]
    more: bool


class Known(NamedTuple):
    """A link of a log: behind the entry at ``position``, signed in ``epoch``."""

    epoch: int
    position: int
    link: bytes


def links(run: Run) -> Iterator[Known]:
    """Yield the link behind each entry of a run."""
    previous = run.previous
    for index, step in enumerate(run.steps, run.first):
        previous = link(Place(step.epoch, index, previous), step.digest)
        yield Known(step.epoch, index, previous)


def conflict(one: Verified[Run], other: Verified[Run]) -> str:
    """Return why two runs of one signer cannot both be honest, or nothing."""
    if one.sender != other.sender:
        return ""
    before = {(known.epoch, known.position): known.link for known in links(one.payload)}
    for known in links(other.payload):
        if before.get((known.epoch, known.position), known.link) != known.link:
            return f"two entries for place {known.position} of one log"
    for early, late in ((one.payload, other.payload), (other.payload, one.payload)):
        began = max([late.epoch, *(step.epoch for step in late.steps)])
        if early.epoch < began < early.seq:
            return "it went on with an old log after it had begun a new one"
    return ""


class Witness:
    """What one partner has seen of a log. Pure; the runs that it keeps are for the journal."""

    def __init__(self, owner: bytes, network: str, runs: Iterable[bytes] = ()) -> None:
        """Begin with the runs that the journal has, in the order in which they came."""
        self.owner = owner
        self.branches = 0
        self._network = network
        self._links: dict[tuple[int, int], bytes] = {}
        self._sizes: dict[bytes, int] = {origin(owner): 0}  # link: entries up to it
        self._runs: list[Verified[Run]] = []
        self._head: Head | None = None
        for envelope in runs:
            self._keep(verify_signature(envelope, Run, network))

    def take(self, envelope: bytes) -> tuple[bool, tuple[bytes, bytes] | None]:
        """Take a run that the owner, or somebody else, has shown.

        Returns:
            Whether it is new, and so to be stored; and the two runs that prove a fork, if it is one.

        Raises:
            PeerViolation: not a run of the owner, or one that does not follow on what is known.
        """
        run = verify_signature(envelope, Run, self._network)
        if run.sender != self.owner:
            raise PeerViolation("a run of another's log")
        forked = self.contradiction(run)
        if forked is not None:
            return False, forked
        payload = run.payload
        if self._runs and self._sizes.get(payload.previous) != payload.first:
            raise PeerViolation("a run that does not follow on any link that is known of this log")
        if all(self._links.get((known.epoch, known.position)) == known.link for known in links(payload)):
            return False, None
        self._keep(run)
        return True, None

    def contradiction(self, run: Verified[Run]) -> tuple[bytes, bytes] | None:
        """Return the two runs that prove a fork, if a run contradicts one that is kept."""
        return next(((known.data, run.data) for known in self._runs if conflict(known, run)), None)

    def _keep(self, run: Verified[Run]) -> None:
        payload = run.payload
        if self._head is not None and payload.previous != self._head.link:
            self.branches += 1
        self._sizes.setdefault(payload.previous, payload.first)
        for known in links(payload):
            self._links[known.epoch, known.position] = known.link
            self._sizes[known.link] = known.position + 1
            self._head = Head(known.position + 1, known.link)
        self._runs.append(run)
        if len(self._runs) > RUNS_MAX:
            del self._runs[0]
        while len(self._links) > LINKS_MAX:
            gone = self._links.pop(next(iter(self._links)))
            self._sizes.pop(gone, None)

    def last(self) -> bytes | None:
        """Return the newest run, signed by the owner, or None."""
        return self._runs[-1].data if self._runs else None

    def haves(self) -> list[bytes]:
        """Return links of the log that we know, the newest first, ever wider apart, and the origin."""
        known = list(self._sizes)
        chosen: list[bytes] = []
        step, at = 1, len(known) - 1
        while at >= 0 and len(chosen) < HAVES_MAX - 1:
            chosen.append(known[at])
            at -= step
            step += len(chosen) // 4
        return [*chosen, origin(self.owner)] if origin(self.owner) not in chosen else chosen
