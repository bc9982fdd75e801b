"""The keys of one direct data channel, and how its frames are sealed.

The flow: who opens the channel and who serves it each make a fresh X25519 key and tell it the other over their
authenticated stream; ``agree`` mixes the shared secret with a transcript of all that both said. Out come a token, by
which the server finds the channel again when a TCP connection shows it, a proof for each side, and one key for each
direction. A ``Sealer`` at one end and an ``Unsealer`` at the other count frames: the count is the nonce, so that a
frame that was dropped, repeated, moved or sent back cannot be opened. Keys are replaced by a hash of themselves every
``REKEY_FRAMES`` frames, so that a key seals 32 GiB at most.
"""

import hmac
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TypeAlias

from blake3 import blake3
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM, ChaCha20Poly1305

from depin_node.core.errors import PeerViolation
from depin_node.crypto.blob import Buffer

_CONTEXT = "depin-node 2026 direct data channel v1"
_NEXT_KEY_CONTEXT = "depin-node 2026 direct data channel v1 next key"
TOKEN_BYTES = 16
PROOF_BYTES = 32
TAG_BYTES = 16
REKEY_FRAMES = 1 << 15

CHACHA20_POLY1305, AES_128_GCM = 1, 3
_Cipher: TypeAlias = ChaCha20Poly1305 | AESGCM
_CIPHERS: dict[int, Callable[[bytes], _Cipher]] = {
    CHACHA20_POLY1305: ChaCha20Poly1305,
    AES_128_GCM: lambda key: AESGCM(
        key[:16]
    ),  # as strong as the X25519 that made the key; 256 bits take 4/3 of the time
}


@dataclass(frozen=True)
class ChannelKeys:
    """What both ends of a channel know, and nobody else."""

    token: bytes
    opener_proof: bytes
    server_proof: bytes
    opener_key: bytes
    """Seals what the opener sends."""
    server_key: bytes


def agree(private: X25519PrivateKey, public: bytes, transcript: Sequence[bytes]) -> ChannelKeys:
    """Return the keys of a channel.

    Args:
        private: our key, made for this channel.
        public: the peer's, 32 bytes.
        transcript: all that binds the channel to its ends: network, both identities, what each said.

    Raises:
        PeerViolation: ``public`` is a point that gives everybody the same secret.
    """
    try:
        shared = private.exchange(X25519PublicKey.from_public_bytes(public))
    except ValueError as error:
        raise PeerViolation("the key of a data channel is no key") from error
    hasher = blake3(shared, derive_key_context=_CONTEXT)
    for part in transcript:
        hasher.update(len(part).to_bytes(4, "little") + part)
    stream = hasher.digest(length=TOKEN_BYTES + 4 * 32)
    cut = [stream[at : at + 32] for at in range(TOKEN_BYTES, len(stream), 32)]
    return ChannelKeys(stream[:TOKEN_BYTES], *cut)


def is_proof(shown: bytes, expected: bytes) -> bool:
    """Compare two proofs in constant time."""
    return hmac.compare_digest(shown, expected)


@lru_cache(maxsize=1)
def suites() -> bytes:
    """Return the ciphers that this machine has, the faster one first: AES is slow where there is no hardware for it."""
    data, out, took = bytes(1 << 16), bytearray((1 << 16) + TAG_BYTES), dict[int, float]()
    for number, make in _CIPHERS.items():
        cipher, times = make(bytes(32)), []
        for count in range(4):
            began = time.perf_counter()
            cipher.encrypt_into(count.to_bytes(12, "little"), data, None, out)
            times.append(time.perf_counter() - began)
        took[number] = min(times)
    fastest_first: list[int] = sorted(took, key=took.__getitem__)
    return bytes(fastest_first)


def choose_suite(offered: bytes) -> int:
    """Return the first offered cipher that we have. Raises ``PeerViolation`` if there is none."""
    for number in offered:
        if number in _CIPHERS:
            return number
    raise PeerViolation("a data channel without a cipher that we know")


class _Counted:
    """A key and the number of the next frame."""

    def __init__(self, suite: int, key: bytes) -> None:
        self._make = _CIPHERS[suite]
        self._key = key
        self._cipher = self._make(key)
        self._count = 0

    def next(self) -> tuple[_Cipher, bytes]:
        """Return cipher and nonce of the next frame."""
        if self._count and self._count % REKEY_FRAMES == 0:
            self._key = blake3(self._key, derive_key_context=_NEXT_KEY_CONTEXT).digest()
            self._cipher = self._make(self._key)
        nonce = self._count.to_bytes(12, "little")
        self._count += 1
        return self._cipher, nonce


class Sealer:
    """Seals the frames of one direction."""

    def __init__(self, suite: int, key: bytes) -> None:
        self._counted = _Counted(suite, key)

    def seal(self, header: bytes, body: Buffer, into: Buffer) -> None:
        """Write the sealed ``body`` and its tag into ``into``; ``header`` is authenticated with it."""
        cipher, nonce = self._counted.next()
        cipher.encrypt_into(nonce, body, header, into)


class Unsealer:
    """Opens the frames of the other direction, in the order in which they arrived."""

    def __init__(self, suite: int, key: bytes) -> None:
        self._counted = _Counted(suite, key)

    def next(self) -> Callable[[bytes, Buffer, Buffer], None]:
        """Count one frame; return what opens it: ``(header, sealed, into)``, at any time and in any thread.

        It raises ``PeerViolation`` if the frame is not the one that was sealed.
        """
        cipher, nonce = self._counted.next()

        def unseal(header: bytes, sealed: Buffer, into: Buffer) -> None:
            try:
                cipher.decrypt_into(nonce, sealed, header, into)
            except InvalidTag as error:
                raise PeerViolation("a frame of a data channel was forged or damaged on the way") from error

        return unseal
