"""The journal's side of taking jobs over (``handover.py``): copies of fellows' jobs, epochs, and what to tell of ours.

A copy is a row of ``copies``; its results lie where those of our own jobs do, under the job's id, which names its
requester. Statements are as in ``journal.py``; the rest reads.
"""

from typing import NamedTuple

from depin_node.compute.jobs.journal import Journal
from depin_node.compute.jobs.schema import StoredOutput, StoredResult
from depin_node.compute.jobs.statements import Statement
from depin_node.core.wire import decode

_COLUMNS = "job, worker, certificate, envelope, epoch, spent_us, at_s"
_VALUE_BYTES_MAX = 1 << 24


class StoredCopy(NamedTuple):
    """What we keep of a job that a fellow works on, besides its results. ``certificate`` is the fellow's, by our owner;
    ``at_s`` when it last said what it has."""

    job: bytes
    worker: bytes
    certificate: bytes
    envelope: bytes
    epoch: int
    spent_us: int
    at_s: int


def put_copy(copy: StoredCopy) -> Statement:
    """Keep a copy, or what is new of it."""
    return Statement("INSERT OR REPLACE INTO copies VALUES (?, ?, ?, ?, ?, ?, ?)", [tuple(copy)])


def drop_copy(job: bytes) -> list[Statement]:
    """Forget a copy with its results: its job has ended."""
    return [
        Statement(f"DELETE FROM {table} WHERE job = ?", [(job,)])  # noqa: S608 - no input
        for table in ("copies", "results", "held", "catches")
    ]


def put_epoch(job: bytes, epoch: int, other: bytes, spent_us: int) -> Statement:
    """Note that a job changed hands: we took it over from ``other``, or ``other`` from us."""
    return Statement("INSERT OR REPLACE INTO epochs VALUES (?, ?, ?, ?)", [(job, epoch, other, spent_us)])


def end_copy(job: bytes) -> Statement:
    """What was a copy is ours: its results stay."""
    return Statement("DELETE FROM copies WHERE job = ?", [(job,)])


def copies(journal: Journal) -> list[StoredCopy]:
    """Return all copies, those heard of last first."""
    rows = journal.rows(
        "SELECT job, worker, certificate, envelope, epoch, spent_us, at_s FROM copies ORDER BY at_s DESC, job"
    )
    return [StoredCopy(*row) for row in rows]


def copy_of(journal: Journal, job: bytes) -> StoredCopy | None:
    """Return the copy of a job."""
    rows = journal.rows(
        "SELECT job, worker, certificate, envelope, epoch, spent_us, at_s FROM copies WHERE job = ?", job
    )
    return StoredCopy(*rows[0]) if rows else None


def epoch_of(journal: Journal, job: bytes) -> tuple[int, bytes]:
    """Return a job's epoch, and who it changed hands with; 0 and nobody if it never did."""
    rows = journal.rows("SELECT epoch, other FROM epochs WHERE job = ?", job)
    return rows[0] if rows else (0, b"")


def taken_over(journal: Journal, limit: int) -> list[tuple[bytes, int]]:
    """Return (job, epoch) of the jobs that changed hands, the newest first."""
    return journal.rows("SELECT job, epoch FROM epochs ORDER BY rowid DESC LIMIT ?", limit)


def spent_us(journal: Journal, job: bytes) -> int:
    """Return what a job's answers have cost so far, by its receipts, in µs of the reference core; here and before."""
    ((here,),) = journal.rows("SELECT total(busy_us) FROM receipts WHERE job = ? AND role = 'requester'", job)
    ((before,),) = journal.rows("SELECT total(spent_us) FROM epochs WHERE job = ?", job)
    return int(here) + int(before)


def settled_tasks(journal: Journal, job: bytes, first: int, count: int) -> list[int]:
    """Return which of ``count`` tasks from ``first`` on have a result for good, in order."""
    sql = """SELECT task FROM results WHERE job = ?1 AND task >= ?2 AND task < ?3 AND NOT EXISTS (
        SELECT 1 FROM tabs WHERE tabs.job = ?1 AND tabs.task = results.task AND NOT confirmed) ORDER BY task"""
    return [task for (task,) in journal.rows(sql, job, first, first + count)]


def result_of(journal: Journal, job: bytes, task: int) -> tuple[bytes, tuple[StoredOutput, ...]]:
    """Return the root and the outputs of a result that is here."""
    ((root, outputs),) = journal.rows("SELECT root, outputs FROM results WHERE job = ? AND task = ?", job, task)
    return root, decode(outputs, StoredResult, size_bytes_max=_VALUE_BYTES_MAX).outputs
