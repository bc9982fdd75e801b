"""Sealed blobs: only the peers they are sealed for can read them; stores, caches and relays see ciphertext.

The flow: a fresh content key is wrapped for each recipient in a sealed box to the X25519 form of its Ed25519 key, so
that a node needs no second identity. The bytes are sealed in chunks by libsodium's secretstream, which keeps their
order and their end. The list of recipients is authenticated with every chunk: nobody can add to it or take from it.

    sealed = magic (8) ‖ count u16 LE ‖ count × [recipient (32) ‖ wrapped key (80)] ‖ stream header (24) ‖ chunks
    chunk  = at most 1 MiB of plaintext, sealed: 17 bytes longer; the last one, which may be empty, bears the final tag

Who can read a blob can read all of it, and can show it to others: sealing protects data on the way and at rest, not
from the providers that compute on it.
"""

from collections.abc import AsyncIterator, Iterable, Iterator, Sequence

from nacl import bindings
from nacl.exceptions import CryptoError
from nacl.public import SealedBox
from nacl.signing import SigningKey, VerifyKey

from depin_node.core.errors import ConfigError, PeerViolation
from depin_node.crypto.blob import CHUNK_BYTES, Buffer
from depin_node.crypto.identity import Identity

MAGIC = b"depinsl1"
RECIPIENTS_MAX = 64
_COUNT_BYTES = 2
_KEY_BYTES = bindings.crypto_secretstream_xchacha20poly1305_KEYBYTES
_HEADER_BYTES = bindings.crypto_secretstream_xchacha20poly1305_HEADERBYTES
_OVERHEAD_BYTES = bindings.crypto_secretstream_xchacha20poly1305_ABYTES
_MESSAGE = bindings.crypto_secretstream_xchacha20poly1305_TAG_MESSAGE
_FINAL = bindings.crypto_secretstream_xchacha20poly1305_TAG_FINAL
_State = bindings.crypto_secretstream_xchacha20poly1305_state
_WRAPPED_BYTES = _KEY_BYTES + bindings.crypto_box_SEALBYTES
_ENTRY_BYTES = 32 + _WRAPPED_BYTES
HEAD_BYTES_MAX = len(MAGIC) + _COUNT_BYTES + RECIPIENTS_MAX * _ENTRY_BYTES + _HEADER_BYTES
SEALED_CHUNK_BYTES = CHUNK_BYTES + _OVERHEAD_BYTES


def sealed_bytes(size_bytes: int, recipients: int) -> int:
    """Return how large a blob of ``size_bytes`` is when it is sealed for so many peers."""
    head = len(MAGIC) + _COUNT_BYTES + recipients * _ENTRY_BYTES + _HEADER_BYTES
    return head + size_bytes + (size_bytes // CHUNK_BYTES + 1) * _OVERHEAD_BYTES


def seal(pieces: Iterable[Buffer], recipients: Sequence[bytes]) -> Iterator[bytes]:
    """Yield the sealed form of the concatenated ``pieces``, a chunk at a time.

    Args:
        pieces: plaintext, in pieces of any length.
        recipients: 32-byte keys of the peers that may read it, 1 to 64; each counts once.

    Raises:
        ConfigError: nobody to seal for, too many, or one that is no Ed25519 key.
    """
    keys = sorted(set(recipients))
    if not 0 < len(keys) <= RECIPIENTS_MAX:
        raise ConfigError(f"a blob is sealed for 1 to {RECIPIENTS_MAX} peers, not for {len(keys)}")
    content_key = bindings.crypto_secretstream_xchacha20poly1305_keygen()
    state = _State()
    head = MAGIC + len(keys).to_bytes(_COUNT_BYTES, "little")
    for key in keys:
        try:
            box = SealedBox(VerifyKey(key).to_curve25519_public_key())
        except (RuntimeError, ValueError, CryptoError) as error:
            raise ConfigError("a blob can be sealed only for peers, by their ids") from error
        head += key + box.encrypt(content_key)
    head += bindings.crypto_secretstream_xchacha20poly1305_init_push(state, content_key)
    yield head
    waiting = bytearray()
    for piece in pieces:
        view = memoryview(piece).cast("B")
        for start in range(0, len(view), CHUNK_BYTES):
            waiting += view[start : start + CHUNK_BYTES]
            if len(waiting) >= CHUNK_BYTES:
                yield _push(state, bytes(waiting[:CHUNK_BYTES]), head, _MESSAGE)
                del waiting[:CHUNK_BYTES]
    yield _push(state, bytes(waiting), head, _FINAL)


def _push(state: _State, chunk: bytes, head: bytes, tag: int) -> bytes:
    sealed: bytes = bindings.crypto_secretstream_xchacha20poly1305_push(state, chunk, head, tag)
    return sealed


def is_sealed(start: Buffer) -> bool:
    """Tell whether a blob that begins so is sealed."""
    return bytes(memoryview(start)[: len(MAGIC)]) == MAGIC


def recipients_of(head: Buffer) -> tuple[bytes, ...]:
    """Return whom a blob says it is sealed for; only who can open it knows that it is true.

    Raises:
        PeerViolation: not a sealed blob.
    """
    return tuple(key for key, _ in _entries(bytes(head))[0])


def _entries(data: bytes) -> tuple[list[tuple[bytes, bytes]], int]:
    at = len(MAGIC) + _COUNT_BYTES
    count = int.from_bytes(data[len(MAGIC) : at], "little")
    end = at + count * _ENTRY_BYTES
    if not is_sealed(data) or not 0 < count <= RECIPIENTS_MAX or len(data) < end + _HEADER_BYTES:
        raise PeerViolation("this blob is not sealed, or damaged")
    found = [
        (data[start : start + 32], data[start + 32 : start + _ENTRY_BYTES]) for start in range(at, end, _ENTRY_BYTES)
    ]
    return found, end + _HEADER_BYTES


class Opening:
    """Opens a sealed blob whose bytes are ``feed`` piece by piece; holds a chunk of it.

    Raises:
        PeerViolation: not sealed for this node, or not as it was sealed. What came out before was right, but may not
            be all.
    """

    def __init__(self, identity: Identity) -> None:
        self._identity = identity
        self._waiting = bytearray()
        self._head = b""
        self._state = _State()
        self._is_over = False

    def feed(self, piece: Buffer) -> Iterator[bytes]:
        """Take the next bytes; yield what they open."""
        self._waiting += piece
        if not self._head:
            if len(self._waiting) < HEAD_BYTES_MAX:
                return
            self._begin()
        # the last chunk is opened at the end: it is the one with the final tag
        while len(self._waiting) > SEALED_CHUNK_BYTES:
            yield self._pull(bytes(self._waiting[:SEALED_CHUNK_BYTES]), _MESSAGE)
            del self._waiting[:SEALED_CHUNK_BYTES]

    def end(self) -> Iterator[bytes]:
        """No more comes: yield the rest."""
        if not self._head:
            self._begin()
        while len(self._waiting) > SEALED_CHUNK_BYTES:
            yield self._pull(bytes(self._waiting[:SEALED_CHUNK_BYTES]), _MESSAGE)
            del self._waiting[:SEALED_CHUNK_BYTES]
        yield self._pull(bytes(self._waiting), _FINAL)

    def _begin(self) -> None:
        data = bytes(self._waiting[:HEAD_BYTES_MAX])
        entries, end = _entries(data)
        wrapped = dict(entries).get(self._identity.key)
        if wrapped is None:
            raise PeerViolation("this blob is sealed for other peers")
        box = SealedBox(SigningKey(self._identity.seed).to_curve25519_private_key())
        state = _State()
        try:
            content_key = box.decrypt(wrapped)
            bindings.crypto_secretstream_xchacha20poly1305_init_pull(
                state, data[end - _HEADER_BYTES : end], content_key
            )
        except (CryptoError, RuntimeError, ValueError) as error:
            raise PeerViolation("the key of this sealed blob is damaged") from error
        self._head, self._state = data[:end], state
        del self._waiting[:end]

    def _pull(self, chunk: bytes, expected: int) -> bytes:
        try:
            data, tag = bindings.crypto_secretstream_xchacha20poly1305_pull(self._state, chunk, self._head)
        except (CryptoError, RuntimeError, ValueError) as error:
            raise PeerViolation("this sealed blob is damaged, or its recipients were changed") from error
        if tag != expected:
            raise PeerViolation("this sealed blob is cut short, or goes on after its end")
        opened: bytes = data
        return opened


def open_sealed(pieces: Iterable[Buffer], identity: Identity) -> Iterator[bytes]:
    """Yield the plaintext of a sealed blob. Raises as ``Opening``."""
    opening = Opening(identity)
    for piece in pieces:
        yield from opening.feed(piece)
    yield from opening.end()


async def open_sealed_stream(pieces: AsyncIterator[bytes], identity: Identity) -> AsyncIterator[bytes]:
    """The same for what arrives bit by bit."""
    opening = Opening(identity)
    async for piece in pieces:
        for opened in opening.feed(piece):
            yield opened
    for opened in opening.end():
        yield opened
