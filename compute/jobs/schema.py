"""What is in the journal: its tables, one script for each version, and the records that come out of them."""

from typing import NamedTuple

from depin_node.compute.jobs.job import JobView
from depin_node.core.wire import Digest, Message

MIGRATIONS = (
    """
    CREATE TABLE jobs (
        id BLOB PRIMARY KEY, key TEXT NOT NULL UNIQUE, envelope BLOB NOT NULL, created_s INTEGER NOT NULL,
        ended TEXT NOT NULL DEFAULT '', view BLOB
    ) WITHOUT ROWID;
    CREATE INDEX jobs_by_time ON jobs (created_s);
    CREATE TABLE results (
        job BLOB NOT NULL, task INTEGER NOT NULL, root BLOB NOT NULL, outputs BLOB NOT NULL, PRIMARY KEY (job,
        task)
    );
    CREATE TABLE held (job BLOB NOT NULL, blob BLOB NOT NULL, PRIMARY KEY (job, blob)) WITHOUT ROWID;
    CREATE TABLE events (job BLOB NOT NULL, event BLOB NOT NULL);
    CREATE INDEX events_by_job ON events (job);
    CREATE TABLE agreements (
        id BLOB NOT NULL, role TEXT NOT NULL, peer BLOB NOT NULL, bid BLOB NOT NULL, award BLOB NOT NULL,
        at_s INTEGER NOT NULL, PRIMARY KEY (id, role)
    ) WITHOUT ROWID;
    CREATE TABLE receipts (
        id BLOB NOT NULL, role TEXT NOT NULL, peer BLOB NOT NULL, job BLOB NOT NULL, receipt BLOB NOT NULL,
        countersign BLOB, at_s INTEGER NOT NULL, PRIMARY KEY (id, role)
    );
    CREATE INDEX receipts_by_time ON receipts (at_s);
    CREATE INDEX receipts_by_job ON receipts (job);
    CREATE TABLE evidence (
        peer BLOB NOT NULL, job BLOB NOT NULL, task INTEGER NOT NULL, reason TEXT NOT NULL, evidence BLOB NOT
        NULL, at_s INTEGER NOT NULL
    );
    CREATE TABLE bans (peer BLOB PRIMARY KEY, reason TEXT NOT NULL, at_s INTEGER NOT NULL) WITHOUT ROWID;
    CREATE TABLE floors (
        sender BLOB NOT NULL, channel TEXT NOT NULL, seq INTEGER NOT NULL, PRIMARY KEY (sender, channel)
    ) WITHOUT ROWID;
    CREATE TABLE peers (address TEXT PRIMARY KEY, position INTEGER NOT NULL) WITHOUT ROWID;
    CREATE TABLE numbers (name TEXT PRIMARY KEY, value INTEGER NOT NULL) WITHOUT ROWID;
    """,
    "CREATE TABLE logs (job BLOB NOT NULL, task INTEGER NOT NULL, log BLOB NOT NULL, PRIMARY KEY (job, task));",
    """
    CREATE TABLE standings (
        peer BLOB NOT NULL, device_class TEXT NOT NULL, verified INTEGER NOT NULL, answered REAL NOT NULL,
        failed REAL NOT NULL, at_s INTEGER NOT NULL, PRIMARY KEY (peer, device_class)
    ) WITHOUT ROWID;
    """,
    """
    CREATE TABLE kept (
        owner BLOB NOT NULL, blob BLOB NOT NULL, size_bytes INTEGER NOT NULL, until_s INTEGER NOT NULL,
        PRIMARY KEY (owner, blob)
    ) WITHOUT ROWID;
    CREATE TABLE holders (
        job BLOB NOT NULL, task INTEGER NOT NULL, peer BLOB NOT NULL, PRIMARY KEY (job, task, peer)
    ) WITHOUT ROWID;
    """,
    """
    ALTER TABLE receipts RENAME TO receipts_v1;  -- kept as they are; later ones stand in a log
    DROP INDEX receipts_by_time;
    DROP INDEX receipts_by_job;
    CREATE TABLE receipts (
        id BLOB NOT NULL, role TEXT NOT NULL, peer BLOB NOT NULL, job BLOB NOT NULL, receipt BLOB NOT NULL,
        countersign BLOB, at_s INTEGER NOT NULL, PRIMARY KEY (id, role)
    );
    CREATE INDEX receipts_by_time ON receipts (at_s);
    CREATE INDEX receipts_by_job ON receipts (job);
    CREATE TABLE log (
        epoch INTEGER NOT NULL, position INTEGER NOT NULL, previous BLOB NOT NULL, digest BLOB NOT NULL,
        link BLOB NOT NULL, receipt BLOB NOT NULL, role TEXT NOT NULL, PRIMARY KEY (epoch, position)
    ) WITHOUT ROWID;
    CREATE INDEX log_by_link ON log (link);
    """,
    """
    ALTER TABLE receipts ADD COLUMN busy_us INTEGER NOT NULL DEFAULT 0;
    CREATE TABLE tallies (name BLOB PRIMARY KEY, amount_us REAL NOT NULL, at_s INTEGER NOT NULL) WITHOUT ROWID;
    """,
    """
    CREATE TABLE cases (
        digest BLOB PRIMARY KEY, accused BLOB NOT NULL, kind TEXT NOT NULL, reason TEXT NOT NULL, data BLOB NOT NULL,
        told_by BLOB NOT NULL, at_s INTEGER NOT NULL
    );
    """,
    "CREATE TABLE runs (owner BLOB NOT NULL, run BLOB NOT NULL); CREATE INDEX runs_by_owner ON runs (owner);",
    """
    CREATE TABLE tabs (
        job BLOB NOT NULL, task INTEGER NOT NULL, peer BLOB NOT NULL, draw BLOB NOT NULL,
        confirmed INTEGER NOT NULL DEFAULT 0, PRIMARY KEY (job, task)
    ) WITHOUT ROWID;
    CREATE TABLE catches (job BLOB NOT NULL, peer BLOB NOT NULL, PRIMARY KEY (job, peer)) WITHOUT ROWID;
    """,
    "CREATE TABLE finished (name BLOB PRIMARY KEY, result BLOB NOT NULL, until_s INTEGER NOT NULL) WITHOUT ROWID;",
    """
    CREATE TABLE copies (
        job BLOB PRIMARY KEY, worker BLOB NOT NULL, certificate BLOB NOT NULL, envelope BLOB NOT NULL,
        epoch INTEGER NOT NULL, spent_us INTEGER NOT NULL, at_s INTEGER NOT NULL
    ) WITHOUT ROWID;
    CREATE TABLE epochs (
        job BLOB PRIMARY KEY, epoch INTEGER NOT NULL, other BLOB NOT NULL, spent_us INTEGER NOT NULL
    );
    """,
    """
    ALTER TABLE results ADD COLUMN panel INTEGER NOT NULL DEFAULT 0;  -- of who agreed on it; 0: not kept
    CREATE TABLE panels (
        job BLOB NOT NULL, number INTEGER NOT NULL, peers BLOB NOT NULL, PRIMARY KEY (job, number)
    ) WITHOUT ROWID;
    CREATE TABLE audits (
        job BLOB NOT NULL, task INTEGER NOT NULL, device_class TEXT NOT NULL, PRIMARY KEY (job, task)
    ) WITHOUT ROWID;
    """,
    """
    ALTER TABLE evidence ADD COLUMN number INTEGER NOT NULL DEFAULT 0;
    ALTER TABLE evidence ADD COLUMN body BLOB;
    """,
)
SCHEMA_VERSION = len(MIGRATIONS)


class StoredOutput(Message, frozen=True):
    """One output of a task: its bytes if they are few, else its blob."""

    inline: bytes
    blob: Digest | None


class StoredResult(Message, frozen=True):
    """The outputs of one task, in the program's order."""

    outputs: tuple[StoredOutput, ...]


class StoredPart(NamedTuple):
    """An accepted result, and the row that it is in. ``is_provisional``: it is on a tab that is not settled."""

    row: int
    task: int
    root: bytes
    outputs: tuple[StoredOutput, ...]
    is_provisional: bool


class StoredFinished(Message, frozen=True):
    """A result that its provider has, and its requester has not taken yet. ``log`` is what the task printed."""

    outputs: tuple[StoredOutput, ...]
    elapsed_us: int
    log: bytes


class StoredJob(NamedTuple):
    """A job as the journal has it. ``ended`` is empty while it is open; ``view`` is from when it ended."""

    id: bytes
    envelope: bytes
    ended: str
    view: JobView | None


class StoredReceipt(NamedTuple):
    """A receipt and, if it was confirmed, the provider's countersignature: both envelopes."""

    id: bytes
    role: str
    peer: bytes
    job: bytes
    receipt: bytes
    countersign: bytes | None
    at_s: int


class StoredCase(NamedTuple):
    """A case as it is kept."""

    digest: bytes
    accused: bytes
    kind: str
    reason: str
    data: bytes
    told_by: bytes
    at_s: int


class StoredEvidence(Message, frozen=True):
    """Evidence as it is kept."""

    agreement: bytes
    work: bytes
    attempt: int
    commits: bytes
    reveals: bytes
