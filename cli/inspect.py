"""Commands that show what the running node knows: ``status``, ``peers``, ``devices``."""

import time
from collections.abc import Iterable
from typing import TYPE_CHECKING

import click

from depin_node.cli.common import Settings, ago, emit, global_options, json_option, note, pass_settings, table

if TYPE_CHECKING:
    from depin_node.core.views import DeviceView, PeerView, ReachView, StatusView


@click.command()
@global_options
@json_option
@pass_settings
def status(settings: Settings, /, as_json: bool) -> None:
    """Show how the running node is.

    \b
    Example:
      depin-node status --json
    """
    with settings.mesh() as mesh:
        view = mesh.status()
    emit(view, as_json, lambda: _status_text(view))


@click.command()
@global_options
@json_option
@pass_settings
def peers(settings: Settings, /, as_json: bool) -> None:
    """List the peers the node knows, connected ones first.

    Those that are "relayed" are connected by way of a relay only: slow, and of no group of their own.

    \b
    Example:
      depin-node peers
    """
    with settings.mesh() as mesh:
        views = mesh.peers()
    emit(views, as_json, lambda: _peers_text(views))


@click.command()
@global_options
@json_option
@pass_settings
def devices(settings: Settings, /, as_json: bool) -> None:
    """List what this machine can run tasks on: what the node lends, or what it could lend.

    Speeds are measured, once for each device, driver and version: of float32 and float64 arithmetic and of memory.

    \b
    Example:
      depin-node devices
    """
    from depin_node.core.local import NotRunningError

    views: list[DeviceView] = []
    try:
        with settings.mesh() as mesh:
            views = mesh.devices()
    except NotRunningError:
        note("no node is running")
    is_lent = bool(views)
    if not is_lent:
        from depin_node.client.local import local_devices

        views = local_devices(settings.located().speeds if settings.located().path.is_dir() else None)
        note("nothing is lent: start the node with --lend")
    emit(views, as_json, lambda: _devices_text(views, is_lent=is_lent))


def _status_text(view: "StatusView") -> str:
    lent = f"lending {view.slots} slots, {view.tasks_lent} tasks run" if view.lending else "not lending"
    jobs = ", ".join(f"{count} {state}" for state, count in sorted(view.jobs.items())) or "none"
    rows = [
        ("node", view.peer),
        ("network", view.network_id),
        ("version", view.version),
        ("up", f"{ago(time.time() - view.started_s)} (process {view.pid})"),
        ("data", view.data_dir),
        *(("address", address) for address in view.addresses),
        *(("reached", _reach_words(reach)) for reach in [view.reach] if reach),
        ("peers", f"{view.peers_connected} connected, {view.peers_known} known"),
        ("lending", lent),
        ("jobs", jobs),
        ("blobs", f"{view.blobs_bytes / 1e6:.1f} MB"),
        *((name, count) for name, count in sorted(view.counters.items()) if count),
    ]
    return table(("", ""), rows).lstrip("\n")


def _reach_words(reach: "ReachView") -> str:
    from depin_node.core.text import counted

    words = {
        "local": "only from this machine",
        "public": "from outside",
        "private": "not from outside",
        "unknown": "not known yet",
    }
    by = f", by way of {counted(len(reach.relays), 'relay')}" if reach.relays else ""
    serves = (
        f"; relay for {counted(reach.places, 'peer')}, {counted(reach.circuits, 'circuit')}" if reach.serves else ""
    )
    return f"{words.get(reach.verdict, reach.verdict)}{by} (NAT: {reach.nat}){serves}"


def _device_words(devices: "Iterable[DeviceView]") -> str:
    return ", ".join(
        f"{d.device_class} x{d.slots} ({d.slots_free} free, {d.memory_mib} MiB{_speed_words(d, ', ')})" for d in devices
    )


def _speed_words(device: "DeviceView", before: str = "") -> str:
    if not device.mflops_f32:
        return ""
    flops = f"{device.mflops_f32 / 1e3:.3g} GFLOP/s ({device.mflops_f64 / 1e3:.3g} in float64)"
    return f"{before}{flops}, {device.mbytes_s / 1e3:.3g} GB/s"


def _state_word(view: "PeerView") -> str:
    if view.banned or not view.connected:
        return "banned" if view.banned else "known"
    return "relayed" if view.relayed else "connected"


def _peers_text(views: "list[PeerView]") -> str:
    if not views:
        return "no peers known yet"
    rows = [
        (
            view.peer,
            _state_word(view),
            _device_words(view.devices) if view.lending else "not lending",
            "" if view.availability is None else f"{view.verified} right, there {view.availability:.0%}",
            view.address,
        )
        for view in views
    ]
    return table(("PEER", "STATE", "LENDS", "RECORD", "ADDRESS"), rows)


def _devices_text(views: "list[DeviceView]", *, is_lent: bool) -> str:
    if not views:
        return "no device can run tasks here"
    rows = [
        (
            v.name,
            v.device_class,
            v.model,
            f"{v.memory_mib} MiB",
            v.slots,
            v.slots_free if is_lent else "not lent",
            v.unusable or _speed_words(v),
        )
        for v in views
    ]
    text = table(("DEVICE", "CLASS", "MODEL", "MEMORY", "SLOTS", "FREE", "ONE SLOT"), rows)
    held: dict[tuple[tuple[str, ...], tuple[str, ...]], list[str]] = {}
    for view in views:
        held.setdefault((view.layers, view.layers_missing), []).append(view.name)
    for (layers, missing), names in held.items():
        words = [("held by", layer) for layer in layers] + [("NOT held by", layer) for layer in missing]
        if words:
            text += "\n\n" + ", ".join(names) + table(("", ""), words)
    return text
