"""Google's ADK (google-adk): `BoxEnvironment`, a box for an agent, and `BoxCodeExecutor`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from anyspawn import Box, Sandbox, start_box
from anyspawn.contrib._common import needs, run_shell

with needs("google-adk"):
    from google.adk.environment import BaseEnvironment
    from google.adk.environment._base_environment import ExecutionResult

    from anyspawn.contrib._google_adk_code import BoxCodeExecutor

__all__ = ["BoxCodeExecutor", "BoxEnvironment"]


class BoxEnvironment(BaseEnvironment):  # type: ignore[misc]  # not installed everywhere
    """A box that `initialize` opens and `close` ends, in one event loop. Commands start in
    ``workdir``, a path inside; default: the sandbox's own.
    """

    def __init__(self, sandbox: Sandbox | str = "bubblewrap", *, workdir: Any = None) -> None:
        self._sandbox, self._workdir = sandbox, workdir
        self._box: Box | None = None

    async def initialize(self) -> None:
        if self._box is None:
            self._box = await start_box(self._sandbox, workdir=self._workdir)
            self.is_initialized = True

    async def close(self) -> None:
        box, self._box, self.is_initialized = self._box, None, False
        if box is not None:
            await box.aclose()

    @property
    def box(self) -> Box:
        """The open box."""
        if self._box is None:
            raise RuntimeError("the environment has no box: await initialize() first")
        return self._box

    @property
    def working_dir(self) -> Path:
        return Path(self.box.workdir)

    async def execute(self, command: str, *, timeout: float | None = None) -> ExecutionResult:
        done, timed_out = await run_shell(self.box, command, timeout=timeout)
        code = -1 if done.returncode is None else done.returncode
        return ExecutionResult(code, done.text, done.stderr_text, timed_out)

    async def read_file(self, path: Path) -> bytes:
        return await self.box.read_file(path)

    async def write_file(self, path: Path, content: str | bytes) -> None:
        await self.box.write_file(path, content)
