"""``depin-node doctor``: what is well with this node, what is not, and what to do about it."""

import os
from pathlib import Path
from typing import TYPE_CHECKING

import click

from depin_node.cli.common import Settings, emit, global_options, json_option, note, pass_settings

if TYPE_CHECKING:
    from depin_node.bootstrap.doctor import Patient, Report
    from depin_node.core.local import DataDir
    from depin_node.core.views import DeviceView, PeerView, StatusView


@click.command()
@global_options
@json_option
@click.option("--config", type=click.Path(dir_okay=False), metavar="FILE", help="Default: config.toml in --data-dir.")
@click.option("--no-devices", is_flag=True, help="Do not start workers to try the devices.")
@pass_settings
def doctor(settings: Settings, /, as_json: bool, config: str | None, no_devices: bool) -> int:
    """Say what is well with this node and what is not: line by line, each with what to do.

    Works with and without a running node; a running one knows more. Exits with 0 if all is well, 3 if no peer answers,
    1 if something else is wrong.

    \b
    Example:
      depin-node doctor
    """
    import trio

    from depin_node.bootstrap import doctor as examination
    from depin_node.bootstrap import logs
    from depin_node.core.errors import ConfigError
    from depin_node.core.text import counted

    logs.set_up("error", None)
    patient = _patient(settings.located(), config, devices=not no_devices)
    reasons: dict[str, str] = {}
    node_config = patient.config
    if node_config is not None:
        to_ask = examination.peers_to_ask(patient)
        if to_ask:
            note(f"asking {counted(len(to_ask), 'first peer')}")
            try:
                reasons = trio.run(examination.ask_peers, to_ask, node_config)
            except ConfigError as error:  # the key of the mesh cannot be read: ``examine`` tells
                reasons = dict.fromkeys(to_ask, str(error))
    report = examination.examine(patient, reasons)
    emit(report, as_json, lambda: _text(report))
    return report.exit_code


def _patient(data_dir: "DataDir", config: str | None, *, devices: bool) -> "Patient":
    from depin_node.bootstrap.config import load
    from depin_node.bootstrap.doctor import Patient
    from depin_node.client import Mesh
    from depin_node.client.local import local_devices
    from depin_node.core.errors import ConfigError, DepinError
    from depin_node.core.local import NotRunningError

    environ = dict(os.environ)
    named = config or environ.get("DEPIN_CONFIG")
    node_config, config_error = None, ""
    try:
        file = Path(named) if named else data_dir.config
        node_config = load(file, flags={}, environ=environ, file_must_exist=bool(named))
    except ConfigError as error:
        config_error = str(error)
    status: StatusView | None = None
    peers: list[PeerView] = []
    found: list[DeviceView] | None = None
    devices_error = ""
    try:
        with Mesh(data_dir.path) as mesh:
            status, peers, found = mesh.status(), mesh.peers(), mesh.devices() or None
    except NotRunningError as error:
        note(str(error))
    if found is None and devices:
        try:
            found = local_devices(data_dir.speeds if data_dir.path.is_dir() else None)
        except DepinError as error:
            devices_error = str(error)
    return Patient(data_dir, node_config, config_error, status, peers, found, devices_error, environ)


def _text(report: "Report") -> str:
    from depin_node.core.text import printable

    width = max(len(finding.name) for finding in report.findings)
    lines = []
    for finding in report.findings:
        lines.append(f"{'ok   ' if finding.ok else 'WRONG'}  {finding.name.ljust(width)}  {printable(finding.says)}")
        if finding.do:
            lines.append(f"{' ' * 7}{' ' * width}  → {printable(finding.do)}")
    wrong = sum(not finding.ok for finding in report.findings)
    seen = "all is well" if report.runs else "nothing is wrong, as far as can be seen while no node runs"
    return "\n".join([*lines, seen if not wrong else f"{wrong} of {len(report.findings)} are wrong"])
