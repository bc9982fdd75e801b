"""Compiled units on disk, by the hash of all that they depend on: submitting the same source again is instant.

Entries are MessagePack with a hash in front, written to a temporary name and renamed, so that a reader sees all or
nothing; a damaged entry is as good as none. Old ones are dropped by time of last use. A cache that cannot be written is
no error.
"""

import contextlib
import hashlib
import os
import secrets
from collections.abc import Sequence
from dataclasses import asdict, replace
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
import platformdirs

from depin_node.compute.translate.toolchain import compiler_version

if TYPE_CHECKING:
    from depin_node.compute.translate.compiler import CompiledUnit

ENTRIES_MAX = 512
ENTRY_BYTES_MAX = 8 << 20
_DIGEST_BYTES = 32
_SUFFIX = ".kernel"


def cache_folder() -> Path:
    """Return the folder of this user's cache: ``DEPIN_CACHE_DIR``, or where the system wants caches."""
    chosen = os.environ.get("DEPIN_CACHE_DIR")
    return (Path(chosen) if chosen else Path(platformdirs.user_cache_dir("depin-node", appauthor=False))) / "compile"


@lru_cache(maxsize=1)
def _compiler_digest() -> bytes:
    """Return a hash of this compiler: its code, its headers and the version of ziglang."""
    digest = hashlib.blake2b(compiler_version().encode(), digest_size=_DIGEST_BYTES)
    here = Path(__file__).parent
    for path in sorted([*here.glob("*.py"), *(here / "headers").rglob("*.h")]):
        digest.update(path.name.encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.digest()


class Cache:
    """See the module."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def key(self, code: str, names: Sequence[str], options: Sequence[str], shape: str) -> str:
        """Return the name of the entry for one translation."""
        digest = hashlib.blake2b(_compiler_digest(), digest_size=_DIGEST_BYTES)
        for part in (code, shape, str(len(names)), *names, *options):
            data = part.encode(errors="surrogatepass")
            digest.update(len(data).to_bytes(8, "little") + data)
        return digest.hexdigest()

    def get(self, key: str) -> "CompiledUnit | None":
        """Return the unit of that key, or None."""
        from depin_node.compute.translate.compiler import CompiledUnit, with_texts

        path = self.folder / (key + _SUFFIX)
        with contextlib.suppress(OSError, msgspec.DecodeError, msgspec.ValidationError):
            if path.stat().st_size <= ENTRY_BYTES_MAX:
                data = path.read_bytes()
                digest, body = data[:_DIGEST_BYTES], data[_DIGEST_BYTES:]
                if hashlib.blake2b(body, digest_size=_DIGEST_BYTES).digest() == digest:
                    unit = msgspec.msgpack.decode(body, type=CompiledUnit)
                    os.utime(path)
                    return with_texts(unit)
        return None

    def put(self, key: str, unit: "CompiledUnit") -> None:
        """Keep a unit, and drop those used longest ago if there are too many."""
        bare = tuple(replace(kernel, module=b"", cuda="") for kernel in unit.kernels)
        body = msgspec.msgpack.encode(asdict(replace(unit, kernels=bare)))
        data = hashlib.blake2b(body, digest_size=_DIGEST_BYTES).digest() + body
        with contextlib.suppress(OSError):
            self.folder.mkdir(parents=True, exist_ok=True)
            temporary = self.folder / f".{key}.{secrets.token_hex(4)}"
            try:
                temporary.write_bytes(data)
                temporary.replace(self.folder / (key + _SUFFIX))
            finally:
                temporary.unlink(missing_ok=True)
            self._trim()

    def _trim(self) -> None:
        entries = [(entry.stat().st_mtime_ns, entry) for entry in self.folder.glob("*" + _SUFFIX)]
        for _, entry in sorted(entries, key=lambda item: item[0])[:-ENTRIES_MAX]:
            entry.unlink(missing_ok=True)
