"""``depin-node demo``: five nodes on this machine, a real kernel, a liar, a kill."""

import runpy
import sys
from pathlib import Path

import click

from depin_node.core.errors import ConfigError

_DEMO = Path(__file__).resolve().parent.parent / "examples" / "hillshade" / "demo.py"


@click.command(context_settings={"ignore_unknown_options": True, "help_option_names": []})
@click.argument("args", nargs=-1, type=click.UNPROCESSED)
def demo(args: tuple[str, ...]) -> None:
    """Run the demo, which takes its own options and has its own help."""
    if not _DEMO.is_file():
        raise ConfigError(
            "the demo is in the repository, not in the installed package: clone it and run make demo there"
        )
    sys.argv = [str(_DEMO), *args]
    runpy.run_path(str(_DEMO), run_name="__main__")
