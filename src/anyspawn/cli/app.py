"""The ``anyspawn`` command itself: its subcommands, and its messages for wrong usage."""

from __future__ import annotations

import os
import sys
from importlib import import_module

import click

from anyspawn import __version__

__all__ = ["start"]

_COMMANDS = {
    "box": "Run PROGRAM in a fresh hardened container, with this folder as /work.",
    "check": "Check RuntimeConfig files, and report all problems with line and column.",
    "doctor": "Check what anyspawn can use on this machine, and say how to get or repair the rest.",
    "hook": "Try the hooks of a configuration.",
    "init": "Write a configuration (agent.yaml) and a working hook (guard.py) into FOLDER.",
    "modes": 'List the modes that "anyspawn run --mode" knows, installed plugins included.',
    "prune": "Remove the containers or pods, running or not, whose owner on this host is dead, and list "
    "them.",
    "run": "Run PROGRAM to its end, and kill what it leaves behind.",
    "schema": "Print the JSON Schema of RuntimeConfig files, for editors and other checkers.",
    "tool": "Try the tools of a configuration.",
}
"""The subcommands. Each module is imported when it is called: importing all of them takes longer
than many programs run.
"""


class _Lazy(click.Group):
    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in _COMMANDS:
            return None
        command: click.Command = getattr(import_module(f"anyspawn.cli.{cmd_name}"), cmd_name)
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args[0] not in _COMMANDS and not args[0].startswith("-"):
            from anyspawn._registry import nearest

            ctx.fail(f"there is no command {args[0]!r}{nearest(args[0], list(_COMMANDS))}")
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(_COMMANDS.items()))


@click.group(
    cls=_Lazy,
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
      anyspawn run --timeout 2s -- sleep 60           killed after 2 seconds, exit status 124
      anyspawn modes                                  where programs can run
      anyspawn doctor                                 what works on this machine
      anyspawn check agent.yaml                       what is wrong with a configuration
      anyspawn init                                   a configuration and a hook to start from

    "anyspawn COMMAND --help" has more examples, and says what each exit status means.
    """  # noqa: D301  click is told by that very character to leave lines as they are
    if context.invoked_subcommand is None:
        click.echo(context.get_help())


def start() -> int:
    """Run the command line; return the exit status."""
    try:
        # https://no-color.org; click itself leaves colors out if the output is not a terminal
        color = False if os.environ.get("NO_COLOR") else None
        status = anyspawn.main(prog_name="anyspawn", standalone_mode=False, color=color)
    except click.ClickException as exc:
        from anyspawn._foreign import plain
        from anyspawn.cli.outcome import OWN_FAILURE

        context = exc.ctx if isinstance(exc, click.UsageError) else None
        path = context.command_path if context else "anyspawn"
        message = plain(" ".join(exc.format_message().split()))
        print(f"anyspawn: {message.rstrip('.')} (see '{path} --help')", file=sys.stderr)
        # 2 could also be the status of the program of `run`.
        return OWN_FAILURE if path in {"anyspawn run", "anyspawn box"} else 2
    except click.Abort:
        return 130
    return status if isinstance(status, int) else 0
