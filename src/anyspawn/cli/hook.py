"""``anyspawn hook run``: ask one hook of a configuration."""

from __future__ import annotations

import json
import sys
from typing import Any

import anyio
import click

from anyspawn.cli.check import load
from anyspawn.config import InvalidConfigError, RuntimeConfig
from anyspawn.hooks import Decision, ExecHook, Phase

__all__ = ["hook"]

_DENIED = 3


@click.group()
def hook() -> None:
    """Try the hooks of a configuration."""


@hook.command("run")
@click.argument("config", type=click.Path())
@click.argument("name")
@click.option(
    "--phase",
    help="When the hook is asked, such as before_call. Default: the hook's own, if it has just one.",
)
@click.pass_context
def run_hook(context: click.Context, config: str, name: str, phase: str | None) -> int:
    """Ask hook NAME of the RuntimeConfig file CONFIG about the JSON payload on stdin, and print its
    decision as JSON.

    The payload is the request or the event; for after_call and after_execution it is an object of
    "request" and "response".

    \b
    Examples:
      anyspawn hook run agent.yaml pii < request.json
      echo '{"Name": "rm", "Args": {"path": "/"}}' | anyspawn hook run agent.yaml guard --phase
      before_execution

    \b
    Exit status: 0 allowed, 3 denied, 1 the configuration has problems, 2 wrong usage, 130 after
    Ctrl-C.
    """  # noqa: D301  click is told by that very character to leave lines as they are
    try:
        loaded = load(config)
    except InvalidConfigError as exc:
        click.echo(str(exc), err=True)
        return 1
    if name not in loaded.hooks:
        raise click.UsageError(
            f"no hook is called {name!r} (there are: {', '.join(loaded.hooks) or 'none'})", context
        )
    chosen = _phase(loaded.hooks[name], phase, context)
    payload = _payload(context)
    try:
        decision = anyio.run(_ask, loaded, name, chosen, payload)
    except TypeError as exc:
        raise click.UsageError(str(exc), context) from exc
    except KeyboardInterrupt:
        return 130
    said = {
        name: getattr(decision, name)
        for name in ("allow", "reason", "enforced", "metadata", "hook")
    }
    click.echo(json.dumps(said))
    return _DENIED if decision.blocks else 0


def _phase(hook: ExecHook, phase: str | None, context: click.Context) -> Phase:
    if phase is None and len(hook.phases) == 1:
        return hook.phases[0]
    if phase not in hook.phases:
        what = (
            f"is not asked at {phase!r}"
            if phase
            else "is asked at more than one phase; choose with --phase"
        )
        raise click.UsageError(
            f"hook {hook.name!r} {what} (its phases: {', '.join(hook.phases)})", context
        )
    return next(known for known in hook.phases if known == phase)


def _payload(context: click.Context) -> Any:
    try:
        return json.loads(b"" if sys.stdin is None else sys.stdin.buffer.read())
    except (ValueError, RecursionError) as exc:
        raise click.UsageError(f"stdin is no JSON: {exc}", context) from exc


async def _ask(config: RuntimeConfig, name: str, phase: Phase, payload: Any) -> Decision:
    async with config.open() as hooks:
        return await hooks[name].run(phase, payload)
