"""A provider as the scheduler sees it: what it agreed to, what is open with it, how fast it is.

How many attempts are kept open with a provider: enough that it is never idle between two messages, few enough
that little is lost with it and the end of a job is even. Two a slot, and as many as it commits to in
``AHEAD_S``; never more than its bid allows.
"""

from collections.abc import Iterable

from depin_node.compute.jobs.job import Job
from depin_node.compute.market.messages import Terms
from depin_node.compute.verification.quorum import Ballot
from depin_node.core.clock import SECOND_NS

AHEAD_S = 0.1
"""Several times the 18 ms that a verified task takes under full load (measured, notes on the pipeline)."""
FIRST_AHEAD = 8
"""Open attempts a slot, before anything is known of a provider's speed."""
_SMOOTHING = 0.3


class Partner:
    """One provider that was asked. ``is_agreed`` once there is an agreement; ``open`` holds what is not
    released."""

    def __init__(self, peer: bytes, group: str, terms: Terms, first_attempt: int) -> None:
        self.peer = peer
        self.group = group
        self.terms = terms
        self.is_agreed = False
        self.device_class = ""
        self.slots = 0
        self.window = 0
        self.assign_until_ns = 0
        self.idle_since_ns = 0
        self.next_attempt = first_attempt
        self.next_work = 0
        self.open: dict[int, OpenTask] = {}
        self.works: dict[bytes, int] = {}
        self._rate = 0.0
        self._counted_ns = 0
        self._ahead = 0

    def agreed(self, device_class: str, slots: int, window: int, until_ns: int, at_ns: int) -> None:
        """Note the agreement."""
        self.is_agreed = True
        self.device_class = device_class
        self.slots = slots
        self.window = window
        self.assign_until_ns = until_ns
        self.idle_since_ns = at_ns
        self._ahead = min(window, FIRST_AHEAD * slots)

    def suits(self, job: Job, terms: Terms, at_ns: int) -> bool:
        """Tell whether attempts of a job may be sent now, window aside."""
        return (
            self.is_agreed
            and self.device_class in job.device_classes
            and self.terms.cover(terms, self.device_class)
            and at_ns + job.limits.seconds * SECOND_NS < self.assign_until_ns
        )

    def credit(self) -> int:
        """Return how many more attempts are worth sending."""
        return self._ahead - len(self.open)

    def credit_max(self) -> int:
        """Return how many more attempts the provider would take: for replacements, which others wait for."""
        return self.window - len(self.open)

    def load(self) -> float:
        """Return about how long, in s, a further attempt would wait; slots stand for speed until it is
        known."""
        return (len(self.open) + 1) / (self._rate or float(self.slots))

    def took(self, attempts: int, at_ns: int) -> None:
        """Note attempts being sent: the clock of its speed runs only while it has work."""
        if len(self.open) == attempts:
            self._counted_ns = at_ns

    def answered(self, attempts: int, at_ns: int) -> None:
        """Note answers: measures speed."""
        elapsed_s = max(1e-6, (at_ns - self._counted_ns) / SECOND_NS)
        self._counted_ns = at_ns
        sample = attempts / elapsed_s
        self._rate += (_SMOOTHING if self._rate else 1.0) * (sample - self._rate)
        self._ahead = min(self.window, max(2 * self.slots, int(self._rate * AHEAD_S)))


class OpenTask:
    """A task with a ballot: what is undecided or not yet delivered. ``sequence`` rises with each task that is
    opened."""

    __slots__ = ("ballot", "job_id", "log", "outputs", "outputs_root", "sequence", "stayed", "uploading")

    def __init__(self, job_id: bytes, ballot: Ballot, sequence: int) -> None:
        self.job_id = job_id
        self.ballot = ballot
        self.sequence = sequence
        self.outputs: list[bytearray] | None = None
        self.outputs_root = b""
        self.log = b""
        self.stayed: dict[tuple[bytes, int], tuple[bytes, ...]] = {}  # the blobs that an attempt's provider keeps
        self.uploading: tuple[bytes, int] | None = None


def by_group(partners: Iterable[Partner]) -> dict[str, list[Partner]]:
    """Return the partners of each group."""
    groups: dict[str, list[Partner]] = {}
    for partner in partners:
        groups.setdefault(partner.group, []).append(partner)
    return groups
