"""``make fuzz``: every target for its share of the time; exits with 1 and the seed if one finds something.

python tests/fuzz/run.py [--seconds 60] [--seed N] [TARGET...]
"""

import argparse
import os
import random
import sys
import tempfile
import time
import traceback
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests" / "support"))

import fuzz_blobs  # noqa: E402, F401 - registers its targets
import fuzz_p2p  # noqa: E402, F401 - likewise
import fuzz_programs  # noqa: E402, F401 - likewise
import fuzz_targets  # noqa: E402, F401 - likewise
from fuzzing import TARGETS, Finding  # noqa: E402


def fuzz(name: str, seconds: float, seed: int | None) -> bool:
    """Run one target; return whether it found nothing."""
    end, runs = time.monotonic() + seconds, 0
    while time.monotonic() < end:
        this = random.SystemRandom().getrandbits(48) if seed is None else seed
        try:
            TARGETS[name](random.Random(this))
        except Finding as finding:
            folder = ROOT / "build" / "fuzz"
            folder.mkdir(parents=True, exist_ok=True)
            (folder / f"{name}-{this}").write_bytes(finding.data)
            traceback.print_exc()
            print(
                f"{name}: seed {this} after {runs} runs; the input is in {folder / f'{name}-{this}'}", file=sys.stderr
            )
            return False
        runs += 1
        if seed is not None:
            break
    print(f"{name}: {runs} inputs, nothing found")
    return True


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", metavar="TARGET", help=f"of {', '.join(TARGETS)}")
    parser.add_argument("--seconds", type=float, default=60, help="for each target")
    parser.add_argument("--seed", type=int)
    options = parser.parse_args()
    unknown = set(options.names) - set(TARGETS)
    if unknown:
        parser.error(f"no target {', '.join(sorted(unknown))}; there are {', '.join(TARGETS)}")
    with tempfile.TemporaryDirectory(prefix="depin-fuzz-") as cache:
        os.environ["DEPIN_CACHE_DIR"] = cache
        fine = [fuzz(name, options.seconds, options.seed) for name in options.names or TARGETS]
    sys.exit(not all(fine))


if __name__ == "__main__":
    main()
