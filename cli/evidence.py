"""``depin-node evidence``: proof of lies, which convinces anybody, on any machine."""

import time
from pathlib import Path

import click

from depin_node.cli.common import Settings, emit, global_options, json_option, pass_settings, table


@click.group()
def evidence() -> None:
    """List, export and check proof that a node has lied."""


@evidence.command("list")
@global_options
@json_option
@pass_settings
def evidence_list(settings: Settings, /, as_json: bool) -> None:
    """List the proof that this node holds, its own and what peers passed on; all of it was checked here.

    \b
    Example:
      depin-node evidence list
    """
    from depin_node.bootstrap.exports import cases

    views = cases(settings.located())
    rows = [
        (v.id[:12], v.accused, v.kind, time.strftime("%Y-%m-%d %H:%M", time.localtime(v.at_s)), v.told_by or "us")
        for v in views
    ]
    headings = ("ID", "ABOUT", "KIND", "SINCE", "FROM")
    emit(views, as_json, lambda: table(headings, rows) if rows else "no evidence against anybody")


@evidence.command()
@global_options
@json_option
@click.argument("case_id", metavar="ID")
@click.argument("file", type=click.Path(dir_okay=False, path_type=Path))
@pass_settings
def export(settings: Settings, /, as_json: bool, case_id: str, file: Path) -> None:
    """Write one proof to FILE. ID may be the beginning of its id, or the peer that it is about.

    \b
    Example:
      depin-node evidence export 3fa9 lie.depin
    """
    from depin_node.bootstrap.exports import export_case

    view = export_case(settings.located(), case_id, file)
    emit(view, as_json, lambda: f"{view.kind} by {view.accused} in {file}")


@evidence.command()
@global_options
@json_option
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@pass_settings
def verify(settings: Settings, /, as_json: bool, file: Path) -> int:
    """Check a proof. Needs no node and no network; a wrong result is run again, in a worker.

    Exits with 0 if it proves a lie, with 4 if it does not, or cannot be told here.

    \b
    Example:
      depin-node evidence verify lie.depin
    """
    import trio

    from depin_node.bootstrap.evidence import verify_with_execution
    from depin_node.compute.trust.evidence import CASE_BYTES_MAX
    from depin_node.core.errors import PeerViolation
    from depin_node.crypto.identity import peer_id

    with file.open("rb") as opened:
        data = opened.read(CASE_BYTES_MAX + 1)
    try:
        proven = trio.run(verify_with_execution, data, None)
    except PeerViolation as error:
        answer = {"proven": False, "accused": "", "kind": "", "reason": str(error)}
        text = f"proves nothing: {error}"
    else:
        peer = peer_id(proven.accused)
        answer = {"proven": True, "accused": peer, "kind": proven.kind, "reason": proven.reason}
        text = f"proven: {peer}: {proven.reason}"
    emit(answer, as_json, lambda: text)
    return 0 if answer["proven"] else 4
