"""Sandboxes of Inspect (inspect_ai) in any box: the provider ``anyspawn``, and `provider`."""

from __future__ import annotations

from typing import Any

import anyspawn
from anyspawn.contrib._common import needs

with needs("inspect-ai"):
    from inspect_ai.util import SandboxEnvironment, sandboxenv

    from anyspawn.contrib._inspect_ai_calls import read, run

__all__ = ["AnyspawnEnvironment", "provider"]


@sandboxenv(name="anyspawn")
class AnyspawnEnvironment(SandboxEnvironment):  # type: ignore[misc]  # not installed everywhere
    """A box for each sample: files, ``/tmp`` and background processes last as long as the box."""

    sandbox: anyspawn.Sandbox = anyspawn.Bubblewrap()

    def __init__(self, box: anyspawn.Box) -> None:
        super().__init__()
        self.box = box

    exec = run

    async def write_file(self, file: str, contents: str | bytes) -> None:
        await self.box.write_file(file, contents)

    async def read_file(self, file: str, text: bool = True) -> Any:
        data = await read(self.box, file)
        return data.decode() if text else data

    @classmethod
    async def sample_init(cls, task_name: str, config: Any, metadata: Any) -> dict[str, Any]:
        return {"default": cls(await anyspawn.start_box(cls.sandbox))}

    @classmethod
    async def sample_cleanup(
        cls, task_name: str, config: Any, environments: dict[str, Any], interrupted: bool
    ) -> None:
        for environment in environments.values():
            await environment.box.aclose()


def provider(name: str, sandbox: anyspawn.Sandbox) -> type[AnyspawnEnvironment]:
    """Register ``sandbox`` as a sandbox of Inspect called ``name``, a box for each sample."""
    made = type(name, (AnyspawnEnvironment,), {"sandbox": sandbox})
    sandboxenv(name=name)(made)
    return made
