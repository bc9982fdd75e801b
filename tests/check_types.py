"""Run mypy --strict on the package as a user gets it: installed into an empty folder, without the repository beside it.

The folders at the root are the packages of ``depin_node``, which mypy cannot map by itself; an installed copy it can.
"""

import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def main() -> int:
    with tempfile.TemporaryDirectory() as folder:
        tree = Path(folder, "source")
        tracked = subprocess.run(
            ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
            cwd=ROOT,
            check=True,
            capture_output=True,
        )
        for name in tracked.stdout.decode().split("\0"):
            source = ROOT / name
            if name and source.is_file():  # a file may be tracked and deleted
                target = tree / name
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_bytes(source.read_bytes())
        site = Path(folder, "site")
        uv = Path(sys.executable).with_name("uv")
        subprocess.run(
            [uv, "pip", "install", "-q", "--python", sys.executable, "--no-deps", "--target", site, tree], check=True
        )
        mypy = [sys.executable, "-m", "mypy", "--config-file", ROOT / "pyproject.toml", "-p", "depin_node"]
        mypy += ["--cache-dir", ROOT / ".mypy_cache"]
        return subprocess.run([*mypy, *sys.argv[1:]], cwd=site).returncode


if __name__ == "__main__":
    raise SystemExit(main())
