"""Queries of the tests to a Kubernetes cluster."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import time
import uuid
from pathlib import Path

IDLE = ["sh", "-c", 'trap "exit 0" TERM; while :; do sleep 1000 & wait; done']
ENVIRON = dict(os.environ)


def kubectl(*args, check=True, stdin=None):
    done = subprocess.run(
        ["kubectl", *args],
        env=ENVIRON,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        input=stdin,
    )
    assert not check or done.returncode == 0, done.stderr
    return done.stdout.strip()


def cluster_works():
    """Whether the cluster that KUBECONFIG names answers. Without KUBECONFIG, a user's own cluster
    is not used.
    """
    if not os.environ.get("KUBECONFIG"):
        return False
    try:
        return (
            subprocess.run(
                ["kubectl", "get", "nodes"], capture_output=True, timeout=30, check=False
            ).returncode
            == 0
        )
    except (FileNotFoundError, subprocess.TimeoutExpired):
        return False


class Space:
    """A namespace for tests to work in."""

    def __init__(self):
        self.name = f"anyspawn-test-{uuid.uuid4().hex[:8]}"
        kubectl("create", "namespace", self.name)

    def __call__(self, *args, **options):
        """Run a kubectl command in the namespace."""
        return kubectl("-n", self.name, *args, **options)

    def apply(self, *objects):
        """Create or change objects."""
        self(
            "apply",
            "-f",
            "-",
            stdin=json.dumps({"apiVersion": "v1", "kind": "List", "items": objects}),
        )

    def start(
        self,
        image="busybox",
        *,
        name=None,
        cmd=IDLE,
        ready=True,
        labels=None,
        mounts=(),
        stdin=False,
        **spec,
    ):
        """Start a pod; return its name."""
        name = name or f"pod-{uuid.uuid4().hex[:8]}"
        container = {
            "name": "main",
            "image": image,
            "imagePullPolicy": "IfNotPresent",
            "command": list(cmd),
        }
        container |= {"volumeMounts": list(mounts), "stdin": stdin}
        pod = {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": name, "labels": {"anyspawn-test": "pod", **(labels or {})}},
            "spec": {
                "restartPolicy": "Never",
                "terminationGracePeriodSeconds": 1,
                "containers": [container],
                **spec,
            },
        }
        self("create", "-f", "-", stdin=json.dumps(pod))
        if ready:
            self("wait", "--for=condition=Ready", "--timeout=30s", f"pod/{name}")
        return name

    def end(self, *names):
        self(
            "delete",
            "pod",
            *names,
            "--force",
            "--grace-period=0",
            "--wait=false",
            "--ignore-not-found",
            check=False,
        )

    def close(self):
        self.end("--all")
        kubectl("delete", "namespace", self.name, "--wait=false")

    def processes(self, pod):
        """Return the command lines of a pod's processes, without its first process and zombies."""
        script = 'for p in /proc/[0-9]*; do echo "${p#/proc/} $(tr "\\0" " " <$p/cmdline)"; done # looking'
        lines = self("exec", pod, "--", "sh", "-c", script, check=False).splitlines()
        found = [line.partition(" ")[::2] for line in lines]
        return [
            words
            for pid, words in found
            if pid != "1"
            and words.strip()
            and words.strip() != "sleep 1000"
            and "looking" not in words
        ]

    def made_by_us(self):
        """Return the pods that anyspawn has made and not deleted."""
        form = "{range .items[*]}{.metadata.name} {.metadata.deletionTimestamp}\n{end}"
        lines = self("get", "pods", "-l", "io.anyspawn.id", "-o", f"jsonpath={form}").splitlines()
        return [line.split()[0] for line in lines if len(line.split()) == 1]


def clients():
    """Return the oldest and the newest kubectl that is installed."""
    found = shutil.which("kubectl")
    if found is None:
        return ["kubectl"]
    others = [
        path
        for path in Path(found).resolve().parent.glob("kubectl.1.*")
        if path.suffix[1:].isdigit()
    ]
    ordered = sorted(others, key=lambda path: int(path.suffix[1:])) or [Path(found)]
    return sorted({str(ordered[0]), str(ordered[-1])})


def until(check, seconds=30.0):
    """Call ``check`` until its result is true, and return that."""
    end = time.monotonic() + seconds
    while not (answer := check()) and time.monotonic() < end:
        time.sleep(0.02)
    return answer
