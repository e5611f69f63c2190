"""Hooks whose sandbox is unavailable deny in time, and work again when it is back. A changed
configuration is opened beside the old one.
"""

from __future__ import annotations

import json
import sys

import anyio
import pytest

from anyspawn import DockerExec
from anyspawn.config import load_config
from anyspawn.hooks import ExecToolHook, HookRunner

pytestmark = pytest.mark.anyio

SERVER = """
import json, sys
for line in sys.stdin:
    call = json.loads(line)
    answer = {"allow": True, "reason": "%s"}
    print(json.dumps({"jsonrpc": "2.0", "id": call["id"], "result": answer}), flush=True)
"""
DOCKER = """#!/bin/sh
# A docker whose daemon is told by a file what to do; a container is this host.
case $(cat "{folder}/state") in
  refuses) echo "Cannot connect to the Docker daemon at unix:///x. Is the docker daemon running?" >&2
           exit 1;;
  hangs) exec sleep 1000;;
esac
[ "$1" = exec ] || exit 0
while [ "$1" != box ]; do shift; done
shift
exec "$@"
"""


def hooks(sandbox, timeout):
    common = {"sandbox": sandbox, "timeout": timeout}
    code = SERVER % "here"
    return [
        ExecToolHook(name="once", command="echo", args=['{"allow": true}'], **common),
        ExecToolHook(
            name="stays", command=sys.executable, args=["-c", code], runtime="server", **common
        ),
    ]


@pytest.mark.parametrize("state", ["refuses", "hangs"])
async def test_a_daemon_that_is_away_and_back(state, tmp_path, monkeypatch):
    """While the daemon is away, both kinds of hooks deny within bounds and say why. When it is
    back, the next call is answered without anyone's help.
    """
    docker, told = tmp_path / "docker", tmp_path / "state"
    docker.write_text(DOCKER.format(folder=tmp_path))
    docker.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    sandbox = DockerExec("box", shared="trusted", docker_path=str(docker))
    brief = hooks(sandbox, 2 if state == "hangs" else 60)
    patient = hooks(sandbox, 60)
    told.write_text("works")
    async with sandbox, HookRunner(patient) as runner:
        for _ in range(2):
            assert (await runner.run("before_execution", {})).allow
            told.write_text(state)
            await patient[1].aclose()  # its connection is lost with the daemon
            with anyio.fail_after(90):
                async with HookRunner(brief) as away:
                    decision = await away.run("before_execution", {})
                    assert decision.blocks
                    words = "Cannot connect" if state == "refuses" else "was not ready within"
                    assert decision.hook == "once"
                    assert words in decision.reason
                    assert (await brief[1].run("before_execution", {})).blocks
            told.write_text("works")
        assert (await runner.run("before_execution", {})).allow


CONFIG = """apiVersion: promptkit.altairalabs.ai/v1alpha1
kind: RuntimeConfig
spec:
  hooks:
    guard:
      command: {python}
      args: [-c, {code}]
      hook: tool
      runtime: server
      timeout_ms: 60000
"""


async def test_a_configuration_that_changes_is_opened_beside_the_old_one(tmp_path):
    """A reload opens the new configuration, then closes the old one. Every call is answered by one
    of them, and after the change by the new one.
    """
    file = tmp_path / "agent.yaml"

    def write(version):
        code = json.dumps(SERVER % version)
        file.write_text(CONFIG.format(python=json.dumps(sys.executable), code=code))

    async def opened():
        entered = load_config(file).open()
        return entered, await entered.__aenter__()

    answers = []
    current = []

    async def turns():
        while True:
            decision = await current[0][1].run("before_execution", {})
            assert decision.allow, decision.reason
            answers.append(decision.reason)

    write("v0")
    current.append(await opened())
    with anyio.fail_after(90):
        async with anyio.create_task_group() as tasks:
            for _ in range(8):
                tasks.start_soon(turns)
            for version in ("v1", "v2", "v3"):
                seen = len(answers)
                while len(answers) < seen + 20:
                    await anyio.sleep(0.01)
                write(version)
                old, current[0] = current[0], await opened()
                await old[0].__aexit__(None, None, None)
                seen = len(answers)
                while len(answers) < seen + 20:
                    await anyio.sleep(0.01)
                assert set(answers[seen:]) == {version}
            tasks.cancel_scope.cancel()
    await current[0][0].__aexit__(None, None, None)
    assert list(dict.fromkeys(answers)) == ["v0", "v1", "v2", "v3"]
