"""The files of owners: a certificate or a list of revocations is its bytes in hex, one line, to be copied by hand.

They hold no secret. A file that is written is whole or as it was before.
"""

from pathlib import Path

from depin_node.core.errors import ConfigError
from depin_node.crypto import identity
from depin_node.crypto.identity import Identity
from depin_node.crypto.ownership import CERTIFICATE_BYTES_MAX, REVOCATIONS_BYTES_MAX


def load_key(path: Path) -> Identity:
    """Read an owner's key.

    Raises:
        ConfigError: missing, readable by others, or damaged.
    """
    if not path.exists():
        raise ConfigError(f"{path}: no owner key here; run: depin-node owner create, or name one with --owner-key")
    return identity.load(path)


def read_certificate(path: Path) -> bytes:
    """Return the bytes of a certificate file; none if there is no such file. Raises ``ConfigError``."""
    return _read(path, CERTIFICATE_BYTES_MAX)


def read_revocations(path: Path) -> bytes:
    """Return the bytes of a list of revocations; none if there is no such file. Raises ``ConfigError``."""
    return _read(path, REVOCATIONS_BYTES_MAX)


def write(path: Path, data: bytes) -> None:
    """Write either. Raises ``ConfigError``: it cannot be written."""
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        temporary.write_text(data.hex() + "\n", "ascii")
        temporary.replace(path)
    except OSError as error:
        raise ConfigError(f"{path}: cannot be written: {error.strerror}") from error


def _read(path: Path, size_bytes_max: int) -> bytes:
    try:
        with path.open("rb") as file:
            text = file.read(2 * size_bytes_max + 2)
        return bytes.fromhex(text.decode("ascii"))
    except FileNotFoundError:
        return b""
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise ConfigError(f"{path}: damaged (it should be one line of hex digits); copy it again: {error}") from error
