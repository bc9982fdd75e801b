"""One Ed25519 key pair is a node: PyNaCl signs messages with it, libp2p authenticates connections with it.

The domains are kept apart by labels (``envelope.py``). The file holds the 32-byte seed in hex, mode 0600, and is
written atomically, so that a crash leaves either no identity or a whole one.
"""

import os
import stat
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path

import base58
from nacl.signing import SigningKey

from depin_node.core.errors import ConfigError

# A libp2p peer id of an Ed25519 key: the identity multihash (0x00, length) of the protobuf {type: 1, data: key}.
_PEER_ID_PREFIX = bytes.fromhex("002408011220")
_SHOWN_CACHED = 8192
"""Base 58 is slow, and the same few thousand peers are shown and named again and again."""


@dataclass(frozen=True)
class Identity:
    """A node's own key pair. ``seed`` (32 bytes) never leaves the process; ``key`` (32 bytes) is its public name."""

    seed: bytes = field(repr=False)

    def __post_init__(self) -> None:
        if len(self.seed) != 32:
            raise ConfigError(f"an identity seed has 32 bytes, this one has {len(self.seed)}")
        signer = SigningKey(self.seed)
        object.__setattr__(self, "_signer", signer)
        object.__setattr__(self, "key", bytes(signer.verify_key))

    key: bytes = field(init=False)
    _signer: SigningKey = field(init=False, repr=False, compare=False)

    @classmethod
    def generate(cls) -> "Identity":
        """Return a new identity from the operating system's randomness."""
        return cls(os.urandom(32))

    def sign(self, data: bytes) -> bytes:
        """Return the 64-byte Ed25519 signature of ``data``. Use ``envelope.sign``, which adds the label."""
        return self._signer.sign(data).signature


@lru_cache(maxsize=_SHOWN_CACHED)
def peer_id(key: bytes) -> str:
    """Return the libp2p peer id (``12D3Koo…``) of a 32-byte public key: how peers are shown to people."""
    shown: str = base58.b58encode(_PEER_ID_PREFIX + key).decode()
    return shown


@lru_cache(maxsize=_SHOWN_CACHED)
def key_of(peer: str) -> bytes:
    """Return the 32-byte public key of a peer id.

    Raises:
        ConfigError: not the peer id of an Ed25519 key.
    """
    try:
        raw: bytes = base58.b58decode(peer)
    except ValueError as error:
        raise ConfigError(f"{peer[:80]!r} is not a peer id: {error}") from error
    if len(raw) != 38 or not raw.startswith(_PEER_ID_PREFIX):
        raise ConfigError(f"{peer[:80]!r} is not the peer id of an Ed25519 key (they begin with 12D3Koo)")
    return raw[6:]


def load(path: Path) -> Identity:
    """Read an identity.

    Raises:
        ConfigError: missing, readable by others, or damaged; says what to do.
    """
    try:
        mode = stat.S_IMODE(path.stat().st_mode)
        text = path.read_text("ascii").strip()
    except FileNotFoundError as error:
        raise ConfigError(f"{path}: no identity here; run: depin-node init") from error
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: the identity cannot be read: {error}") from error
    if mode & 0o077:
        raise ConfigError(f"{path}: others may read this key (mode {mode:04o}); run: chmod 600 {path}")
    try:
        return Identity(bytes.fromhex(text))
    except (ValueError, ConfigError) as error:
        raise ConfigError(
            f"{path}: the identity is damaged (it should be 64 hex digits); restore it from a backup, or move it away"
            " and run: depin-node init (the node will then be a new peer without its history)"
        ) from error


def create(path: Path) -> Identity:
    """Make a new identity at ``path``, atomically and only if none is there.

    Raises:
        FileExistsError: something is there already; it is left alone.
        ConfigError: the file cannot be written.
    """
    identity = Identity.generate()
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            with os.fdopen(fd, "w") as file:
                file.write(identity.seed.hex() + "\n")
                file.flush()
                os.fsync(file.fileno())
            os.link(temporary, path)  # unlike rename, fails if another process was first
        finally:
            temporary.unlink()
    except FileExistsError:
        raise
    except OSError as error:
        raise ConfigError(f"{path}: the identity cannot be written: {error}") from error
    return identity


def load_or_create(path: Path) -> Identity:
    """Read the identity at ``path``, or make one. Raises ``ConfigError`` as ``load`` and ``create`` do."""
    if not path.exists():
        try:
            return create(path)
        except FileExistsError:
            pass  # another process made one meanwhile
    return load(path)
