"""A session: a box from `start` to `shutdown`."""

from __future__ import annotations

from agents.sandbox.session import SandboxSessionState

import anyspawn
from anyspawn.contrib._openai.programs import Program
from anyspawn.contrib._openai.snapshots import Snapshots
from anyspawn.contrib._openai.terminals import Terminals

__all__ = ["BoxSession"]


class BoxSession(Snapshots, Terminals):
    """Each start has a new box, which the manifest or the snapshot fills."""

    def __init__(self, sandbox: anyspawn.Sandbox | str, state: SandboxSessionState) -> None:
        self._sandbox, self.state = sandbox, state
        self._programs: dict[int, Program] = {}

    async def start(self) -> None:
        try:
            await super().start()
        except BaseException:
            await self._shutdown_backend()
            raise

    async def _ensure_backend_started(self) -> None:
        if self._box is None:
            self._box = await anyspawn.start_box(self._sandbox, workdir=self.state.manifest.root)

    async def _shutdown_backend(self) -> None:
        box, self._box = self._box, None
        if box is not None:
            await box.aclose()

    def supports_pty(self) -> bool:
        return True

    async def running(self) -> bool:
        return self._box is not None and (await self._box.spawn(["true"])).ok
