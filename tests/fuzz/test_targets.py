"""A few seeds of every fuzzing target; ``make fuzz`` runs them for minutes."""

import random
from pathlib import Path

import fuzz_blobs  # noqa: F401 - registers its targets
import fuzz_p2p  # noqa: F401 - likewise
import fuzz_programs  # noqa: F401 - likewise
import fuzz_targets  # noqa: F401 - likewise
import pytest
from fuzzing import TARGETS, Finding, mutate, target

SEEDS = 8


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DEPIN_CACHE_DIR", str(tmp_path))


@pytest.mark.parametrize("name", TARGETS)
def test_a_few_seeds_find_nothing(name: str) -> None:
    for seed in range(SEEDS):
        TARGETS[name](random.Random(seed))


@pytest.mark.parametrize("name", TARGETS)
def test_a_seed_makes_the_same_input_again(name: str) -> None:
    assert TARGETS[name](random.Random(5)) == TARGETS[name](random.Random(5))


def test_a_fault_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    def parse(data: bytes) -> int:
        return data[data[0]]

    @target
    def faulty(chance: random.Random) -> bytes:
        data = mutate(b"\x01\x02\x03", chance)
        try:
            parse(data)
        except Exception as error:
            raise Finding(str(error), data) from error
        return data

    monkeypatch.delitem(TARGETS, "faulty")

    def hunt() -> None:
        for seed in range(1000):
            faulty(random.Random(seed))

    with pytest.raises(Finding) as found:
        hunt()
    with pytest.raises(IndexError):
        parse(found.value.data)
