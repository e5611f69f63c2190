"""What a caller, a pod and several pods hold: calls a second and latency by calls in flight, beside bare kubectl exec.

Needs a cluster (KUBECONFIG) and the image busybox; makes a namespace of its own and deletes it. All ways take turns in each
round. Run it by ``python benchmarks/kubernetes.py [--calls N] [--rounds N]``.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import time
import uuid
from collections.abc import Awaitable, Callable

import anyio

from anyspawn import KubectlExec, spawn

Call = Callable[[], Awaitable[None]]
NAMESPACE = f"anyspawn-bench-{uuid.uuid4().hex[:6]}"
IDLE = ["sh", "-c", "trap 'exit 0' TERM; while :; do sleep 1000 & wait; done"]


def kubectl(*args: str, stdin: str = "") -> None:
    subprocess.run(["kubectl", "-n", NAMESPACE, *args], input=stdin.encode(), stdout=subprocess.DEVNULL, check=True)


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
    one, many = KubectlExec(names[0], namespace=NAMESPACE), KubectlExec(selector="app=bench", namespace=NAMESPACE)
    argv = ["kubectl", "-n", NAMESPACE, "exec", "-i", names[0], "--", "cat"]

    async def bare() -> None:
        assert (await anyio.run_process(argv, input=b"x")).stdout == b"x"

    async def sandboxed(sandbox: KubectlExec) -> None:
        done = await spawn(["cat"], stdin=b"x", sandbox=sandbox, timeout=60, check=True)
        assert done.stdout == b"x"

    return {"kubectl exec": bare, "one pod": lambda: sandboxed(one), f"{len(names)} pods": lambda: sandboxed(many)}


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


async def main(calls: int, rounds: int) -> None:
    names = start(4)
    print("| in flight | way | calls/s (median, range) | latency ms (median, 95 %) |")
    print("| --- | --- | --- | --- |")
    for in_flight in (1, 4, 16, 32):
        rates: dict[str, list[float]] = {}
        latencies: dict[str, list[float]] = {}
        for _ in range(rounds):
            for name, call in ways(names).items():
                rate, took = await measure(call, max(calls, in_flight * 2), in_flight)
                rates.setdefault(name, []).append(rate)
                latencies.setdefault(name, []).extend(took)
        for name, found in rates.items():
            took = sorted(latencies[name])
            middle, late = statistics.median(took) * 1000, took[int(len(took) * 0.95)] * 1000
            spread = f"{statistics.median(found):.1f} ({min(found):.1f} .. {max(found):.1f})"
            print(f"| {in_flight} | {name} | {spread} | {middle:.0f}, {late:.0f} |", flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--calls", type=int, default=40)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    subprocess.run(["kubectl", "create", "namespace", NAMESPACE], check=True, stdout=subprocess.DEVNULL)
    try:
        anyio.run(main, options.calls, options.rounds)
    finally:
        kubectl("delete", "pods", "--all", "--force", "--grace-period=0", "--wait=false")
        subprocess.run(["kubectl", "delete", "namespace", NAMESPACE, "--wait=false"], check=True)
