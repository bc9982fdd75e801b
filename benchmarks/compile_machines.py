"""Compile the machines of discovery and gossip with mypyc, into a copy of the packages that they are of, and the
simulated world around them.

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
WORLD = ["mesh_sim", "mesh_vices", "timeline"]
TIMEOUT_S = 900


def main():
    out = Path(sys.argv[1]).resolve()
    world = [ROOT / f"tests/support/{name}.py" for name in WORLD]
    sources = sorted(path for package in PACKAGES for path in (ROOT / package).rglob("*.py")) + world
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
    for path in world:
        shutil.copy(path, out)
    machines = ["--config-file", ROOT / "pyproject.toml", *(f"depin_node/p2p/{name}.py" for name in MACHINES)]
    untyped = [
        "--config-file",
        "",
        "--cache-dir",
        ".mypy_cache_world",
        "--ignore-missing-imports",
        *(f"{name}.py" for name in WORLD),
    ]
    mypyc = [sys.executable, Path(sys.executable).with_name("mypyc")]
    for files in (machines, untyped):
        done = subprocess.run([*mypyc, *files], cwd=out, capture_output=True, text=True, timeout=TIMEOUT_S)
        if done.returncode:
            shutil.rmtree(out)
            print(f"mypyc failed, the simulation runs as it is:\n{done.stdout}{done.stderr}", file=sys.stderr)
            return
    made.write_text(state)


if __name__ == "__main__":
    main()
