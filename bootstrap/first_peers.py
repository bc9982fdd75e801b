"""Whom to join by: what the configuration names, what ``peers.txt`` lists, and whom the node met before."""

from collections.abc import Iterable
from pathlib import Path

from depin_node.core.errors import ConfigError
from depin_node.p2p import addresses

FIRST_PEERS_MAX = 64
REMEMBERED_MAX = 32
_FILE_BYTES_MAX = 1 << 16


def first_peers(named: Iterable[str], file: Path) -> tuple[str, ...]:
    """Return the addresses the user named, each once, in canonical form: those of the configuration before the file's.

    Raises:
        ConfigError: one is not a dialable address with a peer id, or there are too many; names file and line.
    """
    found: dict[str, None] = {}
    for text in named:
        found[_checked(text, "--peer, first_peers")] = None
    for number, line in enumerate(_lines(file), 1):
        text = line.partition("#")[0].strip()
        if text:
            found[_checked(text, f"{file}:{number}")] = None
    if len(found) > FIRST_PEERS_MAX:
        raise ConfigError(
            f"{len(found)} first peers are more than the {FIRST_PEERS_MAX} allowed; one is enough to join"
        )
    return tuple(found)


def remembered_peers(known: Iterable[str]) -> tuple[str, ...]:
    """Return the addresses of peers met before that can still be parsed, at most ``REMEMBERED_MAX``."""
    found: dict[str, None] = {}
    for text in known:
        try:
            found[_checked(text, "remembered")] = None
        except ConfigError:  # written by another version; the next meeting replaces it
            continue
        if len(found) == REMEMBERED_MAX:
            break
    return tuple(found)


def _checked(text: str, source: str) -> str:
    try:
        address = addresses.parse(text)
    except ConfigError as error:
        raise ConfigError(f"{source}: {error}") from error
    if address.is_wildcard:
        raise ConfigError(f"{source}: {text} stands for every address of a machine; name one that can be dialled")
    return str(address)


def _lines(file: Path) -> list[str]:
    try:
        with file.open("rb") as opened:
            text = opened.read(_FILE_BYTES_MAX + 1)
    except FileNotFoundError:
        return []
    except OSError as error:
        raise ConfigError(f"{file}: cannot be read: {error.strerror}") from error
    if len(text) > _FILE_BYTES_MAX:
        raise ConfigError(f"{file}: more than {_FILE_BYTES_MAX} bytes")
    try:
        return text.decode().splitlines()
    except UnicodeDecodeError as error:
        raise ConfigError(f"{file}: not text: {error}") from error
