"""The pre-shared key of a private mesh: who holds it can show so, to one peer at a time, without telling it.

A proof is a keyed hash over the network, who shows it and to whom; the two ends are known from the Noise handshake, so
a proof is of no use to anybody else. It lets whoever is shown one try keys: hence a key is 32 random bytes, not a
password.
"""

import hmac
import stat
from pathlib import Path

from blake3 import blake3

from depin_node.core.errors import ConfigError

_CONTEXT = "depin-node 2026-11 pre-shared key v1"
_LABEL = b"depin/membership/v1\0"
_HOW = "make one with: (umask 077; openssl rand -hex 32 > FILE), and give it to every node of the mesh"


def load(file: str | Path) -> bytes:
    """Return the key of a file: 64 hexadecimal characters, readable by its owner only.

    Raises:
        ConfigError: missing, readable by others, or something else; says what to do.
    """
    path = Path(file).expanduser()
    try:
        mode = stat.S_IMODE(path.stat().st_mode)
        text = path.read_text("ascii").strip()
    except FileNotFoundError as error:
        raise ConfigError(f"{path}: there is no pre-shared key here; {_HOW}") from error
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: the pre-shared key cannot be read: {error}") from error
    if mode & 0o077:
        raise ConfigError(f"{path}: others can read the pre-shared key (mode {mode:04o}); run: chmod 600 {path}")
    try:
        seed = bytes.fromhex(text)
    except ValueError:
        seed = b""
    if len(seed) != 32:
        raise ConfigError(f"{path}: a pre-shared key is 64 hexadecimal characters; {_HOW}")
    return blake3(seed, derive_key_context=_CONTEXT).digest()


def proof(key: bytes | None, network: str, shown_by: bytes, shown_to: bytes) -> bytes:
    """Return what ``shown_by`` shows to ``shown_to`` (peer keys): 32 bytes, or none without a key."""
    if key is None:
        return b""
    name = network.encode()
    return blake3(_LABEL + len(name).to_bytes(2, "little") + name + shown_by + shown_to, key=key).digest()


def is_proof(shown: bytes, key: bytes | None, network: str, shown_by: bytes, shown_to: bytes) -> bool:
    """Tell whether ``shown_by`` holds our key, or as we holds none."""
    return hmac.compare_digest(shown, proof(key, network, shown_by, shown_to))
