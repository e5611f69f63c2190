"""``anyspawn hook run``: ask one hook of a configuration."""

from __future__ import annotations

import json
import sys
from collections.abc import Awaitable, Callable
from contextlib import suppress
from functools import partial
from typing import Any

import anyio
import click

from anyspawn._registry import nearest
from anyspawn.cli.check import load, load_valid
from anyspawn.config import RuntimeConfig
from anyspawn.exceptions import ConfigError
from anyspawn.hooks import Decision, ExecHook, HookRunner, Phase
from anyspawn.hooks._claude import CLAUDE
from anyspawn.hooks._payloads import to_wire
from anyspawn.hooks._phases import PHASES

__all__ = ["hook", "payload"]

_DENIED = 3


@click.group()
def hook() -> None:
    """Try the hooks of a configuration."""


def _names(context: click.Context, _: click.Parameter, incomplete: str) -> list[str]:
    """Complete the name of a hook of the configuration that was typed before it."""
    with suppress(Exception):  # completion cannot report an error
        return [
            name for name in load(context.params["config"]).hooks if name.startswith(incomplete)
        ]
    return []


def _phases(_: click.Context, __: click.Parameter, incomplete: str) -> list[str]:
    return [phase for phase in PHASES if phase.startswith(incomplete)]


@hook.command("run")
@click.argument("config", type=click.Path(), required=False)
@click.argument("name", required=False, shell_complete=_names)
@click.option(
    "--phase",
    shell_complete=_phases,
    help="When the hook is asked, such as before_call. Default: the hook's own, if it has just one.",
)
@click.option(
    "--claude-settings",
    "settings",
    metavar="FILE",
    multiple=True,
    type=click.Path(),
    help="Instead of CONFIG and NAME: all hooks of a settings file of Claude Code. Give several, "
    "the least important first.",
)
@click.pass_context
def run_hook(
    context: click.Context,
    config: str | None,
    name: str | None,
    phase: str | None,
    settings: tuple[str, ...],
) -> int:
    """Ask hook NAME of the RuntimeConfig file CONFIG about the JSON payload on stdin, and print its
    decision as JSON.

    The payload is the request or the event; for after_call and after_execution it is an object of
    "request" and "response".

    \b
    Examples:
      anyspawn hook run agent.yaml pii < request.json
      echo '{"Name": "rm", "Args": {"path": "/"}}' | anyspawn hook run agent.yaml guard --phase
      before_execution
      anyspawn hook run --claude-settings .claude/settings.json --phase PreToolUse < payload.json

    \b
    Exit status: 0 allowed, 3 denied, 1 the configuration has problems, 2 wrong usage, 130 after
    Ctrl-C.
    """  # noqa: D301  click is told by that very character to leave lines as they are
    if settings:
        if config is not None:
            raise click.UsageError("--claude-settings replaces CONFIG and NAME", context)
        return _run_settings(context, settings, phase)
    if config is None or name is None:
        raise click.UsageError("give CONFIG and NAME, or --claude-settings FILE", context)
    loaded = load_valid(config)
    if name not in loaded.hooks:
        raise click.UsageError(
            f"no hook is called {name!r} (there are: {', '.join(loaded.hooks) or 'none'})", context
        )
    chosen = _phase(loaded.hooks[name], phase, context)
    return _tell(context, partial(_ask, loaded, name, chosen, payload(context)))


def _run_settings(context: click.Context, files: tuple[str, ...], phase: str | None) -> int:
    """Ask all hooks of settings files about an event, by its own name or by the phase's."""
    events = {event.name: known for known, event in CLAUDE.events.items()}
    known = [*events, *(known for known in CLAUDE.events if known not in events)]
    if phase not in known:
        hint = nearest(phase, known) if phase else ""
        raise click.UsageError(f"--phase must name an event such as PreToolUse{hint}", context)
    try:
        runner = HookRunner.from_claude_settings(files, others="skip")
    except (ConfigError, OSError) as exc:
        click.echo(str(exc), err=True)
        return 1
    chosen: Any = events.get(phase, phase)
    return _tell(context, partial(_ask_all, runner, chosen, payload(context)))


@hook.command("trace")
@click.argument("config", type=click.Path())
@click.argument("phase", shell_complete=_phases)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@click.pass_context
def trace_hooks(context: click.Context, config: str, phase: str, *, as_json: bool) -> int:
    """Ask all hooks of the RuntimeConfig file CONFIG at PHASE about the JSON payload on stdin, and
    show for each whether it was asked, where it ran, how long it took, its verdict, and how it
    changed the payload.

    \b
    Example:
      anyspawn hook trace agent.yaml before_execution < request.json

    \b
    Exit status: 0 allowed, 3 denied, 1 the configuration has problems, 2 wrong usage, 130 after
    Ctrl-C.
    """  # noqa: D301  click is told by that very character to leave lines as they are
    from anyspawn.cli import trace

    loaded = load_valid(config)
    if phase not in PHASES:
        raise click.UsageError(
            f"there is no phase {phase!r}{nearest(phase, list(PHASES))}", context
        )
    chosen = next(known for known in PHASES if known == phase)
    try:
        decision, rows = anyio.run(trace.rows, loaded, chosen, payload(context))
    except TypeError as exc:
        raise click.UsageError(str(exc), context) from exc
    except KeyboardInterrupt:
        return 130
    trace.show(decision, rows, as_json=as_json)
    return _DENIED if decision.blocks else 0


def _tell(context: click.Context, ask: Callable[[], Awaitable[Decision]]) -> int:
    """Print a decision; return the exit status that says whether it blocks."""
    try:
        decision = anyio.run(ask)
    except TypeError as exc:
        raise click.UsageError(str(exc), context) from exc
    except KeyboardInterrupt:
        return 130
    said = {
        name: getattr(decision, name)
        for name in ("allow", "reason", "enforced", "metadata", "hook")
    }
    more = ("payload", to_wire(decision.payload)), ("replacement", decision.replacement)
    said |= {name: value for name, value in more if value is not None}
    if decision.context:
        said["context"] = decision.context
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


def payload(context: click.Context) -> Any:
    """Return the JSON value that stdin is."""
    if sys.stdin is not None and sys.stdin.isatty():
        click.echo("anyspawn: type the JSON payload, then Ctrl-D at the start of a line", err=True)
    try:
        return json.loads(b"" if sys.stdin is None else sys.stdin.buffer.read())
    except (ValueError, RecursionError) as exc:
        raise click.UsageError(f"stdin is not valid JSON: {exc}", context) from exc


async def _ask(config: RuntimeConfig, name: str, phase: Phase, payload: Any) -> Decision:
    async with config.open() as hooks:
        return await hooks[name].run(phase, payload)


async def _ask_all(runner: HookRunner, phase: Phase, payload: Any) -> Decision:
    async with runner as hooks:
        return await hooks.run(phase, payload)
