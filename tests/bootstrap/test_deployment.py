"""What an operator deploys: the unit is sound as far as systemd itself can say, and its command is one of ours."""

import shlex
import shutil
import subprocess
from importlib import resources

import pytest

UNIT = resources.files("depin_node.bootstrap") / "depin-node.service"


def settings() -> dict[str, str]:
    lines = [line for line in UNIT.read_text().splitlines() if "=" in line and not line.startswith("#")]
    return dict(line.split("=", 1) for line in lines)


def test_the_unit_starts_a_first_peer_that_exists():
    from click.testing import CliRunner

    from depin_node.cli.start import start

    program, command, *arguments = shlex.split(settings()["ExecStart"])
    assert (program.rsplit("/", 1)[1], command) == ("depin-node", "start")
    shown = CliRunner().invoke(start, ["--help"]).output
    assert all(argument in shown for argument in arguments if argument.startswith("--"))


def test_the_unit_takes_every_privilege_away():
    unit = settings()
    assert unit["CapabilityBoundingSet"] == ""
    assert unit["DynamicUser"] == unit["NoNewPrivileges"] == "yes"
    assert unit["ProtectSystem"] == "strict"


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="needs systemd-analyze (apt-get install systemd)")
def test_systemd_understands_every_line(tmp_path):
    unit = tmp_path / "depin-node.service"
    program = settings()["ExecStart"].split()[0]
    unit.write_text(UNIT.read_text().replace(program, "/bin/true"))
    done = subprocess.run(["systemd-analyze", "verify", unit], capture_output=True, text=True, check=False)
    assert "depin-node.service" not in done.stderr, done.stderr
