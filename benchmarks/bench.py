"""``make bench``: every benchmark after the other; the last line is one flat JSON object of numbers."""

import json
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
SCRIPTS = ("mesh_tasks.py", "net_stream.py", "net_blob.py")


def main() -> int:
    """Run the scripts and merge their last lines."""
    figures: dict[str, float] = {}
    for script in SCRIPTS:
        print(f"== {script}", file=sys.stderr, flush=True)
        done = subprocess.run([sys.executable, HERE / script], stdout=subprocess.PIPE, text=True)
        if done.returncode:
            return done.returncode
        figures |= json.loads(done.stdout.splitlines()[-1])
    print(json.dumps(figures))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
