"""``depin-node job``: what became of submitted jobs."""

import os
import time
from pathlib import Path
from typing import TYPE_CHECKING

import click

from depin_node.cli.common import Settings, ago, emit, global_options, json_option, pass_settings, table

if TYPE_CHECKING:
    from depin_node.compute.jobs.events import JobEvent
    from depin_node.compute.jobs.explain import ExplainView
    from depin_node.compute.jobs.job import JobView, Verification
    from depin_node.core.views import LogsView


@click.group()
def job() -> None:
    """List, show and cancel jobs, and fetch their results."""


@job.command("list")
@global_options
@json_option
@pass_settings
def job_list(settings: Settings, /, as_json: bool) -> None:
    """List the newest jobs.

    \b
    Example:
      depin-node job list
    """
    with settings.mesh() as mesh:
        views = mesh.jobs()
    rows = [
        (
            view.id[:12],
            view.name,
            view.state,
            f"{view.tasks_done}/{view.tasks_total}",
            ago(time.time() - view.created_s),
        )
        for view in views
    ]
    emit(views, as_json, lambda: table(("JOB", "NAME", "STATE", "TASKS", "AGE"), rows) if rows else "no jobs yet")


@job.command()
@global_options
@json_option
@click.option("--follow", is_flag=True, help="Stay until it has ended.")
@click.option("--story", is_flag=True, help="Tell what happened: who was asked, who bid, who disagreed.")
@click.argument("job_id", metavar="ID")
@pass_settings
def show(settings: Settings, /, as_json: bool, follow: bool, story: bool, job_id: str) -> None:
    """Show how a job stands. ID may be the beginning of its id.

    \b
    Example:
      depin-node job show 3fa9 --follow
    """
    from depin_node.cli.submit import watch

    with settings.mesh() as mesh:
        future = mesh.future(job_id)
        if follow:
            watch(future, settings.repeated())
        view = future.status()
        events = future.story() if story else []
    if story:
        emit(events, as_json, lambda: _story(events))
    else:
        emit(view, as_json, lambda: _text(view))


@job.command()
@global_options
@json_option
@click.option(
    "--output", type=click.Path(file_okay=False), metavar="DIR", help="Where results go.  [default: NAME-out]"
)
@click.argument("job_id", metavar="ID")
@pass_settings
def result(settings: Settings, /, as_json: bool, output: str | None, job_id: str) -> int:
    """Wait for a job and write its outputs to DIR/PARAMETER.npy.

    \b
    Example:
      depin-node job result 3fa9 --output shaded
    """
    from depin_node.cli.submit import finish, safe_name

    with settings.mesh() as mesh:
        future = mesh.future(job_id)
        return finish(future, Path(output or f"{safe_name(future.status().name)}-out"), settings, as_json)


@job.command()
@global_options
@json_option
@click.argument("job_id", metavar="ID")
@pass_settings
def explain(settings: Settings, /, as_json: bool, job_id: str) -> None:
    """Say why a job is as it is: who could run it and what others lack, where time went, what was rejected and why.

    \b
    Example:
      depin-node job explain 3fa9
    """
    with settings.mesh() as mesh:
        view = mesh.future(job_id).explain()
    emit(view, as_json, lambda: _explanation(view))


@job.command()
@global_options
@json_option
@click.option("--task", type=click.IntRange(min=0), metavar="N", help="Of this task only.")
@click.argument("job_id", metavar="ID")
@pass_settings
def log(settings: Settings, /, as_json: bool, task: int | None, job_id: str) -> None:
    """Show what the tasks of a job printed, of each the first 4 KiB: what providers say, not compared.

    \b
    Example:
      depin-node job log 3fa9 --task 2
    """
    import msgspec

    from depin_node.core.errors import ConfigError

    with settings.mesh() as mesh:
        future = mesh.future(job_id)
        view = future.logs()
        tasks = future.status().tasks_total
    if task is not None and task >= tasks:
        raise ConfigError(f"job {future.job_id[:12]} has the tasks 0 to {tasks - 1}, and no task {task}")
    if task is not None:
        view = msgspec.structs.replace(view, tasks=tuple(found for found in view.tasks if found.task == task))
    emit(view, as_json, lambda: _log(view))


@job.command()
@global_options
@json_option
@click.argument("job_id", metavar="[ID|FILE]", required=False)
@pass_settings
def attach(settings: Settings, /, as_json: bool, job_id: str | None) -> None:
    """Go on with a job of another node of the same owner on this one; without ID, list those that could be.

    What is settled stays as it is. The other node ends the job when it hears of it: at once, or when it is back. FILE
    is what `depin-node job export` has written there, for a node that never met it.

    \b
    Example:
      depin-node job attach 3fa9
    """
    with settings.mesh() as mesh:
        if job_id is None:
            copies = mesh.copies()
            headings = ("JOB", "NAME", "NODE", "SETTLED", "HEARD")
            rows = [
                (c.id[:12], c.name, c.worker, f"{c.tasks_settled}/{c.tasks_total}", ago(time.time() - c.heard_s))
                for c in copies
            ]
            none = "no node of the same owner works on a job, as far as this one knows"
            emit(copies, as_json, lambda: table(headings, rows) if rows else none)
            return
        view = (mesh.attach_file(job_id) if os.path.isfile(job_id) else mesh.attach(job_id)).status()
    emit(view, as_json, lambda: _text(view))


@job.command()
@global_options
@json_option
@click.argument("job_id", metavar="ID")
@click.argument("file", type=click.Path(dir_okay=False, path_type=Path))
@pass_settings
def export(settings: Settings, /, as_json: bool, job_id: str, file: Path) -> None:
    """Write a job's state into FILE: another node of the same owner goes on with it by `job attach FILE`.

    \b
    Example:
      depin-node job export 3fa9 hillshade.job
    """
    with settings.mesh() as mesh:
        size_bytes = mesh.export(job_id, file)
    emit({"file": str(file), "bytes": size_bytes}, as_json, lambda: f"{file}: {size_bytes:,} bytes")


@job.command()
@global_options
@json_option
@click.argument("job_id", metavar="ID")
@pass_settings
def cancel(settings: Settings, /, as_json: bool, job_id: str) -> int:
    """Stop a job.

    \b
    Example:
      depin-node job cancel 3fa9
    """
    with settings.mesh() as mesh:
        future = mesh.future(job_id)
        cancelled = future.cancel()
        view = future.status()
    emit(
        view,
        as_json,
        lambda: f"job {view.id[:12]} {'is cancelled' if cancelled else f'had ended before: {view.state}'}",
    )
    return 0 if cancelled else 1


def _story(events: "list[JobEvent]") -> str:
    rows = [
        (
            f"{event.at_s - events[0].at_s:8.3f} s",
            event.kind,
            event.task if event.task >= 0 else "",
            event.peer,
            _detail(event),
        )
        for event in events
    ]
    return table(("AFTER", "WHAT", "TASK", "PEER", ""), rows)


def _detail(event: "JobEvent") -> str:
    """Return what happened without the peer id that stands beside it, for which there would be no room."""
    return event.detail.replace(f"/p2p/{event.peer}", "").replace(event.peer, "it") if event.peer else event.detail


def _needed(view: "ExplainView") -> str:
    if view.groups_needed == 1:
        return "a provider"
    return f"{view.groups_needed} providers of different groups, for each task is believed when so many agree"


def _explanation(view: "ExplainView") -> str:
    from depin_node.core.text import counted, printable

    parts = [f"job {view.id[:12]} ({printable(view.name)}): {view.state}, verified by {view.policy}"]
    if view.error:
        parts[0] += "\n" + printable(view.error, length_max=2_000)
    parts.append(
        f"who could run it now: {view.peers_fitting} of {counted(view.peers_known, 'known peer')}, in"
        f" {counted(view.groups_fitting, 'group')}; it needs {_needed(view)}"
    )
    if view.would_help:
        parts.append("what would help:\n" + "\n".join(f"- {text}" for text in view.would_help))
    parts.append("\n".join(f"{name:<10} {text}" for name, text in _checking(view.verification)))
    lacking = [
        (
            c.name,
            c.failing,
            c.alone,
            f"{c.relax}: {counted(c.gained, 'more peer')}, {counted(c.groups, 'group')} in all"
            if c.gained
            else c.relax,
        )
        for c in view.conditions
    ]
    stages = [(stage.what, f"{stage.took_s:.3f} s") for stage in view.stages]
    providers = [
        (p.peer, p.state, p.tasks_done, p.attempts_failed, f"{p.run_s:.3f} s", f"{p.price_s:.6g} ref-s", p.reason)
        for p in view.providers
    ]
    rejected = [(line.kind, line.task if line.task >= 0 else "", line.peer, _detail(line)) for line in view.rejected]
    if lacking:
        parts.append(table(("LACKING", "PEERS", "ONLY THIS", "IF RELAXED"), lacking))
    if stages:
        parts.append(table(("TIME FOR", "TOOK"), stages))
    if providers:
        parts.append(
            table(("PROVIDER", "STATE", "DONE", "FAILED", "RAN (ITS WORD)", "A TASK COSTS", "REASON"), providers)
        )
    if rejected:
        parts.append(table(("WHAT", "TASK", "PEER", ""), rejected))
    parts += [f"evidence: {e.peer}, task {e.task}: {e.reason}; see: depin-node evidence" for e in view.evidence]
    return "\n\n".join(parts)


def _log(view: "LogsView") -> str:
    from depin_node.core.text import printable

    lines = []
    for found in view.tasks:
        lines += [
            f"task {found.task}: {printable(line, length_max=len(line))}"
            for line in found.text.expandtabs().splitlines()
        ]
        if found.cut:
            lines.append(f"task {found.task}: (cut here: no more is kept of one task)")
    if view.full:
        lines.append("(as many tasks as are kept of one job: others may have printed too)")
    return "\n".join(lines) or "nothing was printed"


def _checking(checked: "Verification") -> list[tuple[str, str]]:
    """Say what is believed for good, what that cost, and what it is worth."""
    if not checked.policy:
        return []
    settled = checked.agreed - checked.provisional
    rows = [("policy", f"{checked.policy}: {settled} settled, {checked.provisional} provisional")]
    if here := checked.agreed - checked.earlier:
        runs = f"{checked.attempts} attempts on providers, {checked.audits:.6g} audits and {checked.checks} checks here"
        work = (checked.attempts + checked.audits) / max(1, here)
        since = f" (the {here} since this node went on with the job)" if checked.earlier else ""
        rows.append(("cost", f"{runs}: {work:.2f} runs a task{since}; {checked.groups:.1f} groups agreed on a task"))
    if checked.confidence is not None:
        right = f"{checked.confidence:.4%} of the settled results are expected to be right"
        rows.append(
            ("confidence", f"{right}, if {checked.hostile_share:.0%} of the groups are hostile and act together")
        )
    return rows


def _open(view: "JobView") -> str:
    """Say what becomes of open tasks: if too few can do the job, none of them runs."""
    if view.lacks:
        return f", {view.tasks_running} wait for further answers" if view.tasks_running else ""
    return f", {view.tasks_running} running"


def _text(view: "JobView") -> str:
    from depin_node.cli.submit import took_s

    checked = view.verification
    rows = [
        ("job", view.id),
        ("name", view.name),
        ("state", f"{view.state}: {view.lacks}" if view.lacks else view.state),
        ("tasks", f"{view.tasks_done} of {view.tasks_total} done{_open(view)}"),
        ("attempts", f"{view.attempts_failed} failed"),
        ("verified", f"{checked.agreed} agreed, {checked.disputed} disputed"),
        *_checking(view.verification),
        ("submitted", f"{ago(time.time() - view.created_s)} ago"),
    ]
    if view.finished_s is not None:
        rows.append(("took", f"{took_s(view):.2f} s"))
    rows += [("stage", f"{name} after {seconds:.3f} s") for name, seconds in view.stages_s.items()]
    rows += [("caught", peer) for peer in checked.liars]
    rows += [
        ("provider", f"{p.peer}: {p.state}, {p.tasks_done} done{f' ({p.reason})' if p.reason else ''}")
        for p in view.providers
    ]
    if view.error is not None:
        rows.append(("error", f"{view.error.code}: {view.error.message}"))
    from depin_node.core.text import printable

    return "\n".join(f"{name:<10} {printable(value, length_max=2_000)}" for name, value in rows)
