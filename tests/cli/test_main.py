import json
import re
import subprocess
import sys

import click
import pytest
from nodes import depin_node, environment

from depin_node.cli import main as cli_main
from depin_node.cli.inspect import _devices_text
from depin_node.compute.sandbox.config import LAYERS
from depin_node.core import errors
from depin_node.core.views import DeviceView

HEAVY = ["numpy", "trio", "libp2p", "httpx", "wasmtime", "msgspec", "rich", "structlog", "starlette", "nacl"]
NAMES = [name for name in cli_main.COMMANDS if name != "demo"]  # its module belongs to the demo


def test_help_imports_nothing_heavy():
    script = f"""
import json, sys
from depin_node.cli.main import run
code = run(["--help"])
print(json.dumps([code, [name for name in {HEAVY!r} if name in sys.modules]]), file=sys.stderr)
"""
    done = subprocess.run([sys.executable, "-c", script], env=environment(), capture_output=True, text=True, check=True)
    assert json.loads(done.stderr) == [0, []]
    assert all(name in done.stdout for name in cli_main.COMMANDS)


def commands(group=cli_main.cli, path=()):
    """Yield every command with its path."""
    ctx = click.Context(group)
    for name in NAMES if group is cli_main.cli else group.list_commands(ctx):
        command = group.get_command(ctx, name)
        if isinstance(command, click.Group):
            yield from commands(command, (*path, name))
        else:
            yield (*path, name), command


@pytest.mark.parametrize(
    ("path", "command"), list(commands()), ids=lambda value: "-".join(value) if isinstance(value, tuple) else ""
)
def test_every_command_has_an_example_and_the_common_options(path, command):
    text = command.get_help(click.Context(command))
    assert re.search(rf"Examples?:\n +depin-node {' '.join(path)}\b", text)
    assert "--data-dir" in text
    assert "--json" in text


def test_the_demo_has_help_like_all_others():
    done = depin_node("demo", "--help")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("Usage: depin-node demo [OPTIONS]")
    assert re.search(r"Examples:\n +depin-node demo\b", done.stdout)
    assert "``" not in done.stdout


def test_version():
    assert re.fullmatch(VERSION, depin_node("--version").stdout)


VERSION = r"depin-node, version \d+\.\d+\.\d+(\+g[0-9a-f]{10,40}(\.changed)?)?\n"


@pytest.mark.parametrize(
    ("args", "code", "message"),
    [
        (["sumbit"], 2, "no command 'sumbit'; did you mean 'submit'?"),
        (["\x1b[2J"], 2, r"no command '\x1b[2J'"),
        (["status", "--jsn"], 2, "--jsn"),
        (["start", "--slots", "many"], 2, "--slots"),
        (["start", "--lend", "--slots", "0", "--listen", "nowhere"], 2, "'--slots': 0 is not in the range x>=1"),
        (["start", "--log-level", "loud"], 2, "--log-level"),
        (["start", "--memory-mib", "63"], 2, "--memory-mib: Expected `int` >= 64; it is '63'"),
        (["start", "--memory-mib", "99999999"], 2, "--memory-mib: Expected `int` <= 1048576"),
    ],
)
def test_usage_errors(capsys, args, code, message):
    assert cli_main.run(args) == code
    captured = capsys.readouterr()
    assert message in captured.err
    assert captured.out == ""
    assert "\x1b" not in captured.err


class VerificationError(errors.DepinError):
    code = "verification"


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (errors.ConfigError("why"), 2),
        (errors.NotFoundError("why"), 1),
        (errors.ResourceError("why"), 1),
        (errors.TaskTrapped("why"), 1),
        (errors.TransportError("why"), 3),
        (VerificationError("why"), 4),
        (ExceptionGroup("nursery", [ExceptionGroup("inner", [errors.ConfigError("why")])]), 2),
        (KeyboardInterrupt(), 130),
    ],
)
def test_errors_become_one_line_and_an_exit_code(capsys, monkeypatch, error, code):
    def fail(*args, **kwargs):
        raise error

    monkeypatch.setattr(cli_main.cli, "main", fail)
    assert cli_main.run([]) == code
    captured = capsys.readouterr()
    assert captured.err == ("" if code == 130 else "depin-node: why\n")


def test_an_internal_error_shows_its_traceback_only_with_debug(monkeypatch, capsys):
    @click.command()
    @cli_main.global_options
    def broken():
        raise ZeroDivisionError("\x1b oops")

    monkeypatch.setattr(cli_main.LazyGroup, "get_command", lambda self, ctx, name: broken)
    assert cli_main.run(["status"]) == 1
    err = capsys.readouterr().err
    assert err == "depin-node: internal error: ZeroDivisionError: \\x1b oops; run the command again with --debug" + (
        " to see where\n"
    )
    for args in (["--debug", "status"], ["status", "--debug"]):
        assert cli_main.run(args) == 1
        assert "Traceback" in capsys.readouterr().err


def test_a_reader_that_has_enough_is_no_error():
    script = "from depin_node.cli.main import main; main()"
    done = subprocess.run(
        f'{sys.executable} -c "{script}" --help | head -c 1', shell=True, capture_output=True, env=environment()
    )
    assert done.stderr == b""


def test_init_makes_an_identity_once_wherever_the_data_dir_is_named(tmp_path):
    made = json.loads(depin_node("init", "--json", "--data-dir", tmp_path / "a").stdout)
    assert made["created"]
    assert re.fullmatch(r"12D3KooW\w{44}", made["peer"])
    before = depin_node("--data-dir", tmp_path / "a", "init", "--json")
    variable = depin_node("init", "--json", env={"DEPIN_DATA_DIR": str(tmp_path / "a")})
    for again in (before, variable):
        assert json.loads(again.stdout) == {**made, "created": False}
    assert (tmp_path / "a" / "identity").stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("args", [["status"], ["peers"], ["job", "list"], ["receipts", "list"]])
def test_without_a_node_every_command_says_how_to_start_one(tmp_path, args):
    done = depin_node(*args, "--data-dir", tmp_path)
    assert done.returncode == 3
    assert done.stderr == (
        f"depin-node: no node is running on {tmp_path}; start it with: depin-node start --data-dir {tmp_path}\n"
    )


def test_slots_that_nobody_lends_are_not_shown_as_busy():
    view = DeviceView("wasm-1", 1024, 2, 0, name="cpu")
    assert re.search(r"1024 MiB +2 +not lent", _devices_text([view], is_lent=False))
    assert re.search(r"1024 MiB +2 +0", _devices_text([view], is_lent=True))


@pytest.mark.net
def test_devices_are_shown_with_and_without_a_node(nodes, tmp_path):
    alone = depin_node("devices", "--json", "--data-dir", tmp_path)
    (device,) = json.loads(alone.stdout)
    assert (device["device_class"], device["slots_free"]) == ("wasm-1", 0)
    assert device["model"]
    assert min(device["mflops_f32"], device["mflops_f64"], device["mbytes_s"]) > 0
    layers = {name: device[name] for name in ("layers", "layers_missing")}
    told = [*device["layers"], *device["layers_missing"]]
    assert {layer.split(":")[0] for layer in told} == {*LAYERS, "resident"}
    assert "start the node with --lend" in alone.stderr
    lender = nodes.start("--lend", "--slots", 3, "--memory-mib", 99)
    lent = {"device_class": "wasm-1", "memory_mib": 99, "slots": 3, "slots_free": 3, "model": device["model"], **layers}
    (found,) = lender.json("devices")
    assert found | lent == found
    shown = lender.run("devices").stdout
    assert "99 MiB" in shown
    assert all(layer in shown for layer in told)
    assert "lending 3 slots" in lender.run("status").stdout
