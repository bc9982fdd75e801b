"""What releases put on the wire is understood, or refused for its version: ``tests/vectors`` has their bytes.

A change that fails here changes the wire: give the message (or its protocol) a new version. Before the first release
its vectors may be written anew instead: python tests/support/wire_examples.py tests/vectors/0.1.0.json
"""

import json
from pathlib import Path

import pytest
import wire_examples
from wire_examples import SIZE_BYTES_MAX, example, messages, version_of

from depin_node.core.errors import PeerViolation
from depin_node.core.wire import decode, encode
from depin_node.p2p.advert import common_protocol

VECTORS = sorted((Path(wire_examples.__file__).parents[1] / "vectors").glob("[0-9]*.json"))
CURRENT = messages()


@pytest.mark.parametrize("file", VECTORS, ids=lambda file: file.stem)
def test_the_bytes_of_a_release_are_what_they_were(file):
    vectors = json.loads(file.read_text())
    assert len(vectors) > 50
    changed = []
    for vector in vectors:
        kind, data = CURRENT.get(vector["name"]), bytes.fromhex(vector["bytes"])
        if kind is None:
            continue  # gone, with its protocol
        try:
            same = encode(decode(data, kind, size_bytes_max=SIZE_BYTES_MAX)) == data
        except PeerViolation:
            same = False
        if not same and version_of(kind) == vector["version"]:
            changed.append(f"{vector['name']} ({vector['version']})")
    assert not changed, f"the encoding has changed, the version has not: {', '.join(changed)}"


def test_an_example_is_the_same_each_time_and_every_field_counts():
    for name, kind in CURRENT.items():
        data = example(kind)
        assert data == example(kind), name
        if data is not None:
            with pytest.raises(PeerViolation):
                decode(data + b"\xc0", kind, size_bytes_max=SIZE_BYTES_MAX)


@pytest.mark.parametrize(
    ("theirs", "ours", "common"),
    [
        ((1, 1), (1, 1), 1),
        ((1, 3), (1, 1), 1),
        ((1, 3), (1, 2), 2),
        ((2, 3), (1, 2), 2),
        ((2, 3), (1, 1), None),
        ((1, 1), (2, 4), None),
    ],
)
def test_two_ranges_have_their_latest_common_version_or_none(theirs, ours, common):
    assert common_protocol(*theirs, ours=ours) == common
