"""SIGKILL at fifty seeded moments of a job: nothing accepted is run again, nothing accepted is lost, and it ends."""

import json
import subprocess
import sys
from pathlib import Path

SCRIPT = Path(__file__).parent.parent / "support" / "kill_world.py"
KILLS = 50


def test_a_node_killed_fifty_times_ends_its_jobs_and_repeats_nothing(tmp_path):
    run = subprocess.run(
        [sys.executable, SCRIPT, tmp_path, str(KILLS), "7"], capture_output=True, text=True, timeout=600
    )
    assert run.returncode == 0, run.stderr[-3000:]
    told = json.loads(run.stdout.splitlines()[-1])
    assert told["kills"] == KILLS
    assert told["kills_mid_job"] >= KILLS // 5  # a kill that hits no job shows nothing
