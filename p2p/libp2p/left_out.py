"""Parts of libp2p that no node here uses, and that cost half of what importing it does: they are not imported.

Fault: ``import libp2p`` imports all of it, QUIC, WebSocket, TLS certificates, Kademlia, relays and mDNS of its own, and
with them an HTTP client, a DNS resolver and a terminal library: 1,400 modules, 96 MiB resident. Mend: for the names in
``LEFT_OUT`` an import gives a module of placeholders. A placeholder can be named, inherited from, compared with and
made, and raises as soon as it is asked for anything. Until: libp2p imports its optional parts where they are used
(> 0.8.1).

Imported before libp2p is, by this package's ``__init__``; what was imported before stays whole.
"""

import importlib.abc
import sys
from collections.abc import Sequence
from importlib.machinery import ModuleSpec
from types import ModuleType

LEFT_OUT = (
    "libp2p.bitswap",
    "libp2p.discovery",
    "libp2p.filecoin",
    "libp2p.kad_dht",
    "libp2p.metrics",
    "libp2p.rcmgr.prometheus_exporter",
    "libp2p.relay",
    "libp2p.security.secio",
    "libp2p.security.tls",
    "libp2p.transport.quic",
    "libp2p.transport.websocket",
    "multiaddr.resolvers",
)


class _Placeholder(Exception):  # an exception only so that ``except`` may name it
    def __init__(self, *arguments: object, **named: object) -> None:
        pass  # the swarm makes a DNS resolver, whether it needs one or not

    def __getattr__(self, name: str) -> object:
        raise RuntimeError(f"{type(self).__module__}.{type(self).__name__} is left out: see p2p/libp2p/left_out.py")


class _Module(ModuleType):
    def __getattr__(self, name: str) -> object:
        if name.startswith("__"):
            raise AttributeError(name)
        placeholder = type(name, (_Placeholder,), {"__module__": self.__name__})
        setattr(self, name, placeholder)
        return placeholder


class _Finder(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if any(fullname == name or fullname.startswith(f"{name}.") for name in LEFT_OUT):
            return ModuleSpec(fullname, self, is_package=True)
        return None

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        return _Module(spec.name)

    def exec_module(self, module: ModuleType) -> None:
        pass


def leave_out() -> None:
    """Import none of ``LEFT_OUT`` from now on."""
    sys.meta_path.insert(0, _Finder())
