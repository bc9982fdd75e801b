"""What is written into the journal: each function returns a statement, which ``Journal.apply`` runs.

The same statement twice is harmless, and a result that is there is never replaced.
"""

from collections.abc import Iterable, Sequence
from dataclasses import astuple
from typing import Any, NamedTuple

import msgspec

from depin_node.compute.jobs.events import JobEvent
from depin_node.compute.jobs.job import JobView
from depin_node.compute.jobs.schema import StoredEvidence, StoredFinished, StoredOutput, StoredResult
from depin_node.compute.market.happenings import Evidence
from depin_node.compute.trust.book import Row
from depin_node.compute.trust.chain import Entry
from depin_node.compute.trust.credit import Tally
from depin_node.compute.trust.evidence import Proven
from depin_node.compute.trust.heads import RUNS_MAX
from depin_node.core.wire import encode

EVENTS_KEPT_MAX = 1000
"""Lines of one job's story."""
LOGS_KEPT_MAX = 1000
"""Tasks of one job whose log is kept: 4 KiB each at most, by the message that brings it."""


class Statement(NamedTuple):
    """One statement and the rows to run it with."""

    sql: str
    rows: Sequence[tuple[Any, ...]]


def put_job(job_id: bytes, key: str, envelope: bytes, created_s: int) -> Statement:
    """Take on a job."""
    sql = "INSERT OR IGNORE INTO jobs (id, key, envelope, created_s) VALUES (?, ?, ?, ?)"
    return Statement(sql, [(job_id, key, envelope, created_s)])


def put_result(job_id: bytes, task: int, root: bytes, outputs: Iterable[StoredOutput], panel: int = 0) -> Statement:
    """Accept a task's result; ``panel``: the number of those who agreed on it, if that is kept."""
    sql = "INSERT OR IGNORE INTO results (job, task, root, outputs, panel) VALUES (?, ?, ?, ?, ?)"
    return Statement(sql, [(job_id, task, root, encode(StoredResult(tuple(outputs))), panel)])


def put_panel(job_id: bytes, number: int, peers: Iterable[bytes]) -> Statement:
    """Keep who the members of a panel are."""
    return Statement("INSERT OR REPLACE INTO panels VALUES (?, ?, ?)", [(job_id, number, b"".join(peers))])


def put_audit(job_id: bytes, task: int, device_class: str) -> Statement:
    """Note that an agreed result is to be audited."""
    return Statement("INSERT OR REPLACE INTO audits VALUES (?, ?, ?)", [(job_id, task, device_class)])


def drop_audit(job_id: bytes, task: int) -> Statement:
    """The audit of an agreed result is over."""
    return Statement("DELETE FROM audits WHERE job = ? AND task = ?", [(job_id, task)])


def drop_panels(job_id: bytes) -> list[Statement]:
    """A job has ended: nobody's agreement is of interest any more."""
    return [Statement(f"DELETE FROM {table} WHERE job = ?", [(job_id,)]) for table in ("panels", "audits")]  # noqa: S608 - no input


def hold(job_id: bytes, blobs: Iterable[bytes]) -> Statement:
    """Note blobs that a job needs: they are to be kept as long as it is remembered."""
    return Statement("INSERT OR IGNORE INTO held VALUES (?, ?)", [(job_id, blob) for blob in blobs])


def let_go(job_id: bytes, blobs: Iterable[bytes]) -> Statement:
    """Undo ``hold``."""
    return Statement("DELETE FROM held WHERE job = ? AND blob = ?", [(job_id, blob) for blob in blobs])


def put_tab(job_id: bytes, task: int, peer: bytes, draw: int) -> Statement:
    """Note that a result is provisional, whose it is, and the draw that decides whether it is audited."""
    sql = "INSERT OR REPLACE INTO tabs (job, task, peer, draw) VALUES (?, ?, ?, ?)"
    return Statement(sql, [(job_id, task, peer, draw.to_bytes(8, "big"))])


def settle(job_id: bytes, tasks: Iterable[int], *, confirmed: bool) -> Statement:
    """Note that results are for good: ``confirmed`` ones stay on their tab, whose length counts."""
    rows = [(job_id, task) for task in tasks]
    if confirmed:
        return Statement("UPDATE tabs SET confirmed = 1 WHERE job = ? AND task = ?", rows)
    return Statement("DELETE FROM tabs WHERE job = ? AND task = ?", rows)


def put_catch(peer: bytes, job_id: bytes) -> Statement:
    """Note that a peer was found out in a job: who joins that from now on is audited in all it does."""
    return Statement("INSERT OR IGNORE INTO catches (job, peer) VALUES (?, ?)", [(job_id, peer)])


def drop_catch(peer: bytes, job_id: bytes) -> list[Statement]:
    """A peer was right after all: what it was found out by is no evidence."""
    return [
        Statement("DELETE FROM catches WHERE job = ? AND peer = ?", [(job_id, peer)]),
        Statement("DELETE FROM evidence WHERE job = ? AND peer = ?", [(job_id, peer)]),
    ]


def drop_tabs(job_id: bytes) -> Statement:
    """A job has ended."""
    return Statement("DELETE FROM tabs WHERE job = ?", [(job_id,)])


def drop_results(job_id: bytes, tasks: Iterable[int]) -> list[Statement]:
    """Forget results whose bytes are gone."""
    rows = [(job_id, task) for task in tasks]
    return [
        Statement("DELETE FROM results WHERE job = ? AND task = ?", rows),
        Statement("DELETE FROM holders WHERE job = ? AND task = ?", rows),
        Statement("DELETE FROM tabs WHERE job = ? AND task = ?", rows),
        Statement("DELETE FROM audits WHERE job = ? AND task = ?", rows),
    ]


def reopen_job(job_id: bytes) -> Statement:
    """Go on with a job that had ended."""
    return Statement("UPDATE jobs SET ended = '', view = NULL WHERE id = ?", [(job_id,)])


def end_job(job_id: bytes, state: str, view: JobView, *, results: int = 0) -> Statement:
    """Note how a job ended; only if so many results of it are here, since those may be written just before."""
    sql = """UPDATE jobs SET ended = ?, view = ? WHERE id = ? AND ended = ''
        AND (? = 0 OR (SELECT count(*) FROM results WHERE job = ?) >= ?)"""
    return Statement(sql, [(state, msgspec.json.encode(view), job_id, results, job_id, results)])


def put_event(job_id: bytes, event: JobEvent) -> Statement:
    """Add a line to a job's story, unless it is long already."""
    sql = "INSERT INTO events SELECT ?, ? WHERE (SELECT count(*) FROM events WHERE job = ?) < ?"
    return Statement(sql, [(job_id, msgspec.json.encode(event), job_id, EVENTS_KEPT_MAX)])


def put_log(job_id: bytes, task: int, log: bytes) -> Statement:
    """Keep what an accepted task printed, unless there is enough of the job already."""
    sql = "INSERT OR IGNORE INTO logs SELECT ?, ?, ? WHERE (SELECT count(*) FROM logs WHERE job = ?) < ?"
    return Statement(sql, [(job_id, task, log, job_id, LOGS_KEPT_MAX)])


def put_agreement(agreement: bytes, role: str, peer: bytes, bid: bytes, award: bytes, at_s: int) -> Statement:
    """Keep an agreement; ``role`` is ours: requester or provider."""
    sql = "INSERT OR IGNORE INTO agreements VALUES (?, ?, ?, ?, ?, ?)"
    return Statement(sql, [(agreement, role, peer, bid, award, at_s)])


def put_receipt(
    receipt: bytes,
    role: str,
    peer: bytes,
    job: bytes,
    envelope: bytes,
    countersign: bytes | None,
    at_s: int,
    busy_us: int = 0,
) -> Statement:
    """Keep a receipt; ``busy_us`` is the work that it counts."""
    sql = "INSERT OR IGNORE INTO receipts VALUES (?, ?, ?, ?, ?, ?, ?, ?)"
    return Statement(sql, [(receipt, role, peer, job, envelope, countersign, at_s, busy_us)])


def put_entry(entry: Entry, receipt: bytes, role: str) -> Statement:
    """Keep an entry of our log; its message is in that receipt: what the requester signed, or the provider."""
    sql = "INSERT OR IGNORE INTO log VALUES (?, ?, ?, ?, ?, ?, ?)"
    return Statement(sql, [(entry.epoch, entry.index, entry.previous, entry.digest, entry.link, receipt, role)])


def put_countersign(receipt: bytes, envelope: bytes) -> Statement:
    """Keep the provider's confirmation of a receipt of ours."""
    sql = "UPDATE receipts SET countersign = ? WHERE id = ? AND role = 'requester' AND countersign IS NULL"
    return Statement(sql, [(envelope, receipt)])


def put_kept(owner: bytes, blob: bytes, size_bytes: int, until_s: int) -> Statement:
    """Promise to keep a result for ``owner``, its requester, until a time (wall, s)."""
    sql = "INSERT INTO kept VALUES (?, ?, ?, ?) ON CONFLICT (owner, blob) DO UPDATE SET until_s = excluded.until_s"
    return Statement(sql, [(owner, blob, size_bytes, until_s)])


def drop_kept(promises: list[tuple[bytes, bytes, int]]) -> Statement:
    """Forget promises (owner, blob, until when) that have ended; those that were given again since stay."""
    return Statement("DELETE FROM kept WHERE owner = ? AND blob = ? AND until_s = ?", promises)


def drop_kept_before(before_s: int) -> Statement:
    """Forget the promises that ended before a time (wall, s)."""
    return Statement("DELETE FROM kept WHERE until_s < ?", [(before_s,)])


def put_finished(name: bytes, result: StoredFinished, until_s: int) -> Statement:
    """Keep a result of ours until its requester takes it, at most until a time (wall, s)."""
    return Statement("INSERT OR REPLACE INTO finished VALUES (?, ?, ?)", [(name, encode(result), until_s)])


def drop_finished(names: Iterable[bytes]) -> Statement:
    """Forget results that were taken, or that nobody asked for in time."""
    return Statement("DELETE FROM finished WHERE name = ?", [(name,) for name in names])


def drop_finished_before(before_s: int) -> Statement:
    """Forget the results that nobody asked for before a time (wall, s)."""
    return Statement("DELETE FROM finished WHERE until_s < ?", [(before_s,)])


def put_holders(job_id: bytes, task: int, peers: Iterable[bytes]) -> Statement:
    """Note which providers keep the bytes of a result."""
    return Statement("INSERT OR IGNORE INTO holders VALUES (?, ?, ?)", [(job_id, task, peer) for peer in peers])


def put_evidence(peer: bytes, job: bytes, task: int, reason: str, evidence: Evidence, at_s: int) -> Statement:
    """Keep what shows that a peer answered wrongly; as long as its work is there, it is still to be judged."""
    data = encode(
        StoredEvidence(evidence.agreement, evidence.work, evidence.attempt, evidence.commits, evidence.reveals)
    )
    body = encode(evidence.body) if evidence.body is not None else None
    row = (peer, job, task, reason, data, at_s, evidence.number, body)
    return Statement("INSERT INTO evidence VALUES (?, ?, ?, ?, ?, ?, ?, ?)", [row])


def judged(peer: bytes, job: bytes, task: int) -> Statement:
    """What lost a vote was run again, or cannot be."""
    return Statement("UPDATE evidence SET body = NULL WHERE peer = ? AND job = ? AND task = ?", [(peer, job, task)])


def put_ban(peer: bytes, reason: str, at_s: int) -> Statement:
    """Have nothing to do with a peer any more."""
    return Statement("INSERT OR IGNORE INTO bans VALUES (?, ?, ?)", [(peer, reason, at_s)])


def put_standing(row: Row) -> Statement:
    """Remember what was counted of a peer on a device class."""
    return Statement("INSERT OR REPLACE INTO standings VALUES (?, ?, ?, ?, ?, ?)", [astuple(row)])


def put_tally(tally: Tally) -> Statement:
    """Remember unsigned work, or what is left of the strangers' share."""
    return Statement("INSERT OR REPLACE INTO tallies VALUES (?, ?, ?)", [astuple(tally)])


def put_case(proven: Proven, data: bytes, told_by: bytes, at_s: int) -> Statement:
    """Keep a case that we have verified; ``told_by`` is the peer that handed it out, empty if it is our own."""
    sql = "INSERT OR IGNORE INTO cases VALUES (?, ?, ?, ?, ?, ?, ?)"
    return Statement(sql, [(proven.digest, proven.accused, proven.kind, proven.reason, data, told_by, at_s)])


def put_run(owner: bytes, run: bytes) -> list[Statement]:
    """Keep a run of a partner's log, and let those go that are beyond the newest so many."""
    sql = (
        "DELETE FROM runs WHERE owner = ?1 AND rowid <= "
        "(SELECT rowid FROM runs WHERE owner = ?1 ORDER BY rowid DESC LIMIT 1 OFFSET ?2)"
    )
    return [Statement("INSERT INTO runs VALUES (?, ?)", [(owner, run)]), Statement(sql, [(owner, RUNS_MAX)])]


def put_floor(sender: bytes, channel: str, seq: int) -> Statement:
    """Remember how far a peer's sequence numbers have come."""
    sql = "INSERT INTO floors VALUES (?, ?, ?) ON CONFLICT (sender, channel) DO UPDATE SET seq = max(seq, excluded.seq)"
    return Statement(sql, [(sender, channel, seq)])


def put_number(name: str, value: int) -> Statement:
    """Remember a number, such as the reserved sequence numbers, unless a higher one is known."""
    sql = "INSERT INTO numbers VALUES (?, ?) ON CONFLICT (name) DO UPDATE SET value = max(value, excluded.value)"
    return Statement(sql, [(name, value)])


def put_peers(addresses: Sequence[str]) -> list[Statement]:
    """Remember addresses to join by, best first, in place of those before."""
    rows = [(address, position) for position, address in enumerate(addresses)]
    return [
        Statement("DELETE FROM peers", [()]),
        Statement("INSERT OR IGNORE INTO peers VALUES (?, ?)", rows),
    ]
