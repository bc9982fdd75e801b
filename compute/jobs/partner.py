"""A provider as the scheduler sees it: what it agreed to, what is open with it, how fast it does each job's tasks.

How many attempts are kept open with a provider: enough that it is never idle between two messages, few enough
that little is lost with it and the end of a job is even. Two a slot, and as many as it runs in ``AHEAD_S``, on the
way there and back, and while answers wait for company; never more than its bid allows. What a run takes is the
provider's word: the time between its answers would shrink what is kept open whenever messages are slow, and so make
them fewer and slower still.
Each job has so many there, whatever the others have: the provider gives jobs their turns (``bootstrap/turns.py``).
"""

from collections.abc import Sequence
from math import ceil

from depin_node.compute.jobs.job import Job
from depin_node.compute.market.messages import GATHERED, LINGER_S, Terms
from depin_node.compute.verification.quorum import Ballot
from depin_node.core.clock import SECOND_NS

AHEAD_S = 0.1
"""Several times the 18 ms that a verified task takes under full load (measured, notes on the pipeline)."""
BESIDE_S = 0.0005
"""What a task costs a provider beside its run (measured, notes on the pipeline)."""
PART_BYTES_PER_S = 250e6
"""At which parts of inputs are taken to travel: by a good line. More in hand would be there no sooner."""
LAG_S_MAX = 1.0
"""What is counted for the way there and back at most: more is somebody who was slow to agree."""
TOGETHER = 8
"""Who has plenty, all of one job, is sent no fewer at once: the cost of a look at what it could do is shared."""
FIRST_AHEAD = 4
"""Open attempts a slot, before anything is known of a provider's speed."""
_SMOOTHING = 0.3


class Stint:
    """A job's work with one provider. ``pace_s``: seconds from one answer to the next, 0 while unknown; ``run_s``: the
    mean time of a run as the provider tells it; ``beside_s``: what a task takes it beside its run, ``part_bytes`` of
    inputs being brought to it; ``price_us``: what each answer costs (``market/pricing.py``)."""

    __slots__ = ("beside_s", "number", "open", "pace_s", "price_us", "run_s")

    def __init__(self, number: int, part_bytes: int = 0) -> None:
        self.number = number
        self.beside_s = BESIDE_S + part_bytes / PART_BYTES_PER_S
        self.open = 0
        self.pace_s = 0.0
        self.run_s = 0.0
        self.price_us = 0


class OpenTask:
    """A task with a ballot: what is undecided or not yet delivered. ``sequence`` rises with each task that is opened;
    ``since_ns`` is when its last attempt was sent; ``spares`` counts attempts that doubled a slow one.

    Where numbers are looked at, ``answers`` are the bytes of different answers by root, with what their tasks
    printed; ``is_judged_now``: they are being looked at; ``is_checked``: the one answer passed; ``is_disputed``:
    they differ. ``is_audit``: an answer from before is run again by others, as ``settling`` wants it.
    ``is_walked_now``: the dispute is being walked, and nothing is decided meanwhile; ``walks`` counts those that
    were.
    """

    __slots__ = (
        "answers",
        "ballot",
        "is_audit",
        "is_checked",
        "is_disputed",
        "is_judged_now",
        "is_walked_now",
        "job_id",
        "log",
        "outputs",
        "outputs_root",
        "sequence",
        "since_ns",
        "spares",
        "stayed",
        "uploading",
        "walks",
    )

    def __init__(self, job_id: bytes, ballot: Ballot, sequence: int) -> None:
        self.job_id = job_id
        self.ballot = ballot
        self.sequence = sequence
        self.since_ns = 0
        self.spares = 0
        self.is_audit = False
        self.is_checked = False
        self.is_disputed = False
        self.is_judged_now = False
        self.is_walked_now = False
        self.walks = 0
        self.answers: dict[bytes, tuple[list[bytearray], bytes]] = {}
        self.outputs: list[bytearray] | None = None
        self.outputs_root = b""
        self.log = b""
        self.stayed: dict[tuple[bytes, int], tuple[bytes, ...]] = {}  # the blobs that an attempt's provider keeps
        self.uploading: tuple[bytes, int] | None = None


class Partner:
    """One provider that was asked. ``is_agreed`` once there is an agreement; ``open`` holds what is not released.

    ``is_ending``: it gets nothing more, since a job wants wider terms; ``has_refused``: such were refused lately.
    """

    def __init__(self, peer: bytes, group: str, terms: Terms, first_attempt: int, *, is_fellow: bool = False) -> None:
        self.peer = peer
        self.group = group
        self.is_fellow = is_fellow
        self.is_newcomer = True  # as of when it was looked up last
        self.terms = terms
        self.is_agreed = False
        self.is_ending = False
        self.has_refused = False
        self.device_class = ""
        self.slots = 0
        self.window = 0
        self.assign_until_ns = 0
        self.idle_since_ns = 0
        self.next_attempt = first_attempt
        self.next_work = 0
        self.open: dict[int, OpenTask] = {}
        self.freed = 0  # attempts that have ended since it was last looked at
        self.stints: dict[bytes, Stint] = {}
        self._counted_ns = 0
        self._bid_ns = 0
        self._lag_s = 0.0

    def bid(self, at_ns: int) -> None:
        """Note that it has bid: from here to the agreement is one way there and back."""
        self._bid_ns = at_ns

    def agreed(self, device_class: str, slots: int, window: int, until_ns: int, at_ns: int) -> None:
        """Note the agreement."""
        self.is_agreed = True
        self._lag_s = min(LAG_S_MAX, (at_ns - self._bid_ns) / SECOND_NS) if self._bid_ns else 0.0
        self.device_class = device_class
        self.slots = slots
        self.window = window
        self.assign_until_ns = until_ns
        self.idle_since_ns = at_ns

    def suits(self, job: Job, terms: Terms, at_ns: int) -> bool:
        """Tell whether attempts of a job may be sent now, window aside."""
        return (
            self.is_agreed
            and not self.is_ending
            and self.device_class in job.device_classes
            and self.terms.cover(terms, self.device_class)
            and at_ns + job.limits.seconds * SECOND_NS < self.assign_until_ns
        )

    def stint(self, job_id: bytes) -> Stint | None:
        """Return the work of a job here, if there is any yet."""
        return self.stints.get(job_id)

    def _busy_s(self, stint: Stint) -> float:
        """Return how long the provider has to do with a task of a job, by its word."""
        return (stint.run_s + stint.beside_s) / self.slots

    def credit(self, job_id: bytes) -> int:
        """Return how many more attempts of a job are worth sending."""
        total = len(self.open)
        room = self.window - total
        if room <= 0:
            return 0
        stint = self.stints.get(job_id)
        own = stint.open if stint is not None else 0
        least = max(2 * self.slots - total, self.slots - own)
        if stint is None or not stint.pace_s:
            more = FIRST_AHEAD * self.slots - own
        else:
            busy_s = self._busy_s(stint)
            ahead_s = AHEAD_S + 2 * (self._lag_s + min(LINGER_S, GATHERED * busy_s))  # to be answered and to be shown
            more = ceil(ahead_s / busy_s) - own
        worth = min(room, max(least, more, 0))
        is_alone = len(self.stints) == 1
        return 0 if is_alone and worth < min(TOGETHER, total // 4) else worth

    def is_worth_a_look(self) -> bool:
        """Tell whether so much has ended that it may be sent as much at once as is worth a message."""
        return self.freed >= min(TOGETHER, len(self.open) // 4)

    def credit_max(self) -> int:
        """Return how many more attempts the provider would take: for replacements, which others wait for."""
        return self.window - len(self.open)

    def has_idle_slot(self) -> bool:
        """Tell whether the provider could begin with a further attempt at once."""
        return len(self.open) < min(self.slots, self.window)

    def load_s(self, job_id: bytes, usual_s: float) -> float:
        """Return about how long, in s, a further attempt would take to be answered.

        Args:
            job_id: whose attempt.
            usual_s: time from one answer to the next with others, for a slot that is not known yet.
        """
        stint = self.stints.get(job_id)
        pace_s = stint.pace_s if stint is not None and stint.pace_s else usual_s / self.slots
        return (len(self.open) + 1) * pace_s

    def start(self, stint: Stint, task: OpenTask, at_ns: int) -> int:
        """Note a new attempt, and return its number. The clock of a provider's speed runs while it has work."""
        if not self.open:
            self._counted_ns = at_ns
        attempt = self.next_attempt
        self.next_attempt += 1
        self.open[attempt] = task
        stint.open += 1
        return attempt

    def close(self, attempt: int, at_ns: int) -> OpenTask | None:
        """Note that an attempt is over; None if it was before."""
        task = self.open.pop(attempt, None)
        if task is not None:
            self.stints[task.job_id].open -= 1
            self.freed += 1
            self.idle_since_ns = at_ns
        return task

    def answered(self, answers: Sequence[tuple[bytes, int]], at_ns: int) -> None:
        """Note answers as (job, run time in µs as the provider tells it): the time since the last ones, measured here,
        is shared out among jobs as the provider says that it ran them."""
        if not answers:
            return
        elapsed_s = max(1e-6, (at_ns - self._counted_ns) / SECOND_NS)
        self._counted_ns = at_ns
        sums: dict[bytes, tuple[int, int]] = {}
        for job_id, run_us in answers:
            count, total_us = sums.get(job_id, (0, 0))
            sums[job_id] = count + 1, total_us + run_us + 1
        whole_us = sum(total_us for _, total_us in sums.values())
        for job_id, (count, total_us) in sums.items():
            stint = self.stints.get(job_id)
            if stint is not None:
                stint.pace_s = _smoothed(stint.pace_s, elapsed_s * total_us / whole_us / count)
                stint.run_s = _smoothed(stint.run_s, min(1e-6 * total_us / count, elapsed_s * self.slots))


def _smoothed(before: float, sample: float) -> float:
    return before + _SMOOTHING * (sample - before) if before else sample
