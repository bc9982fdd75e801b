"""An example of every message that goes over the wire, made from its schema: the same bytes each time.

    python wire_examples.py tests/vectors/RELEASE.json      writes the golden vectors of a release

Each is named by its class, and carries its version: that of a signed type, or the protocols that its module names.
"""

import importlib
import json
import pkgutil
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
from msgspec import inspect

import depin_node.compute
import depin_node.crypto
import depin_node.p2p
from depin_node.core.wire import Message, decode, encode

SIZE_BYTES_MAX = 1 << 20
_BASES = ("Signed", "MarketMessage")
_NOT_BETWEEN_NODES = ("compute.sandbox.", "compute.jobs.journal.", "compute.devices.")
_NAMED_ELSEWHERE = {"depin_node.p2p.gossip": "depin_node.p2p.gossip_streams"}
_PROTOCOL = re.compile(r"[a-z]+(-[a-z]+)*/\d+\Z")


def messages() -> dict[str, type[Message]]:
    """Return all classes of messages, by module and name."""
    importlib.import_module("depin_node.p2p.libp2p.host")  # the door of its package: its parts go round in circles
    for package in (depin_node.crypto, depin_node.p2p, depin_node.compute):
        for module in pkgutil.walk_packages(package.__path__, package.__name__ + "."):
            if ".gpu.cupy" not in module.name and "wasm_engine" not in module.name:
                importlib.import_module(module.name)
    found: dict[str, type[Message]] = {}
    waiting = [Message]
    while waiting:
        for kind in waiting.pop().__subclasses__():
            waiting.append(kind)
            name = f"{kind.__module__.removeprefix('depin_node.')}.{kind.__qualname__}"
            if not kind.__module__.startswith("depin_node.") or name.startswith(_NOT_BETWEEN_NODES):
                continue
            if version_of(kind) and kind.__qualname__ not in _BASES:  # parts of others are in their examples
                found[name] = kind
    return dict(sorted(found.items()))


def version_of(kind: type[Message]) -> str:
    """Return what changes when the encoding of ``kind`` may."""
    if (signed := getattr(kind, "VERSION", None)) is not None:
        return f"{getattr(kind, 'TYPE', '')}/v{signed}"
    module = sys.modules[_NAMED_ELSEWHERE.get(kind.__module__, kind.__module__)]
    names = {value for value in vars(module).values() if isinstance(value, str) and _PROTOCOL.match(value)}
    names |= {f"{n}={v}" for n, v in vars(module).items() if n.endswith("VERSION") and isinstance(v, int)}
    return ",".join(sorted(names))


def example(kind: type[Message]) -> bytes | None:
    """Return the encoding of an example; None if the schema alone does not say what is valid."""
    try:
        data = encode(msgspec.convert(_value(inspect.type_info(kind)), kind))
        decode(data, kind, size_bytes_max=SIZE_BYTES_MAX)
    except Exception:  # noqa: BLE001 - whatever more the class demands of its values
        return None
    return data


def examples() -> Iterator[tuple[str, str, bytes]]:
    """Yield name, version and encoding of each message that has an example."""
    for name, kind in messages().items():
        if (data := example(kind)) is not None:
            yield name, version_of(kind), data


def _value(info: inspect.Type) -> Any:
    match info:
        case inspect.StructType():
            values = [_value(field.type) for field in info.fields]
            return ([info.tag] if info.tag is not None else []) + values
        case inspect.UnionType():
            return _value(info.types[0])
        case inspect.IntType():
            return 7 if (info.ge or 0) <= 7 <= (7 if info.le is None else info.le) else info.ge or 0
        case inspect.FloatType():
            return min(max(1.5, info.ge or 0.0), 1.5 if info.le is None else info.le)
        case inspect.BoolType():
            return True
        case inspect.BytesType():
            return bytes(i % 251 for i in range(info.min_length or min(5, info.max_length or 5)))
        case inspect.StrType():
            return "wasm-1"[: info.max_length] if not info.min_length or info.min_length <= 6 else "x" * info.min_length
        case inspect.VarTupleType() | inspect.ListType():
            count = max(info.min_length or 0, min(2, 2 if info.max_length is None else info.max_length))
            return [_value(info.item_type)] * count
        case inspect.TupleType():
            return [_value(item) for item in info.item_types]
        case inspect.EnumType():
            return next(iter(info.cls)).value
        case inspect.LiteralType():
            return info.values[0]
        case inspect.NoneType():
            return None
        case _:
            raise TypeError(f"no message has had a field of {info} so far: say here what to put into one")


if __name__ == "__main__":
    vectors = [{"name": name, "version": version, "bytes": data.hex()} for name, version, data in examples()]
    Path(sys.argv[1]).write_text(json.dumps(vectors, indent=1) + "\n")
    without = [name for name, kind in messages().items() if example(kind) is None]
    print(f"{len(vectors)} vectors; none of {', '.join(without) or 'nothing'}", file=sys.stderr)
