"""When a chunk is compressed: for what shrinks, where sending is slow and not only the processors busy."""

import pytest

from depin_node.crypto.blob import CHUNK_BYTES
from depin_node.p2p.compression import Pace, Sample

MIB_S = 1 / 100  # a chunk over a path of 100 MiB/s


@pytest.mark.parametrize(
    ("ratio", "chunk_s", "send_s", "pays"),
    [
        pytest.param(0.3, 0.003, MIB_S, True, id="text-gigabit"),
        pytest.param(0.3, 0.003, MIB_S / 8, False, id="text-loopback"),
        pytest.param(0.875, 0.003, 4 * MIB_S, False, id="floats-busy-loopback"),
        pytest.param(0.875, 0.003, 10 * MIB_S, True, id="floats-slow-path"),
        pytest.param(0.95, 0.0, 100 * MIB_S, False, id="noise"),
    ],
)
def test_it_pays_where_it_saves_twice_what_it_takes(ratio: float, chunk_s: float, send_s: float, pays: bool) -> None:
    assert Sample(ratio, chunk_s).pays(send_s) == pays


def test_one_chunk_that_had_to_wait_is_no_slow_path() -> None:
    pace, floats = Pace(), Sample(0.875, 0.003)
    paid = []
    for took_s in (0.2, 0.001, 0.2, 0.001, 0.2, 0.1, 0.3):
        pace.note(took_s / 2, CHUNK_BYTES // 2)
        paid.append(floats.pays(pace.send_s))
    assert paid == [False] * 5 + [True] * 2
