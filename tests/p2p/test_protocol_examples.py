"""The examples in PROTOCOL.md are what this software says: each is read, and written again as the same bytes."""

from pathlib import Path

import pytest

from depin_node.core.wire import decode, encode
from depin_node.p2p import directory_protocol
from depin_node.p2p.advert import DigestLine
from depin_node.p2p.directory import Digest, Need
from depin_node.p2p.directory_protocol import CatchUpRequest, FindRequest, OwnersRequest, ShardLine
from depin_node.p2p.shards import Shard

TEXT = (Path(__file__).parents[2] / "PROTOCOL.md").read_text()
LINES = TEXT.partition("```directory\n")[2].partition("```")[0].splitlines()
EXAMPLES = {name: bytes.fromhex(data) for name, _, data in (line.partition(":") for line in LINES)}
CPU = Shard("cpu", 3, 0b101)


@pytest.mark.parametrize("name", EXAMPLES)
def test_it_is_read_and_written_alike(name: str) -> None:
    kind = getattr(directory_protocol, name.partition(",")[0])
    assert encode(decode(EXAMPLES[name], kind, size_bytes_max=1024)) == EXAMPLES[name]


def test_they_mean_what_they_say() -> None:
    request, find, anybody, owners = (
        decode(next(data for name, data in EXAMPLES.items() if name.startswith(start)), kind, size_bytes_max=1024)
        for start, kind in (
            ("CatchUp", CatchUpRequest),
            ("FindRequest, wasm", FindRequest),
            ("FindRequest, any", FindRequest),
            ("Owners", OwnersRequest),
        )
    )
    assert request.digest == Digest((DigestLine(bytes.fromhex("0011223344556677"), 1_700_000_000_000_000),))
    assert request.shards == tuple(ShardLine.of(s) for s in (Shard("idle", 0, 0), CPU, Shard("gpu", 0, 0)))
    assert find.question.need == Need(frozenset({"wasm-1"}), 256, 1)
    assert (find.question.shard, find.question.count) == (CPU, 32)
    assert (anybody.question.need, anybody.question.shard) == (None, None)
    assert owners.known[0].seq == 0
