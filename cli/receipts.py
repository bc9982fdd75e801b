"""``depin-node receipts``: what was run for whom, signed by both sides; in a file that anybody can check."""

import time
from pathlib import Path
from typing import TYPE_CHECKING

import click

from depin_node.cli.common import Settings, emit, global_options, json_option, note, pass_settings, reference, table

if TYPE_CHECKING:
    from depin_node.compute.trust.export import Findings


@click.group()
def receipts() -> None:
    """List signed receipts, export them, check an export."""


@receipts.command("list")
@global_options
@json_option
@pass_settings
def receipts_list(settings: Settings, /, as_json: bool) -> None:
    """List the newest receipts: what was run, by whom, what it cost, how it was verified, and who signed.

    COST is in reference-seconds (ref-s), what a core of 2.5 GFLOP/s does in a second, as fixed by the first task; RAN
    is how many seconds all tasks took there, by the provider's word: "-" until it has signed.

    \b
    Example:
      depin-node receipts list
    """
    with settings.mesh() as mesh:
        views = mesh.receipts()
    headings = ("ROLE", "PEER", "CLASS", "JOB", "ACCEPTED", "REFUSED", "COST", "RAN", "VERIFIED BY", "SIGNED BY")
    rows = [
        (
            v.role,
            v.peer,
            v.device_class,
            v.job[:12],
            v.tasks_accepted,
            v.tasks_refused,
            reference(v.cost_s),
            f"{v.ran_s:.3f} s" if "provider" in v.signed_by else "-",
            v.verified_by,
            " + ".join(v.signed_by),
        )
        for v in views
    ]
    emit(views, as_json, lambda: table(headings, rows) if rows else "no receipts yet")


@receipts.command()
@global_options
@json_option
@click.option("--job", "job_id", metavar="ID", help="Only the receipts of this job; the beginning of its id will do.")
@click.option("--network", metavar="NAME", help="The network id; by default that of the configuration.")
@click.argument("file", type=click.Path(dir_okay=False, path_type=Path))
@pass_settings
def export(settings: Settings, /, as_json: bool, job_id: str | None, network: str | None, file: Path) -> None:
    """Write this node's log of receipts to FILE: all of it, in order, sealed with the node's key.

    Anybody can check it with `depin-node receipts verify`, without a node and without the network.

    \b
    Example:
      depin-node receipts export receipts.depin
    """
    from depin_node.bootstrap.exports import export_receipts

    entries = export_receipts(settings.located(), network or _network(settings), file, job_id)
    emit({"file": str(file), "entries": entries}, as_json, lambda: f"{entries} receipts in {file}")


@receipts.command()
@global_options
@json_option
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@pass_settings
def verify(settings: Settings, /, as_json: bool, file: Path) -> int:
    """Check an export of receipts: every signature, both sides, the chain, the seal. Needs no node and no network.

    Exits with 0 if all of it holds, with 4 if something does not, with 2 if FILE is no export.

    \b
    Example:
      depin-node receipts verify receipts.depin
    """
    from depin_node.compute.trust.export import verify_export

    with file.open("rb") as opened:
        findings = verify_export(opened)
    emit(findings, as_json, lambda: _findings_text(findings))
    return 0 if findings.holds else 4


@click.command()
@global_options
@json_option
@pass_settings
def credit(settings: Settings, /, as_json: bool) -> None:
    """Show what lies between this node and its partners, in reference-seconds (ref-s).

    A partner is on credit as long as what we gave it less what it gave us is below its limit, which grows with what
    both have done for each other. All others share a part of the lent slots' time (`unpaid_share`).

    \b
    Example:
      depin-node credit
    """
    with settings.mesh() as mesh:
        view = mesh.credit()
    headings = ("PARTNER", "WE GAVE", "WE GOT", "LIMIT", "UNSIGNED", "REFUSED FOR")
    rows = [
        (a.peer, *(reference(s, 1) for s in (a.gave_s, a.got_s, a.limit_s, a.unsigned_s)), a.refused)
        for a in view.accounts
    ]
    left = f"{view.strangers_s:.0f} s of slot time are left for all who are beyond their limit"
    emit(view, as_json, lambda: "\n\n".join([table(headings, rows) if rows else "no partners yet", left]))


def _network(settings: Settings) -> str:
    import os

    from depin_node.bootstrap.config import load
    from depin_node.core.local import NotRunningError

    try:
        with settings.mesh() as mesh:
            return mesh.status().network_id
    except NotRunningError:
        return load(settings.located().config, flags={}, environ=os.environ).network_id


def _findings_text(findings: "Findings") -> str:
    sealed = time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(findings.sealed_s)) if findings.owner else "not sealed"
    rows = [
        ("network", findings.network),
        ("owner", findings.owner or "cannot be told"),
        ("sealed", sealed + ("" if findings.is_whole or not findings.owner else ", a part of the log")),
        ("receipts", f"{findings.confirmed} signed by both, {findings.unconfirmed} by the requester only"),
        ("log", f"{findings.epochs} starts, {findings.branches} branches (restored from a backup, or a failed disk)"),
    ]
    text = table(("", ""), rows).lstrip("\n")
    if findings.partners:
        headings = ("PARTNER", "RECEIPTS", "ACCEPTED", "REFUSED", "OPEN", "WE GAVE", "WE GOT", "ENERGY")
        partners = [
            (
                peer,
                tally.receipts,
                tally.accepted,
                tally.refused,
                tally.open,
                reference(tally.gave_us / 1e6, 1),
                reference(tally.got_us / 1e6, 1),
                f"{tally.energy_mj / 1e3:.1f} J" if tally.energy_mj else "-",
            )
            for peer, tally in findings.partners.items()
        ]
        text += "\n\n" + table(headings, partners)
    for problem in findings.problems:
        note(f"wrong: {problem}")
    if findings.problems_more:
        note(f"wrong: {findings.problems_more} more")
    return text + ("\n\nall of it holds" if findings.holds else "\n\nnot all of it holds")
