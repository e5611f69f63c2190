"""The hooks of an open configuration work, and leaving its block closes everything."""

from __future__ import annotations

import anyio
import pytest

from anyspawn import Command, Completed, Registry
from anyspawn.config import parse_config
from anyspawn.hooks import run_hooks

pytestmark = pytest.mark.anyio

HEAD = "apiVersion: promptkit.altairalabs.ai/v1alpha1\nkind: RuntimeConfig\n"
HOOKS = f"""{HEAD}spec:
  hooks:
    first: {{command: sh, args: [-c, 'echo "{{\\"allow\\": true}}"'], hook: tool}}
    guard: {{command: ./deny.sh, hook: tool, phases: [before_execution]}}
    watch: {{command: touch, args: [{{file}}], hook: tool, mode: observe}}
"""


async def test_hooks_are_ready_and_observers_are_drained(tmp_path):
    """Denials follow the order of the file, and observers finish before the block is left."""
    deny = tmp_path / "deny.sh"
    deny.write_text('#!/bin/sh\necho \'{"allow": false, "reason": "by file"}\'\n')
    deny.chmod(0o755)
    config = parse_config(HOOKS.replace("{file}", str(tmp_path / "watched")), folder=tmp_path)
    async with config.open() as hooks:
        assert [hook.name for hook in hooks] == ["first", "guard", "watch"]
        decision = await run_hooks(hooks, "before_execution", {"Name": "x"})
        assert (decision.allow, decision.hook, decision.reason) == (False, "guard", "by file")
        assert (await hooks.run("after_execution", ({}, {}))).allow
        assert (await hooks["first"].before_execution({})).allow
    assert (tmp_path / "watched").exists()


class Cloud:
    def __init__(self, name, closed, *, slow=False):
        self.name, self._closed, self._slow = name, closed, slow

    async def spawn(self, command: Command) -> Completed:
        return Completed(argv=command.argv, stdout=b'{"allow": true}', returncode=0)

    async def aclose(self):
        await anyio.sleep(0.01)
        self._closed.append(self.name)


async def test_a_sandbox_that_cannot_be_closed_does_not_keep_the_others_open(caplog):
    """The failure is logged, the other sandboxes are closed, and the body's exception continues
    unchanged.
    """
    closed = []

    class Bad(Cloud):
        async def aclose(self):
            raise OSError("no way")

    registry = Registry()
    registry.register("cloud", lambda name, settings: Cloud(name, closed))
    registry.register("bad", lambda name, settings: Bad(name, closed))
    config = parse_config(
        f"{HEAD}spec:\n  sandboxes: {{a: {{mode: bad}}, b: {{mode: cloud}}}}\n", registry=registry
    )
    with pytest.raises(ZeroDivisionError):
        async with config.open():
            raise ZeroDivisionError
    assert closed == ["b"]
    assert "sandbox 'a' could not be closed: OSError: no way" in caplog.text


@pytest.mark.parametrize("how", ["normal", "exception", "cancellation"])
async def test_all_sandboxes_are_closed(how):
    """Sandboxes without a hook are closed too, however the block is left."""
    closed = []
    registry = Registry()
    registry.register("cloud", lambda name, settings: Cloud(name, closed))
    text = f"{HEAD}spec:\n  sandboxes: {{a: {{mode: cloud}}, b: {{mode: cloud}}}}\n  hooks: {{h: {{command: x, hook: tool, sandbox: a}}}}\n"
    config = parse_config(text, registry=registry)
    with anyio.CancelScope() as scope:
        try:
            async with config.open() as hooks:
                assert (await hooks.run("before_execution", {})).allow
                if how == "exception":
                    raise ZeroDivisionError
                if how == "cancellation":
                    scope.cancel()
                    await anyio.sleep_forever()
        except ZeroDivisionError:
            assert how == "exception"
    assert sorted(closed) == ["a", "b"]
    assert scope.cancelled_caught is (how == "cancellation")


SERVER = """
import json, sys
for line in sys.stdin:
    call = json.loads(line)
    print(json.dumps({"jsonrpc": "2.0", "id": call["id"], "result": {"allow": True}}), flush=True)
"""


async def test_the_last_that_leaves_closes(tmp_path):
    """One configuration can be opened twice. The first block to be left closes neither the other's
    server nor its sandboxes.
    """
    closed = []
    registry = Registry()
    registry.register("cloud", lambda name, settings: Cloud(name, closed))
    (tmp_path / "server.py").write_text(SERVER)
    text = (
        f"{HEAD}spec:\n  sandboxes: {{a: {{mode: cloud}}}}\n  hooks: {{h: {{command: python3, "
        f"args: ['{tmp_path}/server.py'], hook: tool, runtime: server, timeout_ms: 30000}}}}\n"
    )
    config = parse_config(text, registry=registry)
    first, second = config.open(), config.open()
    await first.__aenter__()
    hooks = await second.__aenter__()
    asked = hooks["h"]
    assert (await asked.before_execution({})).allow
    (life,) = [server._life for server in asked._servers.by_loop.values()]
    await first.__aexit__(None, None, None)
    assert not life.over
    assert (await asked.before_execution({})).allow
    assert not closed
    await second.__aexit__(None, None, None)
    assert life.over
    assert closed == ["a"]
