"""Native code of modules that were compiled already: a node's workers share it, and none can spoil another's.

Only a worker that has seen nothing but the modules compiles for others: it is asked before it is given a program, an
input or a task (``Compile``), and what it says later is not listened to. The key is the hash of just these modules, in
their order: whoever breaks out of the compiler by a module of theirs reaches only workers that run that module, too.
Each worker is given a copy of its own. The code is never written to disk, so machine, engine and settings are always
those that it was made with; the engine checks that again. A restart forgets it, on purpose: that costs 7 to 41 ms a
program. A file would have to be kept from all who could run code by changing it, and would keep, past the restart that
ends it, what somebody has made who broke out of the compiler.
"""

import hashlib
from collections import OrderedDict
from collections.abc import Sequence
from typing import Final

BYTES_MAX: Final = 32 << 20
"""Of native code in all; a simple kernel's is 20 to 50 kB, after 7 to 41 ms of compiling."""


class NativeCode:
    """The native code of units, by their modules; what was used longest ago is dropped."""

    def __init__(self, bytes_max: int = BYTES_MAX) -> None:
        self._bytes_max = bytes_max
        self._kept: OrderedDict[bytes, tuple[bytes, ...]] = OrderedDict()
        self._bytes = 0

    def get(self, modules: Sequence[bytes]) -> tuple[bytes, ...] | None:
        """Return the native code of each module, if it is there."""
        key = _key(modules)
        found = self._kept.get(key)
        if found is not None:
            self._kept.move_to_end(key)
        return found

    def put(self, modules: Sequence[bytes], native: tuple[bytes, ...]) -> None:
        """Keep the native code of each module, unless there is some already."""
        key, size = _key(modules), sum(map(len, native))
        if len(native) != len(modules) or size > self._bytes_max or key in self._kept:
            return
        self._kept[key] = native
        self._bytes += size
        while self._bytes > self._bytes_max:
            self._bytes -= sum(map(len, self._kept.popitem(last=False)[1]))


def _key(modules: Sequence[bytes]) -> bytes:
    digest = hashlib.blake2b(digest_size=32)
    for module in modules:
        digest.update(len(module).to_bytes(8, "little") + module)
    return digest.digest()
