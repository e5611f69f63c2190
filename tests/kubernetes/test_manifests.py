"""The example's manifests do what they say: hooks run in the sidecars, by an account that may do that and nothing more."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from anyspawn import KubectlExec, KubectlRun, TransportError, spawn
from anyspawn.config import load_config
from anyspawn.hooks import ToolRequest
from cluster import kubectl

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


@pytest.fixture(scope="module")
def account(deployed, tmp_path_factory):
    """A kubeconfig of the agent's account, as it has in a pod, with its own token."""
    token = deployed("create", "token", "agent")
    config = json.loads(kubectl("config", "view", "--raw", "--minify", "-o", "json"))
    config["users"][0]["user"] = {"token": token}
    path = tmp_path_factory.mktemp("account") / "kubeconfig"
    path.write_text(json.dumps(config))
    return str(path)


async def test_hooks_run_in_the_sidecars(deployed, account):
    """By selector, with the agent's own account; the sidecar's walls hold."""
    box = KubectlExec(selector="app=hooks", container="hooks", namespace=deployed.name, kubeconfig=account)
    done = await spawn(["sh", "-c", "cat; id -u; touch /tmp/a /x"], stdin=b"in\n", sandbox=box)
    assert done.stdout == b"in\n65534\n", done
    assert b"Read-only file system" in done.stderr


async def test_the_runtime_config(deployed, account, monkeypatch):
    """A hook that is named in it runs there too."""
    monkeypatch.setenv("HOOKS_NAMESPACE", deployed.name)
    monkeypatch.setenv("KUBECONFIG", account)
    async with load_config(EXAMPLE / "agent.yaml").open() as runner:
        assert (await runner.run("before_execution", ToolRequest(name="ls", args={}))).allow
        decision = await runner.run("before_execution", ToolRequest(name="ls", args={"what": "a password"}))
        assert (decision.allow, decision.reason) == (False, "no secrets")


@pytest.mark.parametrize(
    ("what", "may"),
    [
        ("get pods", True),
        ("list pods", True),
        ("watch pods", True),
        ("create pods/exec", True),
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
    """What it may is what it needs."""
    argv = ["kubectl", f"--kubeconfig={account}", "-n", deployed.name, "auth", "can-i", *what.split()]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert done.stdout.strip() == ("yes" if may else "no"), done


async def test_the_account_may_do_it_here_alone(deployed, account):
    """In another namespace the API server refuses, and the error says what is missing."""
    done = await spawn(["true"], sandbox=KubectlExec("any", namespace="default", kubeconfig=account))
    assert isinstance(done.error, TransportError)
    assert "(Forbidden)" in str(done.error)
    assert done.error.started is False


async def test_kubectl_run_with_its_own_role(deployed, account):
    """Refused without, which is said; and no more is needed than the second role."""
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


def test_the_clean_up(deployed):
    """The job is accepted; what it runs removes pods that have ended, and no others."""
    text = (EXAMPLE / "cleanup.yaml").read_text()
    if "batch/v1\n" not in kubectl("api-versions") + "\n" or "cronjobs" not in kubectl(
        "api-resources", "--api-group=batch"
    ):
        pytest.fail("this cluster has no cron jobs")
    if "batch/v1beta1" in kubectl("api-versions"):  # before Kubernetes 1.25; from 1.21 on there are both
        text = text.replace("batch/v1\nkind: CronJob", "batch/v1beta1\nkind: CronJob")
    deployed("apply", "-f", "-", stdin=text)
    job = json.loads(deployed("get", "cronjob", "anyspawn-cleanup", "-o", "json"))
    command = job["spec"]["jobTemplate"]["spec"]["template"]["spec"]["containers"][0]["command"]
    deployed("delete", "-f", "-", stdin=text)
    label = {"io.anyspawn.id": "0" * 16}
    ended = deployed.start(labels=label, cmd=["true"], ready=False)
    runs = deployed.start(labels=label)
    deployed("wait", "--for=jsonpath={.status.phase}=Succeeded", f"pod/{ended}", "--timeout=30s")
    deployed(*command[1:], "--wait=false")
    left = deployed("get", "pods", "-l", "io.anyspawn.id", "-o", "jsonpath={.items[*].metadata.name}").split()
    gone = deployed("get", "pod", ended, "--ignore-not-found", "-o", "jsonpath={.metadata.deletionTimestamp}")
    deployed.end(ended, runs)
    assert runs in left
    assert ended not in left or gone
