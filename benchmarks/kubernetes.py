"""What a caller, a pod and several pods hold: calls a second and latency by calls in flight, beside
bare kubectl exec.

Then what CPU a call costs whom, where the cluster is on this machine, and what calls cost that only
wait. Needs a cluster (KUBECONFIG) and the image busybox; makes a namespace of its own and deletes
it. All ways take turns in each round. Run it by ``python benchmarks/kubernetes.py [--calls N]
[--rounds N] [--held N ...]``.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import resource
import statistics
import subprocess
import time
import uuid
from collections.abc import Awaitable, Callable
from pathlib import Path

import anyio

from anyspawn import KubectlExec, KubectlRun, Sandbox, spawn

Call = Callable[[], Awaitable[None]]
NAMESPACE = f"anyspawn-bench-{uuid.uuid4().hex[:6]}"
SERVICES = ("kube-apiserver", "kubelet", "dockerd", "containerd")
IDLE = ["sh", "-c", "trap 'exit 0' TERM; while :; do sleep 1000 & wait; done"]


def kubectl(*args: str, stdin: str = "") -> None:
    subprocess.run(
        ["kubectl", "-n", NAMESPACE, *args],
        input=stdin.encode(),
        stdout=subprocess.DEVNULL,
        check=True,
    )


def start(many: int) -> list[str]:
    """Start pods; return their names."""
    names = [f"pod-{index}" for index in range(many)]
    main = {"name": "main", "image": "busybox", "imagePullPolicy": "IfNotPresent", "command": IDLE}
    for name in names:
        about = {"name": name, "labels": {"app": "bench"}}
        pod = {"apiVersion": "v1", "kind": "Pod", "metadata": about, "spec": {"containers": [main]}}
        kubectl("create", "-f", "-", stdin=json.dumps(pod))
    for name in names:
        kubectl("wait", "--for=condition=Ready", f"pod/{name}", "--timeout=60s")
    return names


def ways(names: list[str]) -> dict[str, Call]:
    """Return what is measured: each runs ``cat`` once."""
    one, many = (
        KubectlExec(names[0], namespace=NAMESPACE, resident=0),
        KubectlExec(selector="app=bench", namespace=NAMESPACE, resident=0),
    )
    fresh = KubectlRun("busybox", namespace=NAMESPACE)
    argv = ["kubectl", "-n", NAMESPACE, "exec", "-i", names[0], "--", "cat"]

    async def bare() -> None:
        assert (await anyio.run_process(argv, input=b"x")).stdout == b"x"

    async def sandboxed(sandbox: Sandbox) -> None:
        done = await spawn(["cat"], stdin=b"x", sandbox=sandbox, timeout=60, check=True)
        assert done.stdout == b"x"

    return {
        "kubectl exec": bare,
        "one pod": lambda: sandboxed(one),
        f"{len(names)} pods": lambda: sandboxed(many),
        "a fresh pod": lambda: sandboxed(fresh),
    }


async def measure(call: Call, calls: int, in_flight: int) -> tuple[float, list[float]]:
    """Return calls a second, and each call's seconds."""
    places, took = anyio.CapacityLimiter(in_flight), []

    async def one() -> None:
        async with places:
            began = time.perf_counter()
            await call()
            took.append(time.perf_counter() - began)

    began = time.perf_counter()
    async with anyio.create_task_group() as tasks:
        for _ in range(calls):
            tasks.start_soon(one)
    return calls / (time.perf_counter() - began), took


def cpu() -> dict[str, float]:
    """Return the seconds of CPU that this process, its clients and the cluster's services here have
    used.
    """
    used = {"this process": resource.RUSAGE_SELF, "kubectl": resource.RUSAGE_CHILDREN}
    found = {name: sum(resource.getrusage(who)[:2]) for name, who in used.items()}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            name, _, rest = stat.read_text().partition("(")[2].rpartition(")")
        except OSError:  # it has ended
            continue
        if name in SERVICES:
            ticks = sum(int(field) for field in rest.split()[11:13])
            found[name] = found.get(name, 0) + ticks / os.sysconf("SC_CLK_TCK")
    return found


def memory() -> tuple[float, int]:
    """Return the MiB that this process's clients hold, shared pages by their share, and how many
    they are.
    """
    sizes = []
    for parent in Path("/proc").glob("[0-9]*/stat"):
        try:
            if parent.read_text().rpartition(")")[2].split()[1] == str(os.getpid()):
                lines = (parent.parent / "smaps_rollup").read_text().splitlines()
                sizes += [int(line.split()[1]) / 1024 for line in lines if line.startswith("Pss:")]
        except OSError:
            continue
    return sum(sizes), len(sizes)


async def hold(pod: str, many: int) -> None:
    """Print what calls cost that wait for their programs, and what it takes to end them all at
    once.
    """
    sandbox, waiting = KubectlExec(pod, namespace=NAMESPACE, resident=0), anyio.Semaphore(0)
    argv = ["sh", "-c", "echo ready; exec sleep 999"]

    def ready(*_: object) -> None:
        waiting.release()

    began = time.perf_counter()
    async with anyio.create_task_group() as tasks:
        for _ in range(many):
            tasks.start_soon(lambda: spawn(argv, sandbox=sandbox, timeout=600, on_output=ready))
        for _ in range(many):
            await waiting.acquire()
        started, (size, clients), before = time.perf_counter() - began, memory(), cpu()
        files = len(os.listdir("/proc/self/fd")) / many
        await anyio.sleep(5)
        after, began = cpu(), time.perf_counter()
        tasks.cancel_scope.cancel()
    ended = time.perf_counter() - began
    idle = sum(after[who] - before[who] for who in ("this process", "kubectl")) / 5
    found: list[object] = [
        many,
        f"{started:.1f}",
        f"{size / clients:.0f}",
        f"{files:.1f}",
        f"{idle * 100:.1f}",
        f"{ended:.1f}",
    ]
    found.append(IN_DOUBT.count)
    print("|", " | ".join(map(str, found)), "|", flush=True)
    IN_DOUBT.count = 0


class InDoubt(logging.Handler):
    """Counts the calls of which something may be left."""

    count = 0

    def emit(self, record: logging.LogRecord) -> None:
        self.count += 1


IN_DOUBT = InDoubt()


async def main(calls: int, rounds: int, held: list[int]) -> None:
    names = start(4)
    print("| in flight | way | calls/s (median, range) | latency ms (median, 95 %) |")
    print("| --- | --- | --- | --- |")
    costs: dict[str, dict[str, list[float]]] = {}
    for in_flight in (1, 4, 16, 32, 64) if calls else ():
        rates: dict[str, list[float]] = {}
        latencies: dict[str, list[float]] = {}
        for _ in range(rounds):
            for name, call in ways(names).items():
                if name == "a fresh pod" and in_flight > 4:
                    continue  # pods that start fill this machine
                many = max(calls, in_flight * 2) // (5 if name == "a fresh pod" else 1)
                before = cpu()
                rate, took = await measure(call, many, in_flight)
                for who, used in cpu().items():
                    costs.setdefault(name, {}).setdefault(who, []).append(
                        (used - before.get(who, 0)) / many
                    )
                rates.setdefault(name, []).append(rate)
                latencies.setdefault(name, []).extend(took)
        print(f"({IN_DOUBT.count} in doubt)" if IN_DOUBT.count else "", end="", flush=True)
        IN_DOUBT.count = 0
        for name, found in rates.items():
            took = sorted(latencies[name])
            middle, late = statistics.median(took) * 1000, took[int(len(took) * 0.95)] * 1000
            spread = f"{statistics.median(found):.1f} ({min(found):.1f} .. {max(found):.1f})"
            print(f"| {in_flight} | {name} | {spread} | {middle:.0f}, {late:.0f} |", flush=True)
    whose = list(costs.get("one pod", ()))
    print("\n| CPU ms a call |", " | ".join(whose), "|\n| --- |", "--- | " * len(whose))
    for name, cost in costs.items():
        print(
            f"| {name} |",
            " | ".join(f"{statistics.median(cost[who]) * 1000:.0f}" for who in whose),
            "|",
        )
    print(
        "\n| calls that wait | started in s | MiB a client | open files a call | % of a CPU | ended in s | in doubt |"
    )
    print("| --- | --- | --- | --- | --- | --- | --- |")
    for many in held:
        await hold(names[0], many)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--calls", type=int, default=40)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--held", type=int, nargs="*", default=[10, 25, 50, 100])
    options = parser.parse_args()
    logging.getLogger("anyspawn").addHandler(IN_DOUBT)
    subprocess.run(
        ["kubectl", "create", "namespace", NAMESPACE], check=True, stdout=subprocess.DEVNULL
    )
    try:
        anyio.run(main, options.calls, options.rounds, options.held)
    finally:
        kubectl("delete", "pods", "--all", "--force", "--grace-period=0", "--wait=false")
        subprocess.run(["kubectl", "delete", "namespace", NAMESPACE, "--wait=false"], check=True)
