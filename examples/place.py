"""Where an example runs: on the mesh by the node of a data directory, or with ``--local`` on this machine alone.

``python examples/NAME/run.py [--local | --data-dir DIR] [--output DIR]``; the last line that is printed says whether
the result is right, how long it took from submission, by whom it was verified, and how far it is from NumPy's.
"""

import argparse
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from depin_node.client import Mesh, ProgramBuilder, quorum
from depin_node.client.local import run_local
from depin_node.client.work import Work, prepare_program
from depin_node.compute.jobs.job import JobView
from depin_node.compute.programs.arrays import Traced
from depin_node.compute.verification.rules import rule_of
from depin_node.core.errors import DepinError

Array = npt.NDArray[Any]
DATA = Path(__file__).resolve().parent / "data"
JOB_S = 300.0


class Place:
    """What the command line chose. ``output``: the folder for pictures."""

    def __init__(self, name: str, local: bool, data_dir: Path | None, output: Path) -> None:
        self.output = output
        self._name, self._local, self._data_dir = name, local, data_dir
        self._seconds = 0.0
        self._verified: list[str] = []

    def run(self, program: ProgramBuilder | Traced, *, verify: quorum = quorum(2, 3)) -> dict[str, Array]:  # noqa: B008
        """Run a program and return its results by name.

        Raises:
            DepinError: it was refused, or failed.
            TimeoutError: the job took longer than ``JOB_S``.
        """
        work = prepare_program(program, verify=verify, name=self._name, local=self._local)
        began = time.monotonic()
        if self._local:
            outputs, verified = run_local(work), _alone(work.bound.program.tasks)
        else:
            with Mesh(self._data_dir) as mesh:
                future = mesh.submit(work)
                outputs = future.outputs(JOB_S)
                verified = _who(work, future.status())
        self._seconds += time.monotonic() - began
        self._verified.append(verified)
        return outputs

    def picture(self, name: str, pixels: Array) -> None:
        """Write ``pixels``, (rows, cols, 3) uint8, as PNG."""
        self.output.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(self.output / name, optimize=True)
        print(f"wrote {self.output / name}")

    def judge(self, right: bool, difference: str) -> bool:
        """Print the last line, and return whether the result was right."""
        verdict, verified = "right" if right else "WRONG", ", ".join(self._verified)
        print(f"{self._name:<14}  {verdict}  {self._seconds:5.2f} s  {verified}; {difference}")
        return right


def _alone(tasks: int) -> str:
    return f"{tasks} task{'s' * (tasks > 1)} by this machine alone"


def _who(work: Work, view: JobView) -> str:
    """Say by whom the tasks of a finished job were verified, from what the node counted."""
    k = rule_of(work.policy).agree
    how = f"{k} peers' equal bytes" if k > 1 else "one peer's word alone"
    return f"{view.verification.agreed} of {view.tasks_total} tasks by {how}"


def difference(found: Array, expected: Array) -> str:
    """Say how far two arrays are apart: in no bit, or by how much at most."""
    if found.dtype == expected.dtype and found.tobytes() == expected.tobytes():
        return "NumPy's bits"
    return f"largest difference to NumPy {np.max(np.abs(found.astype(float) - expected)):.2g}"


def main(example: Callable[[Place], bool], name: str, doc: str) -> int:
    """Run an example as the command line says, and return the exit code: 0 if its result is right."""
    parser = argparse.ArgumentParser(description=doc.split("\n\n")[0])
    where = parser.add_mutually_exclusive_group()
    where.add_argument("--local", action="store_true", help="run on this machine alone, without a node")
    where.add_argument("--data-dir", type=Path, help="of the running node (default: DEPIN_DATA_DIR, or the user's)")
    parser.add_argument("--output", type=Path, default=Path("examples-out"), help="where pictures go")
    options = parser.parse_args()
    try:
        return 0 if example(Place(name, options.local, options.data_dir, options.output)) else 1
    except (DepinError, TimeoutError) as error:
        print(f"{name}: {error}", file=sys.stderr)
        return 1
