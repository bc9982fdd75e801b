import dataclasses

import numpy as np
import pytest
from blake3 import blake3
from hypothesis import given
from hypothesis import strategies as st

from depin_node.core.errors import PeerViolation
from depin_node.crypto.blob import CHUNK_BYTES, Manifest, blob_id, chunks, manifest
from depin_node.crypto.commitment import Answer, commit, result_root, verify_opening

ANSWER = Answer("net", b"g" * 32, 3, b"t" * 16, b"p" * 32)
ROOT, SALT = result_root([b"o" * 32]), b"s" * 32


def test_an_opening_opens_its_commitment_only():
    commitment = commit(ANSWER, ROOT, SALT)
    verify_opening(commitment, ANSWER, ROOT, SALT)
    others = [
        dataclasses.replace(ANSWER, **{name: value})
        for name, value in {
            "network": "nex",
            "agreement": b"h" * 32,
            "task": 4,
            "attempt": b"u" * 16,
            "peer": b"q" * 32,
        }.items()
    ]
    for answer, root, salt in [(o, ROOT, SALT) for o in others] + [(ANSWER, SALT, SALT), (ANSWER, ROOT, ROOT)]:
        with pytest.raises(PeerViolation, match="does not open"):
            verify_opening(commitment, answer, root, salt)


def test_lengths_are_fixed():
    with pytest.raises(ValueError, match="length"):
        commit(ANSWER, ROOT, b"short")


@given(st.binary(max_size=200), st.binary(max_size=200))
def test_different_blobs_have_different_ids(a, b):
    assert (blob_id(a) == blob_id(b)) == (a == b)


@pytest.mark.parametrize("size", [0, 1, CHUNK_BYTES - 1, CHUNK_BYTES, CHUNK_BYTES + 1])
def test_the_id_is_that_of_the_manifest(size):
    data = (bytes(range(256)) * (size // 256 + 1))[:size]
    assert blob_id(data) == blob_id(memoryview(data)) == manifest(data).blob_id()


@pytest.mark.parametrize("dtype", ["bool", "int8", "float16", "float64", "complex64"])
@pytest.mark.parametrize("shape", [(), (3,), (4, 5), (600, 1000)])
def test_the_id_of_an_array_is_that_of_its_bytes(dtype, shape):
    array = (np.arange(np.prod(shape, dtype=int)) % 100).reshape(shape).astype(dtype)
    assert blob_id(array.data) == manifest(array.data).blob_id() == blob_id(array.tobytes())


def test_the_id_is_as_the_protocol_says():
    data = bytes(range(256)) * (CHUNK_BYTES // 100)
    hashes = b"".join(blake3(chunk).digest() for chunk in chunks(data))
    assert blob_id(data) == blake3(b"depin/blob/v1\0" + len(data).to_bytes(8, "little") + hashes).digest()
    assert [len(c) for c in chunks(data)] == [CHUNK_BYTES, CHUNK_BYTES, len(data) - 2 * CHUNK_BYTES]


def test_an_inconsistent_manifest_is_told():
    good = manifest(bytes(CHUNK_BYTES + 1))
    assert good.is_consistent()
    for bad in (Manifest(1, good.hashes), Manifest(-1, ()), Manifest(5, (b"short",)), Manifest(1 << 60, ())):
        assert not bad.is_consistent()
