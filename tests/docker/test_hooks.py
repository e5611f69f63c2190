"""Hooks in a container that is stopped and started again."""

from __future__ import annotations

import anyio
import pytest

from anyspawn import DockerExec
from anyspawn.hooks import ExecToolHook, HookRunner
from engines import docker

pytestmark = pytest.mark.anyio

SERVER = """
while read -r line; do
  id=${line#*'"id":'}
  echo "{\\"jsonrpc\\":\\"2.0\\",\\"id\\":${id%%,*},\\"result\\":{\\"allow\\":true}}"
done
"""


async def test_a_container_that_is_stopped_and_started(containers):
    """Hooks of both kinds allow, deny while the container is stopped, and allow again without
    anyone's help.
    """
    box = containers("busybox")
    sandbox = DockerExec(box, shared="trusted")
    hooks = [
        ExecToolHook(
            name="once", command="echo", args=['{"allow": true}'], sandbox=sandbox, timeout=30
        ),
        ExecToolHook(
            name="stays",
            command="sh",
            args=["-c", SERVER],
            sandbox=sandbox,
            runtime="server",
            timeout=30,
        ),
    ]
    async with sandbox, HookRunner(hooks) as runner:
        for _ in range(2):
            decision = await runner.run("before_execution", {})
            assert decision.allow, decision.reason
            docker("kill", box)
            for hook in hooks:
                with anyio.fail_after(60):
                    decision = await hook.run("before_execution", {})
                assert decision.blocks
                assert "is not running" in decision.reason or "was lost" in decision.reason
            docker("start", box)
        decision = await runner.run("before_execution", {})
        assert decision.allow, decision.reason
