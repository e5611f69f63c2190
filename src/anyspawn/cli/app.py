"""The ``anyspawn`` command itself: its subcommands, and how wrong usage is told."""

from __future__ import annotations

import os
import sys

import click

from anyspawn import __version__
from anyspawn._foreign import plain
from anyspawn.cli.box import box
from anyspawn.cli.check import check
from anyspawn.cli.doctor import doctor
from anyspawn.cli.hook import hook
from anyspawn.cli.init import init
from anyspawn.cli.modes import modes
from anyspawn.cli.outcome import OWN_FAILURE
from anyspawn.cli.prune import prune
from anyspawn.cli.run import run
from anyspawn.cli.schema import schema

__all__ = ["start"]

_UNCUT = 1000


class _Uncut(click.Group):
    """A group whose help has the whole first sentence of each command."""

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(
                [
                    (name, self.commands[name].get_short_help_str(limit=_UNCUT))
                    for name in self.list_commands(ctx)
                ]
            )


@click.group(
    cls=_Uncut,
    invoke_without_command=True,
    context_settings={"help_option_names": ["-h", "--help"]},
)
@click.version_option(__version__, prog_name="anyspawn", message="%(prog)s %(version)s")
@click.pass_context
def anyspawn(context: click.Context) -> None:
    """Run other people's programs so that the call returns, and nothing survives it.

    \b
    Start here:
      anyspawn run -- echo hello                      on this host, as you
      anyspawn run --mode bubblewrap -- ls /home      in a sandbox without a daemon
      anyspawn run --timeout 2s -- sleep 60           ended after 2 seconds, exit status 124
      anyspawn modes                                  where programs can run
      anyspawn doctor                                 what of that works on this machine
      anyspawn check agent.yaml                       what is wrong with a configuration
      anyspawn init                                   a configuration and a hook to start from

    "anyspawn COMMAND --help" has more examples, and says what each exit status means.
    """  # noqa: D301  click is told by that very character to leave lines as they are
    if context.invoked_subcommand is None:
        click.echo(context.get_help())


for command in (box, check, doctor, hook, init, modes, prune, run, schema):
    anyspawn.add_command(command)


def start() -> int:
    """Run the command line; return the exit status."""
    try:
        # https://no-color.org; where the output is no terminal, click leaves colors out by itself
        color = False if os.environ.get("NO_COLOR") else None
        status = anyspawn.main(prog_name="anyspawn", standalone_mode=False, color=color)
    except click.ClickException as exc:
        context = exc.ctx if isinstance(exc, click.UsageError) else None
        path = context.command_path if context else "anyspawn"
        message = plain(" ".join(exc.format_message().split()))
        print(f"anyspawn: {message.rstrip('.')} (see '{path} --help')", file=sys.stderr)
        # 2 might be the status of the program that `run` was to start.
        return OWN_FAILURE if path in {"anyspawn run", "anyspawn box"} else 2
    except click.Abort:
        return 130
    return status if isinstance(status, int) else 0
