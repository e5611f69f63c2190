"""Residents in pods: one long `kubectl exec` serves many calls, for a named pod and behind a
selector.
"""

from __future__ import annotations

import os
import signal
import uuid

import anyio
import pytest

from anyspawn import Cleanup, KubectlExec, OutputLimitError, TransportError, spawn
from anyspawn._spawn.child import ended
from cases import command_lines
from machine import eventually

pytestmark = pytest.mark.anyio


def clients(pod):
    return [
        pid
        for pid, argv in command_lines().items()
        if b"kubectl" in argv[0] and b"exec" in argv and pod in argv
    ]


async def test_one_client_serves_many_calls(space, busybox, client):
    """The resident works with the oldest and the newest kubectl, and survives a call that is cut
    short.
    """
    async with KubectlExec(
        busybox, namespace=space.name, resident=2, kubectl_path=client, default_timeout=60
    ) as box:
        assert not clients(busybox.encode())
        for number in range(4):
            done = await spawn(
                ["sh", "-c", "cat; exit $A"], sandbox=box, stdin=b"in", env={"A": str(number)}
            )
            assert (done.stdout, done.returncode, done.cleanup) == (
                b"in",
                number,
                Cleanup.NOT_NEEDED,
            )
        done = await spawn(
            ["sh", "-c", "setsid sleep 999 & echo ready; sleep 999"], sandbox=box, output_limit=5
        )
        assert isinstance(done.error, OutputLimitError)
        assert done.cleanup is Cleanup.CONFIRMED
        data = os.urandom(1_000_003)
        assert (await spawn(["cat"], sandbox=box, stdin=data, check=True)).stdout == data
        assert len(clients(busybox.encode())) == 1
    assert not clients(busybox.encode())
    assert not eventually(lambda: space.processes(busybox))


async def test_a_sandbox_that_is_called_again(space, busybox):
    """Such a sandbox keeps a resident from its second call on."""
    async with KubectlExec(busybox, namespace=space.name, default_timeout=60) as box:
        for number in (0, 1, 1):
            done = await spawn(["cat"], sandbox=box, stdin=b"in", check=True)
            assert (done.stdout, len(clients(busybox.encode()))) == (b"in", number)
    assert not clients(busybox.encode())
    assert not eventually(lambda: space.processes(busybox))


async def test_a_resident_that_dies(space, own):
    """If it dies between calls, the next call gets a new one. If it dies during a call, that is a
    TransportError, and the program is killed.
    """
    async with KubectlExec(own, namespace=space.name, resident=1, default_timeout=60) as box:
        await spawn(["true"], sandbox=box, check=True)
        (first,) = clients(own.encode())
        os.kill(first, signal.SIGKILL)
        assert not eventually(lambda: not ended(first))
        await spawn(["true"], sandbox=box, check=True)
        event, results = anyio.Event(), []

        async def call():
            def on_output(stream, chunk):
                event.set()

            results.append(
                await spawn(["sh", "-c", "echo ready; sleep 999"], sandbox=box, on_output=on_output)
            )

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(call)
            with anyio.fail_after(60):
                await event.wait()
            os.kill(clients(own.encode())[0], signal.SIGKILL)
        (done,) = results
        assert isinstance(done.error, TransportError)
        assert (done.error.started, done.stdout, done.cleanup) == (
            True,
            b"ready\n",
            Cleanup.CONFIRMED,
        )
    assert not eventually(lambda: space.processes(own))


async def test_each_pod_of_a_selector_has_its_own(space):
    """Calls are spread over the pods, and each pod has its own residents. When a pod is deleted,
    only its own calls fail.
    """
    app = f"app-{uuid.uuid4().hex[:8]}"
    pods = [space.start(labels={"app": app}, ready=False) for _ in range(2)]
    for pod in pods:
        space("wait", "--for=condition=Ready", "--timeout=60s", f"pod/{pod}")
    try:
        async with KubectlExec(
            selector=f"app={app}", namespace=space.name, resident=1, default_timeout=60
        ) as box:
            names = []

            async def one():
                done = await spawn(["sh", "-c", "hostname; sleep 0.1"], sandbox=box, check=True)
                names.append(done.stdout.decode().strip())

            for _ in range(2):
                async with anyio.create_task_group() as tasks:
                    for _ in range(4):
                        tasks.start_soon(one)
            assert sorted(set(names)) == sorted(pods)
            assert [len(clients(pod.encode())) for pod in pods] == [1, 1]
            space.end(pods[0])
            for _ in range(6):
                done = await spawn(["hostname"], sandbox=box)
                assert done.error is None or isinstance(done.error, TransportError)
            done = await spawn(["hostname"], sandbox=box, check=True)
            assert done.stdout.decode().strip() == pods[1]
    finally:
        space.end(*pods)
