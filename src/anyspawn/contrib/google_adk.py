"""Google's ADK (google-adk): `BoxEnvironment`, a box as an agent's environment."""

from __future__ import annotations

from pathlib import Path

from google.adk.environment import BaseEnvironment
from google.adk.environment._base_environment import ExecutionResult

import anyspawn

__all__ = ["BoxEnvironment"]


class BoxEnvironment(BaseEnvironment):  # type: ignore[misc]  # not installed everywhere
    """A box that is opened by `initialize` and ended by `close`, in one event loop.

    Args:
        sandbox: Where: a sandbox, or the name of a mode. Default: `Bubblewrap`.
        workdir: Where commands start, inside. Default: the sandbox's own.
    """

    def __init__(
        self, sandbox: anyspawn.Sandbox | str = "bubblewrap", *, workdir: str | None = None
    ) -> None:
        self._sandbox, self._workdir = sandbox, workdir
        self._box: anyspawn.Box | None = None

    async def initialize(self) -> None:
        if self._box is None:
            self._box = await anyspawn.start_box(self._sandbox, workdir=self._workdir)
            self.is_initialized = True

    async def close(self) -> None:
        box, self._box, self.is_initialized = self._box, None, False
        if box is not None:
            await box.aclose()

    @property
    def box(self) -> anyspawn.Box:
        """The box, while there is one."""
        if self._box is None:
            raise RuntimeError("the environment has no box: await initialize() first")
        return self._box

    @property
    def working_dir(self) -> Path:
        return Path(self.box.workdir)

    async def execute(self, command: str, *, timeout: float | None = None) -> ExecutionResult:
        done = await self.box.spawn(["sh", "-c", command], timeout=timeout, overflow="truncate")
        timed_out = isinstance(done.error, anyspawn.SpawnTimeoutError)
        if done.returncode is None and not timed_out:
            done.check()
        code = -1 if done.returncode is None else done.returncode
        return ExecutionResult(code, done.text, done.stderr_text, timed_out)

    async def read_file(self, path: Path) -> bytes:
        return await self.box.read_file(path)

    async def write_file(self, path: Path, content: str | bytes) -> None:
        await self.box.write_file(path, content)
