"""``depin-node owner``: one key that certifies many nodes, so that they are one group to others and fellows to
each other.
"""

import os
from pathlib import Path
from typing import TYPE_CHECKING

import click

from depin_node.cli.common import Settings, emit, global_options, json_option, pass_settings

if TYPE_CHECKING:
    from depin_node.crypto.identity import Identity

_KEY = click.option(
    "--owner-key", type=click.Path(dir_okay=False), metavar="FILE", help="Default: owner.key in --data-dir."
)
_NETWORK = click.option("--network-id", metavar="NAME", help="The mesh the nodes are in.  [default: as configured]")


@click.group()
@global_options
def owner() -> None:
    """Make many nodes one owner's, and take it back.

    An owner's key signs a certificate for each of its nodes. Peers then count them as one group, and they know each
    other as fellows. Keep the key on one machine; nodes need only their certificate.

    \b
    Example:
      depin-node owner create
      depin-node owner certify 12D3KooW… --out owner.cert     (copy it into that node's data directory)
      depin-node owner revoke 12D3KooW…
    """


@owner.command()
@global_options
@json_option
@_KEY
@pass_settings
def create(settings: Settings, /, as_json: bool, owner_key: str | None) -> None:
    """Make a new owner key.

    \b
    Example:
      depin-node owner create --owner-key ~/owner.key
    """
    from depin_node.core.errors import ConfigError
    from depin_node.crypto import identity

    path = _key_path(settings, owner_key)
    try:
        made = identity.create(path)
    except FileExistsError:
        raise ConfigError(f"{path}: an owner key is here already; it is kept") from None
    answer = {"owner": identity.peer_id(made.key), "file": str(path)}
    emit(answer, as_json, lambda: f"owner {answer['owner']} in {path}: keep this file off your nodes, and back it up")


@owner.command()
@global_options
@json_option
@_KEY
@_NETWORK
@click.option("--days", type=int, default=365, show_default=True, help="How long it holds; at most 400.")
@click.option("--out", type=click.Path(dir_okay=False), metavar="FILE", help="Where to write it.  [default: stdout]")
@click.argument("peer_id")
@pass_settings
def certify(
    settings: Settings,
    /,
    as_json: bool,
    owner_key: str | None,
    network_id: str | None,
    days: int,
    out: str | None,
    peer_id: str,
) -> None:
    """Sign a certificate for the node PEER_ID (`depin-node init` shows it).

    Put it into that node's data directory as `owner.cert`; the node shows it from its next start.

    \b
    Example:
      depin-node owner certify 12D3KooW… --out owner.cert
    """
    from depin_node.bootstrap import owner_files
    from depin_node.core.clock import now
    from depin_node.crypto import ownership
    from depin_node.crypto.identity import key_of

    network = _network(settings, network_id)
    data = ownership.certify(_key(settings, owner_key), network, key_of(peer_id), now=now(), days=days)
    if out:
        owner_files.write(Path(out), data)
    answer = {"peer": peer_id, "network": network, "days": days, "certificate": data.hex(), "file": out}
    emit(answer, as_json, lambda: f"wrote {out}: copy it to that node as owner.cert" if out else data.hex())


@owner.command()
@global_options
@json_option
@_KEY
@_NETWORK
@click.option("--list", "listed", type=click.Path(dir_okay=False), metavar="FILE", help="Default: owner.revoked there.")
@click.argument("peer_ids", nargs=-1, required=True, metavar="PEER_ID…")
@pass_settings
def revoke(
    settings: Settings,
    /,
    as_json: bool,
    owner_key: str | None,
    network_id: str | None,
    listed: str | None,
    peer_ids: tuple[str, ...],
) -> None:
    """Take back all certificates that the nodes PEER_ID… have from this owner.

    The list of all that is revoked is kept in FILE. Put it into the data directory of any running node of yours as
    `owner.revoked`: from it the others have the list within a minute or two. A node can be certified again later.

    \b
    Example:
      depin-node owner revoke 12D3KooW…
    """
    from depin_node.bootstrap import owner_files
    from depin_node.core.clock import now
    from depin_node.crypto import ownership
    from depin_node.crypto.identity import key_of

    path = Path(listed) if listed else settings.located().owner_revoked
    before = owner_files.read_revocations(path) or None
    nodes = [key_of(peer) for peer in peer_ids]
    owned_by = _key(settings, owner_key)
    data = ownership.revoke(owned_by, _network(settings, network_id), nodes, before, now=now())
    owner_files.write(path, data)
    answer = {"revoked": list(peer_ids), "file": str(path)}
    emit(answer, as_json, lambda: f"wrote {path}: copy it to a running node of yours as owner.revoked")


def _key_path(settings: Settings, owner_key: str | None) -> Path:
    return Path(owner_key) if owner_key else settings.located().owner_key


def _key(settings: Settings, owner_key: str | None) -> "Identity":
    from depin_node.bootstrap.owner_files import load_key

    return load_key(_key_path(settings, owner_key))


def _network(settings: Settings, network_id: str | None) -> str:
    from depin_node.bootstrap.config import load

    config = load(settings.located().config, flags={"network_id": network_id}, environ=os.environ)
    return config.network_id
