"""What is well with a node and what is not, line by line, and what to do about it. Used by ``depin-node doctor``.

The flow: ``cli`` gathers what there is (the configuration, the data directory, and what a running node says of itself),
``examine`` makes a ``Finding`` of each, and asks the first peers itself whether they are alive. Nothing is changed, and
nothing is believed of a peer but that it answers: a clock that peers see differently is reported, never set.
"""

import errno
import os
import shutil
import stat
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import trio

from depin_node.bootstrap import owner_files
from depin_node.bootstrap.config import NodeConfig, unknown_variables
from depin_node.bootstrap.first_peers import first_peers
from depin_node.compute.jobs.journal import look_through
from depin_node.core import clock
from depin_node.core.clock import SECOND_NS
from depin_node.core.errors import ConfigError, DepinError, PeerViolation
from depin_node.core.local import DataDir
from depin_node.core.text import counted
from depin_node.core.views import DeviceView, PeerView, StatusView, View
from depin_node.crypto import identity as identities
from depin_node.crypto import membership
from depin_node.crypto.ownership import Owners
from depin_node.p2p.addresses import Address, parse, parse_listen
from depin_node.p2p.advert import PROTOCOL_MAX, PROTOCOL_MIN
from depin_node.p2p.groups import is_loopback

PEERS_ASKED_MAX = 8
ASK_PEER_S = 5.0
SKEW_S_MAX = 10.0
"""Beyond this a clock is worth a look; from 60 s on peers refuse what the node signs."""
CERTIFICATE_DAYS_MIN = 30
"""An owner's certificate that ends sooner is worth a line."""
DISK_FREE_MIN = 0.05
"""Of the file system: with less, SQLite and the blob store may soon fail."""
DISK_FREE_BYTES_MIN = 64 << 20
"""With less the journal may soon find no room, whatever blobs may take."""


class Finding(View, frozen=True):
    """One line: what was looked at, whether it is well, what was seen, and what to do if it is not (or could be)."""

    name: str
    ok: bool
    says: str
    do: str = ""


class Report(View, frozen=True):
    """All findings. ``reachable``: whether some peer answers; None if there is none to ask. ``runs``: a node runs here,
    of which more could be seen."""

    findings: tuple[Finding, ...]
    reachable: bool | None = None
    runs: bool = True

    @property
    def exit_code(self) -> int:
        """0: all is well; 3: no peer answers; 1: something else is wrong."""
        if all(finding.ok for finding in self.findings):
            return 0
        return 3 if self.reachable is False else 1


@dataclass(frozen=True)
class Patient:
    """What is examined. ``status``, ``peers`` and ``devices`` are the running node's words; None: none runs.

    ``config`` is None if it cannot be read, and ``config_error`` says why.
    """

    data_dir: DataDir
    config: NodeConfig | None
    config_error: str = ""
    status: StatusView | None = None
    peers: Sequence[PeerView] = ()
    devices: Sequence[DeviceView] | None = None
    devices_error: str = ""
    environ: dict[str, str] = field(default_factory=dict)


def examine(patient: Patient, reasons: Mapping[str, str]) -> Report:
    """Look at everything.

    Args:
        patient: what there is.
        reasons: what ``ask_peers`` found out of those that ``peers_to_ask`` names.
    """
    found = [*_configuration(patient), *_data_dir(patient), *_process(patient)]
    reachable: bool | None = None
    if patient.config is not None:
        found += [*_listening(patient, patient.config)]
    if patient.status is not None:
        found += [*_reach(patient.status), *_lan(patient.status, patient.config)]
    if patient.config is not None:
        peers, reachable = _peers(patient, reasons)
        found += peers
    if patient.status is not None:
        found += [*_clock(patient.status), *_versions(patient)]
    found += _devices(patient)
    if patient.config is not None:
        found += [
            *_memory(patient.config),
            *_disk(patient, patient.config),
            *_admission(patient.config),
            *_owner(patient, patient.config),
        ]
    return Report(tuple(found), reachable, runs=patient.status is not None)


def _configuration(patient: Patient) -> Iterator[Finding]:
    if patient.config is None:
        yield Finding("config", False, patient.config_error, "correct the setting it names")
        return
    unknown = unknown_variables(patient.environ)
    there = str(patient.data_dir.config) if patient.data_dir.config.exists() else "no file: the defaults"
    yield Finding("config", not unknown, "; ".join(unknown) or there, "unset or correct them" if unknown else "")


def _data_dir(patient: Patient) -> Iterator[Finding]:
    path = patient.data_dir.path
    if not path.exists():
        yield Finding(
            "data", False, f"{path} is not there", "correct --data-dir; or make it: depin-node init, or start"
        )
        return
    mode, owner = stat.S_IMODE(path.stat().st_mode), path.stat().st_uid
    if owner != os.geteuid():
        yield Finding(
            "data", False, f"{path} belongs to user {owner}", "run as that user, or choose another --data-dir"
        )
    elif mode & 0o077:
        yield Finding("data", False, f"{path}: others may look into it (mode {mode:04o})", f"chmod 700 {path}")
    elif not os.access(path, os.W_OK):
        yield Finding("data", False, f"{path} cannot be written to", "make it writable")
    else:
        yield Finding("data", True, str(path))
    if patient.data_dir.identity.exists():
        try:
            key = identities.load(patient.data_dir.identity).key
            yield Finding("identity", True, identities.peer_id(key))
        except ConfigError as error:
            yield Finding("identity", False, str(error), "do what it says; without its key a node is another node")
    if patient.status is None and patient.data_dir.journal.exists() and not patient.data_dir.holder():
        try:
            look_through(patient.data_dir.journal)
            yield Finding("journal", True, f"whole, {patient.data_dir.journal.stat().st_size:,} bytes")
        except DepinError as error:
            yield Finding("journal", False, str(error), "do what it says; a node does not start with it")


def _process(patient: Patient) -> Iterator[Finding]:
    status = patient.status
    if status is None and (pid := patient.data_dir.holder()):
        yield Finding(
            "node", True, f"process {pid} is starting, or stopping", "ask again soon: then there is more to see"
        )
    elif status is None:
        yield Finding("node", True, "none is running here", "start it: then there is more to see")
    else:
        yield Finding("node", True, f"process {status.pid}, version {status.version}, network {status.network_id}")


def _listening(patient: Patient, config: NodeConfig) -> Iterator[Finding]:
    if patient.status is not None:
        addresses = patient.status.addresses
        parsed = [parse(address) for address in addresses]
        local = bool(parsed) and all(is_loopback(address) for address in parsed)
        hint = (
            "only nodes of this machine can connect: it was told so by --listen, or no other interface is up"
            if local
            else ""
        )
        if not addresses:
            hint = "see the log: the interface it listened on is gone"
        yield Finding("listens", bool(addresses), ", ".join(addresses) or "nowhere", hint)
        return
    if patient.data_dir.holder():
        return  # where it listens is in use by itself
    try:
        for listen in config.listen.split(","):
            _try_to_listen(listen)
        yield Finding("listens", True, f"{config.listen} is free")
    except OSError as error:
        moves = "it will take the next free port" if config.listen_is_default else "choose another with --listen"
        yield Finding("listens", config.listen_is_default, f"{config.listen}: {error.strerror or error}", moves)
    except ConfigError as error:
        yield Finding("listens", False, str(error), "correct listen")


def _try_to_listen(listen: str) -> None:
    import socket

    kind, host, port = parse_listen(listen)
    family = socket.AF_INET6 if kind == "ip6" else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as trying:
        trying.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            trying.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        trying.bind((host, port))


_NATS = {
    "none": "none between us and those who looked",
    "endpoint-independent": "endpoint-independent: holes can be punched",
    "address-dependent": "address-dependent: only relays help against it",
    "unknown": "not known: it takes calls to two peers of different groups",
}


def _reach(status: StatusView) -> Iterator[Finding]:
    reach = status.reach
    if reach is None:
        return
    groups = f"{counted(reach.reached, 'group')} of peers could call us, {reach.missed} could not"
    relays = f"by way of {counted(len(reach.relays), 'relay')}"
    if reach.verdict == "local":
        yield Finding("reachable", True, "from this machine only, as it listens on loopback")
    elif reach.verdict == "public":
        yield Finding("reachable", True, f"directly ({groups})")
    elif reach.verdict == "private" and reach.relays:
        yield Finding(
            "reachable",
            True,
            f"not directly ({groups}), but {relays}",
            "for speed, pass the port on at the router, or let it (UPnP)",
        )
    elif reach.verdict == "private":
        yield Finding(
            "reachable",
            False,
            f"no: {groups}, and no relay has a place",
            "pass the TCP port on at the router, open it in the firewall, or join by a first peer that relays",
        )
    else:
        so_far = f", so far {relays}" if reach.relays else ""
        yield Finding(
            "reachable",
            True,
            f"not known yet ({groups}){so_far}",
            "it takes peers of two groups: look again later, or join by first peers in two networks",
        )
    yield Finding("nat", True, _NATS.get(reach.nat, reach.nat))
    if reach.serves:
        yield Finding("relay", True, f"for {reach.places} peers, {reach.circuits} circuits open")


def _lan(status: StatusView, config: NodeConfig | None) -> Iterator[Finding]:
    lan = status.lan
    if lan is None:
        off = "off (mdns = false)" if config is not None and not config.mdns else "off: on loopback, or a first peer"
        yield Finding("mdns", True, off)
    elif lan.networks:
        says = f"on {', '.join(lan.networks)}; nodes were heard {lan.sightings} times"
        yield Finding("mdns", True, says, lan.error)
    else:
        yield Finding(
            "mdns", not lan.error, lan.error or "no local network is up", "see the error" if lan.error else ""
        )


def peers_to_ask(patient: Patient) -> list[str]:
    """Return the first peers that are to be asked whether they are alive: never the node itself."""
    try:
        named = _first_peers(patient)
    except ConfigError:
        return []  # ``examine`` tells
    own = f"/{patient.status.peer}" if patient.status else None
    return [address for address in named if own is None or not address.endswith(own)][:PEERS_ASKED_MAX]


def _first_peers(patient: Patient) -> tuple[str, ...]:
    """Return whom the running node was told to join by, or the next one would be. Raises ``ConfigError``."""
    if patient.status is not None:
        return patient.status.first_peers
    return first_peers(patient.config.first_peers, patient.data_dir.first_peers) if patient.config else ()


def _peers(patient: Patient, reasons: Mapping[str, str]) -> tuple[list[Finding], bool | None]:
    try:
        named = _first_peers(patient)
    except ConfigError as error:
        return [Finding("first peers", False, str(error), "correct it")], None
    connected = patient.status.peers_connected if patient.status else 0
    found: list[Finding] = []
    reachable: bool | None = True if connected else None
    if named:
        # A list has the node, if at all, and never the stranger as which we ask: only a connected one is surely on it.
        listing = [a for a, reason in reasons.items() if _LISTS in reason and patient.status and not connected]
        dead = [
            reason if reason.startswith(a) else f"{a}: {reason}"
            for a, reason in reasons.items()
            if reason and (_LISTS not in reason or a in listing)
        ]
        alive = len(reasons) - len(dead)
        reachable = alive + len(listing) > 0 or bool(connected)
        says = f"{alive} of {len(reasons)} answer" + "".join(f"; {reason}" for reason in dead)
        do = "check the address, and that the node there runs and listens for others" if dead else ""
        if listing and patient.status is not None:
            do = f"ask who runs it to put {patient.status.peer} on its allowed_peers"
        elif any("give both nodes" in reason for reason in dead):
            do = "compare network_id and pre_shared_key_file with the node's there"
        elif dead and all(os.strerror(errno.ENETUNREACH) in reason for reason in dead):
            do = "this machine has no way there: look at its own network (cable, wireless, VPN, default route)"
        found.append(Finding("first peers", alive > 0 or not reasons, says, do))
        allowed = patient.config.allowed_peers if patient.config else ()
        if unlisted := [a for a in named if allowed and a.rpartition("/")[2] not in allowed]:
            says = f"not on our own allowed_peers, so never connected: {', '.join(unlisted)}"
            found.append(Finding("first peers", False, says, "add them to that list on this node, or join by others"))
    else:
        found.append(
            Finding("first peers", True, "none is named", "name one with --peer, unless others join by this node")
        )
    if patient.status is not None:
        waits = bool(named) and not connected
        known = f"{connected} connected, {patient.status.peers_known} known"
        if not (named or patient.status.peers_known):
            known += ": nobody has joined by this node yet"
        do = "see first peers"
        if any(not reason for reason in reasons.values()):
            do = "they answer, so look at the node's log: another network_id or pre_shared_key_file than theirs?"
        found.append(Finding("peers", not waits, known, do if waits else ""))
    return found, reachable


_LISTS = "takes only the peers on its list"
"""In what ``hello`` says (``REASONS``)."""


def _clock(status: StatusView) -> Iterator[Finding]:
    skew_s = status.reach.skew_s if status.reach else None
    if skew_s is None:
        yield Finding("clock", True, "no peer has told its time")
    elif abs(skew_s) <= SKEW_S_MAX:
        yield Finding("clock", True, f"{abs(skew_s):.0f} s off the middle of what peers say, at most")
    else:
        where = "behind" if skew_s > 0 else "ahead of"
        yield Finding(
            "clock", False, f"{abs(skew_s):.0f} s {where} what most peers say", "set this machine's clock (NTP)"
        )


def _versions(patient: Patient) -> Iterator[Finding]:
    assert patient.status is not None
    known = Counter(peer.version or "unknown" for peer in patient.peers)
    shown = ", ".join(f"{count} × {version}" for version, count in known.most_common(5)) or "no peer is known"
    range_ = f"we speak {PROTOCOL_MIN} to {PROTOCOL_MAX}" if PROTOCOL_MIN < PROTOCOL_MAX else f"we speak {PROTOCOL_MAX}"
    apart = [p for p in patient.peers if p.protocol_min > PROTOCOL_MAX or p.protocol_max < PROTOCOL_MIN]
    newer = [p for p in patient.peers if p.protocol_max > PROTOCOL_MAX]
    if apart:
        later = any(peer.protocol_min > PROTOCOL_MAX for peer in apart)
        do = "update this node" if later else "they have to update"
        yield Finding("versions", False, f"{shown}; {len(apart)} peers speak none of our protocol ({range_})", do)
    elif newer:
        yield Finding("versions", True, f"{shown}; {len(newer)} peers also speak a later protocol ({range_})", "update")
    else:
        yield Finding("versions", True, f"{shown} ({range_})")


def _devices(patient: Patient) -> Iterator[Finding]:
    if patient.devices is None:
        if patient.devices_error:
            yield Finding("devices", False, patient.devices_error, "nothing can be lent until this is mended")
        return
    usable = [device for device in patient.devices if not device.unusable]
    for device in patient.devices:
        if device.unusable:
            yield Finding(
                "devices",
                False,
                f"{device.name} {device.model or device.device_class}: {device.unusable}".lstrip(),
                "see docs/lending-gpus.md",
            )
    shown = ", ".join(f"{device.device_class} ({device.model})" for device in usable)
    yield Finding("devices", bool(usable), shown or "none can run tasks", "" if usable else "see depin-node devices")
    for device in usable:
        missing, of = device.layers_missing, f"{device.name}: " if len(usable) > 1 else ""
        yield Finding(
            "sandbox",
            not missing,
            of + ("; ".join(missing) or f"{len(device.layers)} layers hold"),
            "a worker without a layer runs all the same; THREATS.md says what that costs" if missing else "",
        )


def _memory(config: NodeConfig) -> Iterator[Finding]:
    if not config.lend:
        return
    slots, has = config.slots_of_processor(), os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    lent = slots * config.memory_mib
    says = f"{slots} slots may take {lent / 1024:.1f} GiB; this machine has {has / 2**30:.1f}"
    fits = lent << 20 <= has
    yield Finding("memory", fits, says, "" if fits else "lend fewer --slots, or less --memory-mib with each")


def _disk(patient: Patient, config: NodeConfig) -> Iterator[Finding]:
    path = _existing(patient.data_dir.path)
    usage = shutil.disk_usage(path)
    used = patient.status.blobs_bytes if patient.status else 0
    wanted = max(0, (config.disk_mib << 20) - used)
    free = f"{usage.free / 1e9:.1f} GB" if usage.free >= 1e9 else f"{usage.free / 1e6:.0f} MB"
    says = f"{free} free; blobs may still take {wanted / 1e9:.1f} GB"
    if usage.free < max(DISK_FREE_BYTES_MIN, min(DISK_FREE_MIN * usage.total, wanted)):
        yield Finding("disk", False, says, "make room, or choose a smaller --disk-mib")
    elif usage.free < wanted:
        yield Finding("disk", True, says, "blobs will not get all they may: a smaller --disk-mib would be honest")
    else:
        yield Finding("disk", True, says)


def _existing(path: Path) -> Path:
    while not path.exists() and path != path.parent:
        path = path.parent
    return path


def _admission(config: NodeConfig) -> Iterator[Finding]:
    """Who may join: everybody who knows the network id, unless a key or a list says otherwise."""
    name = f"network {config.network_id}: "
    listed = f"only the {counted(len(config.allowed_peers), 'peer')} on our list" if config.allowed_peers else ""
    if config.pre_shared_key_file:
        try:
            membership.load(config.pre_shared_key_file)
        except ConfigError as error:
            yield Finding("admission", False, str(error), "do what it says, or copy the key anew from another node")
            return
    key = "who holds the pre-shared key" if config.pre_shared_key_file else ""
    yield Finding(
        "admission", True, name + (" and ".join(filter(None, (key, listed))) or "open to all who know its name")
    )


def _owner(patient: Patient, config: NodeConfig) -> Iterator[Finding]:
    """Whether the certificate of our owner, if there is one, holds: other nodes look at that, and say nothing."""
    data_dir, now = patient.data_dir, clock.now()
    try:
        if not (certificate := owner_files.read_certificate(data_dir.owner_certificate)):
            return
        owners = Owners(config.network_id, identities.load(data_dir.identity).key, certificate)
        if revoked := owner_files.read_revocations(data_dir.owner_revoked):
            owners.take(revoked, now)
    except (ConfigError, PeerViolation) as error:
        yield Finding("owner", False, str(error), "copy the file anew from the machine that has the owner's key")
        return
    assert owners.own is not None
    days = (owners.expires_s - now.wall_ns // SECOND_NS) // 86_400
    renew = "depin-node owner certify, where the owner's key is; then start this node again"
    says = f"{identities.peer_id(owners.own)}; the certificate holds for {days} days more"
    if owners.shown(now):
        yield Finding("owner", True, says, renew if days < CERTIFICATE_DAYS_MIN else "")
    else:
        why = "has expired" if days < 0 else "was revoked"
        says = f"the certificate {why}: to the owner's other nodes, this one is a stranger"
        yield Finding("owner", False, says, f"if that was not meant: {renew}")


async def ask_peers(addresses: Sequence[str], config: NodeConfig) -> dict[str, str]:
    """Dial each address as a stranger of the same network would; return why each failed, empty if it did not."""
    from depin_node.p2p.libp2p.host import open_libp2p  # 0.4 s that most of the time nobody needs
    from depin_node.p2p.network import NetworkLimits
    from depin_node.p2p.reach.relay import connect_through

    seed = os.urandom(32)
    limits = NetworkLimits(dial_timeout_s=ASK_PEER_S, open_timeout_s=ASK_PEER_S)
    reasons: dict[str, str] = {}

    key = membership.load(config.pre_shared_key_file) if config.pre_shared_key_file else None
    async with (
        open_libp2p(seed, network_id=config.network_id, limits=limits, pre_shared_key=key) as network,
        trio.open_nursery() as nursery,
    ):

        async def ask(text: str) -> None:
            target: Address = parse(text)
            direct = Address(target.kind, target.host, target.port, target.relay or target.peer)
            try:
                await network.dial(str(direct))
                if target.relay:
                    await connect_through(network, target, timeout_s=ASK_PEER_S)
                reasons[text] = ""
            except DepinError as error:
                reasons[text] = str(error)

        for address in addresses[:PEERS_ASKED_MAX]:
            nursery.start_soon(ask, address)
    return reasons
