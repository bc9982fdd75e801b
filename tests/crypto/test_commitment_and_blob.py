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


def test_golden_vectors():
    assert commit(ANSWER, ROOT, SALT).hex() == "f8483f71e61e36f6a5b6cf8aa6c50f93b97bbca51342320d734dd1b3ca159c3e"
    assert ROOT.hex() == "6f2db30447e2e9dc210656d9b17c7357175c07a1bb2d85fdf118d1b041312d91"
    assert blob_id(b"").hex() == "c401ad1bacb7c925288c25a74ffe1ef0a102b74a72e0d13127f65010251b6eba"
    assert blob_id(bytes(CHUNK_BYTES + 1)).hex() == "29f30bab18f84d36a64a6d66207e87af980d440c3a22bc0069807c042e4e7180"


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
