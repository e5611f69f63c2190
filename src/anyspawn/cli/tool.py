"""``anyspawn tool run``: call one tool of a configuration."""

from __future__ import annotations

import json
from typing import Any

import anyio
import attrs
import click

from anyspawn.cli.check import load_valid
from anyspawn.cli.hook import payload
from anyspawn.config import RuntimeConfig
from anyspawn.exceptions import SpawnError
from anyspawn.tools import AnswerError, ToolResult

__all__ = ["tool"]

_ERROR = 3
_FAILED = 4


@click.group()
def tool() -> None:
    """Try the tools of a configuration."""


@tool.command("run")
@click.argument("config", type=click.Path())
@click.argument("name")
@click.pass_context
def run_tool(context: click.Context, config: str, name: str) -> int:
    """Call tool NAME of the RuntimeConfig file CONFIG with the JSON arguments on stdin, and print
    what it answered as JSON: an object of "result", "error" or "pending".

    \b
    Example:
      echo '{"query": "anyio"}' | anyspawn tool run agent.yaml search

    \b
    Exit status: 0 a result, or pending; 3 the tool's own error; 4 the tool failed, and stderr says
    how; 1 the configuration has problems, 2 wrong usage, 130 after Ctrl-C.
    """  # noqa: D301  click is told by that very character to leave lines as they are
    loaded = load_valid(config)
    if name not in loaded.tools:
        raise click.UsageError(
            f"no tool that is a program is called {name!r} "
            f"(there are: {', '.join(loaded.tools) or 'none'})",
            context,
        )
    try:
        result = anyio.run(_call, loaded, name, payload(context))
    except (SpawnError, AnswerError) as exc:
        click.echo(f"anyspawn: {exc}", err=True)
        return _FAILED
    except KeyboardInterrupt:
        return 130
    if result.error is not None:
        click.echo(json.dumps({"error": result.error}))
        return _ERROR
    told = {"result": result.result}
    click.echo(json.dumps({"pending": attrs.asdict(result.pending)} if result.pending else told))
    return 0


async def _call(config: RuntimeConfig, name: str, args: Any) -> ToolResult:
    async with config.open() as opened:
        return await opened.tools[name](args)
