"""A look into a compiled module before any engine sees it: its size, its sections, its one import.

This reads only the WebAssembly binary format's section headers, imports, exports and the types of exported functions
(WebAssembly core specification 2.0, part 5); the engine validates the rest. A module may import ``env.memory`` and
nothing else, and has no start function, memory or large table of its own that could ask for resources before a limit is
in place. What it exports are functions of integers: asked for the type of an export with a vector in it, wasmtime's C
interface ends the process.
"""

from dataclasses import dataclass, replace
from functools import lru_cache

from depin_node.core.errors import TaskRejected

MODULE_BYTES_MAX = 4 << 20
PAGE_BYTES = 65536
PAGES_MAX = 65536
OWN_PAGES_MAX = 1024
"""The module's own data, stack and arena: at most 64 MiB."""
TABLE_ELEMENTS_MAX = 4096
FUNCTIONS_MAX = 4096
TYPES_MAX = 4096
EXPORTS_MAX = 1024
CANONICAL_NAME = b"depin.canonical"
"""Of the custom section by which a module says that it stores canonical NaNs only (translate/stores.py)."""
_MAGIC = b"\0asm\1\0\0\0"
_CUSTOM, _TYPE, _IMPORT, _FUNCTION, _TABLE, _MEMORY, _EXPORT, _START = 0, 1, 2, 3, 4, 5, 7, 8
_SECTION_LAST = 12
_KIND_MEMORY = 2
_HAS_MAX = 1
_KIND_FUNCTION = 0
_FUNCREF = 0x70
_FUNCTION_TYPE = 0x60
_INTEGERS = frozenset((0x7E, 0x7F))


@dataclass(frozen=True)
class ModuleInfo:
    """What the module wants: its memory starts with ``memory_pages`` of its own data, stack and arena.

    ``canonical``: it says that it makes every NaN canonical that it stores into memory.
    """

    memory_pages: int
    memory_pages_max: int | None
    canonical: bool = False


class _Reader:
    def __init__(self, data: memoryview) -> None:
        self.data, self.at = data, 0

    def byte(self) -> int:
        if self.at >= len(self.data):
            raise TaskRejected("the module ends early")
        self.at += 1
        return self.data[self.at - 1]

    def take(self, count: int) -> memoryview:
        if count > len(self.data) - self.at:
            raise TaskRejected("the module ends early")
        self.at += count
        return self.data[self.at - count : self.at]

    def uint(self) -> int:
        """An unsigned LEB128 of at most 32 bits."""
        value = 0
        for shift in range(0, 35, 7):
            byte = self.byte()
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                if value >> 32:
                    break
                return value
        raise TaskRejected("the module has a number of more than 32 bits where 32 are allowed")


@lru_cache(maxsize=16)
def scan_module(module: bytes) -> ModuleInfo:
    """Check the module's outline and return what it wants.

    Raises:
        TaskRejected: not WebAssembly, too large, or with an import, start function, memory or table that no kernel has.
    """
    if len(module) > MODULE_BYTES_MAX:
        raise TaskRejected(f"the module has {len(module)} bytes, at most {MODULE_BYTES_MAX} are allowed")
    if module[:8] != _MAGIC:
        raise TaskRejected("the module is not WebAssembly")
    reader, info = _Reader(memoryview(module)), None
    types: list[bool] = []
    functions: list[int] = []
    canonical = False
    reader.take(8)
    while reader.at < len(module):
        kind = reader.byte()
        body = _Reader(reader.take(reader.uint()))
        if kind > _SECTION_LAST:
            raise TaskRejected(f"the module has a section of unknown kind {kind}")
        if kind == _CUSTOM:
            canonical |= body.take(body.uint()) == CANONICAL_NAME
        if kind == _START:
            raise TaskRejected("the module has a start function, which would run before its limits are set")
        if kind == _MEMORY and body.uint():
            raise TaskRejected("the module has a memory of its own; it may only import env.memory")
        if kind == _IMPORT:
            info = _scan_imports(body)
        if kind == _TYPE:
            types = _scan_types(body)
        if kind == _FUNCTION:
            functions = [body.uint() for _ in range(_count(body, FUNCTIONS_MAX, "functions"))]
        if kind == _EXPORT:
            _scan_exports(body, types, functions)
        if kind == _TABLE:
            _scan_tables(body)
    if info is None:
        raise TaskRejected("the module does not import env.memory")
    return replace(info, canonical=canonical)


def _count(body: _Reader, most: int, what: str) -> int:
    count = body.uint()
    if count > most:
        raise TaskRejected(f"the module has more than {most} {what}")
    return count


def _scan_types(body: _Reader) -> list[bool]:
    """Return of each function type whether it is of integers only."""
    found = []
    for _ in range(_count(body, TYPES_MAX, "types")):
        if body.byte() != _FUNCTION_TYPE:
            raise TaskRejected("the module has a type that is not a plain function's")
        parameters, results = body.take(body.uint()), body.take(body.uint())
        found.append(_INTEGERS.issuperset(parameters) and _INTEGERS.issuperset(results))
    return found


def _scan_exports(body: _Reader, types: list[bool], functions: list[int]) -> None:
    for _ in range(_count(body, EXPORTS_MAX, "exports")):
        body.take(body.uint())
        kind, index = body.byte(), body.uint()
        if kind != _KIND_FUNCTION:
            raise TaskRejected("the module exports what is not a function")
        if index >= len(functions) or functions[index] >= len(types) or not types[functions[index]]:
            raise TaskRejected("the module exports a function that is not there, or not of integers")


def _scan_imports(body: _Reader) -> ModuleInfo:
    count = body.uint()
    if not count:
        raise TaskRejected("the module does not import env.memory")
    names = [bytes(body.take(body.uint())) for _ in range(2)]
    if count > 1 or names != [b"env", b"memory"] or body.byte() != _KIND_MEMORY:
        shown = ".".join(name[:64].decode(errors="replace") for name in names)
        raise TaskRejected(f"the module imports {shown!r} ({count} imports); it may import env.memory only")
    flags, least = body.byte(), body.uint()
    if flags > _HAS_MAX:
        raise TaskRejected("the module's memory is shared or 64-bit")
    most = body.uint() if flags else None
    if not 1 <= least <= OWN_PAGES_MAX or (most is not None and not least <= most <= PAGES_MAX):
        raise TaskRejected(f"the module's memory starts with {least} pages; 1 to {OWN_PAGES_MAX} are allowed")
    return ModuleInfo(least, most)


def _scan_tables(body: _Reader) -> None:
    count = body.uint()
    for _ in range(count):
        if count > 1 or body.byte() != _FUNCREF:
            raise TaskRejected("the module has a table that is not the one table of functions")
        flags = body.byte()
        least = body.uint()
        if flags > _HAS_MAX or least > TABLE_ELEMENTS_MAX:
            raise TaskRejected(
                f"the module's table is not plain or starts with more than {TABLE_ELEMENTS_MAX} elements"
            )
