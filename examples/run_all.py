"""Run all examples on a small mesh of real node processes on this machine: a requester, and three that lend.

Each is run by its own command, ``python examples/NAME/run.py --data-dir DIR``, and printed is its last line: whether it
is right, from submission to result in how many seconds, by whom its tasks were verified, and how far the result is from
NumPy's. The exit code is 0 if all are right.
"""

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

from local_mesh import MeshFailed, running

HERE = Path(__file__).resolve().parent
NAMES = ("option_pricing", "nbody", "image_filter", "kmeans", "spectrum")
LENDERS = 3
EXAMPLE_S = 400.0


def run(name: str, data_dir: Path, output: Path) -> bool:
    """Run an example, print its last line, or all of it if it is not right; tell whether it is."""
    command = [sys.executable, str(HERE / name / "run.py"), "--data-dir", str(data_dir), "--output", str(output)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=EXAMPLE_S)
    text = done.stdout if done.returncode else done.stdout.splitlines()[-1] + "\n"
    print(text + done.stderr * bool(done.returncode), end="", flush=True)
    return done.returncode == 0


def main() -> int:
    """Run them all and return the exit code."""
    parser = argparse.ArgumentParser(description=str(__doc__).split("\n\n")[0])
    parser.add_argument("--output", type=Path, default=Path("examples-out"), help="where pictures go")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="depin-examples-") as folder, running(Path(folder), LENDERS) as data_dir:
        right = [run(name, data_dir, options.output) for name in NAMES]
    print(f"{sum(right)} of {len(NAMES)} right; pictures are in {options.output}")
    return 0 if all(right) else 1


if __name__ == "__main__":
    try:
        raise SystemExit(main())
    except MeshFailed as error:
        print(f"examples: {error}", file=sys.stderr)
        raise SystemExit(1) from None
