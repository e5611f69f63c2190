"""The example's manifests work: hooks run in the sidecars, with an account that has only the
permissions it needs.
"""

from __future__ import annotations

import base64
import json
import os
import ssl
import subprocess
import sys
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from anyspawn import KubectlExec, KubectlRun, TransportError, spawn
from anyspawn.config import load_config
from anyspawn.hooks import ToolRequest
from cluster import kubectl
from machine import bubblewrap_works

EXAMPLE = Path(__file__).parents[2] / "examples" / "kubernetes"
pytestmark = pytest.mark.anyio


@pytest.fixture(scope="module")
def deployed(space):
    """The namespace with the sidecars and the accounts."""
    for name in ("hooks", "rbac", "network-policy"):
        space("apply", "-f", str(EXAMPLE / f"{name}.yaml"))
    space("rollout", "status", "deployment/hooks", "--timeout=60s")
    yield space
    space("delete", "deployment", "hooks", "--wait=false")
    space.end("-l", "app=hooks")


def kubeconfig(space, account, folder):
    """Return the path of a kubeconfig with an account's own token, as a pod has it."""
    config = json.loads(kubectl("config", "view", "--raw", "--minify", "-o", "json"))
    config["users"][0]["user"] = {"token": space("create", "token", account)}
    (folder / "kubeconfig").write_text(json.dumps(config))
    return str(folder / "kubeconfig")


@pytest.fixture(scope="module")
def account(deployed, tmp_path_factory):
    """The kubeconfig of the agent's account."""
    return kubeconfig(deployed, "agent", tmp_path_factory.mktemp("account"))


async def test_hooks_run_in_the_sidecars(deployed, account):
    """A selector and the agent's own account are enough, and the sidecar's confinement holds."""
    box = KubectlExec(
        selector="app=hooks",
        container="hooks",
        namespace=deployed.name,
        kubeconfig=account,
        default_timeout=60,
    )
    done = await spawn(["sh", "-c", "cat; id -u; touch /tmp/a /x"], stdin=b"in\n", sandbox=box)
    assert done.stdout == b"in\n65534\n", done
    assert b"Read-only file system" in done.stderr


async def test_a_sidecar_is_deleted_under_a_call(deployed, account):
    """The call goes on to its end. The next one goes to another pod, and the deployment makes a new
    one.
    """
    box = KubectlExec(
        selector="app=hooks",
        container="hooks",
        namespace=deployed.name,
        kubeconfig=account,
        default_timeout=60,
    )
    seen = []

    async def on_output(stream, chunk):
        if not seen:
            seen.append(chunk.decode().strip())
            deployed("delete", "pod", seen[0], "--wait=false")

    done = await spawn(
        ["sh", "-c", "hostname; sleep 3; echo end"], sandbox=box, on_output=on_output, timeout=60
    )
    assert (done.error, done.stdout) == (None, f"{seen[0]}\nend\n".encode()), done
    done = await spawn(["hostname"], sandbox=box, check=True, timeout=60)
    assert done.stdout.decode().strip() != seen[0]
    deployed("rollout", "status", "deployment/hooks", "--timeout=60s")


async def test_the_runtime_config(deployed, account, monkeypatch):
    """A hook in the runtime configuration runs in the sidecars too."""
    monkeypatch.setenv("HOOKS_NAMESPACE", deployed.name)
    monkeypatch.setenv("KUBECONFIG", account)
    async with load_config(EXAMPLE / "agent.yaml").open() as runner:
        assert (await runner.run("before_execution", ToolRequest(name="ls", args={}))).allow
        decision = await runner.run(
            "before_execution", ToolRequest(name="ls", args={"what": "a password"})
        )
        assert (decision.allow, decision.reason) == (False, "no secrets")


INSIDE = """
import anyio
from anyspawn import KubectlExec, spawn

box = KubectlExec(selector="app=hooks", container="hooks")
done = anyio.run(lambda: spawn(["echo", "out"], sandbox=box, timeout=30))
print(done.stdout, done.error)
"""


@pytest.mark.skipif(
    not bubblewrap_works(), reason="bwrap is not installed, or user namespaces are forbidden here"
)
def test_the_agent_in_the_cluster(deployed, account, tmp_path):
    """With what a pod has, its account's token and two variables, kubectl finds the cluster and the
    namespace itself.
    """
    config = json.loads(Path(account).read_text())
    cluster, user = config["clusters"][0]["cluster"], config["users"][0]["user"]
    server = urlsplit(cluster["server"])
    ca = base64.b64decode(cluster.get("certificate-authority-data", "")).decode()
    if "certificate-authority" in cluster:
        ca = Path(cluster["certificate-authority"]).read_text()
    (tmp_path / "ca.crt").write_text(
        ca or ssl.get_server_certificate((server.hostname, server.port))
    )
    (tmp_path / "token").write_text(user["token"])
    (tmp_path / "namespace").write_text(deployed.name)
    binds = ["--dev-bind", "/", "/", "--tmpfs", "/run"]
    binds += ["--ro-bind", str(tmp_path), "/run/secrets/kubernetes.io/serviceaccount"]
    env = {"PATH": os.environ["PATH"], "HOME": "/nonexistent", "KUBECACHEDIR": "/run/cache"}
    env |= {"KUBERNETES_SERVICE_HOST": server.hostname, "KUBERNETES_SERVICE_PORT": str(server.port)}
    argv = ["bwrap", *binds, "--", sys.executable, "-c", INSIDE]
    done = subprocess.run(argv, env=env, capture_output=True, text=True, check=False)
    assert done.stdout == "b'out\\n' None\n", done
    agent = json.loads(
        deployed("create", "--dry-run=server", "-f", str(EXAMPLE / "in-cluster.yaml"), "-o", "json")
    )
    assert agent["spec"]["template"]["spec"]["serviceAccountName"] == "agent"


@pytest.mark.parametrize(
    ("what", "may"),
    [
        ("get pods", True),
        ("list pods", True),
        ("watch pods", True),
        ("create pods/exec", True),
        ("get pods/exec", False),
        ("create pods", False),
        ("delete pods", False),
        ("create pods/attach", False),
        ("get pods/log", False),
        ("get secrets", False),
        ("get configmaps", False),
        ("list namespaces", False),
        ("list nodes", False),
    ],
)
def test_the_account_may_do_no_more(deployed, account, what, may):
    """The account has only the permissions that it needs."""
    verb, _, kind = what.partition(" ")
    kind, _, part = kind.partition("/")  # kubectl would take the part after the slash for a name
    argv = ["kubectl", f"--kubeconfig={account}", "-n", deployed.name, "auth", "can-i", verb, kind]
    argv += [f"--subresource={part}"] if part else []
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert done.stdout.strip() == ("yes" if may else "no"), done


async def test_the_account_may_do_it_here_alone(deployed, account):
    """In another namespace the API server refuses, and the error says what is missing."""
    done = await spawn(
        ["true"], sandbox=KubectlExec("any", namespace="default", kubeconfig=account)
    )
    assert isinstance(done.error, TransportError)
    assert "(Forbidden)" in str(done.error)
    assert done.error.started is False


async def test_kubectl_run_with_its_own_role(deployed, account):
    """Without the second role the API server refuses, which the error says; with it, kubectl_run
    works.
    """
    box = KubectlRun("busybox", namespace=deployed.name, kubeconfig=account, default_timeout=60)
    done = await spawn(["true"], sandbox=box)
    assert isinstance(done.error, TransportError)
    assert "(Forbidden)" in str(done.error)
    assert done.cleanup.value == "not needed"
    deployed("apply", "-f", str(EXAMPLE / "rbac-run.yaml"))
    try:
        done = await spawn(["echo", "out"], sandbox=box)
        assert (done.stdout, done.error) == (b"out\n", None)
    finally:
        deployed("delete", "-f", str(EXAMPLE / "rbac-run.yaml"))


def test_the_clean_up(deployed, tmp_path):
    """The cron job is accepted. Its command, run by its own account, removes ended pods and no
    others.
    """
    text = (EXAMPLE / "cleanup.yaml").read_text()
    if "batch/v1\n" not in kubectl("api-versions") + "\n" or "cronjobs" not in kubectl(
        "api-resources", "--api-group=batch"
    ):
        pytest.fail("this cluster has no cron jobs")
    if "batch/v1beta1" in kubectl(
        "api-versions"
    ):  # before Kubernetes 1.25; from 1.21 on there are both
        text = text.replace("batch/v1\nkind: CronJob", "batch/v1beta1\nkind: CronJob")
    deployed("apply", "-f", "-", stdin=text)
    job = json.loads(deployed("get", "cronjob", "anyspawn-cleanup", "-o", "json"))
    command = job["spec"]["jobTemplate"]["spec"]["template"]["spec"]["containers"][0]["command"]
    label = {"io.anyspawn.id": "0" * 16}
    ended = deployed.start(labels=label, cmd=["true"], ready=False)
    runs = deployed.start(labels=label)
    deployed("wait", "--for=jsonpath={.status.phase}=Succeeded", f"pod/{ended}", "--timeout=30s")
    deployed(f"--kubeconfig={kubeconfig(deployed, 'anyspawn-cleanup', tmp_path)}", *command[1:])
    deployed("delete", "-f", "-", stdin=text)
    left = deployed(
        "get", "pods", "-l", "io.anyspawn.id", "-o", "jsonpath={.items[*].metadata.name}"
    ).split()
    gone = deployed(
        "get", "pod", ended, "--ignore-not-found", "-o", "jsonpath={.metadata.deletionTimestamp}"
    )
    deployed.end(ended, runs)
    assert runs in left
    assert ended not in left or gone
