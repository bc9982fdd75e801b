"""Commitments: a provider fixes its answer before anybody reveals one.

``H(label ‖ network ‖ agreement ‖ task ‖ attempt ‖ peer ‖ result root ‖ salt)`` with BLAKE3; every field has a fixed
length but the network id, which carries its length. The salt hides answers that could be guessed; the rest binds the
answer to who gave it and to what, so that a commitment cannot be copied.
"""

import hmac
from collections.abc import Iterable
from dataclasses import dataclass

from blake3 import blake3

from depin_node.core.errors import PeerViolation

_COMMIT_LABEL = b"depin/commitment/v1\0"
_ROOT_LABEL = b"depin/result-root/v1\0"
SALT_BYTES = 32


@dataclass(frozen=True)
class Answer:
    """What a commitment is about: the attempt (``agreement`` 32 bytes, ``task`` index, ``attempt`` 16), by ``peer``."""

    network: str
    agreement: bytes
    task: int
    attempt: bytes
    peer: bytes


def result_root(blob_ids: Iterable[bytes]) -> bytes:
    """Return the 32-byte root of a task's outputs, given their blob ids in the program's order."""
    hasher = blake3(_ROOT_LABEL)
    for blob_id in blob_ids:
        hasher.update(blob_id)
    return hasher.digest()


def commit(answer: Answer, root: bytes, salt: bytes) -> bytes:
    """Return the 32-byte commitment to ``root``."""
    if not (len(answer.agreement) == len(answer.peer) == len(root) == len(salt) == 32 and len(answer.attempt) == 16):
        raise ValueError("a field of a commitment has the wrong length")
    network = answer.network.encode()
    hasher = blake3(_COMMIT_LABEL)
    hasher.update(len(network).to_bytes(8, "little") + network)
    hasher.update(answer.agreement + answer.task.to_bytes(8, "little") + answer.attempt + answer.peer + root + salt)
    return hasher.digest()


def verify_opening(commitment: bytes, answer: Answer, root: bytes, salt: bytes) -> None:
    """Check that ``root`` and ``salt`` open ``commitment``.

    Raises:
        PeerViolation: they do not. With the signed commitment and the signed reveal this convinces a third party.
    """
    if not hmac.compare_digest(commitment, commit(answer, root, salt)):
        raise PeerViolation("the revealed result does not open the commitment")
