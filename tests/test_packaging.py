"""What a user installs is what the repository holds: no empty wheel, no missing sub-package, no test that ships."""

import re
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("bootstrap", "cli", "client", "compute", "core", "crypto", "p2p")


def commit(tree):
    git = ["git", "-C", tree, "-c", "user.name=x", "-c", "user.email=x@example.org", "-c", "commit.gpgsign=false"]
    for command in (["init", "-q"], ["add", "."], ["commit", "-qm", "x"]):
        subprocess.run([*git, *command], check=True)


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    folder = tmp_path_factory.mktemp("wheel")
    tree = folder / "source"
    names = (
        subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, check=True, capture_output=True).stdout.decode().split("\0")
    )
    for name in filter(None, names):
        target = tree / name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes((ROOT / name).read_bytes())
    commit(tree)
    uv = Path(sys.executable).with_name("uv")
    subprocess.run([uv, "build", "-q", "--wheel", "--out-dir", folder, tree], check=True)
    (built,) = folder.glob("*.whl")
    return zipfile.ZipFile(built)


def test_the_wheel_holds_exactly_the_tracked_files_of_the_packages(wheel):
    tracked = subprocess.run(["git", "ls-files", *PACKAGES], cwd=ROOT, check=True, capture_output=True, text=True)
    expected = {f"depin_node/{name}" for name in tracked.stdout.split()}
    held = {name for name in wheel.namelist() if not name.split("/")[0].endswith(".dist-info")}
    assert held == expected
    assert len(held) > 50


def test_the_wheel_carries_licence_and_command(wheel):
    info = [name for name in wheel.namelist() if ".dist-info/" in name]
    assert any(name.endswith("licenses/LICENSE") for name in info)
    (entry,) = [name for name in info if name.endswith("entry_points.txt")]
    assert "depin-node = depin_node.cli.main:main" in wheel.read(entry).decode()


def test_the_wheel_of_a_commit_can_be_told_from_others(wheel):
    assert re.fullmatch(r"depin_node-\d+\.\d+\.\d+\+g[0-9a-f]{10,40}-py3-none-any\.whl", Path(wheel.filename).name)


def test_every_pin_of_the_constraints_is_plain():
    for line in (ROOT / "constraints.txt").read_text().split():
        assert line.count("==") == 1, line
        assert "://" not in line, line
        assert "--" not in line, line


def test_the_root_lists_the_packages_once():
    assert not tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"].get("packages")
    source = (ROOT / "setup.py").read_text()
    assert all(f'"{name}"' in source for name in PACKAGES)
