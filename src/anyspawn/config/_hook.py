"""One entry of ``spec.hooks``."""

from __future__ import annotations

import os.path
from collections.abc import Mapping
from typing import Any, Literal

from attrs import field, frozen

from anyspawn._env import Env
from anyspawn._model import Sandbox
from anyspawn.hooks import ExecEvalHook, ExecHook, ExecProviderHook, ExecSessionHook, ExecToolHook
from anyspawn.sandboxes.bubblewrap import Bubblewrap
from anyspawn.sandboxes.direct import Direct

__all__ = ["HookConfig"]

Phase = Literal[
    "before_call",
    "after_call",
    "before_execution",
    "after_execution",
    "session_start",
    "session_update",
    "session_end",
]

_KINDS: Mapping[str, type[ExecHook]] = {
    "provider": ExecProviderHook,
    "tool": ExecToolHook,
    "session": ExecSessionHook,
    "eval": ExecEvalHook,
}


def _names(env: Mapping[str, str] | tuple[str, ...]) -> str:
    return repr(Env(env))


@frozen(kw_only=True)
class HookConfig:
    """A hook, as a configuration file has it.

    Args:
        command: The program. A relative path with a slash starts from the configuration file's
            folder; a bare name is looked up on ``PATH``. In a container or a pod it is taken as it
            stands.
        args: Its arguments.
        env: Its variables: a mapping, or a list of ``NAME=value`` and of ``NAME``, which is looked
            up on the host at each call.
        timeout_ms: Milliseconds for one call. Default, also for 0: 10000, or the sandbox's
            ``default_timeout``; 5000 for eval hooks.
        hook: What it is a hook of: ``provider``, ``tool``, ``session`` or ``eval``.
        phases: When it is asked. Default: at all phases of its kind.
        mode: ``filter`` (default): its verdict counts, and a failure denies. ``observe``: it is
            told, and its answer is thrown away.
        sandbox: Where it runs: a name from ``spec.sandboxes``. Default: directly on this host.
        on_failure: What a failure of a filter means: ``deny`` (default) or ``allow``.
        protocol: ``exec`` (default), or ``claude`` for command hooks of Claude Code.
        matcher: With protocol ``claude``, the tools that it is asked about: names such as
            ``Edit|Write``, a regular expression, or ``*`` (default) for all.
        output_limit: Bytes that its answer may have. Default 1048576.
        runtime: ``exec`` (default): a process for each call. ``server``: one process that stays and
            answers by JSON-RPC 2.0, a line each.
    """

    command: str
    args: tuple[str, ...] = ()
    env: Mapping[str, str] | tuple[str, ...] = field(default=(), repr=_names)
    timeout_ms: float | None = None
    hook: Literal["provider", "tool", "session", "eval"]
    phases: tuple[Phase, ...] | None = None
    mode: Literal["filter", "observe"] | None = None
    sandbox: str | None = None
    on_failure: Literal["deny", "allow"] = "deny"
    protocol: Literal["exec", "claude"] = "exec"
    matcher: str = "*"
    output_limit: int = field(default=2**20)
    runtime: Literal["exec", "server"] = "exec"

    def __attrs_post_init__(self) -> None:
        self.make("hook", None, "/")

    def make(self, name: str, sandbox: Sandbox | None, folder: str) -> ExecHook:
        """Return the hook.

        Args:
            name: Its name.
            sandbox: Where it runs.
            folder: Where a relative command starts from.

        Raises:
            ConfigError, TypeError, ValueError: Something does not go together.
        """
        command = self.command
        if "/" in command and (sandbox is None or isinstance(sandbox, (Direct, Bubblewrap))):
            command = os.path.normpath(os.path.join(folder, os.path.expanduser(command)))
        if isinstance(sandbox, Bubblewrap):
            sandbox = sandbox.for_hooks()
        optional: dict[str, Any] = {"phases": self.phases, "mode": self.mode}
        return _KINDS[self.hook](
            name=name,
            command=command,
            args=self.args,
            env=self.env,
            timeout=None if self.timeout_ms is None else self.timeout_ms / 1000,
            sandbox=sandbox,
            on_failure=self.on_failure,
            protocol=self.protocol,
            matcher=self.matcher,
            output_limit=self.output_limit,
            runtime=self.runtime,
            **{key: value for key, value in optional.items() if value is not None},
        )
