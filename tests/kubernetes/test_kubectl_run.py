"""`KubectlRun` with a real cluster: each call gets a new pod, which is always gone afterwards."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time

import anyio
import attrs
import pytest

from anyspawn import (
    Cleanup,
    Command,
    ConfigError,
    ExitError,
    KubectlRun,
    Limits,
    NotStartedError,
    OutputLimitError,
    SpawnTimeoutError,
    TransportError,
    spawn,
)
from anyspawn.containers import reap_orphans
from anyspawn.sandboxes.kubectl_run import pod_manifest
from cases import NASTY, all_command_lines, command_lines
from cluster import Space, until
from machine import eventually

pytestmark = pytest.mark.anyio


@pytest.fixture
def box(space):
    return KubectlRun("busybox", namespace=space.name, default_timeout=60)


async def run(box, *argv, **options):
    return await spawn(argv, sandbox=box, **options)


async def test_a_call(box, client):
    """Input, both outputs, variables, working directory and status work. The program runs as
    nobody, without privileges or a token.
    """
    script = "cat; echo err >&2; pwd; id -u; grep -E '^(NoNewPrivs|CapEff)' /proc/self/status; ls /var/run/secrets; exit 7"
    box = attrs.evolve(box, kubectl_path=client)
    done = await run(box, "sh", "-c", script, stdin=b"in\n\0\xff\n", cwd="/tmp", env={"A": "b\nc"})
    assert done.stdout == b"in\n\0\xff\n/tmp\n65534\nCapEff:\t0000000000000000\nNoNewPrivs:\t1\n", (
        done
    )
    assert done.stderr.startswith(b"err\n")
    assert b"No such file" in done.stderr
    assert (done.returncode, done.cleanup) == (7, Cleanup.NOT_NEEDED)
    assert isinstance(done.error, ExitError)
    both = "id -u; for i in 1 2 3; do echo $i; echo e$i >&2; done; id -g"
    done = await run(box, "sh", "-c", both, merge_stderr=True, user="1234:5678")
    assert (done.text, done.stderr) == ("1234\n1\ne1\n2\ne2\n3\ne3\n5678\n", b"")


async def test_out_of_memory(box):
    """A program that the kernel killed for lack of memory has an error that says so."""
    box = attrs.evolve(box, limits=Limits(memory="64MiB"))
    done = await run(box, "tail", "/dev/zero")
    assert isinstance(done.error, ExitError), done
    assert (done.returncode, "for lack of memory" in str(done.error)) == (137, True)


async def test_variables_are_exact_and_nowhere_else(space, box):
    """Neither variables nor stdin appear in an argv, on this host or in the pod, or in the pod's
    description.
    """
    secret = f"s3cret-{os.getpid()}"
    described = []

    async def on_output(stream, chunk):
        if not described:
            described.append(space("get", "pods,events", "-o", "yaml"))

    with all_command_lines() as seen:
        done = await run(
            box,
            "cat",
            "/proc/self/environ",
            "-",
            env=NASTY | {"TOKEN": secret},
            stdin=secret.encode(),
            on_output=on_output,
        )
    assert done.stdout.endswith(secret.encode())
    found = dict(
        entry.split("=", 1) for entry in os.fsdecode(done.stdout).split("\0") if "=" in entry
    )
    assert {name: found.get(name) for name in NASTY} == NASTY
    assert "io.anyspawn.owner" in described[0]
    assert secret not in described[0]
    assert not any(secret.encode() in word for words in seen for word in words)


async def test_a_program_that_cannot_be_started(box):
    """The program never ran, and the error says so."""
    done = await run(box, "no-such-program")
    assert isinstance(done.error, NotStartedError), done
    assert (done.returncode, done.stdout, done.stderr) == (None, b"", b"")


@pytest.mark.parametrize("how", ["timeout", "overflow", "raised"])
async def test_ended_early(box, how):
    """Nothing is left, and the clean-up is confirmed."""
    if how == "timeout":
        took = (await run(box, "true", check=True)).duration
        script = "trap 'echo bye' TERM; echo ready; sleep 999"
        done = await run(
            box, "sh", "-c", script, timeout=3 * took + 2, grace=1
        )  # includes the start of the pod
        assert isinstance(done.error, SpawnTimeoutError), done
        assert done.stdout.startswith(b"ready\n")
        assert done.cleanup is Cleanup.CONFIRMED
    elif how == "overflow":
        done = await run(box, "yes", output_limit=100_000)
        assert isinstance(done.error, OutputLimitError), done
        assert done.cleanup is Cleanup.CONFIRMED
    else:

        def on_output(stream, chunk):
            raise LookupError(chunk)

        with pytest.raises(LookupError):
            await run(box, "sh", "-c", "echo x; sleep 999", on_output=on_output)


async def test_the_time_is_up_before_the_pod_is_made(box):
    """A timeout before the pod exists is an ordinary timeout, and the pod is deleted."""
    done = await run(box, "true", timeout=0.001)
    assert isinstance(done.error, SpawnTimeoutError), done
    assert done.cleanup is not Cleanup.UNCONFIRMED


async def test_cancelled_at_twenty_moments(box):
    """Whatever the moment of the cancellation, no pod is left."""

    async def one(delay):
        with anyio.move_on_after(delay):
            await run(box, "sh", "-c", "sleep 0.2; exit 3")

    async with anyio.create_task_group() as tasks:
        for step in range(20):
            tasks.start_soon(one, step * 0.08)


async def test_native_cancellation(space, anyio_backend):
    """An asyncio task is cancelled four times in a row; no pod is left."""
    if anyio_backend[0] == "trio":
        return
    import asyncio

    box = KubectlRun("busybox", namespace=space.name, default_timeout=60)
    for delay in (0.05, 0.5, 1.5):
        task = asyncio.ensure_future(box.spawn(Command(["sleep", "999"])))
        await asyncio.sleep(delay)
        for _ in range(4):
            task.cancel()
            await asyncio.sleep(0.01)
        with pytest.raises(asyncio.CancelledError):
            await task
        assert not space.made_by_us()


async def test_cancelled_while_the_pod_is_being_made(space, box, fake_kubectl, anyio_backend):
    """The creation cannot be taken back, so the pod is deleted before the cancellation
    continues.
    """
    path = fake_kubectl('case "$*" in *create*) sleep 0.5;; esac; exec "$real" "$@"')
    with anyio.move_on_after(0.2):
        await run(attrs.evolve(box, kubectl_path=path), "sleep", "999")
    assert not space.made_by_us()
    assert not eventually(space.made_by_us, 1)


async def test_a_pod_that_comes_late(space, box, fake_kubectl):
    """A creation that was given up may still succeed. The clean-up is unconfirmed, and a guard
    deletes the pod later.
    """
    path = fake_kubectl(
        'case "$*" in *create*) cat >"$0.pod"; exec sleep 60;; *) exec "$real" "$@";; esac'
    )
    done = await run(attrs.evolve(box, kubectl_path=path), "true", timeout=1)
    assert isinstance(done.error, SpawnTimeoutError), done
    assert done.cleanup is Cleanup.UNCONFIRMED
    assert not space.made_by_us()
    space("create", "-f", f"{path}.pod")
    assert not eventually(space.made_by_us, 30)


async def test_the_same_command_twice_at_once(box):
    """Two calls of one command each have their own pod."""
    command, results = Command(["sh", "-c", "echo out; exit 3"]), []

    async def one():
        results.append(await box.spawn(command))

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(one)
        tasks.start_soon(one)
    assert [(done.stdout, done.returncode) for done in results] == [(b"out\n", 3)] * 2


PARENT = """
import anyio, sys
from anyspawn import KubectlRun, spawn

async def main():
    box = KubectlRun("busybox", namespace=sys.argv[2], kubeconfig="config", default_timeout=60)
    await spawn(["sh", "-c", "echo ready; sleep 999"], sandbox=box, on_output=lambda *_: print("ready", flush=True))

anyio.run(main, backend=sys.argv[1])
"""


async def test_the_caller_is_killed(space, anyio_backend, tmp_path):
    """A guard deletes the pod when the caller is killed, even if the path of the kubeconfig is
    relative.
    """
    shutil.copy(os.environ["KUBECONFIG"], tmp_path / "config")
    argv = [sys.executable, "-c", PARENT, anyio_backend[0], space.name]
    parent = subprocess.Popen(argv, stdout=subprocess.PIPE, cwd=tmp_path)
    assert parent.stdout.readline() == b"ready\n"
    assert len(space.made_by_us()) == 1
    parent.kill()
    parent.wait()
    parent.stdout.close()
    assert not eventually(space.made_by_us, 30)


async def test_the_pod_has_a_deadline_of_its_own(space, box):
    """The pod's deadline follows from the command's timeout, so that it ends even if caller and
    guard vanish.
    """
    found = []

    async def on_output(stream, chunk):
        (name,) = space.made_by_us()
        found.append(json.loads(space("get", "pod", name, "-o", "json")))

    done = await run(box, "echo", "out", timeout=100, grace=2, on_output=on_output)
    assert done.error is None
    (pod,) = found
    assert 100 < pod["spec"]["activeDeadlineSeconds"] <= 100 + 2 + 0.5 + 15 + 1
    assert pod["metadata"]["annotations"]["io.anyspawn.owner"].split("/")[1] == str(os.getpid())
    assert pod["spec"]["automountServiceAccountToken"] is False
    found.clear()
    assert (await run(box, "echo", "out", timeout=float("inf"), on_output=on_output)).error is None
    assert "activeDeadlineSeconds" not in found[0]["spec"]


async def test_a_pod_without_caller_and_guard(space):
    """The kubelet ends the pod at its deadline; the ended pod stays until it is removed."""
    command = Command(["true"])
    pod = pod_manifest(KubectlRun("busybox"), command, seconds=0.5, owner="another-host/1/1")
    space.apply(pod)
    name = pod["metadata"]["name"]
    try:
        assert until(
            lambda: (
                space("get", "pod", name, "-o", "jsonpath={.status.reason}") == "DeadlineExceeded"
            )
        )
        assert space("get", "pod", name, "-o", "jsonpath={.status.phase}") == "Failed"
    finally:
        space.end(name)


class TestTruth:
    """If a pod does not run, the error says why, and at once if waiting cannot help."""

    @pytest.mark.parametrize(
        ("fields", "words"),
        [
            ({"image": "anyspawn.invalid/none:1"}, "correct the image's name, or how it is pulled"),
            (
                {"image": "anyspawn-none:1", "image_pull_policy": "Never"},
                "the image is not on the node",
            ),
            ({"image": "UPPER CASE"}, "correct the image's name"),
            ({"image": "distroless"}, 'exec: "sh": executable file not found'),
            ({"user": None}, "container has runAsNonRoot and image will run as root"),
            ({"namespace": "no-such-space"}, 'namespaces "no-such-space" not found'),
            ({"context": "none"}, 'context "none" does not exist'),
            ({"kubectl_path": "no-such-kubectl"}, "install kubectl"),
            ({"overrides": {"spec": {"containres": []}}}, "containres"),
            ({"resources": {"limits": {"cpu": "many"}}}, "quantities must match"),
        ],
        ids=lambda value: "-".join(value) if isinstance(value, dict) else "",
    )
    async def test_nothing_was_started(self, box, fields, words):
        """The error is a TransportError, long before the timeout."""
        began = time.monotonic()
        done = await run(attrs.evolve(box, **fields), "true", timeout=100)
        assert isinstance(done.error, TransportError), done
        assert words in str(done.error)
        assert (done.error.started, done.returncode, done.cleanup) == (
            False,
            None,
            Cleanup.NOT_NEEDED,
        )
        assert time.monotonic() - began < 60

    async def test_no_node_takes_it(self, box):
        """A node may become free, so anyspawn waits; after the timeout the error says why the pod
        did not start.
        """
        done = await run(attrs.evolve(box, node_selector={"no-such": "label"}), "true", timeout=8)
        assert isinstance(done.error, SpawnTimeoutError), done
        assert "was not started in time: pod" in str(done.error)
        assert "Unschedulable" in str(done.error)

    async def test_a_quota(self):
        """The API server's refusal for a quota is not a matter of permissions, and the error says
        so.
        """
        with contextlib.closing(Space()) as full:
            full("create", "quota", "none", "--hard=pods=0")
            until(lambda: full("get", "quota", "none", "-o", "jsonpath={.status.hard.pods}"))
            done = await run(KubectlRun("busybox", namespace=full.name), "true", timeout=40)
        assert isinstance(done.error, TransportError), done
        assert "exceeded quota" in str(done.error)
        assert "raise the namespace's quota" in str(done.error)
        assert (done.error.started, done.cleanup) == (False, Cleanup.NOT_NEEDED)

    @pytest.mark.parametrize(
        ("said", "words"),
        [
            (
                'violates PodSecurity "restricted:latest": runAsNonRoot != true',
                "the namespace's Pod Security level",
            ),
            (
                "unable to create new content in namespace a because it is being terminated",
                "choose another namespace",
            ),
            ('User "agent" cannot create resource "pods"', "grant this user what it names"),
        ],
    )
    async def test_what_is_forbidden(self, fake_kubectl, said, words):
        """The error says who forbids it, and what to do about it."""
        path = fake_kubectl(
            f"echo 'Error from server (Forbidden): pods \"a\" is forbidden: {said}' >&2; exit 1"
        )
        done = await run(KubectlRun("busybox", kubectl_path=path), "true")
        assert isinstance(done.error, TransportError), done
        assert words in str(done.error)
        assert (done.error.started, done.cleanup) == (False, Cleanup.NOT_NEEDED)

    async def test_the_pod_is_deleted_meanwhile(self, space, box):
        """The output so far is kept."""
        done = await run(
            box,
            "sh",
            "-c",
            "echo ready; sleep 999",
            on_output=lambda *_: space.end(*space.made_by_us()),
            timeout=50,
        )
        assert isinstance(done.error, TransportError), done
        assert (done.error.started, done.stdout) == (True, b"ready\n")

    async def test_an_api_server_that_hangs(self, space, fake_kubectl):
        """The call is bounded, and its clean-up is unconfirmed."""
        path = fake_kubectl("exec sleep 60")
        box = KubectlRun("busybox", namespace=space.name, kubectl_path=path)
        began = time.monotonic()
        done = await run(box, "true", timeout=1)
        assert isinstance(done.error, SpawnTimeoutError)
        assert "the API server did not answer" in str(done.error)
        assert done.cleanup is Cleanup.UNCONFIRMED
        assert time.monotonic() - began < 1 + 15
        for pid, words in command_lines().items():  # the guard goes on, as it should
            if path.encode() in words:
                os.killpg(pid, signal.SIGKILL)


async def test_settings(space, box):
    """Resources, user and overrides take effect; overrides can add containers and change the main
    one.
    """
    space("create", "serviceaccount", "worker", check=False)
    side = {
        "name": "side",
        "image": "busybox",
        "imagePullPolicy": "IfNotPresent",
        "command": ["sleep", "1000"],
    }
    mount = {"name": "scratch", "mountPath": "/scratch"}
    box = attrs.evolve(
        box,
        user=1234,
        resources={"limits": {"memory": "64Mi"}},
        overrides={
            "metadata": {"labels": {"team": "hooks"}},
            "spec": {
                "terminationGracePeriodSeconds": None,
                "containers": [side, {"name": "main", "volumeMounts": [mount]}],
                "volumes": [{"name": "scratch", "emptyDir": {}}],
            },
        },
    )
    found = []

    async def on_output(stream, chunk):
        found.append(json.loads(space("get", "pods", "-l", "team=hooks", "-o", "json"))["items"][0])

    done = await run(box, "sh", "-c", "id -u; touch /scratch/a && echo ok", on_output=on_output)
    assert done.stdout == b"1234\nok\n", done
    spec = found[0]["spec"]
    assert {container["name"] for container in spec["containers"]} == {"main", "side"}
    assert spec["terminationGracePeriodSeconds"] == 30
    main = next(container for container in spec["containers"] if container["name"] == "main")
    assert main["resources"]["limits"] == {"memory": "64Mi"}
    assert main["securityContext"]["allowPrivilegeEscalation"] is False


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"image": ""}, "image is empty"),
        ({"image": "-x"}, "image must not start with '-'"),
        ({"user": "root"}, "user must be a number"),
        ({"image_pull_policy": "always"}, "image_pull_policy must be"),
        ({"node_selector": {"a": 1}}, "node_selector must be a mapping of texts to texts"),
        ({"resources": {"limit": {}}}, "resources must be of the form"),
        ({"overrides": []}, "overrides must be a mapping"),
        (
            {"overrides": {"spec": {"a": object()}}},
            "overrides must be a mapping that JSON can hold",
        ),
        ({"overrides": {"metadata": {"name": "mine"}}}, "overrides: 'name' cannot be changed"),
        (
            {"overrides": {"metadata": {"labels": {"io.anyspawn.id": None}}}},
            "overrides: 'io.anyspawn.id' cannot",
        ),
        (
            {"overrides": {"metadata": {"annotations": None}}},
            "overrides: annotations must be a mapping",
        ),
        ({"overrides": {"kind": "Job"}}, "overrides: 'kind' cannot be changed"),
        (
            {"overrides": {"spec": {"containers": None}}},
            "overrides: spec.containers must be a list",
        ),
        ({"resources": {"limits": {"cpu": object()}}}, "resources must be of the form"),
    ],
)
async def test_bad_settings(fields, message):
    """Each error names the field."""
    with pytest.raises(ConfigError) as caught:
        KubectlRun(**{"image": "busybox"} | fields)
    assert message in str(caught.value)


ORPHAN = """
import json, os, sys
from anyspawn import Command, KubectlRun
from anyspawn._owner import owner
from anyspawn.sandboxes.kubectl_run import pod_manifest
print(json.dumps(pod_manifest(KubectlRun("busybox"), Command(["true"]), seconds=600, owner=owner())), flush=True)
sys.stdin.read()
"""


async def test_prune(space):
    """Pods of dead owners are removed; those of living owners and of other hosts are not."""
    pipe = subprocess.PIPE
    owners = [
        subprocess.Popen([sys.executable, "-c", ORPHAN], stdin=pipe, stdout=pipe) for _ in range(2)
    ]
    pods = [json.loads(owner.stdout.readline()) for owner in owners]
    stranger = json.loads(json.dumps(pods[0]))
    stranger["metadata"]["name"] += "-stranger"
    stranger["metadata"]["annotations"]["io.anyspawn.owner"] = "another-host/1/1"
    space.apply(*pods, stranger)
    names = [pod["metadata"]["name"] for pod in (*pods, stranger)]
    try:
        owners[0].send_signal(signal.SIGKILL)
        owners[0].wait()
        (orphan,) = await reap_orphans(mode="kubectl_run", namespace=space.name, dry_run=True)
        assert orphan.name == f"{space.name}/{names[0]}"
        prune = [
            sys.executable,
            "-m",
            "anyspawn",
            "prune",
            "--mode",
            "kubectl_run",
            "--namespace",
            space.name,
        ]
        listed = subprocess.run(
            [*prune, "--dry-run"], capture_output=True, text=True, check=True
        ).stdout
        assert listed.endswith("1 would be removed\n")
        assert subprocess.run(prune, capture_output=True, text=True, check=True).stdout.endswith(
            "1 removed\n"
        )
        assert until(lambda: len(space.made_by_us()) == 2)
        assert sorted(line.strip() for line in space.made_by_us()) == sorted(names[1:])
        assert await reap_orphans(mode="kubectl_run", namespace=space.name) == []
        with pytest.raises(TransportError, match="kubectl config get-contexts"):
            await reap_orphans(mode="kubectl_run", context="none")
        failed = subprocess.run(
            [*prune, "--context", "none"], capture_output=True, text=True, check=False
        )
        assert failed.returncode == 1
        assert "choose one of kubectl config get-contexts" in failed.stderr
    finally:
        for owner in owners:
            owner.kill()
            owner.wait()
            owner.stdin.close()
            owner.stdout.close()
        space.end(*names)


def test_run_command(space, busybox):
    """`anyspawn run` works with both modes."""
    base = [sys.executable, "-m", "anyspawn", "run"]
    where = ["--namespace", space.name]
    fresh = [*base, "--mode", "kubectl_run", "--image", "busybox", *where, "--timeout", "60s"]
    done = subprocess.run(
        [*fresh, "--", "sh", "-c", "cat; exit 3"], input=b"in", capture_output=True, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (3, b"in", b"")
    there = [*base, "--mode", "kubectl_exec", "--pod", busybox, *where, "--container", "main"]
    done = subprocess.run(
        [*there, "--", "sh", "-c", "cat; exit 3"], input=b"in", capture_output=True, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (3, b"in", b"")
    chosen = [*base, "--mode", "kubectl_exec", "--selector", "anyspawn-test=pod", *where]
    done = subprocess.run(
        [*chosen, "--", "echo", "out"], input=b"", capture_output=True, check=False
    )
    assert (done.returncode, done.stdout) == (0, b"out\n")
    done = subprocess.run(
        [*base, "--mode", "kubectl_exec", "--", "true"], capture_output=True, check=False
    )
    assert done.returncode == 125
    assert b"--pod or --selector" in done.stderr
