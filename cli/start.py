"""``depin-node start``: run a node in this process until Ctrl-C or SIGTERM."""

import os
from pathlib import Path

import click

from depin_node.cli.common import Settings, global_options, json_option, pass_settings


@click.command()
@global_options
@json_option
@click.option("--config", type=click.Path(dir_okay=False), metavar="FILE", help="Default: config.toml in --data-dir.")
@click.option("--network-id", metavar="NAME", help="Which mesh to join.  [default: depin]")
@click.option("--listen", metavar="ADDRESS", help="Where peers connect.  [default: every interface, port 4701]")
@click.option("--peer", "first_peers", multiple=True, metavar="ADDRESS", help="A peer to join by; repeatable.")
@click.option("--bootstrap-only", is_flag=True, default=None, help="Be a first peer only: no jobs, nothing lent.")
@click.option("--lend/--no-lend", default=None, help="Run other people's tasks.  [default: no]")
@click.option(
    "--slots", type=click.IntRange(min=1), metavar="N", help="Tasks at once when lending.  [default: cores - 1]"
)
@click.option("--memory-mib", type=int, metavar="MIB", help="Memory of one lent slot.  [default: 1024]")
@click.option(
    "--device",
    "devices",
    multiple=True,
    metavar="NAME",
    help="Lend this: cpu, gpu (all), or a GPU's UUID; repeatable.  [default: all that work]",
)
@click.option("--data-listen", metavar="ADDRESS", help="Where data channels connect.  [default: the hosts of --listen]")
@click.option("--disk-mib", type=int, metavar="MIB", help="Disk for blobs.  [default: 10240]")
@click.option("--control-port", type=int, metavar="PORT", help="Port of the control API.  [default: a free one]")
@click.option("--log-level", type=click.Choice(["debug", "info", "warning", "error"]), help="[default: info]")
@pass_settings
def start(
    settings: Settings,
    /,
    as_json: bool,
    config: str | None,
    first_peers: tuple[str, ...],
    devices: tuple[str, ...],
    **flags: object,
) -> int:
    """Run a node: join the mesh, and lend with --lend.

    Every option can also be set in config.toml (memory_mib = 2048) or the environment (DEPIN_MEMORY_MIB). The line
    printed on stdout when the node is up has the address that others join by. It listens on every interface, unless
    --listen names one (127.0.0.1: only nodes of this machine).

    \b
    Examples:
      depin-node start
      depin-node start --listen /ip4/127.0.0.1/tcp/4701
      depin-node start --listen /ip4/0.0.0.0/tcp/4701
      depin-node start --lend --device cpu --device GPU-5a2f…
      depin-node start --lend --peer /ip4/192.0.2.1/tcp/4701/p2p/12D3KooW…
    """
    from depin_node.bootstrap.config import load

    data_dir = settings.located()
    named = config or os.environ.get("DEPIN_CONFIG")
    node_config = load(
        Path(named) if named else data_dir.config,
        flags={**flags, "first_peers": first_peers or None, "devices": devices or None},
        environ=os.environ,
        file_must_exist=bool(named),
    )
    from depin_node.bootstrap.process import run_node  # after the settings: it takes a second

    return run_node(node_config, data_dir, as_json=as_json)
