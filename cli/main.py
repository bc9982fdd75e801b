"""The entry point: a table of commands, each imported when it is called, so that ``depin-node --help`` is instant.

Errors end here: what the user can act on is one message on stderr and an exit code (``--debug`` shows the traceback).

    0  done
    1  failed
    2  usage: a wrong option, file, setting or kernel
    3  nobody reachable: no node runs here, or no peer can run the job
    4  verification failed: the providers' answers did not agree
    130  stopped by Ctrl-C
"""

import importlib
import sys

import click

from depin_node.cli.common import Settings, global_options

COMMANDS = {
    "init": ("depin_node.cli.init:init", "Create a data directory with a new identity."),
    "start": ("depin_node.cli.start:start", "Run a node: join the mesh, and lend with --lend."),
    "status": ("depin_node.cli.inspect:status", "Show how the running node is."),
    "doctor": ("depin_node.cli.doctor:doctor", "Say what is well with the node, what is not, and what to do."),
    "peers": ("depin_node.cli.inspect:peers", "List the peers the node knows."),
    "devices": ("depin_node.cli.inspect:devices", "List what this machine can run tasks on."),
    "submit": ("depin_node.cli.submit:submit", "Compile and submit a job, and fetch its verified result."),
    "job": ("depin_node.cli.job:job", "List, show and cancel jobs, and fetch their results."),
    "blob": ("depin_node.cli.blob:blob", "Put files into the node's store, sealed if wanted, and get them out."),
    "owner": ("depin_node.cli.owner:owner", "Make many nodes one owner's, and take it back."),
    "receipts": ("depin_node.cli.receipts:receipts", "List, export and check signed receipts."),
    "credit": ("depin_node.cli.receipts:credit", "Show what this node and its partners have done for each other."),
    "evidence": ("depin_node.cli.evidence:evidence", "List, export and check proof that a node has lied."),
    "demo": ("depin_node.cli.demo:demo", "Run five nodes here: a real job, a liar, a kill."),
}


class LazyGroup(click.Group):
    """A group whose commands are imported by name when they are needed."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names, in the order of the table."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import a command."""
        if cmd_name not in COMMANDS:
            return None
        module, _, name = COMMANDS[cmd_name][0].partition(":")
        command = getattr(importlib.import_module(module), name)
        assert isinstance(command, click.Command)
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the command, or say which one may have been meant."""
        if args and args[0] not in COMMANDS and not args[0].startswith("-"):
            from depin_node.core.text import did_you_mean, printable

            ctx.fail(f"there is no command '{printable(args[0], length_max=40)}'{did_you_mean(args[0], COMMANDS)}")
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the commands without importing them."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, text) in COMMANDS.items()])


def _show_version(ctx: click.Context, param: click.Parameter, value: bool) -> None:
    if value and not ctx.resilient_parsing:
        from depin_node.core.version import software_version

        click.echo(f"depin-node, version {software_version()}")
        ctx.exit()


@click.command(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "--version", is_flag=True, is_eager=True, expose_value=False, callback=_show_version, help="Show the version."
)
@global_options
def cli() -> None:
    """Lend and borrow compute, peer to peer: CUDA kernels, run by peers, believed only when verified.

    \b
    Example: a mesh in three terminals of one machine, and a job in a fourth
      export DEPIN_LISTEN=/ip4/127.0.0.1/tcp/0           # in each: nothing leaves this machine
      depin-node start
      depin-node start --lend --data-dir b --peer ADDRESS
      depin-node start --lend --data-dir c --peer ADDRESS
      depin-node submit examples/hillshade/hillshade.toml
    """


def run(args: list[str]) -> int:
    """Run one command line and return its exit code."""
    settings = Settings()
    try:
        result = cli.main(args, prog_name="depin-node", standalone_mode=False, obj=settings)
        sys.stdout.flush()
        return result if isinstance(result, int) else 0
    except click.exceptions.Exit as ended:
        return ended.exit_code
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except (click.Abort, KeyboardInterrupt):
        return 130
    except BrokenPipeError:  # `depin-node peers | head`: who read us has enough
        sys.stderr.close()
        return 1
    except Exception as error:  # noqa: BLE001 - the last resort of the program
        return _report(error, settings)


def _report(error: Exception, settings: Settings) -> int:
    from depin_node.core.errors import ConfigError, DepinError, NotFoundError, TransportError
    from depin_node.core.text import printable

    while isinstance(error, ExceptionGroup) and len(error.exceptions) == 1:  # from trio's nurseries
        error = error.exceptions[0]
    if settings.debug:
        import traceback

        traceback.print_exception(error)
    if not isinstance(error, DepinError):
        text = printable(f"{type(error).__name__}: {error}", keep="\n")
        hint = "" if settings.debug else "; run the command again with --debug to see where"
        click.echo(f"depin-node: internal error: {text}{hint}", err=True)
        return 1
    click.echo(f"depin-node: {printable(str(error), keep=chr(10), length_max=20_000)}", err=True)
    if error.code == "verification":
        return 4
    if isinstance(error, ConfigError) and not isinstance(error, NotFoundError):
        return 2
    return 3 if isinstance(error, TransportError) else 1


def main() -> None:
    """Run the command line of this process."""
    sys.exit(run(sys.argv[1:]))


if __name__ == "__main__":
    main()
