"""Each mend of py-libp2p: without it its fault shows, with all of them it does not (``libp2p_faults.py`` has them).

If the first half of one fails after an update of py-libp2p, the release has healed the fault: take the mend out.
"""

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

pytestmark = pytest.mark.net

FAULTS = Path(__file__).with_name("libp2p_faults.py")
NAMES = re.findall(r'^@fault\("([a-z0-9_:]+)"', FAULTS.read_text(), re.MULTILINE)


@pytest.fixture(scope="module")
def faults() -> Iterator[subprocess.Popen[str]]:
    with subprocess.Popen(
        [sys.executable, str(FAULTS)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        yield process
        process.communicate()


@pytest.mark.parametrize("name", NAMES)
def test_the_fault_shows_without_its_mend_and_not_with_it(faults: subprocess.Popen[str], name: str) -> None:
    assert faults.stdin is not None
    assert faults.stdout is not None
    faults.stdin.write(f"{name}\n")
    faults.stdin.flush()
    assert json.loads(faults.stdout.readline()) == {"off": True, "on": False}


def test_every_mend_has_its_fault() -> None:
    from depin_node.p2p.libp2p.mends import MENDS

    assert {name.partition(":")[0] for name in NAMES} == set(MENDS)


def test_every_mend_names_fault_and_end() -> None:
    from depin_node.p2p.libp2p.mends import MENDS

    for name, mend in MENDS.items():
        assert "Until" in (mend.__doc__ or ""), name
