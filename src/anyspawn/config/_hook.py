"""One entry of ``spec.hooks``."""

from __future__ import annotations

import os.path
from collections.abc import Iterator, Mapping
from typing import Any, Literal

from attrs import frozen

from anyspawn._model import Sandbox
from anyspawn.config._program import ProgramConfig
from anyspawn.hooks import (
    ExecAgentHook,
    ExecEvalHook,
    ExecHook,
    ExecProviderHook,
    ExecSessionHook,
    ExecToolHook,
    ProviderPhase,
    SessionPhase,
    ToolPhase,
)
from anyspawn.hooks._events import AgentEvent
from anyspawn.hooks._protocols import OnFailure, ProtocolName
from anyspawn.sandboxes.bubblewrap import Bubblewrap
from anyspawn.sandboxes.direct import Direct

__all__ = ["HookConfig"]

Phase = Literal[ProviderPhase, ToolPhase, SessionPhase, AgentEvent]

_KINDS: Mapping[str, type[ExecHook]] = {
    "provider": ExecProviderHook,
    "tool": ExecToolHook,
    "session": ExecSessionHook,
    "eval": ExecEvalHook,
    "agent": ExecAgentHook,
}


@frozen(kw_only=True)
class HookConfig(ProgramConfig):
    """A hook in a configuration file.

    Args:
        command: The program. A relative path with a slash starts from the configuration file's
            folder; a bare name is looked up on ``PATH``. In a container or a pod it is used
            unchanged.
        args: Its arguments.
        env: Its variables: a mapping, or a list of ``NAME=value`` and ``NAME``. A bare ``NAME`` is
            looked up on the host at each call.
        timeout_ms: Milliseconds for one call. Default, also for 0: 10000, or the sandbox's
            ``default_timeout``; 5000 for eval hooks.
        hook: The kind of hook: ``provider``, ``tool``, ``session`` or ``eval``; or ``agent``, for
            other events of an agent tool, such as ``Stop``.
        phases: The phases at which it is asked. Default: all phases of its kind.
        mode: ``filter`` (default): its decision counts, and a failure denies. ``observe``: it gets
            the call, and its answer is ignored.
        sandbox: Where it runs: a name from ``spec.sandboxes``. Default: directly on this host.
        on_failure: The decision if a filter fails: ``deny`` (default), ``allow``, or the one that
            the tool of its protocol would take, such as ``as_claude``.
        protocol: ``exec`` (default), or the agent tool that the program was written for:
            ``claude``, ``codex``, ``gemini``, ``cursor`` or ``copilot``.
        matcher: With the protocol of an agent tool, a matcher in that tool's syntax, such as
            ``Edit|Write``; ``*`` (default) matches everything.
        output_limit: The largest answer, in bytes. Default 1048576.
        runtime: ``exec`` (default): a process for each call. ``server``: one process that keeps
            running and answers JSON-RPC 2.0 requests, each on one line.
        rewrites: Whether it can change the payload. Default: a change is a denial.
        sequential: Whether later hooks are asked only after this one has allowed the call.
        names: ``pascal`` (default); ``snake``: the names inside requests and responses also come in
            snake_case.
        project: With the protocol of an agent tool, the project's folder, as the hook sees it. A
            relative one starts from the configuration file's folder.
    """

    hook: Literal["provider", "tool", "session", "eval", "agent"]
    phases: tuple[Phase, ...] | None = None
    mode: Literal["filter", "observe"] | None = None
    on_failure: OnFailure = "deny"
    protocol: ProtocolName = "exec"
    matcher: str = "*"
    rewrites: bool = False
    sequential: bool = False
    names: Literal["pascal", "snake"] = "pascal"
    project: str | None = None

    def check(self) -> None:
        """Raise errors that do not depend on where it runs."""
        self.make("hook", None, "/")

    def notes(self, sandbox: Sandbox | None, folder: str) -> Iterator[str]:
        """Give warnings, as `ProgramConfig.notes` does."""
        yield from super().notes(sandbox, folder)
        if self.hook == "eval" and (self.mode is not None or self.phases is not None):
            yield "mode and phases have no effect for eval hooks"

    def make(self, name: str, sandbox: Sandbox | None, folder: str) -> ExecHook:
        """Return the hook.

        Args:
            name: Its name.
            sandbox: Where it runs.
            folder: The folder in which a relative command starts.

        Raises:
            ConfigError, TypeError, ValueError: Two settings contradict each other.
        """
        project = self.project
        if project is not None and (sandbox is None or isinstance(sandbox, (Direct, Bubblewrap))):
            project = os.path.normpath(os.path.join(folder, os.path.expanduser(project)))
        optional: dict[str, Any] = {"phases": self.phases, "mode": self.mode}
        if self.hook == "eval":
            optional = {}
        return _KINDS[self.hook](
            **self.common(name, sandbox, folder),
            on_failure=self.on_failure,
            protocol=self.protocol,
            matcher=self.matcher,
            rewrites=self.rewrites,
            sequential=self.sequential,
            names=self.names,
            project=project,
            **{key: value for key, value in optional.items() if value is not None},
        )
