"""The examples by their own commands: each on this machine alone, and all of them on a mesh of real nodes."""

import re
import runpy
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
NAMES = ("option_pricing", "nbody", "image_filter", "kmeans", "spectrum")


def run(*args):
    done = subprocess.run([sys.executable, *args], capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout.splitlines()


@pytest.mark.parametrize("name", NAMES)
def test_each_alone(name, tmp_path):
    *_, last = run(EXAMPLES / name / "run.py", "--local", "--output", tmp_path)
    assert re.match(rf"{name} +right +\d+\.\d+ s  .*\d tasks? by this machine alone", last)
    pictures = list(tmp_path.iterdir())
    assert [picture.name for picture in pictures] == ([] if name == "option_pricing" else [f"{name}.png"])
    assert all(picture.read_bytes().startswith(b"\x89PNG") for picture in pictures)


@pytest.mark.net
@pytest.mark.slow
def test_all_on_the_mesh(tmp_path):
    *lines, last = run(EXAMPLES / "run_all.py", "--output", tmp_path)
    assert [line.split()[:2] for line in lines] == [[name, "right"] for name in NAMES]
    assert "8 of 8 tasks by 2 peers' equal bytes" in lines[0]
    assert "6 of 6 tasks by 2 peers' equal bytes; NumPy's bits" in lines[2]
    assert "1 of 1 tasks by one peer's word alone, 1 of 1 tasks by 2 peers' equal bytes" in lines[4]
    assert last.startswith("5 of 5 right")


def test_what_is_wrong_is_called_wrong(tmp_path):
    """A filter with another rounding differs somewhere: the example says so, and its exit code too."""
    copy = shutil.copytree(EXAMPLES, tmp_path / "examples")
    kernel = copy / "image_filter" / "bilateral.cu"
    kernel.write_text(kernel.read_text().replace("blue / total + 0.5f", "blue / total + 0.4f"))
    command = [sys.executable, copy / "image_filter" / "run.py", "--local", "--output", tmp_path]
    done = subprocess.run(command, capture_output=True, text=True, timeout=240)
    assert done.returncode == 1, done.stderr
    assert re.search(r"image_filter +WRONG .*largest difference to NumPy [1-9]", done.stdout.splitlines()[-1])


def test_the_reference_has_philox_known_answers():
    """Random123 1.14, ``kat_vectors``: philox4x32 10."""
    philox = runpy.run_path(str(EXAMPLES / "option_pricing" / "reference.py"))["philox"]
    ones = 0xFFFFFFFF
    answers = {
        (0, 0, 0, 0, 0, 0): (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8),
        (ones,) * 6: (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD),
    }
    for (*counter, key0, key1), words in answers.items():
        found = philox([np.array([word], np.uint64) for word in counter], (key0, key1))
        assert tuple(int(word[0]) for word in found) == words
