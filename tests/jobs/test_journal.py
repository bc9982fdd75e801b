import os
import random
import signal
import sqlite3
import subprocess
import sys

import pytest
import trio

from depin_node.bootstrap.journal import open_journal
from depin_node.compute.jobs import journal as journal_module
from depin_node.compute.jobs import statements as j
from depin_node.compute.jobs.copies import spent_us
from depin_node.compute.jobs.events import JobEvent
from depin_node.compute.jobs.job import JobView, Verification
from depin_node.compute.jobs.journal import Journal
from depin_node.compute.jobs.schema import SCHEMA_VERSION, StoredOutput
from depin_node.compute.market.happenings import Evidence
from depin_node.core.errors import ConfigError, ResourceError

A, B = b"a" * 32, b"b" * 32
BLOB = b"h" * 32


@pytest.fixture
def path(tmp_path):
    return tmp_path / "journal.db"


@pytest.fixture
def journal(path):
    opened = Journal(path)
    yield opened
    opened.close()


def view(state="done"):
    return JobView(A.hex(), "n", state, 3, 3, 0, 0, (), 1.0, 2.0, 3.0, None, {"done": 2.0}, Verification(3, 0, ()))


def inline(data):
    return [StoredOutput(data, None)]


def test_a_job_is_open_until_it_has_ended(journal):
    journal.apply([j.put_job(A, "key", b"envelope", 5), j.put_job(B, "other", b"e", 6)])
    assert [stored.id for stored in journal.open_jobs()] == [A, B]
    journal.apply([j.end_job(A, "done", view())])
    assert [stored.id for stored in journal.open_jobs()] == [B]
    stored = journal.job(A)
    assert (stored.ended, stored.view) == ("done", view())
    assert journal.job_by_key("key") == stored
    assert [stored.id for stored in journal.jobs(10)] == [B, A]
    assert journal.job(b"?" * 32) is None


def test_an_end_is_the_end(journal):
    journal.apply([j.put_job(A, "key", b"e", 5), j.end_job(A, "cancelled", view("cancelled"))])
    journal.apply([j.end_job(A, "done", view())])
    assert journal.job(A).ended == "cancelled"


def test_a_job_is_not_done_while_a_result_is_missing(journal):
    journal.apply([j.put_job(A, "key", b"e", 5), j.put_result(A, 0, b"r" * 32, [])])
    journal.apply([j.end_job(A, "done", view(), results=2)])
    assert [job.id for job in journal.open_jobs()] == [A]
    journal.apply([j.put_result(A, 1, b"r" * 32, []), j.end_job(A, "done", view(), results=2)])
    assert not journal.open_jobs()


def test_an_accepted_result_is_never_replaced(journal):
    journal.apply([j.put_result(A, 1, B, inline(b"first"))])
    journal.apply([j.put_result(A, 1, A, inline(b"second"))])
    assert journal.results(A, 0, 10) == [(1, B, (StoredOutput(b"first", None),))]
    assert journal.done(A, 3) == bytearray([0, 1, 0])
    journal.apply(j.drop_results(A, [1]))
    assert journal.done(A, 3) == bytearray(3)


def test_results_come_in_pages_and_in_order(journal):
    journal.apply(j.put_result(A, task, B, [StoredOutput(b"", BLOB)]) for task in (7, 2, 5))
    assert [task for task, _, _ in journal.results(A, 2, 4)] == [2, 5]
    assert journal.results(A, 7, 1)[0][2] == (StoredOutput(b"", BLOB),)


def test_all_or_nothing(journal):
    with pytest.raises(ResourceError):
        journal.apply([j.put_job(A, "key", b"e", 5), j.Statement("INSERT INTO no_such_table VALUES (1)", [()])])
    assert journal.open_jobs() == []
    journal.apply([j.put_job(A, "key", b"e", 5)])
    assert len(journal.open_jobs()) == 1


def test_the_rest_is_remembered(path):
    journal = Journal(path)
    evidence = Evidence(A, B, 3, 4, b"commits", b"reveals")
    journal.apply(
        [
            j.put_agreement(A, "requester", B, b"bid", b"award", 1),
            j.put_receipt(A, "requester", B, A, b"receipt", None, 2),
            j.put_receipt(B, "provider", B, A, b"theirs", b"ours", 3),
            j.put_countersign(A, b"countersigned"),
            j.put_countersign(B, b"forged"),
            j.put_evidence(B, A, 3, "lied", evidence, 4),
            j.put_ban(B, "lied", 4),
            j.put_ban(B, "again", 5),
            j.put_floor(B, "market", 9),
            j.put_floor(B, "market", 7),
            j.put_number("sequence", 100),
            j.put_number("sequence", 50),
            j.put_event(A, JobEvent(1.5, "agreed", "peer")),
            j.hold(A, [BLOB, A]),
            j.let_go(A, [A]),
            *j.put_peers(["/old"]),
            *j.put_peers(["/z", "/a"]),
        ]
    )
    journal.close()
    journal = Journal(path)
    assert journal.agreements() == [(A, "requester", B, b"bid", b"award")]
    assert [receipt.countersign for receipt in journal.receipts(5)] == [b"ours", b"countersigned"]
    assert len(journal.receipts_of(A)) == 2
    ((peer, job, task, reason, kept),) = journal.evidence()
    assert (peer, job, task, reason, kept.commits, kept.reveals) == (B, A, 3, "lied", b"commits", b"reveals")
    assert journal.bans() == {B: "lied"}
    assert journal.floors() == {(B, "market"): 9}
    assert (journal.number("sequence"), journal.number("nothing")) == (100, 0)
    assert journal.events(A) == [JobEvent(1.5, "agreed", "peer")]
    assert journal.held() == [BLOB]
    assert journal.peers() == ["/z", "/a"]
    journal.close()


def test_a_story_is_bounded(journal, monkeypatch):
    monkeypatch.setattr(j, "EVENTS_KEPT_MAX", 3)
    journal.apply(j.put_event(A, JobEvent(float(n), "agreed")) for n in range(9))
    assert [event.at_s for event in journal.events(A)] == [0.0, 1.0, 2.0]


def test_old_ended_jobs_are_forgotten_with_their_results(journal, monkeypatch):
    monkeypatch.setattr(journal_module, "JOBS_KEPT_MAX", 2)
    for number in range(5):
        name = bytes([number]) * 32
        journal.apply(
            [
                j.put_job(name, str(number), b"e", number),
                j.put_result(name, 0, A, inline(b"r")),
                j.put_event(name, JobEvent(1.0, "agreed")),
                j.hold(name, [name]),
            ]
        )
        if number != 1:
            journal.apply([j.end_job(name, "done", view())])
    journal.prune()
    assert [stored.id[0] for stored in journal.jobs(9)] == [4, 3, 1]  # 1 is open
    assert not journal.results(bytes(32), 0, 1)
    assert not journal.events(bytes(32))
    assert {blob[0] for blob in journal.held()} == {1, 3, 4}


def test_logs_are_kept_of_so_many_tasks_and_go_with_their_job(journal, monkeypatch):
    for module in (j, journal_module):
        monkeypatch.setattr(module, "LOGS_KEPT_MAX", 2)
    assert journal.logs(A) == ([], False)
    journal.apply([j.put_log(A, task, b"%d" % task) for task in (7, 7)])
    assert journal.logs(A) == ([(7, b"7")], False)
    journal.apply([j.put_log(A, task, b"%d" % task) for task in (2, 5)])
    assert journal.logs(A) == ([(2, b"2"), (7, b"7")], True)
    assert journal.logs(B) == ([], False)
    monkeypatch.setattr(journal_module, "JOBS_KEPT_MAX", 0)
    journal.apply([j.put_job(A, "a", b"e", 1), j.end_job(A, "done", view())])
    journal.prune()
    assert journal.logs(A) == ([], False)


def test_sums_of_what_was_paid_may_be_larger_than_a_number_of_the_journal(journal):
    for number in range(3):
        journal.apply([j.put_receipt(bytes([number]) * 32, "provider", A, B, b"e", b"c", 0, 2**62)])
    ((_, given, received),) = journal.balances()
    assert (given, received) == (2**63 - 1, 0)
    journal.apply(
        [j.put_receipt(bytes([number]) * 32, "requester", A, B, b"e", b"c", 0, 2**62) for number in (4, 5, 6)]
    )
    assert spent_us(journal, B) == 3 * 2**62


def test_a_number_that_is_too_large_is_not_written_and_does_no_harm(journal):
    with pytest.raises(ResourceError, match="does not fit"):
        journal.apply([j.put_receipt(A, "provider", A, B, b"e", b"c", 0, 2**63)])
    journal.apply([j.put_receipt(A, "provider", A, B, b"e", b"c", 0, 1)])
    assert journal.has_receipt(A)


def test_a_newer_schema_is_refused(path):
    Journal(path).close()
    database = sqlite3.connect(path)
    database.execute(f"PRAGMA user_version = {SCHEMA_VERSION + 1}")
    database.close()
    with pytest.raises(ConfigError, match="newer depin-node"):
        Journal(path)


@pytest.mark.parametrize("damage", [b"not a database at all" * 100, b"SQLite format 3\0" + b"\xff" * 5000])
def test_what_is_no_journal_is_refused(path, damage):
    path.write_bytes(damage)
    with pytest.raises((ConfigError, ResourceError), match=r"journal"):
        Journal(path)
    assert path.read_bytes() == damage  # nobody's file was touched


def test_a_place_that_cannot_be_written_is_told(tmp_path):
    with pytest.raises(ResourceError, match="cannot be used"):
        Journal(tmp_path / "missing" / "journal.db")


FULL = """
import resource, signal, sys
from pathlib import Path
from depin_node.compute.jobs import statements as j
from depin_node.compute.jobs.journal import Journal
from depin_node.compute.jobs.schema import StoredOutput
from depin_node.core.errors import ResourceError
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
journal = Journal(Path(sys.argv[1]))
journal.apply([j.put_number("before", 1)])
resource.setrlimit(resource.RLIMIT_FSIZE, (400_000, 400_000))
try:
    for number in range(100):
        journal.apply([j.put_result(b"a" * 32, number, b"b" * 32, [StoredOutput(bytes(10_000), None)])])
        print("acknowledged", number, flush=True)
except ResourceError as error:
    print("full:", error, flush=True)
print("left", journal.number("before"))
"""


def test_a_full_disk_is_told_and_nothing_unwritten_is_acknowledged(path):
    done = subprocess.run([sys.executable, "-c", FULL, path], capture_output=True, text=True, timeout=120, check=True)
    lines = done.stdout.splitlines()
    acknowledged = sum(line.startswith("acknowledged") for line in lines)
    assert 0 < acknowledged < 100
    assert any(line.startswith("full:") and "free some disk space" in line for line in lines)
    assert lines[-1] == "left 1"
    journal = Journal(path)
    assert len(journal.results(b"a" * 32, 0, 100)) == acknowledged
    journal.close()


KILLED = """
import sys, trio
from pathlib import Path
from depin_node.bootstrap.journal import open_journal
from depin_node.compute.jobs import statements as j

async def main():
    async with open_journal(Path(sys.argv[1])) as journal, trio.open_nursery() as nursery:
        async def write(first):
            for number in range(first, 1 << 30, 8):
                await journal.write([j.put_result(b"a" * 32, number, b"b" * 32, [])])
                sys.stdout.write(f"{number}\\n")
                sys.stdout.flush()
        for first in range(8):
            nursery.start_soon(write, first)

trio.run(main)
"""


def test_what_was_acknowledged_survives_a_kill(path):
    draw = random.Random(5)
    for _ in range(5):
        command = [sys.executable, "-c", KILLED, path]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            for _ in range(draw.randrange(1, 400)):
                process.stdout.readline()
            process.send_signal(signal.SIGKILL)
            rest = process.stdout.read()
        last = [int(line) for line in rest.splitlines(keepends=True) if line.endswith("\n")]
        journal = Journal(path)
        done = {task for task, _, _ in journal.results(b"a" * 32, 0, 1 << 30)}
        journal.close()
        assert set(last) <= done
        os.remove(path)


async def test_many_writes_share_a_transaction_and_keep_their_order(path):
    order = []
    async with open_journal(path) as journal:
        applied = []
        apply = journal._writing.apply
        journal._writing.apply = lambda statements: (applied.append(len(statements)), apply(statements))
        async with trio.open_nursery() as nursery:

            async def write(number):
                await journal.write([j.put_number("n", number)])
                order.append(number)

            for number in range(100):
                nursery.start_soon(write, number)
        assert sum(applied) == 100
        assert len(applied) < 10
        assert sorted(order) == list(range(100))
        assert journal.reader.number("n") == 99


async def test_a_lazy_write_goes_with_the_next_or_soon(path):
    async with open_journal(path) as journal:
        done = trio.Event()
        journal.write_lazily([j.put_number("lazy", 1)], lambda error: done.set())
        with trio.fail_after(30):
            await journal.write([j.put_number("urgent", 1)])
            assert done.is_set()
            later = trio.Event()
            journal.write_lazily([j.put_number("lazy", 2)], lambda error: later.set())
            await later.wait()
        assert journal.reader.number("lazy") == 2


async def test_a_failure_is_told_to_all_who_shared_it(path):
    heard = []
    async with open_journal(path) as journal:
        journal.write_lazily([j.put_number("n", 1)], heard.append)
        with pytest.raises(ResourceError):
            await journal.write([j.Statement("INSERT INTO no_such_table VALUES (1)", [()])])
        assert isinstance(heard[0], ResourceError)
        await journal.write([j.put_number("n", 2)])
        assert journal.reader.number("n") == 2


async def test_what_is_queued_is_written_at_the_end_even_if_cancelled(path):
    with trio.CancelScope() as scope:
        async with open_journal(path) as journal:
            for number in range(50):
                journal.write_lazily([j.put_result(A, number, B, [])])
            scope.cancel()
            await trio.sleep_forever()
    reopened = Journal(path)
    assert sum(reopened.done(A, 50)) == 50
    reopened.close()
