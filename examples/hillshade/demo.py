"""What ``make demo`` runs: five nodes on this machine, a real kernel, a liar, a kill; then the facts, from the records.

The flow: a requester, which is also the first peer and lends nothing, and four lenders start as processes of their
own and find each other. The job of ``hillshade.toml`` is submitted to the requester. As soon as one lender, a slow one,
holds work that it has not returned, it gets SIGKILL. When the job is done, everything that is claimed about it is
derived anew: from the receipts that both sides signed, from the requester's journal, and by comparing the picture with
NumPy's.
"""

import json
import signal
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import numpy as np
from PIL import Image, ImageDraw

from depin_node.client import Mesh
from depin_node.client.outputs import Outputs
from depin_node.client.work import Work, prepare_file
from depin_node.compute.jobs.job import JobView, describe
from depin_node.compute.jobs.journal import Journal
from depin_node.compute.market.messages import Verdict
from depin_node.compute.trust.receipts import verify_receipt
from depin_node.compute.verification.rules import rule_of
from depin_node.core.local import DataDir
from depin_node.crypto.identity import peer_id

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent)]
from local_mesh import NETWORK, MeshFailed, ended, ready, spawn, wait_for_lenders  # noqa: E402 - these folders are
from reference import hillshade  # noqa: E402 - no packages

JOB_S = 100.0
RECEIPTS_S = 15.0
TOLERANCE = 1e-5
"""Of brightness, 0 to 1: the kernel works in float32, the reference in float64."""
AGREED, OUTVOTED, REPLACED = (120, 160, 205), (222, 92, 80), (232, 186, 82)
"""Colours of shards: two lenders agreed at once; a wrong answer was outvoted; the killed lender held it."""


class DemoFailed(Exception):
    """The demo could not be brought to its end."""


@dataclass
class Lender:
    """One of the four, and the part it plays."""

    name: str
    device: str = ""
    peer: str = ""
    process: subprocess.Popen[str] | None = None

    @property
    def config(self) -> str:
        """Its ``config.toml``: honest lenders have none."""
        return f'devices = ["faulty:{self.device}"]\ndevice_path = "{HERE}"\n' if self.device else ""


class Stage:
    """Tells what happens and how long it took."""

    def __init__(self) -> None:
        self._began = self._last = time.monotonic()

    def say(self, text: str) -> None:
        """Print one line of the story."""
        print(text, flush=True)

    def done(self, name: str) -> None:
        """Print the time since the last stage ended."""
        at = time.monotonic()
        self.say(f"  [{name}: {at - self._last:.2f} s]\n")
        self._last = at

    def seconds(self) -> float:
        """Return the time since the beginning."""
        return time.monotonic() - self._began


def run_job(mesh: Mesh, work: Work, victim: Lender, stage: Stage) -> tuple[JobView, Any]:
    """Submit, kill the victim when it holds work, and return how the job ended and its result."""
    future = mesh.submit(work)
    stage.say(f"job {future.job_id[:12]}: {work.bound.program.tasks} tasks, {describe(work.policy)}")
    killed = False
    for view in future.views(JOB_S):
        holding = next((part.tasks_running for part in view.providers if part.peer == victim.peer), 0)
        if holding and not killed and victim.process is not None:
            victim.process.send_signal(signal.SIGKILL)
            killed = True
            stage.say(f"SIGKILL to the {victim.name} lender, which holds {holding} unreturned attempts")
    if not killed:
        raise DemoFailed("the victim never got any work")
    return future.wait(), future.result()


def wait_for_receipts(mesh: Mesh, job: str, providers: set[str]) -> None:
    """Wait until every surviving provider has countersigned all of its receipts."""
    deadline = time.monotonic() + RECEIPTS_S
    while time.monotonic() < deadline:
        receipts = [receipt for receipt in mesh.receipts() if receipt.job == job and receipt.peer in providers]
        signed = {receipt.peer for receipt in receipts}
        if signed == providers and all(len(receipt.signed_by) == 2 for receipt in receipts):
            return
        time.sleep(0.05)  # the control API is asked again: it has no event for this
    raise DemoFailed(f"not all receipts were signed by both sides within {RECEIPTS_S:.0f} s")


@dataclass(frozen=True)
class Facts:
    """What the records prove. ``disputed``: tasks whose answers differed; ``lost``: tasks that a lost peer held."""

    providers: int
    verified: bool
    caught: frozenset[str]
    disputed: frozenset[int]
    lost: dict[str, set[int]]


def facts(data_dir: Path, job: str, tasks: int, k: int) -> Facts:
    """Derive the facts from the requester's journal; only receipts that both sides signed count."""
    journal = Journal(DataDir(data_dir).journal)
    try:
        job_id = bytes.fromhex(job)
        believed: dict[int, set[str]] = defaultdict(set)
        for stored in journal.receipts_of(job_id):
            if stored.countersign is None:
                continue
            receipt = verify_receipt(stored.receipt, stored.countersign, NETWORK).payload
            for settled in receipt.settled:
                if settled.verdict is Verdict.ACCEPTED:
                    believed[settled.task].add(peer_id(receipt.to))
        stored_tasks = {task for task, _, _ in journal.results(job_id, 0, tasks)}
        agreed_with = {peer for _, role, peer, _, _ in journal.agreements() if role == "requester"}
        story = journal.events(job_id)
        lost: dict[str, set[int]] = {event.peer: set() for event in story if event.kind == "lost"}
        for event in story:
            if event.kind == "attempt_failed" and event.detail == "lost" and event.peer in lost:
                lost[event.peer].add(event.task)
        return Facts(
            providers=len(agreed_with),
            verified=stored_tasks == set(range(tasks)) and all(len(believed[task]) >= k for task in range(tasks)),
            caught=frozenset(peer_id(peer) for peer, of, *_ in journal.evidence() if of == job_id),
            disputed=frozenset(event.task for event in story if event.kind == "disagreed"),
            lost=lost,
        )
    finally:
        journal.close()


def picture(work: Work, shade: Any, found: Facts, path: Path) -> None:
    """Write the shaded relief, and beside it the same with each shard tinted by what happened to it."""
    program = work.bound.program
    owner = Outputs(program)
    for task, size_bytes in enumerate(owner.sizes(0)):
        owner.put(task, 0, np.full(size_bytes // 4, task, "<f4").tobytes())
    tasks = np.asarray(owner.value()).astype(int)
    tint = np.full((*tasks.shape, 3), AGREED, float)
    tint[np.isin(tasks, list(found.disputed))] = OUTVOTED
    hatched = np.add.outer(*map(np.arange, tasks.shape)) % 16 < 6
    tint[np.isin(tasks, list(set().union(*found.lost.values()))) & hatched] = REPLACED
    grey = np.clip(np.asarray(shade) * 255, 0, 255)
    tinted = grey[..., None] / 255 * (0.4 * 255 + 0.6 * tint)
    seam = (np.diff(tasks, axis=0, prepend=tasks[:1]) != 0) | (np.diff(tasks, axis=1, prepend=tasks[:, :1]) != 0)
    tinted[seam] *= 0.45
    rows, cols = grey.shape
    image = Image.new("RGB", (2 * cols + 12, rows + 24), "white")
    image.paste(Image.fromarray(grey.astype(np.uint8)).convert("RGB"), (0, 0))
    image.paste(Image.fromarray(np.clip(tinted, 0, 255).astype(np.uint8)), (cols + 12, 0))
    draw = ImageDraw.Draw(image)
    draw.text((4, rows + 7), "Jacksboro fault, Tennessee (SRTM), shaded by the mesh", fill="black")
    at = cols + 16
    for tint, text in ((AGREED, "two agreed"), (OUTVOTED, "a liar outvoted"), (REPLACED, "killed, replaced")):
        draw.rectangle((at, rows + 8, at + 10, rows + 18), fill=tint)
        draw.text((at + 15, rows + 7), text, fill="black")
        at += 130
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path, optimize=True)


def tell(mesh: Mesh, view: JobView, names: dict[str, str], stage: Stage) -> None:
    """Print what happened, by the job's own story."""
    story = mesh.future(view.id).story()

    def named(text: str) -> str:
        for peer, name in names.items():
            text = text.replace(peer, name).replace(peer[-6:], name)
        return text

    bids = [f"{names.get(event.peer, '?')} ({event.detail})" for event in story if event.kind == "bid"]
    stage.say(f"bids: {', '.join(bids)}")
    for event in story:
        if event.kind == "disagreed":
            stage.say(f"task {event.task}: answers disagree: {named(event.detail)}")
        elif event.kind == "caught":
            stage.say(f"task {event.task}: caught: {names.get(event.peer, '?')}: {named(event.detail)}")
        elif event.kind == "lost":
            stage.say(f"lost: {names.get(event.peer, '?')} ({event.detail})")
    for part in view.providers:
        stage.say(f"  {names.get(part.peer, '?'):<7} {part.state:<9} {part.tasks_done:>3} accepted  {part.reason}")


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "--output",
    type=click.Path(file_okay=False, path_type=Path),
    default="demo-out",
    metavar="DIR",
    show_default=True,
    help="Where the picture goes.",
)
@click.option("--no-liar", is_flag=True, help="Let all lenders be honest.")
def main(output: Path, no_liar: bool) -> None:
    """Run five nodes here: a real job, a liar who is caught, a lender who is killed.

    The last line on stdout is JSON. Exits with 0 if all that the demo claims is in the nodes' own records.

    \b
    Examples:
      depin-node demo
      depin-node demo --no-liar --output somewhere
    """
    stage = Stage()
    liar = Lender("liar", "" if no_liar else "LyingDevice")
    victim = Lender("slow", "SlowDevice")
    lenders = [Lender("alice"), Lender("bob"), liar, victim]
    with tempfile.TemporaryDirectory(prefix="depin-demo-") as name, ended() as processes:
        folder = Path(name)
        requester = spawn(folder, "requester")
        processes.append(requester)
        address = ready(folder, "requester", requester)["addresses"][0]
        stage.say(f"requester and first peer: {address}")
        for lender in lenders:
            joining = ("--lend", "--slots", "1", "--peer", address)
            lender.process = spawn(folder, lender.name, *joining, config=lender.config)
            processes.append(lender.process)
        for lender, process in zip(lenders, processes[1:], strict=True):
            lender.peer = ready(folder, lender.name, process)["peer"]
        names = {lender.peer: lender.name for lender in lenders}
        with Mesh(folder / "requester") as mesh:
            wait_for_lenders(mesh, [lender.peer for lender in lenders])
            for peer in mesh.peers():
                offers = ", ".join(f"{device.device_class}, {device.slots} slot" for device in peer.devices)
                stage.say(f"found {names.get(peer.peer, '?'):<7} {peer.peer[:8]}…{peer.peer[-6:]}  {offers}")
            stage.done("start and find each other")
            work = prepare_file(HERE / "hillshade.toml")
            stage.say(f"compiled hillshade.cu to {len(work.bound.program.units[0].module)} bytes of WebAssembly")
            stage.done("compile")
            view, shade = run_job(mesh, work, victim, stage)
            stage.done("run, with one lender killed")
            wait_for_receipts(mesh, view.id, {part.peer for part in view.providers} - {victim.peer})
            tell(mesh, view, names, stage)
            stage.done("receipts signed by both sides")
        requester.terminate()  # its journal is whole now
        requester.wait(30)
        found = facts(folder / "requester", view.id, work.bound.program.tasks, rule_of(work.policy).agree)
        z, scalars = np.load(HERE / "dem.npy"), (74.5, 92.7, -0.5, 0.5, 0.70710678)
        matches = bool(np.allclose(shade, hillshade(z, *scalars), rtol=0, atol=TOLERANCE))
        picture(work, shade, found, output / "hillshade.png")
        stage.say(f"wrote {output / 'hillshade.png'}")
        stage.done("check the records, draw")
    result = {
        "verified": found.verified,
        "liar_caught": liar.peer in found.caught and found.caught == {liar.peer},
        "survived_kill": bool(found.lost.get(victim.peer)) and view.state == "done",
        "providers": found.providers,
        "matches_reference": matches,
        "seconds": round(stage.seconds(), 2),
    }
    print(json.dumps(result), flush=True)
    expected = {"verified": True, "liar_caught": not no_liar, "survived_kill": True, "matches_reference": True}
    sys.exit(0 if all(result[key] == value for key, value in expected.items()) else 1)


if __name__ == "__main__":
    try:
        main(prog_name="depin-node demo")
    except (DemoFailed, MeshFailed) as error:
        print(f"demo: {error}", file=sys.stderr)
        raise SystemExit(1) from None
