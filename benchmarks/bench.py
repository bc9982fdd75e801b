"""``make bench``: every benchmark after the other; the last line is one flat JSON object of numbers.

    .venv/bin/python benchmarks/bench.py [net]

``net`` runs those of the network only: ``make bench-net``.
"""

import json
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
NET = ("net_stream.py", "net_blob.py", "net_idle.py", "net_mesh.py")
SETS = {"": ("mesh_tasks.py", *NET), "net": NET}


def main() -> int:
    """Run the scripts and merge their last lines."""
    figures: dict[str, float] = {}
    for script in SETS["".join(sys.argv[1:])]:
        if not (HERE / script).exists():
            continue
        print(f"== {script}", file=sys.stderr, flush=True)
        done = subprocess.run([sys.executable, HERE / script], stdout=subprocess.PIPE, text=True)
        if done.returncode:
            return done.returncode
        figures |= json.loads(done.stdout.splitlines()[-1])
    print(json.dumps(figures))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
