"""How a pod is chosen for a call, with invented lists of pods; tests/kubernetes has real ones."""

from __future__ import annotations

import anyio
import pytest

from anyspawn import Completed, SpawnTimeoutError, TransportError
from anyspawn.sandboxes import _pods
from anyspawn.sandboxes._pods import Pod, Pods

pytestmark = pytest.mark.anyio


class Cluster:
    """Answers in kubectl's place, and counts the questions.

    Args:
        pods: The names of the pods, and whether they are Ready.
        seconds: The time that an answer takes.
        error: An error to answer with instead.
    """

    def __init__(self, pods, seconds=0.0, error=None):
        self.pods, self.seconds, self.error, self.asked = pods, seconds, error, 0

    async def ask(self, *args, seconds):
        self.asked += 1
        with anyio.move_on_after(seconds):
            await anyio.sleep(self.seconds)
            lines = [
                f"{name}\tuid-{name}\t\tRunning\t{ready}\n" for name, ready in self.pods.items()
            ]
            return Completed(argv=args, stdout="".join(lines).encode(), error=self.error)
        return Completed(argv=args, error=SpawnTimeoutError("too late"))

    def choice(self, per_pod=None):
        return Pods(self.ask, None, "app=x", per_pod)


def soon(seconds=5.0):
    return anyio.current_time() + seconds


async def test_readiness_that_comes_and_goes(monkeypatch):
    """The calls of a pod still count while the pod is not Ready."""
    monkeypatch.setattr(_pods, "_AGE", 0.0)
    cluster = Cluster({"a": True})
    choice = cluster.choice(per_pod=1)
    first = await choice.pick(deadline=soon())
    cluster.pods = {"a": False}
    assert isinstance(await choice.pick(deadline=soon()), TransportError)
    cluster.pods = {"a": True}
    assert isinstance(await choice.pick(deadline=soon(0.3)), SpawnTimeoutError)
    choice.release(first)
    assert await choice.pick(deadline=soon()) is first


async def test_first_come_first_served():
    """A caller that gives a place back does not overtake those who wait for it."""
    choice = Cluster({"a": True}).choice(per_pod=1)
    served = dict.fromkeys(range(3), 0)

    async def worker(number):
        for _ in range(20):
            pod = await choice.pick(deadline=soon(30))
            assert isinstance(pod, Pod)
            assert pod.in_flight == 1
            served[number] += 1
            assert (
                max(served.values()) - min(served.values()) <= 2
            )  # one may have begun before another
            await anyio.lowlevel.checkpoint()
            choice.release(pod)

    async with anyio.create_task_group() as tasks:
        for number in served:
            tasks.start_soon(worker, number)
    assert served == dict.fromkeys(range(3), 20)


async def test_a_list_that_cannot_be_had(monkeypatch):
    """If the list cannot be updated, the last one is used; a slow answer does not take up the
    call's whole timeout.
    """
    monkeypatch.setattr(_pods, "_AGE", 0.0)
    monkeypatch.setattr(_pods, "_PATIENCE", 0.1)
    cluster = Cluster({"a": True})
    choice = cluster.choice()
    assert (await choice.pick(deadline=soon())).name == "a"
    cluster.seconds = 60
    with anyio.fail_after(2):
        assert (await choice.pick(deadline=soon())).name == "a"


async def test_no_list_at_all():
    """Callers that wait for the same list share one failure. If the API server does not answer, the
    error says that, and not that pods are busy.
    """
    cluster = Cluster({}, seconds=0.05, error=TransportError("no cluster", started=None))
    choice, found = cluster.choice(), []

    async def one():
        found.append(await choice.pick(deadline=soon()))

    async with anyio.create_task_group() as tasks:
        for _ in range(50):
            tasks.start_soon(one)
    assert {str(error) for error in found} == {"no cluster"}
    assert {error.started for error in found} == {False}
    assert cluster.asked == 1
    found = await Cluster({}, seconds=60).choice().pick(deadline=soon(0.2))
    assert "the API server did not list the pods in time" in str(found)


async def test_a_pod_that_was_lost():
    """A lost pod is left out until a later list contains it."""
    cluster = Cluster({"a": True, "b": True})
    choice = cluster.choice()
    first = await choice.pick(deadline=soon())
    choice.release(first)
    choice.lose(first)
    cluster.pods = {"b": True}
    assert (await choice.pick(deadline=soon())).name == "b"
    assert cluster.asked == 2
