"""Many pods behind a selector or a workload: which one gets a call, and that no call runs twice."""

from __future__ import annotations

import collections
import contextlib
import os
import random
import time

import anyio
import attrs
import pytest

from anyspawn import (
    ExitError,
    KubectlExec,
    OutputLimitError,
    SpawnTimeoutError,
    TransportError,
    spawn,
)
from cluster import until

pytestmark = pytest.mark.anyio

CALLS = int(os.environ.get("ANYSPAWN_TEST_CALLS", "150"))
"""The number of calls under deletions; all 2,000 take minutes."""


class Pods:
    """Pods with one label."""

    def __init__(self, space, many):
        self.space = space
        self.label = f"set-{random.randrange(10**9)}"
        self.names = []
        for _ in range(many):
            self.add(ready=False)
        for name in self.names:
            space("wait", "--for=condition=Ready", "--timeout=30s", f"pod/{name}")

    def add(self, *, ready=True, **spec):
        name = self.space.start(labels={"set": self.label}, ready=ready, **spec)
        self.names.append(name)
        return name

    def box(self, **fields):
        return KubectlExec(
            selector=f"set={self.label}",
            namespace=self.space.name,
            default_timeout=60,
            resident=0,
            **fields,
        )

    def close(self):
        self.space.end(*self.names)


@pytest.fixture
def pods(space):
    with contextlib.closing(Pods(space, 2)) as pods:
        yield pods


async def where(box, *argv, **options):
    """Return the name of the pod that took a call."""
    done = await spawn(argv or ["hostname"], sandbox=box, check=True, **options)
    return done.stdout.decode().split()[0]


async def test_calls_go_to_the_pod_that_has_the_fewest(pods):
    """Single calls take turns; simultaneous ones spread evenly."""
    box = pods.box()
    assert {await where(box) for _ in range(4)} == set(pods.names)
    found = collections.Counter()

    async def one():
        found[await where(box, "sh", "-c", "hostname; sleep 0.5")] += 1

    async with anyio.create_task_group() as tasks:
        for _ in range(6):
            tasks.start_soon(one)
    assert found == dict.fromkeys(pods.names, 3)


async def test_pods_that_come_and_go(pods):
    """New and deleted pods are noticed after a moment, without a list for each call."""
    box = pods.box()
    await where(box)
    new = pods.add()
    with anyio.fail_after(60):
        while await where(box) != new:
            pass
    pods.space.end(*pods.names[:2])
    with anyio.fail_after(60):
        assert {await where(box) for _ in range(4)} == {new}


async def test_lists_are_not_asked_for_by_each_call(pods, fake_kubectl, tmp_path):
    """Simultaneous calls share one list, and so do calls shortly after them."""
    path = fake_kubectl(f'case "$1" in get) echo >>{tmp_path}/lists;; esac; exec "$real" "$@"')
    box = pods.box(kubectl_path=path)
    began = time.monotonic()
    for _ in range(2):
        async with anyio.create_task_group() as tasks:
            for _ in range(5):
                tasks.start_soon(where, box)
    lists = len((tmp_path / "lists").read_text().splitlines())
    assert lists <= 1 + (time.monotonic() - began) / 2


async def test_a_pod_that_does_not_take_a_call(pods):
    """A pod that was deleted after the last list cannot take a call: another one takes it, and the
    caller notices nothing.
    """
    box = pods.box()
    await where(box)
    pods.space.end(pods.names[0])
    until(lambda: pods.space("get", "pod", pods.names[0], "--ignore-not-found") == "")
    assert [await where(box) for _ in range(3)] == [pods.names[1]] * 3


async def test_no_pod_is_left(pods):
    """The error is a TransportError, and nothing ran."""
    box = pods.box()
    await where(box)
    pods.space.end(*pods.names)
    until(lambda: pods.space("get", "pods", "-l", f"set={pods.label}", "-o", "name") == "")
    done = await spawn(["hostname"], sandbox=box)
    assert isinstance(done.error, TransportError)
    assert done.error.started is False


async def test_a_pod_that_is_not_ready_gets_no_call(space):
    """A pod that runs but is not Ready gets no call."""
    with contextlib.closing(Pods(space, 1)) as pods:
        unready = {"exec": {"command": ["false"]}, "periodSeconds": 1}
        idle = ["sh", "-c", "while :; do sleep 1000; done"]
        main = {
            "name": "main",
            "image": "busybox",
            "imagePullPolicy": "IfNotPresent",
            "command": idle,
        }
        pods.add(ready=False, containers=[{**main, "readinessProbe": unready}])
        until(
            lambda: (
                space("get", "pod", pods.names[1], "-o", "jsonpath={.status.phase}") == "Running"
            )
        )
        box = pods.box()
        assert {await where(box) for _ in range(3)} == {pods.names[0]}


async def test_places_in_each_pod(pods):
    """A pod never has more calls at once than the limit; further calls wait, until their own
    timeout.
    """
    box = pods.box(max_concurrent_per_pod=1)
    running, most = collections.Counter(), collections.Counter()

    async def one():
        async def on_output(stream, chunk):
            for name, what in map(str.split, chunk.decode().splitlines()):
                running[name] += 1 if what == "begin" else -1
                most[name] = max(most[name], running[name])

        done = await spawn(
            ["sh", "-c", 'echo "$(hostname) begin"; sleep 0.3; echo "$(hostname) end"'],
            sandbox=box,
            on_output=on_output,
        )
        assert done.error is None

    async with anyio.create_task_group() as tasks:
        for _ in range(6):
            tasks.start_soon(one)
    assert most == dict.fromkeys(pods.names, 1)
    begun = anyio.Semaphore(0)
    async with anyio.create_task_group() as tasks:
        argv = ["sh", "-c", "echo begun; sleep 999"]
        for _ in range(2):
            tasks.start_soon(
                lambda: spawn(argv, sandbox=box, timeout=100, on_output=lambda *_: begun.release())
            )
        for _ in range(2):
            await begun.acquire()
        began = time.monotonic()
        done = await spawn(["true"], sandbox=box, timeout=1)
        assert (
            time.monotonic() - began < 10
        )  # and not the hundred seconds of the calls that hold the places
        tasks.cancel_scope.cancel()
    assert isinstance(done.error, SpawnTimeoutError)
    assert "raise max_concurrent_per_pod, or add pods" in str(done.error)
    assert await where(box)


async def test_a_cancelled_call_gives_its_place_back(pods):
    """A cancelled call frees its place, whether it waited or ran."""
    box = pods.box(max_concurrent_per_pod=1)
    async with anyio.create_task_group() as tasks:
        for _ in range(5):
            tasks.start_soon(lambda: spawn(["sleep", "100"], sandbox=box))
        await anyio.sleep(1)
        tasks.cancel_scope.cancel()
    assert {await where(box, timeout=30) for _ in range(2)} == set(pods.names)


@pytest.mark.parametrize("kind", ["deployment", "statefulset"])
async def test_workloads(space, kind):
    """A deployment's or stateful set's name stands for its pods, as with kubectl; a service's name
    for those that it selects.
    """
    label = f"w{random.randrange(10**9)}"
    main = {"name": "main", "image": "busybox", "imagePullPolicy": "IfNotPresent"}
    main["command"] = ["sh", "-c", 'trap "exit 0" TERM; while :; do sleep 1000 & wait; done']
    workload = {
        "apiVersion": "apps/v1",
        "kind": {"deployment": "Deployment", "statefulset": "StatefulSet"}[kind],
        "metadata": {"name": label},
        "spec": {
            "replicas": 2,
            "serviceName": label,
            "selector": {
                "matchLabels": {"app": label},
                "matchExpressions": [{"key": "app", "operator": "Exists"}],
            },
            "template": {
                "metadata": {"labels": {"app": label}},
                "spec": {"containers": [main], "terminationGracePeriodSeconds": 0},
            },
        },
    }
    if kind == "deployment":
        del workload["spec"]["serviceName"]
    space.apply(workload)
    service = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": label},
        "spec": {"selector": {"app": label}, "ports": [{"port": 80}]},
    }
    space.apply(service)
    try:
        space("rollout", "status", f"{kind}/{label}", "--timeout=60s")
        names = set(
            space(
                "get", "pods", "-l", f"app={label}", "-o", "jsonpath={.items[*].metadata.name}"
            ).split()
        )
        assert len(names) == 2
        for target in (f"{kind}/{label}", f"service/{label}"):
            box = KubectlExec(target, namespace=space.name, default_timeout=60)
            assert {await where(box) for _ in range(4)} == names
        argv = ["sh", "-c", "echo ready; sleep 100"]
        done = await spawn(argv, sandbox=box, output_limit=5, grace=0.5)
        assert isinstance(done.error, OutputLimitError)
        assert done.cleanup.value == "confirmed"
        for one in ("pod", "Pod", "po"):
            assert await where(attrs.evolve(box, pod=f"{one}/{min(names)}")) == min(names)
    finally:
        space("delete", kind, label, "--wait=false", "--cascade=background")
        space("delete", "service", label)
        space.end("-l", f"app={label}")


async def test_many_calls_while_pods_are_deleted(space):
    """Each call has the right result or a TransportError that is true, and no call runs twice: it
    writes its mark at most once.
    """
    label = f"counted-{random.randrange(10**9)}"
    folder = f"/tmp/anyspawn-{label}"
    shared = {
        "volumes": [{"name": "shared", "hostPath": {"path": folder, "type": "DirectoryOrCreate"}}],
        "mounts": [{"name": "shared", "mountPath": "/shared"}],
    }
    node = {
        "volumes": [{"name": "tmp", "hostPath": {"path": "/tmp"}}],
        "mounts": [{"name": "tmp", "mountPath": "/tmp"}],
    }
    outcomes, names = {}, []
    box = KubectlExec(selector=f"set={label}", namespace=space.name, default_timeout=60)
    places, over = anyio.CapacityLimiter(16), anyio.Event()

    async def one(number):
        async with places:
            script = f"echo >>/shared/{number}; cat; exit {number % 5}"
            outcomes[number] = await spawn(["sh", "-c", script], stdin=b"%d" % number, sandbox=box)

    async def replace():
        while not over.is_set():
            with anyio.move_on_after(2.5):
                await over.wait()
            if not over.is_set():
                gone = names.pop(0)
                await anyio.to_thread.run_sync(space.end, gone)
                names.append(
                    await anyio.to_thread.run_sync(
                        lambda: space.start(labels={"set": label}, **shared)
                    )
                )

    reader = space.start(**node)
    try:
        names += [
            space.start(labels={"set": label}, ready=index == 3, **shared) for index in range(4)
        ]
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(replace)
            async with anyio.create_task_group() as calls:
                for number in range(CALLS):
                    calls.start_soon(one, number)
            over.set()
        counted = space("exec", reader, "--", "sh", "-c", f"cd {folder}; wc -l * | grep -v total")
    finally:
        space.end(*names)
        space("exec", reader, "--", "rm", "-rf", folder, check=False)
        space.end(reader)
    ran = {int(name): int(count) for count, name in map(str.split, counted.splitlines())}
    assert set(ran.values()) == {1}
    lost = [number for number, done in outcomes.items() if isinstance(done.error, TransportError)]
    for number, done in outcomes.items():
        if number in lost:
            assert done.error.started is not False or number not in ran, done
        else:
            assert (done.stdout, done.returncode) == (b"%d" % number, number % 5), done
            assert done.error is None or isinstance(done.error, ExitError)
            assert number in ran
    assert len(lost) < CALLS / 4
