import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from depin_node.bootstrap import data_dir
from depin_node.core.errors import ConfigError, ResourceError
from depin_node.core.local import ControlFile, DataDir, NotRunningError

HOLDER = """
import sys
from depin_node.bootstrap import data_dir
from depin_node.core.local import DataDir
with data_dir.claim(DataDir.locate(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


def mode(path):
    return stat.S_IMODE(path.stat().st_mode)


def test_locate_prefers_what_is_given_then_the_environment(monkeypatch, tmp_path):
    monkeypatch.setenv("DEPIN_DATA_DIR", str(tmp_path / "b"))
    assert DataDir.locate(tmp_path / "a").path == tmp_path / "a"
    assert DataDir.locate().path == tmp_path / "b"
    monkeypatch.delenv("DEPIN_DATA_DIR")
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    assert DataDir.locate().path.name == "depin-node"
    assert DataDir.locate("x").path == Path.cwd() / "x"


def test_a_data_dir_is_private(tmp_path):
    located = DataDir(tmp_path / "a" / "b")
    located.path.mkdir(parents=True, mode=0o755)
    with data_dir.claim(located):
        assert mode(located.path) == 0o700
        assert mode(located.lock) == 0o600


def test_one_node_a_data_dir_and_the_error_names_the_other(tmp_path):
    located = DataDir(tmp_path / "node")
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(located.path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    with holder:
        assert holder.stdout.readline() == b"held\n"
        with pytest.raises(ResourceError, match=rf"already running .*process {holder.pid}\)"), data_dir.claim(located):
            pass
        with pytest.raises(NotRunningError, match=rf"is starting, or stopping \(process {holder.pid}\)"):
            located.read_control()
        holder.kill()
        holder.wait()
        with pytest.raises(NotRunningError, match="no node is running"):
            located.read_control()
        with data_dir.claim(located):  # the kernel dropped the dead one's claim
            assert located.lock.read_text() == f"{os.getpid()}\n"


@pytest.mark.parametrize("kind", ["file", "below a file"])
def test_an_impossible_data_dir_is_explained(tmp_path, kind):
    file = tmp_path / "file"
    file.write_text("")
    path = file if kind == "file" else file / "below"
    with pytest.raises(ConfigError, match="cannot be used as data directory"):
        data_dir.prepare(DataDir(path))


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a folder away")
def test_a_foreign_data_dir_is_refused(tmp_path):
    os.chown(tmp_path, 12345, 12345)
    with pytest.raises(ConfigError, match="belongs to user 12345"):
        data_dir.prepare(DataDir(tmp_path))


def test_the_control_file_is_private_and_goes_with_the_node(tmp_path):
    located = DataDir(tmp_path)
    (tmp_path / ".control.json.tmp").write_text("left by a crash, readable by all")
    control = ControlFile("http://127.0.0.1:1", "secret", os.getpid())
    with data_dir.announced(located, control):
        assert mode(located.control) == 0o600
        assert located.read_control() == control
    assert not located.control.exists()
    assert list(tmp_path.iterdir()) == []


def test_a_stale_or_damaged_control_file_means_not_running(tmp_path):
    located = DataDir(tmp_path)
    with pytest.raises(NotRunningError, match=r"no node is running on .*depin-node start --data-dir"):
        located.read_control()
    dead = subprocess.Popen(["true"])
    dead.wait()
    with data_dir.announced(located, ControlFile("http://127.0.0.1:1", "t", dead.pid)):
        with pytest.raises(NotRunningError, match=r"the last one died.*depin-node start"):
            located.read_control()
        for damage in (b"", b"{}", b'{"url": 1}', b"\xff"):
            located.control.write_bytes(damage)
            with pytest.raises(NotRunningError, match="cannot be read"):
                located.read_control()
