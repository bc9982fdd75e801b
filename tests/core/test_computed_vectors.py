"""What all implementations have to compute alike: ``tests/vectors/computed.json``, which PROTOCOL.md describes.

Another language reads the same file. A line that has to change here changes the protocol.
"""

import json
from pathlib import Path

import numpy as np
import pytest
from blake3 import blake3
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from device_programs import load, run_task

from depin_node.compute.devices.wasm import WasmDevice
from depin_node.compute.market import messages as market
from depin_node.compute.programs.shards import numpy_dtype
from depin_node.compute.programs.validation import decode_program
from depin_node.compute.trust import chain, evidence
from depin_node.core.wire import decode
from depin_node.crypto import channel, membership
from depin_node.crypto.blob import blob_id
from depin_node.crypto.commitment import Answer, commit, result_root
from depin_node.crypto.identity import Identity, peer_id
from depin_node.p2p.gossip import message_id
from depin_node.p2p.shards import Shard, place_of

VECTORS = json.loads((Path(__file__).parents[1] / "vectors" / "computed.json").read_text())
TEXTS = {"network", "topic", "kind", "capability"}


def hello_proof(shared, network, shown_by, shown_to):
    key = blake3(shared, derive_key_context="depin-node 2026-11 pre-shared key v1").digest()
    return membership.proof(key, network, shown_by, shown_to)


def work_body(data):
    return decode(data, market.WorkBody, size_bytes_max=16 << 10)


def channel_keys(opener_secret, server_secret, network, opener, server, asked, answered):
    ours, theirs = map(X25519PrivateKey.from_private_bytes, (opener_secret, server_secret))
    transcript = [network.encode(), opener, server, asked, answered]
    keys = channel.agree(ours, theirs.public_key().public_bytes_raw(), transcript)
    return [keys.token, keys.opener_proof, keys.server_proof, keys.opener_key, keys.server_key]


def channel_frame(suite, key, number, kind, body):
    sealer, header = channel.Sealer(suite, key), len(body).to_bytes(4, "little") + bytes([kind])
    sealed = bytearray(len(body) + channel.TAG_BYTES)
    for _ in range(number + 1):
        sealer.seal(header, body, sealed)
    return header + bytes(sealed)


def answers(program, inputs):
    decoded = decode_program(program)
    arrays = [
        np.frombuffer(data, numpy_dtype(decoded.buffers[index])).reshape(decoded.buffers[index].shape)
        for index, data in zip(decoded.inputs, inputs, strict=True)
    ]
    loaded = load(WasmDevice(), decoded, *arrays)
    return [[bytes(result) for result in run_task(loaded, task)] for task in range(decoded.tasks)]


COMPUTED = {
    "key": lambda seed: Identity(seed).key,
    "peer id": lambda key: peer_id(key),
    "signature": lambda seed, network, kind, version, payload: Identity(seed).sign(
        f"depin/{network}/{kind}/v{version}\0".encode() + payload
    ),
    "blob id": lambda data: blob_id(data),
    "blob id of zeros": lambda size: blob_id(bytes(size)),
    "result root": lambda blobs: result_root(blobs),
    "commitment": lambda network, work, task, attempt, peer, root, salt: commit(
        Answer(network, work, task, market.attempt_bytes(attempt), peer), root, salt
    ),
    "hello proof": hello_proof,
    "gossip id": lambda topic, data: message_id(topic, data),
    "place": lambda key: place_of(key).to_bytes(8, "big"),
    "topic": lambda capability, bits, prefix: Shard(capability, bits, prefix).topic,
    "digest": lambda envelope: market.digest(envelope),
    "agreement": lambda bid, award: market.agreement_id(bid, award),
    "work id": lambda agreement, work, body: market.work_id(agreement, work, work_body(body)),
    "receipt inputs": lambda receipt_key, body: market.keyed_inputs(receipt_key, work_body(body)),
    "receipt output": lambda receipt_key, root: market.keyed_output(receipt_key, root),
    "log origin": lambda key: chain.origin(key),
    "log link": lambda previous, epoch, index, digest: chain.link(chain.Place(epoch, index, previous), digest),
    "evidence": lambda case: evidence.case_digest(case),
    "channel keys": channel_keys,
    "channel frame": channel_frame,
    "answers": answers,
}


def read(name, value):
    """Return an input of a vector as the code takes it."""
    if isinstance(value, list):
        return [read(name, item) for item in value]
    return bytes.fromhex(value) if isinstance(value, str) and name not in TEXTS else value


def written(value):
    """Return what was computed as a vector has it."""
    if isinstance(value, list):
        return [written(item) for item in value]
    return value.hex() if isinstance(value, bytes) else value


@pytest.mark.parametrize("vector", VECTORS, ids=lambda vector: vector["what"])
def test_what_is_computed_is_what_it_was(vector):
    inputs = {name: read(name, value) for name, value in vector["of"].items()}
    assert written(COMPUTED[vector["what"]](**inputs)) == vector["is"]


def test_there_is_a_vector_of_everything():
    assert {vector["what"] for vector in VECTORS} == COMPUTED.keys()
