"""A requester and its providers in one process, killed as a whole, again and again: run as a script by ``test_kills``.

    python kill_world.py FOLDER KILLS SEED

Everything is imported once; each life is a fork. A life resumes what the journal has, or submits the next job, and
writes down every task that a provider begins. After each kill the script reads the journal: what it has as accepted
must not be begun again, and must still be there, unchanged, in the end. Prints one JSON line.
"""

import json
import os
import random
import signal
import sys
import time
from pathlib import Path

import structlog
import trio
from market_world import InlinePool, knows, make_job, output_of, world
from wat_programs import program

from depin_node.compute.jobs.job import Quorum
from depin_node.compute.jobs.journal import Journal

TASKS = 40
PROGRAM = program(tasks=TASKS, n=TASKS * 64)


async def life(folder: Path, began: int, tell: int, number: int) -> None:
    """Do job ``number``, from wherever it stands, to its end; tell when it is about to be submitted."""

    async def begin(task, results):
        os.write(began, f"{number} {task}\n".encode())
        await trio.sleep(0.01)

    async with world(folder) as w:
        a = await w.start(1)
        lenders = [await w.start(n, pool=InlinePool(begin)) for n in (2, 3, 4)]
        await knows(a, lenders)
        job, x = await make_job(a, key=f"job {number}", candidate=PROGRAM, policy=Quorum(2, 3))
        os.write(tell, b"s")
        view = await a.requester.submit(job)
        view = await a.requester.wait(bytes.fromhex(view.id))
        os.write(tell, b"d")
        assert view.state == "done", view
        assert (await output_of(a, view, PROGRAM) == x).all()


def accepted(folder: Path) -> dict[tuple[str, int], bytes]:
    """Return the root of each accepted task, by the job's key."""
    if not (folder / "1" / "journal.db").exists():
        return {}
    journal = Journal(folder / "1" / "journal.db")
    found = {}
    for name, key in journal._rows("SELECT id, key FROM jobs"):
        for task, root, _ in journal.results(name, 0, TASKS):
            found[key.removeprefix("job "), task] = root
    journal.close()
    return found


def main() -> None:
    """Kill ``KILLS`` lives, then let one end."""
    folder, kills, draw = Path(sys.argv[1]), int(sys.argv[2]), random.Random(int(sys.argv[3]))
    log = folder / "began"
    number, killed, mid_job = 0, 0, 0
    typical_s = 0.0  # the first life is not killed: it tells how long one takes
    while True:
        before = accepted(folder)
        log.write_bytes(b"")
        began = os.open(log, os.O_WRONLY | os.O_APPEND)
        told, tell = os.pipe()
        child = os.fork()
        if child == 0:
            structlog.configure(
                processors=[structlog.processors.KeyValueRenderer()], logger_factory=structlog.ReturnLoggerFactory()
            )
            try:
                trio.run(life, folder, began, tell, number)
            except BaseException as error:  # noqa: BLE001 - the parent wants to know
                print(repr(error), getattr(error, "exceptions", ""), file=sys.stderr, flush=True)
                os._exit(1)
            os._exit(0)
        os.close(began)
        os.close(tell)
        if draw.random() < 0.8:  # else it may die while it resumes
            os.read(told, 1)
        begin_s = time.monotonic()
        if typical_s and killed < kills:
            time.sleep(draw.uniform(0.0, typical_s))
            os.kill(child, signal.SIGKILL)
        elif not typical_s:
            while os.read(told, 1) == b"s":
                pass
            typical_s = time.monotonic() - begin_s
        _, status = os.waitpid(child, 0)
        os.close(told)
        after = accepted(folder)
        lines = log.read_text().split("\n")[:-1]
        again = {tuple(line.split()) for line in lines} & {(key, str(task)) for key, task in before}
        assert not again, f"accepted and begun again: {again}"
        assert all(after.get(key) == root for key, root in before.items()), "accepted and lost"
        if os.WIFSIGNALED(status):
            killed += 1
            done = sum(key == str(number) for key, _ in after)
            mid_job += 0 < done < TASKS
            number += done == TASKS
        else:
            assert os.WEXITSTATUS(status) == 0, "a life ended badly"
            if killed >= kills:
                break
            number += 1
    print(json.dumps({"kills": killed, "kills_mid_job": mid_job, "jobs": number + 1}))


if __name__ == "__main__":
    main()
