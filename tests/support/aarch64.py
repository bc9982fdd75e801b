"""An aarch64 Linux in a folder: Debian's Python and the wheels that a wasm device needs, run by qemu-user.

Nothing is installed: Debian's packages are fetched by ``apt-get`` with settings of their own and unpacked, wheels by
pip. The compiled kernels, their arguments and what came out of them here are replayed there by ``aarch64_replay.py``.
"""

import importlib.metadata
import os
import pickle
import platform
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "build" / "aarch64"
PACKAGES = ("python3.11-minimal", "libpython3.11-stdlib", "libstdc++6")
WHEELS = ("numpy", "wasmtime", "msgspec", "msgpack", "blake3", "platformdirs")
PLATFORMS = ("manylinux2014_aarch64", "manylinux_2_17_aarch64", "manylinux_2_27_aarch64", "manylinux_2_28_aarch64")
SECONDS_MAX = 600


class Unavailable(Exception):
    """Why there is no such system on this machine."""


def _run(*command: str, **more: Any) -> None:
    try:
        subprocess.run(command, check=True, capture_output=True, text=True, timeout=SECONDS_MAX, **more)
    except (OSError, subprocess.SubprocessError) as error:
        detail = (getattr(error, "stderr", "") or str(error)).strip().splitlines()
        raise Unavailable(f"{command[0]}: {detail[-1] if detail else error}") from error


def set_up() -> Path:
    """Make the system once and return its folder.

    Raises:
        Unavailable: it cannot be had here.
    """
    if platform.machine() != "x86_64" or not shutil.which("apt-get"):
        raise Unavailable(f"made with Debian's packages on x86-64, this is {platform.machine()}")
    if (FOLDER / "complete").exists():
        return FOLDER
    shutil.rmtree(FOLDER, ignore_errors=True)
    _unpack("arm64", PACKAGES, FOLDER / "root")
    _unpack("amd64", ("qemu-user-static",), FOLDER / "qemu")
    names = [f"{name}=={importlib.metadata.version(name)}" for name in WHEELS]
    platforms = [part for name in PLATFORMS for part in ("--platform", name)]
    abis = ("--implementation", "cp", "--abi", "cp311", "--abi", "abi3", "--abi", "none", "--python-version", "3.11")
    wheels = FOLDER / "wheels"
    pip = (
        sys.executable,
        "-m",
        "pip",
        "download",
        "--quiet",
        "--no-deps",
        "--only-binary=:all:",
        "--dest",
        str(wheels),
    )
    _run(*pip, *platforms, *abis, *names)
    for wheel in wheels.glob("*.whl"):
        with zipfile.ZipFile(wheel) as archive:
            archive.extractall(FOLDER / "site")
    (FOLDER / "site" / "depin_node").symlink_to(ROOT)
    (FOLDER / "complete").touch()
    return FOLDER


def _unpack(architecture: str, packages: tuple[str, ...], root: Path) -> None:
    apt = FOLDER / f"apt-{architecture}"
    for folder in ("state/lists/partial", "cache/archives/partial"):
        (apt / folder).mkdir(parents=True)
    (apt / "status").touch()
    (apt / "apt.conf").write_text(
        f'APT::Architecture "{architecture}"; APT::Architectures {{"{architecture}";}};\n'
        f'Dir::State "{apt}/state"; Dir::State::status "{apt}/status"; Dir::Cache "{apt}/cache";\n'
        'APT::Sandbox::User "root";\n'
    )
    environment = {**os.environ, "APT_CONFIG": str(apt / "apt.conf")}
    _run("apt-get", "update", env=environment)
    get = ("apt-get", "install", "--yes", "--download-only", "--no-install-recommends")
    _run(*get, *packages, env=environment)
    for package in sorted((apt / "cache" / "archives").glob("*.deb")):
        _run("dpkg", "-x", str(package), str(root))


def replay(runs: list[dict[str, Any]], folder: Path) -> list[dict[str, Any]]:
    """Run compiled kernels there: each with ``kernel``, ``grid``, ``block``, ``arguments`` and ``shared_mem``.

    Returns:
        For each its ``fuel`` and ``outputs``: the BLAKE3 of what each array argument holds afterwards.
    """
    system = set_up()
    work, answer = folder / "runs.pickle", folder / "answers.pickle"
    work.write_bytes(pickle.dumps(runs))
    paths = os.pathsep.join([str(system / "site"), str(Path(__file__).parent)])
    qemu = (str(system / "qemu/usr/bin/qemu-aarch64-static"), "-L", str(system / "root"))
    script = str(Path(__file__).with_name("aarch64_replay.py"))
    _run(*qemu, "-E", f"PYTHONPATH={paths}", str(system / "root/usr/bin/python3.11"), script, str(work), str(answer))
    answers: list[dict[str, Any]] = pickle.loads(answer.read_bytes())
    return answers
