"""``depin-node init``: a data directory with an identity, so that its peer id is known before the first start."""

import click

from depin_node.cli.common import Settings, emit, global_options, json_option, pass_settings


@click.command()
@global_options
@json_option
@pass_settings
def init(settings: Settings, /, as_json: bool) -> None:
    """Create a data directory with a new identity.

    An identity that is there already is kept. `start` does the same if need be.

    \b
    Example:
      depin-node init --data-dir ~/node-a
    """
    from depin_node.bootstrap import data_dir
    from depin_node.crypto import identity

    located = settings.located()
    data_dir.prepare(located)
    known = located.identity.exists()
    peer = identity.peer_id(identity.load_or_create(located.identity).key)
    answer = {"peer": peer, "data_dir": str(located.path), "created": not known}
    emit(answer, as_json, lambda: f"{'kept' if known else 'created'} {peer} in {located.path}")
