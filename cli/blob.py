"""``depin-node blob``: files into the node's store and out of it, sealed for certain peers if wanted."""

import click

from depin_node.cli.common import Settings, emit, global_options, json_option, pass_settings


@click.group()
@global_options
def blob() -> None:
    """Put files into the node's store, sealed for certain peers if wanted, and get them out."""


@blob.command()
@global_options
@json_option
@click.argument("file", type=click.Path(exists=True, dir_okay=False))
@click.option("--seal-for", "peers", multiple=True, metavar="PEER", help="Only this peer can read it; repeatable.")
@pass_settings
def put(settings: Settings, /, as_json: bool, file: str, peers: tuple[str, ...]) -> None:
    """Put FILE into the node's store and print the id of the blob.

    With --seal-for it is encrypted here, before the node sees it: the named peers can read it, and nobody else, not
    this node either unless it is named. A job that has it as input computes on the sealed bytes: nobody opens it there.

    \b
    Examples:
      depin-node blob put dem.npy
      depin-node blob put --seal-for 12D3KooWA… --seal-for 12D3KooWB… dem.npy
    """
    with settings.mesh() as mesh:
        identifier = mesh.put_file(file, seal_for=peers)
    emit({"id": identifier, "sealed_for": list(peers)}, as_json, lambda: identifier)


@blob.command()
@global_options
@json_option
@click.argument("identifier", metavar="ID")
@click.option("--output", "-o", type=click.Path(dir_okay=False), required=True, metavar="FILE", help="Where to.")
@click.option("--as-it-is", is_flag=True, help="Do not open a sealed blob.")
@pass_settings
def get(settings: Settings, /, as_json: bool, identifier: str, output: str, as_it_is: bool) -> None:
    """Write the blob ID of the node's store to a file, opened if it is sealed for this node.

    \b
    Example:
      depin-node blob get 5f…e2 --output dem.npy
    """
    with settings.mesh() as mesh:
        size_bytes = mesh.get_file(identifier, output, as_it_is=as_it_is)
    emit({"file": output, "size_bytes": size_bytes}, as_json, lambda: f"{output}: {size_bytes} bytes")
