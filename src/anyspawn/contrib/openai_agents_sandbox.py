"""A sandbox of OpenAI's Agents SDK (openai-agents) in a box: `BoxClient`, for a `SandboxAgent`."""

from __future__ import annotations

import uuid
from typing import Any, Literal

import anyspawn
from anyspawn.contrib._common import needs

with needs("openai-agents"):
    from agents.sandbox import Manifest, resolve_snapshot
    from agents.sandbox.session import BaseSandboxClient, SandboxSession, SandboxSessionState

    from anyspawn.contrib._openai.session import BoxSession

__all__ = ["BoxClient"]


class BoxState(SandboxSessionState):  # type: ignore[misc]  # not installed everywhere
    """The state from which a session resumes; the client knows the sandbox."""

    type: Literal["anyspawn"] = "anyspawn"


class BoxClient(BaseSandboxClient[None]):  # type: ignore[misc]  # not installed everywhere
    """Gives each session its own box, whose ``workdir`` is the root of its manifest.

    Args:
        sandbox: Where: a sandbox, or the name of a mode. Default: `Bubblewrap`.
    """

    backend_id = "anyspawn"
    supports_default_options = True

    def __init__(self, sandbox: anyspawn.Sandbox | str = "bubblewrap") -> None:
        self.sandbox = sandbox

    async def create(
        self, *, snapshot: Any = None, manifest: Manifest | None = None, options: None = None
    ) -> SandboxSession:
        manifest = self._validate_manifest_for_create(manifest or Manifest())
        number = uuid.uuid4()
        kept = resolve_snapshot(snapshot, str(number))
        return await self.resume(BoxState(session_id=number, manifest=manifest, snapshot=kept))

    async def resume(self, state: SandboxSessionState) -> SandboxSession:
        state.assert_path_grants_rebound()
        if any(grant.host_path for grant in state.manifest.extra_path_grants):
            raise anyspawn.ConfigError(
                "extra_path_grants: host_path is not supported; use readonly or writable of the sandbox"
            )
        return self._wrap_session(BoxSession(self.sandbox, state))

    async def delete(self, session: SandboxSession) -> SandboxSession:
        await session.shutdown()
        return session

    def deserialize_session_state(self, payload: dict[str, object]) -> SandboxSessionState:
        return self._deserialize_session_state_payload(payload, BoxState)
