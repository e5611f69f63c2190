"""Reads settings files of Claude Code, and makes hooks of their ``hooks`` section. Pure.

As its hooks reference described it in July 2026, with ``onFailure`` of 2.1.295 (October 2026).
"""

from __future__ import annotations

import os.path
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any, Literal

from attrs import field, frozen

from anyspawn._model import Sandbox
from anyspawn._registry import nearest
from anyspawn.argv.bubblewrap import pairs
from anyspawn.exceptions import ConfigError
from anyspawn.hooks._agents import Event
from anyspawn.hooks._claude import CLAUDE
from anyspawn.hooks._exec import (
    ExecAgentHook,
    ExecHook,
    ExecSessionHook,
    ExecToolHook,
)
from anyspawn.hooks._phases import PHASES
from anyspawn.hooks._wire import WireError, decode_object
from anyspawn.sandboxes.bubblewrap import Bubblewrap
from anyspawn.sandboxes.direct import Direct

__all__ = ["ClaudeSettings", "Others", "project_inside"]

Others = Literal["refuse", "skip"]

_OTHER_TYPES = ("http", "mcp_tool", "prompt", "agent")
_GROUP = frozenset({"matcher", "hooks"})
_HANDLER = frozenset(
    {
        "type",
        "if",
        "timeout",
        "statusMessage",
        "once",
        "onFailure",
        "command",
        "args",
        "async",
        "asyncRewake",
        "shell",
    }
)
_KINDS: Mapping[str, type[ExecHook]] = {
    "tool": ExecToolHook,
    "session": ExecSessionHook,
    "agent": ExecAgentHook,
}
_BY_NAME = {event.name: event for event in CLAUDE.events.values()}
_PLACEHOLDER = "${CLAUDE_PROJECT_DIR}"


def project_inside(path: str, sandbox: Sandbox | None) -> str | None:
    """Return the project's folder of a settings file, which contains its ``.claude``, as hooks in a
    sandbox see it; ``None`` if that cannot be known.

    Raises:
        ConfigError: The sandbox does not bind it.
    """
    folder = os.path.dirname(os.path.abspath(path))
    folder = os.path.dirname(folder) if os.path.basename(folder) == ".claude" else folder
    if sandbox is None or isinstance(sandbox, Direct):
        return folder
    if not isinstance(sandbox, Bubblewrap):
        return None
    for host, inside in pairs((*sandbox.writable, *sandbox.readonly)):
        if os.path.commonpath([host, folder]) == host:
            return os.path.normpath(os.path.join(inside, os.path.relpath(folder, host)))
    raise ConfigError(
        f"the hooks of {path} need the project's folder, which the sandbox does not bind; add "
        f"readonly=[{folder!r}], or pass its path inside as project"
    )


@frozen(kw_only=True)
class _Handler:
    """One command of a settings file."""

    event: Event
    matcher: str
    command: str
    args: tuple[str, ...] | None
    shell: str
    rule: str
    timeout: float
    background: bool
    blocks_on_failure: bool
    source: str = field(eq=False)


@frozen(kw_only=True)
class ClaudeSettings:
    """The hooks of one or several settings files.

    Args:
        handlers: Their commands, without repeated ones.
        skipped: Hooks that are not programs, and were skipped.
    """

    handlers: tuple[_Handler, ...]
    skipped: tuple[str, ...]

    @classmethod
    def read(
        cls,
        files: Sequence[tuple[str, bytes]],
        *,
        managed: Sequence[tuple[str, bytes]] = (),
        others: Others = "refuse",
    ) -> ClaudeSettings:
        """Read settings files.

        Args:
            files: Names and contents, the least important first: the user's, the project's, the
                local ones. If two say whether hooks are disabled, the later one counts.
            managed: Files of an administrator, whose hooks the others cannot disable.
            others: How to treat hooks that are not programs: refuse or skip them.

        Raises:
            ConfigError: A file cannot be read, or has a setting that anyspawn cannot apply.
        """
        own = [(name, _document(name, data)) for name, data in files]
        above = [(name, _document(name, data)) for name, data in managed]
        if _flag(above, "disableAllHooks"):
            return cls(handlers=(), skipped=())
        alone = _flag(above, "allowManagedHooksOnly") or _flag(own, "disableAllHooks")
        handlers: dict[_Handler, None] = {}
        skipped: list[str] = []
        for name, document in (*above, *(() if alone else own)):
            for handler in _handlers(name, document, others, skipped):
                handlers.setdefault(handler)
        return cls(handlers=tuple(handlers), skipped=tuple(skipped))

    def hooks(
        self,
        *,
        sandbox: Sandbox | None,
        project: str | None,
        on_failure: Literal["deny", "allow", "as_claude"],
        rewrites: bool | Collection[str],
    ) -> list[ExecHook]:
        """Return the hooks, named by their event and number: ``PreToolUse:1``."""
        made: list[ExecHook] = []
        numbers: dict[str, int] = {}
        for handler in self.handlers:
            event = handler.event
            number = numbers[event.name] = numbers.get(event.name, 0) + 1
            name = f"{event.name}:{number}"
            may = rewrites if isinstance(rewrites, bool) else name in rewrites
            may = may and event.name in {"PreToolUse", "PostToolUse", "PermissionRequest"}
            argv = _argv(handler, project)
            try:
                made.append(
                    _KINDS[PHASES[event.phase]](
                        name=name,
                        command=argv[0],
                        args=argv[1:],
                        timeout=handler.timeout,
                        phases=[event.phase],  # type: ignore[list-item]  # all are phases
                        mode="observe" if handler.background else "filter",
                        sandbox=sandbox,
                        on_failure="deny" if handler.blocks_on_failure else on_failure,
                        protocol="claude",
                        matcher=handler.matcher if event.subject else "*",
                        when=handler.rule,
                        rewrites=may and not handler.background,
                        project=project,
                    )
                )
            except (ConfigError, ValueError, TypeError) as exc:
                raise ConfigError(f"{handler.source}: {exc}") from None
        return made


def _document(name: str, data: bytes) -> dict[str, Any]:
    try:
        return decode_object(data.removeprefix(b"\xef\xbb\xbf"))
    except WireError as exc:
        raise ConfigError(f"{name}: {str(exc).replace('its answer', 'the file')}") from None


def _flag(documents: Iterable[tuple[str, dict[str, Any]]], key: str) -> bool:
    """Return the value of the last file that has the key."""
    said = False
    for name, document in documents:
        value = document.get(key)
        if value is not None and not isinstance(value, bool):
            raise ConfigError(f"{name}: {key} must be true or false")
        said = said if value is None else value
    return said


def _handlers(
    source: str, document: dict[str, Any], others: Others, skipped: list[str]
) -> Iterator[_Handler]:
    section = _typed(document.get("hooks", {}), dict, f"{source}: hooks")
    for name, groups in section.items():
        place = f"{source}: hooks.{name}"
        if name not in _BY_NAME:
            raise ConfigError(f"{place}: there is no such event{nearest(name, list(_BY_NAME))}")
        for index, group in enumerate(_typed(groups, list, place)):
            where = f"{place}[{index}]"
            _known(_typed(group, dict, where), _GROUP, where)
            matcher = _typed(group.get("matcher") or "*", str, f"{where}.matcher")
            entries = _typed(group.get("hooks"), list, f"{where}.hooks")
            for number, entry in enumerate(entries):
                at = f"{where}.hooks[{number}]"
                kind = _typed(entry, dict, at).get("type")
                if kind in _OTHER_TYPES:
                    what = f"{at} is of type {kind!r}, which is not a program"
                    if others == "refuse":
                        raise ConfigError(f"{what}; remove it, or pass others='skip'")
                    skipped.append(what)
                    continue
                yield _handler(_BY_NAME[name], matcher, entry, at)


def _handler(event: Event, matcher: str, entry: dict[str, Any], at: str) -> _Handler:
    if entry.get("type") != "command":
        raise ConfigError(f"{at}.type must be 'command', not {entry.get('type')!r}")
    _known(entry, _HANDLER, at)
    args = entry.get("args")
    if args is not None:
        args = tuple(_typed(a, str, f"{at}.args") for a in _typed(args, list, f"{at}.args"))
    timeout = entry.get("timeout", event.timeout or CLAUDE.timeout)
    number = isinstance(timeout, (int, float)) and not isinstance(timeout, bool)
    if not number or timeout <= 0:
        raise ConfigError(f"{at}.timeout must be a number of seconds above 0, not {timeout!r}")
    shell = entry.get("shell", "bash" if "shell" in entry else "sh")
    if shell not in {"bash", "sh"}:
        raise ConfigError(f"{at}.shell must be 'bash', not {shell!r}")
    failure = entry.get("onFailure", "continue")
    if failure not in {"block", "continue"}:
        raise ConfigError(f"{at}.onFailure must be 'block' or 'continue', not {failure!r}")
    rule = _typed(entry.get("if", ""), str, f"{at}.if")
    if rule and event.subject != "tool_name":
        raise ConfigError(f"{at}.if: {event.name} is not about a tool; the hook would never run")
    return _Handler(
        event=event,
        matcher=matcher,
        command=_typed(entry.get("command"), str, f"{at}.command"),
        args=args,
        shell=shell,
        rule=rule,
        timeout=float(timeout),
        background=_bool(entry, "async", at) or _bool(entry, "asyncRewake", at),
        blocks_on_failure=failure == "block",
        source=at,
    )


def _argv(handler: _Handler, project: str | None) -> tuple[str, ...]:
    """Return the argv: the command itself if it has ``args``, else a shell that runs it."""
    if handler.args is None:
        return (handler.shell, "-c", handler.command)
    argv = (handler.command, *handler.args)
    if project is None and any(_PLACEHOLDER in arg for arg in argv):
        raise ConfigError(
            f"{handler.source} has {_PLACEHOLDER}; pass its path in the sandbox as project"
        )
    argv = tuple(arg.replace(_PLACEHOLDER, project or "") for arg in argv)
    if any("${CLAUDE_PLUGIN_" in arg for arg in argv):
        raise ConfigError(f"{handler.source} is a plugin's, whose folder is not known here")
    return argv


def _bool(entry: dict[str, Any], key: str, at: str) -> bool:
    return bool(_typed(entry.get(key, False), bool, f"{at}.{key}"))


def _typed(value: Any, kind: type, at: str) -> Any:
    if not isinstance(value, kind):
        names = {dict: "an object", list: "a list", str: "a text", bool: "true or false"}
        raise ConfigError(f"{at} must be {names[kind]}, not {type(value).__name__}")
    return value


def _known(entry: dict[str, Any], known: frozenset[str], at: str) -> None:
    for key in entry:
        if key not in known:
            raise ConfigError(f"{at}: unknown key {key!r}{nearest(key, sorted(known))}")
