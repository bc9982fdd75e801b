"""``depin-node submit``: from a job file to a verified result on disk."""

import os
import re
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import click

from depin_node.cli.common import Settings, emit, global_options, json_option, note, on_terminal, pass_settings

if TYPE_CHECKING:
    from depin_node.client.futures import Future
    from depin_node.client.outputs import Array
    from depin_node.compute.jobs.job import JobView
    from depin_node.compute.programs.kernel import Reference

INTERRUPTED = 130
LINE_S = 9.5
"""How often it is said, where there is no terminal, how far a job is: at each sign of life of the node, if nothing
changes."""


class Advance(Protocol):
    """Shows that ``done`` tasks are done."""

    def __call__(self, done: int, text: str = "") -> None:
        """Show it."""


@click.command()
@global_options
@json_option
@click.argument("file", metavar="JOB.toml", type=click.Path(dir_okay=False))
@click.option("--wait/--no-wait", default=True, help="Wait for the result.  [default: wait]")
@click.option(
    "--output", type=click.Path(file_okay=False), metavar="DIR", help="Where results go.  [default: NAME-out]"
)
@click.option("--key", metavar="KEY", help="Submitting again with the same key is the same job.")
@click.option("--local", is_flag=True, help="Run it on this machine alone, in a sandboxed worker; no node is needed.")
@click.option("--dry-run", is_flag=True, help="Compile and check it, and say what would be sent.")
@pass_settings
def submit(
    settings: Settings,
    /,
    as_json: bool,
    file: str,
    wait: bool,
    output: str | None,
    key: str | None,
    local: bool,
    dry_run: bool,
) -> int:
    """Compile and submit a job, and fetch its verified result.

    Each output is written to DIR/PARAMETER.npy, in the place of an earlier one. Ctrl-C while waiting leaves the job
    running on the node.

    \b
    Examples:
      depin-node submit examples/hillshade/hillshade.toml
      depin-node submit --local examples/hillshade/hillshade.toml
    """
    from depin_node.client.work import prepare_file
    from depin_node.compute.jobs.job import END_STATES

    if not (local or dry_run) and os.path.exists(file):
        settings.located().read_control()  # no node: say so before the compiler runs

    def reference(job_id: str, output: str | None) -> "Reference":
        with settings.mesh() as mesh:
            return mesh.reference(job_id, output)

    work = prepare_file(file, local=local, fresh=dry_run, references=None if local else reference)
    for text in work.notes:
        note(text)
    if dry_run:
        from depin_node.cli.plan import plan_of, plan_text

        plan = plan_of(work)
        emit(plan, as_json, lambda: plan_text(plan))
        return 0
    folder = Path(output or f"{safe_name(work.name)}-out")
    if local:
        from depin_node.client.local import run_local

        with progress(work.bound.program.tasks) as advance:
            arrays = run_local(work, lambda done, total: advance(done), note)
        report(None, save(arrays, folder), as_json)
        return 0
    with settings.mesh() as mesh:
        future = mesh.submit(work, key=key)
        if not wait:
            emit({"job": future.last_view}, as_json, lambda: future.job_id)
            return 0
        state = future.last_view.state
        said = f"job {future.job_id[:12]} submitted: {work.bound.program.tasks} tasks"
        if state in END_STATES:  # nothing has ended when it is acknowledged
            said = f"key {key} is already job {future.job_id[:12]}, {state}"
        return finish(future, folder, settings, as_json, said)


def finish(future: "Future", folder: Path, settings: Settings, as_json: bool, said: str = "") -> int:
    """Wait for a job, save its outputs, and say so. Ctrl-C stops the waiting, not the job, from when ``said`` is
    told."""
    from depin_node.compute.jobs.job import END_STATES

    short, again = future.job_id[:12], settings.repeated()
    try:
        if said:
            note(said)
        watch(future, again)
        paths = save(future.outputs(), folder, f"; once it can: depin-node job result {short}{again}")
    except KeyboardInterrupt:
        is_over = future.last_view.state in END_STATES
        note(f"\nno longer waiting; job {short} {'has ended' if is_over else 'goes on'}")
        for what, command in (("its state", "show"), ("its result", "result"), ("stop it", "cancel"))[
            : 2 if is_over else 3
        ]:
            note(f"  {what + ':':<12} depin-node job {command} {short}{again}")
        return INTERRUPTED
    report(future.status(), paths, as_json)
    return 0


def watch(future: "Future", again: str) -> None:
    """Wait until the job has ended, showing how it goes; and, at once, that too few are known who could do it.
    ``again`` are the options that another command needs to reach the node."""
    told = False
    with progress(future.status().tasks_total) as advance:
        for view in future.views():
            state = f"{view.state}: {view.lacks}" if view.lacks else view.state
            is_running = view.tasks_running and not view.lacks
            advance(view.tasks_done, f"{view.tasks_running} running" if is_running else state)
            if view.lacks and not told:
                note(f"{state}; see: depin-node job explain {view.id[:12]}{again}")
                told = True


def save(arrays: "dict[str, Array]", folder: Path, hint: str = "") -> list[Path]:
    """Write each array to ``folder/NAME.npy``, whole or not at all, in the place of what is there; say so if that was
    something else, for two jobs may have one name. ``hint`` is what to do if it fails."""
    from depin_node.core.errors import ResourceError

    path = folder
    paths = []
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, array in arrays.items():
            path = folder / f"{safe_name(name)}.npy"
            if _write_whole(path, array):
                note(f"{path} is in the place of other numbers that were there; --output DIR would have kept both")
            paths.append(path)
    except OSError as error:  # NumPy's says how much was written, and not why
        reason = error.strerror or f"{error} (is the disk full?)"
        raise ResourceError(f"{path}: the result cannot be written: {reason}{hint}") from error
    return paths


def _write_whole(path: Path, array: "Array") -> bool:
    """Write a file; return whether another with other bytes made room for it."""
    import filecmp

    import numpy as np

    temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp")  # another job of this name may write here, too
    try:
        with temporary.open("wb") as opened:
            np.save(opened, array)
        is_news = path.exists() and not filecmp.cmp(temporary, path, shallow=False)
        temporary.replace(path)
    finally:  # nothing half stays behind, nor after Ctrl-C
        temporary.unlink(missing_ok=True)
    return is_news


def report(view: "JobView | None", paths: list[Path], as_json: bool) -> None:
    """Print where the outputs are; with how the job ended, if it went through a node."""
    if as_json:
        emit({"job": view, "outputs": [str(path) for path in paths]}, True, str)
        return
    if view is not None:
        checked = view.verification
        liars = f", {len(checked.liars)} caught" if checked.liars else ""
        counts = f"{checked.agreed} agreed, {checked.disputed} disputed{liars}"
        note(f"{view.tasks_done} tasks in {took_s(view):.2f} s, {counts}")
    for path in paths:
        click.echo(path)


def took_s(view: "JobView") -> float:
    """Return how long a job that has ended took. It was created in a whole second; its stages count finer, but anew
    when its node starts again."""
    coarse_s = (view.finished_s or view.created_s) - view.created_s
    fine_s = view.stages_s.get(view.state, coarse_s)
    return fine_s if coarse_s - fine_s < 2 else coarse_s


def safe_name(text: str) -> str:
    """Return ``text`` as the name of a file: what a job file says must not choose a folder."""
    return re.sub(r"[^\w.-]|^\.", "_", text)[:100] or "_"


@contextmanager
def progress(total: int) -> "Iterator[Advance]":
    """Give a function that shows how far we are: a bar on a terminal, else a line now and then."""
    if not on_terminal():
        yield _lines(total)
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    from depin_node.core.text import printable

    columns = (BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TextColumn("{task.fields[text]}", markup=False))
    with Progress(*columns, console=Console(file=sys.stderr), transient=True) as bar:
        task = bar.add_task("", total=total, text="")
        yield lambda done, text="": bar.update(task, completed=done, text=printable(text))


def _lines(total: int) -> "Advance":
    said_s = time.monotonic()

    def advance(done: int, text: str = "") -> None:
        nonlocal said_s
        if time.monotonic() - said_s >= LINE_S:
            said_s = time.monotonic()
            note(f"{done} of {total} tasks done" + (f"; {text}" if text else ""))

    return advance
