"""Runs in the aarch64 system: ``aarch64_replay.py RUNS ANSWERS``; see ``aarch64.py``."""

import pickle
import platform
import sys
from pathlib import Path

import blake3
from kernel_host import Host


def main() -> None:
    """Replay all runs."""
    assert platform.machine() == "aarch64"
    host, answers = Host(), []
    for run in pickle.loads(Path(sys.argv[1]).read_bytes()):
        arrays = host.run(run["kernel"], run["grid"], run["block"], run["arguments"], shared_mem=run["shared_mem"])
        outputs = [blake3.blake3(array.tobytes()).hexdigest() for array in arrays]
        answers.append({"fuel": host.fuel_used, "outputs": outputs})
    Path(sys.argv[2]).write_bytes(pickle.dumps(answers))


if __name__ == "__main__":
    main()
