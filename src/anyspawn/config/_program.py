"""The common part of entries of ``spec.hooks``, ``spec.tools``, ``spec.evals`` and
``spec.selectors``: a program, and where it runs.
"""

from __future__ import annotations

import os.path
import re
import shutil
from collections.abc import Iterator, Mapping
from typing import Any, Literal

from attrs import field, frozen

from anyspawn._env import Env
from anyspawn._model import Sandbox
from anyspawn.exceptions import ConfigError
from anyspawn.sandboxes.bubblewrap import Bubblewrap
from anyspawn.sandboxes.direct import Direct
from anyspawn.tools._exec import ExecProgram

__all__ = ["LONGEST_MS", "ProgramConfig"]

LONGEST_MS = 1e9
"""Milliseconds."""


def _names(env: Mapping[str, str] | tuple[str, ...]) -> str:
    return repr(Env(env))


@frozen(kw_only=True)
class ProgramConfig:
    """A program that the configuration binds to a name.

    Args:
        command: The program. A relative path with a slash starts from the configuration file's
            folder; a bare name is looked up on ``PATH``. In a container or a pod it is used
            unchanged.
        args: Its arguments.
        env: Its variables: a mapping, or a list of ``NAME=value`` and ``NAME``. A bare ``NAME`` is
            looked up on the host at each call.
        timeout_ms: Milliseconds for one call. Default, also for 0: 10000, or the sandbox's
            ``default_timeout``; 30000 for evals.
        sandbox: Where it runs: a name from ``spec.sandboxes``. Default: directly on this host.
        output_limit: The largest answer, in bytes. Default 1048576.
        runtime: ``exec`` (default): a process for each call. ``server``: one process that keeps
            running and answers JSON-RPC 2.0 requests, each on one line.
    """

    command: str
    args: tuple[str, ...] = ()
    env: Mapping[str, str] | tuple[str, ...] = field(default=(), repr=_names)
    timeout_ms: float | None = None
    sandbox: str | None = None
    output_limit: int = field(default=2**20)
    runtime: Literal["exec", "server"] = "exec"

    def __attrs_post_init__(self) -> None:
        if self.timeout_ms is not None and not self.timeout_ms <= LONGEST_MS:
            raise ConfigError(
                f"timeout_ms must be at most {LONGEST_MS:,.0f}, not {self.timeout_ms}"
            )
        self.check()

    def check(self) -> None:
        """Raise errors that do not depend on where it runs."""
        ExecProgram(**self.common("program", None, "/"))

    def notes(self, sandbox: Sandbox | None, folder: str) -> Iterator[str]:
        """Give warnings: settings that are valid but probably not intended.

        Args:
            sandbox: Where it runs.
            folder: The configuration file's.
        """
        if sandbox is None or isinstance(sandbox, (Direct, Bubblewrap)):
            yield from self._notes_of_command(folder, looked_up=not isinstance(sandbox, Bubblewrap))
        for index, arg in enumerate(self.args):
            beside = os.path.join(folder, arg)
            if not os.path.isabs(arg) and not arg.startswith("-") and os.path.isfile(beside):
                yield (
                    f"args[{index}]: {arg!r} is a file beside the configuration, but is looked up "
                    "in the working directory; write its whole path, or make it the command"
                )

    def _notes_of_command(self, folder: str, *, looked_up: bool) -> Iterator[str]:
        """Give warnings about a program of this host.

        Args:
            folder: The configuration file's.
            looked_up: Whether a bare name is looked up on this process's ``PATH``.
        """
        if "/" in self.command:
            file = os.path.join(folder, os.path.expanduser(self.command))
        elif not looked_up or "PATH" in Env(self.env):
            return
        else:
            file = shutil.which(self.command) or ""
        if not os.path.exists(file):
            if re.search(r"\s", self.command):
                yield "command: it is one name, with spaces in it; put arguments in args"
            else:
                where = "in the configuration's folder" if "/" in self.command else "on PATH"
                yield f"command: it does not exist {where}"
        elif not (os.path.isfile(file) and os.access(file, os.X_OK)):
            yield "command: it is not a program; make it executable (chmod +x)"

    def common(self, name: str, sandbox: Sandbox | None, folder: str) -> dict[str, Any]:
        """Return the arguments common to all programs.

        Args:
            name: Its name.
            sandbox: Where it runs.
            folder: The folder in which a relative command starts.
        """
        command = self.command
        if "/" in command and (sandbox is None or isinstance(sandbox, (Direct, Bubblewrap))):
            command = os.path.normpath(os.path.join(folder, os.path.expanduser(command)))
        return {
            "name": name,
            "command": command,
            "args": self.args,
            "env": self.env,
            "timeout": None if self.timeout_ms is None else self.timeout_ms / 1000,
            "sandbox": sandbox.for_hooks() if isinstance(sandbox, Bubblewrap) else sandbox,
            "output_limit": self.output_limit,
            "runtime": self.runtime,
        }
