"""The configuration of a node: a flag wins over the environment, that over ``config.toml``, that over the default.

Every setting is one field below, with one name everywhere: ``disk_mib`` is ``--disk-mib``, ``DEPIN_DISK_MIB`` and
``disk_mib = …``; those of ``Waits`` and ``Limits`` live in ``[waits]`` and ``[limits]`` and
have no flags or variables. A value that does not fit
names its source and its key; a key that nobody knows is refused, since a misspelt setting is worse than none.
"""

import os
import socket
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import msgspec

from depin_node.core.errors import ConfigError
from depin_node.core.text import did_you_mean, printable

PREFIX = "DEPIN_"
DEFAULT_LISTEN, DEFAULT_LISTEN_IPV6 = "/ip4/0.0.0.0/tcp/4701", "/ip6/::/tcp/4701"
"""Every interface: a mesh is made of machines. ``listen`` on 127.0.0.1 keeps a node to its own. IPv6 where there is a
way to the internet by it (``default_listen``): no NAT is in between then, and peers without IPv4 can call."""
OTHER_VARIABLES = frozenset({"DEPIN_DATA_DIR", "DEPIN_CACHE_DIR", "DEPIN_CONFIG"})
"""Variables that are read elsewhere: where the node lives, where compiled kernels are cached, which file to read."""
CONFIG_BYTES_MAX = 1 << 20
_IPV6_ELSEWHERE = "2001:db8::1"  # of the block for documentation (RFC 3849)

_Seconds = Annotated[float, msgspec.Meta(gt=0, le=86_400)]
_Count = Annotated[int, msgspec.Meta(ge=1, le=1_000_000)]
_Mib = Annotated[int, msgspec.Meta(ge=1, le=1 << 30)]
_Device = Annotated[str, msgspec.Meta(pattern=r"^(cpu|gpu|(GPU|MIG)-[\w/-]{1,90}|[\w.]+:\w+)$")]
_NetworkId = Annotated[str, msgspec.Meta(pattern=r"^[a-z0-9][a-z0-9-]{0,31}$")]


class Waits(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How long the node waits, in seconds. The defaults suit a LAN and a good WAN; a link with a round trip of ``r``
    seconds wants ``dial`` and ``open`` of at least ``10 r`` (TCP, Noise and yamux take up to seven round trips).
    """

    dial: _Seconds = 10.0
    """For a connection to a peer, handshakes included."""
    open: _Seconds = 10.0
    """For a stream to a connected peer."""
    stall: _Seconds = 10.0
    """For a peer to take the next byte we send."""
    dead: _Seconds = 7.5
    """For an answer to a ping, before a silent peer counts as dead: design.md asks for under 10 s, checks included."""
    suitable: _Seconds = 60.0
    """For a suitable provider to turn up, before a job fails with the reasons given."""
    shutdown: _Seconds = 10.0
    """For an orderly end; what still runs then is cut off."""


class Limits(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What peers may take of this node: see ``p2p.network.NetworkLimits`` and ``p2p.admission``. A *group* is all
    addresses of one IPv4 /16 or IPv6 /32; peers on this machine and trusted ones are exempt from what counts by group
    and by second."""

    connections: _Count = 128
    """Connections, all together; an eighth is kept for those that this node dials."""
    connections_per_group: _Count = 32
    handshakes: _Count = 64
    """Handshakes under way; one above it puts out the oldest."""
    handshakes_per_group: _Count = 16
    arrivals_per_second: _Seconds = 8.0
    """New connections of one group."""
    streams: _Count = 2048
    streams_per_group: _Count = 256
    streams_per_peer: _Count = 64
    streams_per_second: _Seconds = 200.0
    """New streams of one peer."""
    requests_per_second: _Seconds = 64.0
    """Requests of one peer, of each protocol; more have to wait."""
    buffered_mib: _Mib = 256
    """What peers have sent and nobody has read yet, all together."""
    buffered_per_group_mib: _Mib = 96
    kept_out_seconds: _Seconds = 60.0
    """For how long a peer that broke the rules is kept out; each time twice as long."""
    exempt_loopback: bool = True
    """Whether peers on this machine are exempt."""


class NodeConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """All settings of one node."""

    network_id: _NetworkId = "depin"
    """Which mesh: nodes of different ids do not understand each other."""
    listen: str = DEFAULT_LISTEN
    """Where peers connect: a multiaddr ``/ip4/HOST/tcp/PORT``, or several with commas between, as for IPv4 and IPv6;
    port 0 takes a free one."""
    data_listen: str = ""
    """Where data channels connect, ``/ip4/HOST/tcp/PORT``, or one of each family with a comma between, at one port;
    empty: at the first host of each family in ``listen``, on a free port; ``off``: bulk goes by streams of the mesh."""
    listen_is_default: bool = False
    """Whether nobody named ``listen``, so that another port may be taken if it is busy; ``load`` sets it."""
    first_peers: tuple[str, ...] = ()
    """Addresses of peers to join by, ``/ip4/HOST/tcp/PORT/p2p/ID``; also one a line in ``peers.txt``."""
    trusted_peers: tuple[str, ...] = ()
    """Peer ids that each count as a group of their own, by your word, although their addresses say one owner: a LAN."""
    pre_shared_key_file: str = ""
    """File of the key of a private mesh, mode 0600; nodes with another key, or none, are refused."""
    allowed_peers: Annotated[tuple[str, ...], msgspec.Meta(min_length=1)] = ()
    """Peer ids; if there are any, nobody else may connect. A list that has become empty is refused: it would let
    everybody in."""
    bootstrap_only: bool = False
    """Whether to be a first peer and nothing else: no jobs, nothing lent, but circuits and calls back for others."""
    relay: bool = True
    """Whether to pass on circuits for peers that cannot be called, once this node is found to be callable itself."""
    relay_bulk: bool = False
    """Whether those circuits may carry blobs too, without a limit of bytes."""
    upnp: bool = True
    """Whether to ask the gateway for a port, when listening at a private address and not on loopback."""
    mdns: bool = True
    """Whether to find nodes of the local networks, and be found there, by multicast DNS. Never on loopback, nor by a
    first peer (``bootstrap_only``)."""
    lend: bool = False
    """Whether to run other people's tasks."""
    slots: Annotated[int, msgspec.Meta(ge=0, le=1024)] = 0
    """Tasks at once on the processor; 0 means one for each core but one, at least one. A GPU runs one at a time."""
    memory_mib: Annotated[int, msgspec.Meta(ge=64, le=1 << 20)] = 1024
    """Memory one lent slot of the processor may use, in MiB: in less than 64 hardly a kernel fits. A GPU is lent with
    all it has but what a context takes."""
    work_max: Annotated[int, msgspec.Meta(ge=1, le=2**62)] = 10**15
    """Threads of all launches and floating-point operations, together, that one lent task may have at most."""
    task_seconds: Annotated[int, msgspec.Meta(ge=1, le=86_400)] = 3600
    """How long one lent task may take at most, in seconds: jobs whose ``[limits] seconds`` are more are declined."""
    price_millicredits: Annotated[int, msgspec.Meta(ge=0, le=2**31)] = 0
    """What a reference-second (docs/credit.md) of the lent slots costs, in thousandths of a credit."""
    unpaid_share: Annotated[float, msgspec.Meta(ge=0, le=1)] = 0.2
    """The part of the lent slots' time that peers beyond their credit, strangers above all, get together; 1: all."""
    price_max_millicredits: Annotated[int, msgspec.Meta(ge=0, le=2**31)] = 0
    """The most that this node's own jobs may cost, for a reference-second."""
    audits_here: bool = True
    """Whether this node audits its own jobs on its processor; if not, peers do, where their bits can be compared."""
    disk_mib: _Mib = 10_240
    """What the blob store may use, in MiB."""
    control_port: Annotated[int, msgspec.Meta(ge=0, le=65_535)] = 0
    """Port of the control API on 127.0.0.1; 0 takes a free one."""
    log_level: Annotated[str, msgspec.Meta(pattern="^(debug|info|warning|error)$")] = "info"
    """How much is logged: debug, info, warning or error."""
    devices: tuple[_Device, ...] = ()
    """What is lent: ``cpu``; ``gpu``, which is every GPU; one GPU or MIG instance by its UUID. Without any: the
    processor, and each GPU that gives the known answers. ``module:Class``, run as the processor is, is for tests and
    experiments."""
    device_path: str = ""
    """A folder that the workers add to Python's module search path, for a class in ``devices`` outside the package."""
    waits: Waits = msgspec.field(default_factory=Waits)
    """Time-outs."""
    limits: Limits = msgspec.field(default_factory=Limits)
    """What peers may take of this node."""

    def slots_of_processor(self) -> int:
        """Return how many tasks the processor runs at once, when it is lent."""
        return self.slots or max(1, (os.cpu_count() or 1) - 1)


FIELDS = {field.name: field for field in msgspec.structs.fields(NodeConfig) if field.name != "listen_is_default"}
_TABLES: dict[str, type[msgspec.Struct]] = {"waits": Waits, "limits": Limits}
_FLAGS = {"first_peers": "peer", "devices": "device"}
"""Flags that are repeated have the name of one."""
_HINTS = {
    "allowed_peers": "a list of at least one peer id; to let everybody in, leave the setting out",
    "devices": "each is cpu, gpu, the UUID of a GPU or MIG instance as depin-node devices shows it, or module:Class",
}
_SCALARS = frozenset(FIELDS) - frozenset(_TABLES)


def load(
    file: Path, *, flags: Mapping[str, Any], environ: Mapping[str, str], file_must_exist: bool = False
) -> NodeConfig:
    """Put the configuration together.

    Args:
        file: the TOML file; without it the defaults hold, unless ``file_must_exist``.
        flags: settings from the command line; ``None`` means not given.
        environ: the environment.
        file_must_exist: whether the user named the file.

    Raises:
        ConfigError: names the file, variable or flag, the key, and what is wrong with it.
    """
    values: dict[str, Any] = {}
    for key, value in _read(file, file_must_exist).items():
        if key not in FIELDS:
            raise ConfigError(f"{file}: unknown key '{printable(key)}'{did_you_mean(key, FIELDS)}")
        values[key] = _convert(value, key, f"{file}: {key}", strict=True)
    for key in _SCALARS:
        text = environ.get(variable(key))
        if text is not None:
            several = isinstance(FIELDS[key].default, tuple)
            raw = [part.strip() for part in text.split(",") if part.strip()] if several else text
            values[key] = _convert(raw, key, variable(key), strict=False)
    for key, value in flags.items():
        if value is not None:
            values[key] = _convert(value, key, f"--{_FLAGS.get(key, key).replace('_', '-')}", strict=True)
    listen_is_default = "listen" not in values
    return NodeConfig(**{"listen": default_listen(), **values}, listen_is_default=listen_is_default)


def default_listen() -> str:
    """Return where a node listens if nobody says."""
    try:
        with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as probe:
            probe.connect((_IPV6_ELSEWHERE, 9))  # sends nothing: fails where there is no way there
    except OSError:
        return DEFAULT_LISTEN
    return f"{DEFAULT_LISTEN},{DEFAULT_LISTEN_IPV6}"


def variable(key: str) -> str:
    """Return the environment variable of a setting."""
    return PREFIX + key.upper()


def unknown_variables(environ: Mapping[str, str]) -> list[str]:
    """Return a warning for each ``DEPIN_…`` variable that nobody reads.

    They are not refused, as keys in a file are: orchestrators make up variables from the names of services.
    """
    known = {variable(key) for key in _SCALARS} | OTHER_VARIABLES
    strangers = sorted(name for name in environ if name.startswith(PREFIX) and name not in known)
    return [f"{printable(name)} means nothing to depin-node{did_you_mean(name, known)}" for name in strangers]


def _read(file: Path, must_exist: bool) -> dict[str, Any]:
    try:
        with file.open("rb") as opened:
            text = opened.read(CONFIG_BYTES_MAX + 1)
    except FileNotFoundError:
        if must_exist:
            raise ConfigError(f"{file}: no such configuration file") from None
        return {}
    except OSError as error:
        raise ConfigError(f"{file}: the configuration cannot be read: {error.strerror}") from error
    if len(text) > CONFIG_BYTES_MAX:
        raise ConfigError(f"{file}: a configuration has at most {CONFIG_BYTES_MAX} bytes")
    try:
        return tomllib.loads(text.decode())
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{file}: not TOML: {error}") from error


def _convert(value: Any, key: str, source: str, *, strict: bool) -> Any:
    if key in _TABLES and isinstance(value, dict):
        names = _TABLES[key].__struct_fields__
        for name in value:
            if name not in names:
                known = did_you_mean(name, names)
                raise ConfigError(f"{source}: unknown key '{printable(name)}'{known}")
    try:
        return msgspec.convert(value, FIELDS[key].type, strict=strict)
    except msgspec.ValidationError as error:
        hint = _HINTS.get(key, "")
        given = ", ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)
        raise ConfigError(f"{source}: {hint or error}; it is '{printable(given, length_max=80)}'") from error
