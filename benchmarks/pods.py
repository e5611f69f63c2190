"""Programs in Kubernetes: in a pod that runs already, and in a fresh one each."""

from __future__ import annotations

import contextlib
import io
import json
import os
import subprocess
import uuid
from collections.abc import AsyncIterator, Iterator, Sequence, Sized
from typing import Any

import anyio

from anyspawn import KubectlExec, KubectlRun
from benchmarks.peer import (
    KEPT,
    Call,
    NotHereError,
    Peer,
    Place,
    Target,
    command_line,
    in_thread,
    sandboxed,
)

IMAGE = "busybox"
LABEL = "anyspawn-bench"
IDLE = ["sh", "-c", "trap 'exit 0' TERM; while :; do sleep 3600 & wait; done"]
POD = "one"


def kubectl(*args: str, stdin: str = "", seconds: float = 90) -> str:
    try:
        done = subprocess.run(
            ["kubectl", *args],
            input=stdin,
            capture_output=True,
            text=True,
            timeout=seconds,
            check=False,
        )
    except (FileNotFoundError, subprocess.TimeoutExpired) as error:
        raise NotHereError(f"kubectl does not work here: {error}") from None
    if done.returncode:
        raise NotHereError(f"kubectl {args[0]}: {done.stderr.strip()}")
    return done.stdout.strip()


@contextlib.contextmanager
def namespace(run: str) -> Iterator[Target]:
    if not os.environ.get("KUBECONFIG"):
        raise NotHereError(
            "KUBECONFIG names no cluster; the one that a user's own kubectl points to is left alone"
        )
    target = Target(run=run, name=IMAGE, namespace=f"{LABEL}-{run}-{uuid.uuid4().hex[:4]}")
    kubectl("create", "namespace", target.namespace)
    kubectl("label", "namespace", target.namespace, f"{LABEL}={run}")
    yield target


@contextlib.contextmanager
def pod(run: str) -> Iterator[Target]:
    with namespace(run) as about:
        place = ("-n", about.namespace)
        for name in (POD, "two"):
            metadata = {"name": name, "labels": {"app": "bench"}}
            main = {
                "name": "main",
                "image": IMAGE,
                "imagePullPolicy": "IfNotPresent",
                "command": IDLE,
            }
            spec = {"containers": [main], "terminationGracePeriodSeconds": 1}
            body = {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec}
            kubectl(*place, "create", "-f", "-", stdin=json.dumps(body))
        kubectl(*place, "wait", "--for=condition=Ready", "pod", "--all", "--timeout=60s")
        yield Target(run=run, name=POD, namespace=about.namespace)


def clean(run: str) -> None:
    if os.environ.get("KUBECONFIG"):
        for name in kubectl("get", "namespaces", "-l", f"{LABEL}={run}", "-o", "name").split():
            kubectl(
                "-n",
                name.removeprefix("namespace/"),
                "delete",
                "pods",
                "--all",
                "--force",
                "--grace-period=0",
                "--wait=false",
            )
            kubectl("delete", name, "--wait=false")


@contextlib.asynccontextmanager
async def kubernetes(target: Target) -> AsyncIterator[Call]:
    from kubernetes.stream import stream

    from kubernetes import client, config

    config.load_kube_config()
    places = anyio.CapacityLimiter(64)

    async def call(argv: Sequence[str], stdin: bytes, timeout: float) -> Sized:
        def run() -> bytes:
            api = client.CoreV1Api(
                client.ApiClient()
            )  # stream() changes the client that it is given: one for each call
            options: dict[str, Any] = {
                "stdin": bool(stdin),
                "stdout": True,
                "stderr": True,
                "tty": False,
                "binary": True,
            }
            ask = api.connect_get_namespaced_pod_exec
            answer = stream(
                ask,
                target.name,
                target.namespace,
                command=list(argv),
                **options,
                _preload_content=False,
            )
            if stdin:
                answer.write_stdin(stdin)
            answer.run_forever(timeout=timeout)
            if answer.is_open():
                answer.close()
                raise TimeoutError
            return bytes(answer.read_all()) if answer.returncode == 0 else b""

        return await in_thread(run, timeout + 60, places)

    yield call


@contextlib.asynccontextmanager
async def kubernetes_asyncio(target: Target) -> AsyncIterator[Call]:
    from kubernetes_asyncio import client, config
    from kubernetes_asyncio.stream import WsApiClient

    await config.load_kube_config()
    options: dict[str, Any] = {
        "stdout": True,
        "stderr": True,
        "tty": False,
        "_preload_content": False,
    }
    async with WsApiClient() as web:
        api = client.CoreV1Api(api_client=web)

        async def call(argv: Sequence[str], stdin: bytes, timeout: float) -> Sized:
            out = io.BytesIO()
            with anyio.fail_after(timeout):
                answer = await api.connect_get_namespaced_pod_exec(
                    target.name, target.namespace, command=list(argv), stdin=bool(stdin), **options
                )
                async with answer as socket:
                    if stdin:
                        await socket.send_bytes(b"\0" + stdin)
                    async for message in socket:
                        if message.data[0] == 1:
                            out.write(message.data[1:])
            return out.getvalue()

        yield call


@contextlib.asynccontextmanager
async def kr8s(target: Target) -> AsyncIterator[Call]:
    from kr8s.asyncio.objects import Pod

    found = await Pod.get(target.name, namespace=target.namespace)

    async def call(argv: Sequence[str], stdin: bytes, timeout: float) -> Sized:
        with anyio.fail_after(timeout):
            return bytes((await found.exec(list(argv))).stdout)

    yield call


def one(target: Target, **more: Any) -> dict[str, Any]:
    return {"pod": target.name, "namespace": target.namespace, **more}


def kubectl_run(target: Target) -> list[str]:
    how = [
        "--rm",
        "-i",
        "--quiet",
        "--restart=Never",
        "--image-pull-policy=IfNotPresent",
        f"--image={target.name}",
    ]
    return ["kubectl", "-n", target.namespace, "run", f"run-{uuid.uuid4().hex}", *how, "--"]


EXEC = Place(
    name="kubectl_exec",
    title="In a running pod",
    start=pod,
    clean=clean,
    peers=(
        command_line(
            lambda target: ["kubectl", "-n", target.namespace, "exec", "-i", target.name, "--"],
            "kubectl exec",
        ),
        sandboxed(
            "anyspawn KubectlExec(resident=0)",
            KubectlExec,
            lambda target: one(target, resident=0),
        ),
        sandboxed(
            "anyspawn KubectlExec(resident=8)", KubectlExec, lambda target: one(target, **KEPT)
        ),
        sandboxed(
            "anyspawn KubectlExec(resident=0), 2 pods",
            KubectlExec,
            lambda target: {
                "selector": "app=bench",
                "namespace": target.namespace,
                "resident": 0,
            },
        ),
        Peer(name="kubernetes", connect=kubernetes, stdin="open", loops=("asyncio",)),
        Peer(
            name="kubernetes-asyncio", connect=kubernetes_asyncio, stdin="open", loops=("asyncio",)
        ),
        Peer(name="kr8s", connect=kr8s, stdin="none", loops=("asyncio",)),
    ),
)

RUN = Place(
    name="kubectl_run",
    title="In a fresh pod",
    start=namespace,
    clean=clean,
    loops=("asyncio",),
    widths=(1, 4),
    output=0,
    budget=60.0,
    patience=15.0,
    slow=30.0,
    peers=(
        command_line(kubectl_run, "kubectl run --rm"),
        sandboxed(
            "anyspawn KubectlRun",
            KubectlRun,
            lambda target: {"image": target.name, "namespace": target.namespace},
        ),
    ),
)
