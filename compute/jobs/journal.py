"""The journal: what this node has promised, on disk before it is acknowledged. SQLite, synchronous, one
thread.

The flow: machines' effects become *statements* (``statements``); ``Journal.apply`` writes any number of
them in one transaction and returns when they are on the disk (WAL, ``synchronous=FULL``). Whoever waits for
several shares one transaction: that is the shell's business (``bootstrap/journal.py``). A crash at any moment
leaves each transaction whole or not at all, and ``open_jobs`` tells what is to go on.
"""

import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import msgspec

from depin_node.compute.jobs.events import JobEvent, Kept
from depin_node.compute.jobs.job import JobView
from depin_node.compute.jobs.panels import KeptPanels
from depin_node.compute.jobs.schema import (
    MIGRATIONS,
    SCHEMA_VERSION,
    StoredCase,
    StoredEvidence,
    StoredFinished,
    StoredJob,
    StoredOutput,
    StoredPart,
    StoredReceipt,
    StoredResult,
)
from depin_node.compute.jobs.statements import LOGS_KEPT_MAX, Statement
from depin_node.compute.market.happenings import Evidence
from depin_node.compute.market.messages import WorkBody
from depin_node.compute.trust.book import KNOWN_MAX, Row
from depin_node.compute.trust.chain import Head
from depin_node.compute.trust.credit import Tally
from depin_node.core.errors import ConfigError, ResourceError
from depin_node.core.wire import decode

JOBS_KEPT_MAX = 1000
"""Ended jobs that are remembered, with their results; the oldest go first."""
_VALUE_BYTES_MAX = 1 << 24


@contextmanager
def _errors(path: Path) -> Iterator[None]:
    try:
        yield
    except sqlite3.OperationalError as error:
        raise ResourceError(
            f"{path}: the journal cannot be used: {error}; free some disk space, or check the permissions"
        ) from error
    except sqlite3.DatabaseError as error:
        raise _damaged(path, str(error)) from error
    except OverflowError as error:  # what peers send is bounded long before
        raise ResourceError(f"{path}: a number does not fit into the journal: {error}") from error


def _damaged(path: Path, why: str) -> ConfigError:
    return ConfigError(
        f"{path}: the journal is damaged ({why}); move it away, and {path.name}-wal with it, to start a new one:"
        " jobs, results and receipts in it are then gone"
    )


def look_through(path: Path) -> None:
    """Read all of a journal that no node has open, and change nothing in it.

    Raises:
        ConfigError: not a journal, damaged, or written by a newer version of this software.
        ResourceError: it cannot be opened.
    """
    log = path.with_name(f"{path.name}-wal")  # what a killed node left; without it nothing has to be made to read
    how = "mode=ro" if log.exists() and log.stat().st_size else "immutable=1"
    with _errors(path), closing(sqlite3.connect(f"{path.absolute().as_uri()}?{how}", uri=True)) as db:
        _version(db, path)
        ((found,),) = db.execute("PRAGMA quick_check(1)")
        if found != "ok":
            raise _damaged(path, found.splitlines()[-1])


def _version(db: sqlite3.Connection, path: Path) -> int:
    """Return the schema of a journal. Raises ``ConfigError``: it is newer than this software."""
    version: int
    (version,) = db.execute("PRAGMA user_version").fetchone()
    if version > SCHEMA_VERSION:
        raise ConfigError(
            f"{path}: written by a newer depin-node (schema {version}, this one knows {SCHEMA_VERSION});"
            " run that version, or use another data directory"
        )
    return version


class Journal:
    """One node's journal. Not thread-safe: one thread at a time.

    Raises:
        ConfigError: not a journal, damaged, or written by a newer version of this software.
        ResourceError: it cannot be opened or written.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        with _errors(self.path):
            self._db = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
            try:
                self._set_up()
            except BaseException:  # whatever it was: the file is let go; raised again
                self._db.close()
                raise

    def _set_up(self) -> None:
        self._db.execute("PRAGMA journal_mode = WAL")
        self._db.execute("PRAGMA synchronous = FULL")
        self._db.execute("PRAGMA busy_timeout = 5000")
        version = _version(self._db, self.path)
        for number in range(version, SCHEMA_VERSION):
            script = f"BEGIN IMMEDIATE; {MIGRATIONS[number]} PRAGMA user_version = {number + 1}; COMMIT;"
            self._db.executescript(script)

    def close(self) -> None:
        """Close the file; what was applied is there."""
        self._db.close()

    def apply(self, statements: Iterable[Statement]) -> None:
        """Write all of them or none; when this returns, they survive a crash.

        Raises:
            ResourceError: the disk is full or broken; nothing was written.
        """
        with _errors(self.path):
            self._db.execute("BEGIN IMMEDIATE")
            try:
                for statement in statements:
                    self._db.executemany(statement.sql, statement.rows)
                self._db.execute("COMMIT")
            except BaseException:  # whatever it was: nothing half is kept; raised again
                if self._db.in_transaction:
                    self._db.execute("ROLLBACK")
                raise

    def rows(self, sql: str, *arguments: Any) -> list[Any]:
        """Return what a query finds: for the modules beside this one that have tables of their own."""
        return self._rows(sql, *arguments)

    def _rows(self, sql: str, *arguments: Any) -> list[Any]:
        with _errors(self.path):
            return self._db.execute(sql, arguments).fetchall()

    # Jobs

    def job_by_key(self, key: str) -> StoredJob | None:
        """Return the job that was submitted with an idempotency key."""
        rows = self._rows("SELECT id, envelope, ended, view FROM jobs WHERE key = ?", key)
        return _stored_job(rows[0]) if rows else None

    def job(self, job_id: bytes) -> StoredJob | None:
        """Return a job by its id."""
        rows = self._rows("SELECT id, envelope, ended, view FROM jobs WHERE id = ?", job_id)
        return _stored_job(rows[0]) if rows else None

    def jobs(self, limit: int) -> list[StoredJob]:
        """Return the newest jobs first."""
        sql = "SELECT id, envelope, ended, view FROM jobs ORDER BY created_s DESC, id LIMIT ?"
        return [_stored_job(row) for row in self._rows(sql, limit)]

    def open_jobs(self) -> list[StoredJob]:
        """Return the jobs that have not ended, oldest first."""
        sql = "SELECT id, envelope, ended, view FROM jobs WHERE ended = '' ORDER BY created_s, id"
        return [_stored_job(row) for row in self._rows(sql)]

    def results(self, job_id: bytes, first: int, count: int) -> list[tuple[int, bytes, tuple[StoredOutput, ...]]]:
        """Return (task, root, outputs) of the accepted results among ``count`` tasks from ``first`` on."""
        sql = "SELECT task, root, outputs FROM results WHERE job = ? AND task >= ? AND task < ? ORDER BY task"
        return [
            (task, root, decode(outputs, StoredResult, size_bytes_max=_VALUE_BYTES_MAX).outputs)
            for task, root, outputs in self._rows(sql, job_id, first, first + count)
        ]

    def parts(self, job_id: bytes, first: int, count: int) -> list[StoredPart]:
        """Return the accepted results among ``count`` tasks from ``first`` on, in task order."""
        return self._parts("WHERE job = ? AND task >= ? AND task < ? ORDER BY task", job_id, first, first + count)

    def parts_since(self, job_id: bytes, row: int, count: int) -> list[StoredPart]:
        """Return results in the order in which they were written, behind a row."""
        # Walks what was written since, of all jobs: the index by task would have to be sorted each time.
        return self._parts("NOT INDEXED WHERE rowid > ? AND job = ? ORDER BY rowid LIMIT ?", row, job_id, count)

    def roots(self, job_id: bytes, first: int, count: int) -> list[tuple[int, bytes]]:
        """Return (task, root) of the accepted results among ``count`` tasks from ``first`` on."""
        return self._rows(
            "SELECT task, root FROM results WHERE job = ? AND task >= ? AND task < ?", job_id, first, first + count
        )

    def _parts(self, which: str, *arguments: Any) -> list[StoredPart]:
        sql = f"""SELECT rowid, task, root, outputs, EXISTS (SELECT 1 FROM tabs WHERE tabs.job = results.job
            AND tabs.task = results.task AND NOT confirmed) FROM results {which}"""  # noqa: S608 - no input
        return [
            StoredPart(
                row, task, root, decode(data, StoredResult, size_bytes_max=_VALUE_BYTES_MAX).outputs, bool(open_)
            )
            for row, task, root, data, open_ in self._rows(sql, *arguments)
        ]

    def done(self, job_id: bytes, tasks: int) -> bytearray:
        """Return a byte for each task: 1 if its result is here."""
        done = bytearray(tasks)
        for (task,) in self._rows("SELECT task FROM results WHERE job = ?", job_id):
            done[task] = 1
        return done

    def tabs(self, job_id: bytes) -> list[Kept]:
        """Return the answers of a job that are on a tab."""
        sql = """SELECT tabs.task, peer, root, draw, confirmed FROM tabs JOIN results USING (job, task)
            WHERE job = ? ORDER BY tabs.task"""
        rows = self._rows(sql, job_id)
        return [
            Kept(task, peer, root, int.from_bytes(draw, "big"), bool(sure)) for task, peer, root, draw, sure in rows
        ]

    def panels(self, job_id: bytes) -> KeptPanels:
        """Return who agreed on the results of a job, and which of them are to be audited."""
        members = self._rows("SELECT number, peers FROM panels WHERE job = ? ORDER BY number", job_id)
        if not members:
            return KeptPanels()
        of = self._rows("SELECT task, panel FROM results WHERE job = ? AND panel > 0", job_id)
        sql = "SELECT audits.task, root, device_class FROM audits JOIN results USING (job, task) WHERE job = ?"
        return KeptPanels(
            tuple((number, tuple(peers[at : at + 32] for at in range(0, len(peers), 32))) for number, peers in members),
            tuple(of),
            tuple(self._rows(sql, job_id)),
        )

    def caught(self, job_id: bytes) -> frozenset[bytes]:
        """Return the peers that were found out in a job."""
        return frozenset(peer for (peer,) in self._rows("SELECT peer FROM catches WHERE job = ?", job_id))

    def held(self) -> list[bytes]:
        """Return every blob that some job needs, once for each job that does."""
        return [blob for (blob,) in self._rows("SELECT blob FROM held")]

    def held_by(self, job_id: bytes) -> set[bytes]:
        """Return the blobs that one job needs."""
        return {blob for (blob,) in self._rows("SELECT blob FROM held WHERE job = ?", job_id)}

    def events(self, job_id: bytes) -> list[JobEvent]:
        """Return a job's story."""
        rows = self._rows("SELECT event FROM events WHERE job = ? ORDER BY rowid", job_id)
        return [msgspec.json.decode(event, type=JobEvent) for (event,) in rows]

    def logs(self, job_id: bytes) -> tuple[list[tuple[int, bytes]], bool]:
        """Return (task, log) of the tasks that printed, and whether there are as many as are kept."""
        rows = self._rows("SELECT task, log FROM logs WHERE job = ? ORDER BY task", job_id)
        return rows, len(rows) >= LOGS_KEPT_MAX

    def prune(self) -> None:
        """Forget all but the newest ended jobs; blobs that only they held stay until the store needs the room."""
        old = "SELECT id FROM jobs WHERE ended <> '' ORDER BY created_s DESC, id LIMIT -1 OFFSET ?"
        self.apply(
            Statement(f"DELETE FROM {table} WHERE {column} IN ({old})", [(JOBS_KEPT_MAX,)])  # noqa: S608 - no input
            for table, column in (
                ("results", "job"),
                ("events", "job"),
                ("logs", "job"),
                ("holders", "job"),
                ("tabs", "job"),
                ("catches", "job"),
                ("panels", "job"),
                ("audits", "job"),
                ("held", "job"),
                ("jobs", "id"),
            )
        )

    # The rest

    def receipts(self, limit: int) -> list[StoredReceipt]:
        """Return the newest receipts first."""
        sql = "SELECT id, role, peer, job, receipt, countersign, at_s FROM receipts ORDER BY rowid DESC LIMIT ?"
        return [StoredReceipt(*row) for row in self._rows(sql, limit)]

    def receipts_of(self, job_id: bytes) -> list[StoredReceipt]:
        """Return all receipts of a job."""
        sql = "SELECT id, role, peer, job, receipt, countersign, at_s FROM receipts WHERE job = ? ORDER BY rowid"
        return [StoredReceipt(*row) for row in self._rows(sql, job_id)]

    def log_records(self, job: bytes | None = None) -> Iterator[tuple[bytes, bytes | None]]:
        """Yield (receipt, countersign) of each entry of our log in its order; with ``job`` only of that job."""
        sql = (
            "SELECT receipts.receipt, receipts.countersign FROM log JOIN receipts"
            " ON receipts.id = log.receipt AND receipts.role = log.role"
            " WHERE ?1 IS NULL OR receipts.job = ?1 ORDER BY log.epoch, log.position"
        )
        with _errors(self.path):
            yield from self._db.execute(sql, (job,))

    def jobs_with_receipts(self, begins: str) -> list[bytes]:
        """Return the ids of jobs that there are receipts of, of which ``begins`` is the beginning in hex."""
        sql = "SELECT DISTINCT job FROM receipts WHERE substr(hex(job), 1, length(?1)) = upper(?1)"
        return [job for (job,) in self._rows(sql, begins)]

    def kept(self) -> list[tuple[bytes, bytes, int, int]]:
        """Return (owner, blob, size in bytes, until when in wall s) of the results that are kept for others."""
        return self._rows("SELECT owner, blob, size_bytes, until_s FROM kept")

    def finished_names(self, now_s: int) -> list[tuple[bytes, int]]:
        """Return (name, until when in wall s) of the finished results that are still kept."""
        return self._rows("SELECT name, until_s FROM finished WHERE until_s >= ?", now_s)

    def finished(self, name: bytes) -> StoredFinished | None:
        """Return a finished result."""
        rows = self._rows("SELECT result FROM finished WHERE name = ?", name)
        return decode(rows[0][0], StoredFinished, size_bytes_max=_VALUE_BYTES_MAX) if rows else None

    def holders(self, job_id: bytes, task: int) -> list[bytes]:
        """Return the providers that keep a result whose bytes were not fetched."""
        sql = "SELECT peer FROM holders WHERE job = ? AND task = ?"
        return [peer for (peer,) in self._rows(sql, job_id, task)]

    def log_head(self) -> Head | None:
        """Return how far our log goes: the last entry that hangs together with those before it."""
        for (epoch,) in self._rows("SELECT DISTINCT epoch FROM log ORDER BY epoch DESC"):
            head = None
            for position, previous, link in self._rows(
                "SELECT position, previous, link FROM log WHERE epoch = ? ORDER BY position", epoch
            ):
                is_first = head is None and (
                    position == 0 or self._rows("SELECT 1 FROM log WHERE link = ? AND epoch < ?", previous, epoch)
                )
                if not is_first and (head is None or head.link != previous):
                    break
                head = Head(position + 1, link)
            if head is not None:
                return head
        return None

    def agreements(self) -> list[tuple[bytes, str, bytes, bytes, bytes]]:
        """Return (id, role, peer, bid, award) of all agreements."""
        return self._rows("SELECT id, role, peer, bid, award FROM agreements ORDER BY at_s")

    def evidence(self) -> list[tuple[bytes, bytes, int, str, StoredEvidence]]:
        """Return (peer, job, task, reason, evidence) of all that was caught."""
        return [
            (peer, job, task, reason, decode(data, StoredEvidence, size_bytes_max=_VALUE_BYTES_MAX))
            for peer, job, task, reason, data in self._rows("SELECT peer, job, task, reason, evidence FROM evidence")
        ]

    def unjudged(self, count: int) -> list[tuple[bytes, Evidence]]:
        """Return the newest evidence that has not been judged, and about whom."""
        sql = """SELECT peer, task, evidence, number, body FROM evidence
            WHERE body IS NOT NULL AND peer NOT IN (SELECT accused FROM cases) ORDER BY rowid DESC LIMIT ?"""
        found = []
        for peer, task, data, number, body in self._rows(sql, count):
            kept = decode(data, StoredEvidence, size_bytes_max=_VALUE_BYTES_MAX)
            work = decode(body, WorkBody, size_bytes_max=_VALUE_BYTES_MAX)
            whole = kept.agreement, kept.work, task, kept.attempt, kept.commits, kept.reveals, number, work
            found.append((peer, Evidence(*whole)))
        return found

    def bans(self) -> dict[bytes, str]:
        """Return why each banned peer is."""
        return dict(self._rows("SELECT peer, reason FROM bans"))

    def standings(self) -> list[Row]:
        """Return what was counted of peers, those counted last at the end; no more than the book holds."""
        sql = "SELECT * FROM standings ORDER BY at_s DESC LIMIT ?"
        return [Row(*row) for row in reversed(self._rows(sql, KNOWN_MAX))]

    def tallies(self) -> list[Tally]:
        """Return what is remembered of unsigned work, and of the strangers' share."""
        return [Tally(*row) for row in self._rows("SELECT name, amount_us, at_s FROM tallies")]

    def balances(self) -> list[tuple[bytes, int, int]]:
        """Return (peer, given, received): the work in µs that receipts signed by both sides count."""
        return self._rows(
            "SELECT peer, CAST(total(busy_us * (role = 'provider')) AS INTEGER),"
            " CAST(total(busy_us * (role = 'requester')) AS INTEGER)"  # sum() ends with an error beyond 64 bits
            " FROM receipts WHERE countersign IS NOT NULL GROUP BY peer"
        )

    def runs(self, owner: bytes) -> list[bytes]:
        """Return what is kept of a partner's log, oldest first."""
        return [run for (run,) in self._rows("SELECT run FROM runs WHERE owner = ? ORDER BY rowid", owner)]

    def has_link(self, name: bytes) -> bool:
        """Tell whether a link stands in our log, or in a branch of it."""
        return bool(self._rows("SELECT 1 FROM log WHERE link = ?", name))

    def has_receipt(self, name: bytes) -> bool:
        """Tell whether a receipt is here."""
        return bool(self._rows("SELECT 1 FROM receipts WHERE id = ?", name))

    def receipts_with(self, peer: bytes, before: int, limit: int) -> list[tuple[int, bytes]]:
        """Return (number, id) of receipts with a peer, the newest first; ``before`` a number, 0 for all."""
        sql = "SELECT rowid, id FROM receipts WHERE peer = ?1 AND (?2 = 0 OR rowid < ?2) ORDER BY rowid DESC LIMIT ?3"
        return self._rows(sql, peer, before, limit)

    def record_with(self, peer: bytes, name: bytes) -> tuple[bytes, bytes | None] | None:
        """Return (receipt, countersign) of a receipt with a peer."""
        rows = self._rows("SELECT receipt, countersign FROM receipts WHERE id = ? AND peer = ?", name, peer)
        return rows[0] if rows else None

    def log_since(
        self, stored: Head, known: Sequence[bytes], origin: bytes, *, first_look: int, limit: int
    ) -> tuple[int, bytes, list[tuple[int, bytes]]]:
        """Return where a log goes on for a partner: (first position, link before it, [(epoch, digest), …]).

        Args:
            stored: the head.
            known: links that the partner knows, the newest first; with none, it is shown the last ``first_look``.
            origin: the link before the first entry.
            first_look: see ``known``.
            limit: entries at most.
        """
        wanted = set(known)
        steps: list[tuple[int, int, int]] = []  # epoch, first and last position, from the head back
        first, previous, at = 0, origin, stored
        while at.size and at.link not in wanted:
            ((epoch, last),) = self._rows("SELECT epoch, position FROM log WHERE link = ?", at.link)
            if not known and at.size <= stored.size - first_look:
                break
            ((start,),) = self._rows("SELECT min(position) FROM log WHERE epoch = ?", epoch)
            inside = [
                (position + 1, name)
                for name in wanted
                for (position,) in self._rows(
                    "SELECT position FROM log WHERE link = ? AND epoch = ? AND position <= ?", name, epoch, last
                )
            ]
            if not known:
                start = max(start, stored.size - first_look)
            start = max([start, *(position for position, _ in inside)])
            steps.append((epoch, start, last))
            ((before,),) = self._rows("SELECT previous FROM log WHERE epoch = ? AND position = ?", epoch, start)
            at = Head(start, before)
        first, previous = at.size, at.link if at.size else origin
        rows: list[tuple[int, bytes]] = []
        for epoch, start, last in reversed(steps):
            rows += self._rows(
                "SELECT epoch, digest FROM log WHERE epoch = ? AND position BETWEEN ? AND ? ORDER BY position LIMIT ?",
                epoch,
                start,
                last,
                limit - len(rows),
            )
            if len(rows) >= limit:
                break
        return first, previous, rows

    def agreement(self, name: bytes, role: str) -> tuple[bytes, bytes] | None:
        """Return (bid, award) of an agreement."""
        rows = self._rows("SELECT bid, award FROM agreements WHERE id = ? AND role = ?", name, role)
        return rows[0] if rows else None

    def cases(self) -> list[StoredCase]:
        """Return all evidence that convinces a third party, oldest first."""
        sql = "SELECT digest, accused, kind, reason, data, told_by, at_s FROM cases ORDER BY rowid"
        return [StoredCase(*row) for row in self._rows(sql)]

    def case_names(self) -> list[tuple[bytes, bytes]]:
        """Return (accused, digest) of all cases, oldest first."""
        return self._rows("SELECT accused, digest FROM cases ORDER BY rowid")

    def case(self, digest: bytes) -> bytes | None:
        """Return the bytes of a case."""
        rows = self._rows("SELECT data FROM cases WHERE digest = ?", digest)
        return rows[0][0] if rows else None

    def floors(self) -> dict[tuple[bytes, str], int]:
        """Return the highest sequence number by sender and channel."""
        return {(sender, channel): seq for sender, channel, seq in self._rows("SELECT * FROM floors")}

    def number(self, name: str) -> int:
        """Return a remembered number, 0 at first."""
        rows = self._rows("SELECT value FROM numbers WHERE name = ?", name)
        return int(rows[0][0]) if rows else 0

    def peers(self) -> list[str]:
        """Return the remembered addresses, best first."""
        return [address for (address,) in self._rows("SELECT address FROM peers ORDER BY position")]


def _stored_job(row: tuple[bytes, bytes, str, bytes | None]) -> StoredJob:
    job_id, envelope, ended, view = row
    return StoredJob(job_id, envelope, ended, msgspec.json.decode(view, type=JobView) if view else None)
