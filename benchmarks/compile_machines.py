"""Compile the machines of discovery and gossip with mypyc, into a copy of the packages that they are of.

    python benchmarks/compile_machines.py build/compiled
    PYTHONPATH=build/compiled python benchmarks/sim_mesh.py

The source is the product's own, and a seed's outcome the same to the last digit; a simulation of thousands of nodes
just takes less time. Without a C compiler nothing is made, and the same command runs the source as it is. What is there
already, of the same source, is not made again.
"""

import hashlib
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("core", "crypto", "p2p")
# mypyc makes nothing of the keywords of a class (``frozen``): modules of values that are hashed stay as they are.
MACHINES = [
    "address_book",
    "bucket",
    "choosing",
    "dialling",
    "directory",
    "discovery",
    "following",
    "gossip",
    "groups",
    "hearing",
    "members",
    "neighbours",
    "rhythm",
    "search",
    "shards",
    "strikes",
]
TIMEOUT_S = 900


def main():
    out = Path(sys.argv[1]).resolve()
    sources = sorted(path for package in PACKAGES for path in (ROOT / package).rglob("*.py"))
    state = hashlib.sha256(b"".join(path.read_bytes() for path in [Path(__file__), *sources])).hexdigest()
    made = out / "made"
    if made.exists() and made.read_text() == state:
        return
    shutil.rmtree(out, ignore_errors=True)
    if not shutil.which("cc"):
        print("no C compiler: the machines run as they are, about half as fast", file=sys.stderr)
        return
    for package in PACKAGES:
        shutil.copytree(ROOT / package, out / "depin_node" / package)
    (out / "depin_node/__init__.py").touch()
    files = [f"depin_node/p2p/{name}.py" for name in MACHINES]
    mypyc = Path(sys.executable).with_name("mypyc")
    command = [sys.executable, mypyc, "--config-file", ROOT / "pyproject.toml", *files]
    done = subprocess.run(command, cwd=out, capture_output=True, text=True, timeout=TIMEOUT_S)
    if done.returncode:
        shutil.rmtree(out)
        print(f"mypyc failed, the machines run as they are:\n{done.stdout}{done.stderr}", file=sys.stderr)
        return
    made.write_text(state)


if __name__ == "__main__":
    main()
