"""`KubectlExec` with a real cluster, and with the oldest and the newest kubectl that is
installed.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
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
    KubectlExec,
    NotStartedError,
    OutputLimitError,
    SpawnTimeoutError,
    TransportError,
    spawn,
)
from cases import NASTY, TREES, command_lines
from cluster import until
from loops import take_turns
from machine import eventually

pytestmark = pytest.mark.anyio


BOXES = ["busybox", "busybox with residents", "python"]


@pytest.hookimpl(tryfirst=True)
def pytest_generate_tests(metafunc):
    take_turns(metafunc, "box", BOXES)


@pytest.fixture(params=BOXES)
def box(request, space):
    """A pod with busybox's sh or with dash; with a new supervisor for each command or with
    residents.
    """
    image, _, residents = request.param.partition(" ")
    pod = request.getfixturevalue(image)
    return KubectlExec(
        pod, namespace=space.name, default_timeout=60, resident=8 if residents else 0
    )


async def left_in(box, space):
    """Return the processes that a test left in a pod, after its residents are closed."""
    await box.aclose()
    return eventually(lambda: space.processes(box.pod))


@pytest.fixture
def bare_box(space, busybox):
    return KubectlExec(busybox, namespace=space.name, default_timeout=60, resident=0)


async def run(box, *argv, **options):
    return await spawn(argv, sandbox=box, **options)


async def test_stdin_and_output(box, client):
    """Input and output are exact, both streams are separate, and nothing of the supervisor or
    kubectl is in them.
    """
    box = attrs.evolve(box, kubectl_path=client)
    done = await run(box, "sh", "-c", "cat; echo err >&2; exit 7", stdin=b"in\n\x1e\0\xff")
    assert (done.stdout, done.stderr, done.returncode) == (b"in\n\x1e\0\xff", b"err\n", 7)
    assert isinstance(done.error, ExitError)
    assert done.cleanup is Cleanup.NOT_NEEDED


async def test_variables_and_cwd(box):
    """Line breaks, empty values, quotes and any byte arrive unchanged, also under names that
    control a shell or kubectl itself.
    """
    done = await run(box, "cat", "/proc/self/environ", env=NASTY, cwd="/tmp")
    found = dict(
        entry.split("=", 1) for entry in os.fsdecode(done.stdout).split("\0") if "=" in entry
    )
    assert {name: found.get(name) for name in NASTY} == NASTY
    assert not any(name.startswith("ANYSPAWN_") and name != "ANYSPAWN_ID" for name in found)
    assert (await run(box, "pwd", cwd="/proc/self/..")).stdout in (b"/proc/self/..\n", b"/proc\n")
    done = await run(box, "touch", "/tmp/never", cwd="/no/such/folder")
    assert isinstance(done.error, NotStartedError)
    assert "its cwd is not a directory in the container" in done.error.reason
    assert (await run(box, "test", "-e", "/tmp/never")).returncode == 1


@pytest.mark.parametrize("size", [0, 1, 65_000, 65_537, 10_000_003])
async def test_stdin_of_any_size(bare_box, size, client):
    """Input of any size arrives complete and ends, whatever the client's protocol is."""
    data = os.urandom(size)
    done = await run(attrs.evolve(bare_box, kubectl_path=client), "md5sum", stdin=data)
    assert done.stdout.split()[0].decode() == hashlib.md5(data).hexdigest(), done


async def test_much_output(bare_box):
    """32 MB come back complete, with bounded memory."""
    done = await run(
        bare_box,
        "head",
        "-c",
        "32000000",
        "/dev/zero",
        overflow="truncate",
        output_limit=1000,
        timeout=120,
    )
    assert (done.error, done.stdout_total) == (None, 32_000_000)


@pytest.mark.parametrize("code", [1, 126, 255])
async def test_the_programs_own_status(box, code):
    """A status that kubectl also uses, with kubectl's own message on stderr, is still the
    program's.
    """
    said = 'Error from server (NotFound): pods "x" not found'
    done = await run(box, "sh", "-c", f"echo '{said}' >&2; exit {code}")
    assert isinstance(done.error, ExitError), done
    assert (done.returncode, done.stderr, done.cleanup) == (
        code,
        f"{said}\n".encode(),
        Cleanup.NOT_NEEDED,
    )


@pytest.mark.parametrize("how", ["timeout", "cancel"])
async def test_nothing_is_left_in_the_pod(space, box, how):
    """However the program changes its session, environment and signals, nothing of it is left."""

    async def one(script):
        if how == "timeout":
            done = await run(box, "sh", "-c", script, timeout=2)
            assert isinstance(done.error, SpawnTimeoutError)
            assert done.cleanup is Cleanup.CONFIRMED
        else:
            with anyio.move_on_after(2):
                await run(box, "sh", "-c", script)

    began = time.monotonic()
    async with anyio.create_task_group() as tasks:
        for script in TREES.values():
            tasks.start_soon(one, script)
    assert not await left_in(box, space)
    assert time.monotonic() - began < 60


PARENT = """
import anyio, json, sys
from anyspawn import KubectlExec, spawn

async def main():
    box = KubectlExec(sys.argv[3], namespace=sys.argv[2], resident=int(sys.argv[5]))
    async with anyio.create_task_group() as tasks:
        for number, script in enumerate(json.loads(sys.argv[4])):
            argv = ["sh", "-c", f"echo > /tmp/started{number}; {script}"]
            tasks.start_soon(lambda argv=argv: spawn(argv, sandbox=box, timeout=1000, stdin=b"x" * 100_000))

anyio.run(main, backend=sys.argv[1])
"""


async def test_the_caller_is_killed(space, box, anyio_backend):
    """When the caller is killed, everything in the pod is gone soon."""
    space("exec", box.pod, "--", "sh", "-c", "rm -f /tmp/started*")
    trees = list(TREES.values())
    args = [anyio_backend[0], space.name, box.pod, json.dumps(trees), str(box.resident)]
    parent = subprocess.Popen([sys.executable, "-c", PARENT, *args])
    try:
        assert until(
            lambda: space("exec", box.pod, "--", "ls", "/tmp").count("started") == len(trees)
        )
    finally:
        parent.kill()
        parent.wait()
    assert not await left_in(box, space)


async def test_the_client_is_ended_by_someone_else(space, box):
    """If someone kills the client, the call is a TransportError whatever the client's status is,
    and the program is killed.
    """
    for signum in (signal.SIGTERM, signal.SIGKILL):
        event, results = anyio.Event(), []

        async def call(event=event, results=results):
            async def on_output(stream, chunk):
                event.set()

            results.append(await run(box, "sh", "-c", "echo ready; sleep 999", on_output=on_output))

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(call)
            with anyio.fail_after(60):
                await event.wait()
            (pid,) = [
                pid
                for pid, words in command_lines().items()
                if words[0].endswith(b"kubectl") and box.pod.encode() in words
            ]
            os.kill(pid, signum)
        (done,) = results
        assert isinstance(done.error, TransportError), done
        assert done.error.started is True
        assert "the connection was lost while 'sh' ran" in str(done.error)
        assert (done.returncode, done.stdout, done.cleanup) == (None, b"ready\n", Cleanup.CONFIRMED)
        assert not await left_in(box, space)


async def test_the_same_command_twice_at_once(bare_box):
    """Neither call kills the other's program, although their id is the same."""
    command, results = Command(["sh", "-c", "echo out; sleep 0.5; exit 3"]), []

    async def one(delay):
        await anyio.sleep(delay)
        results.append(await bare_box.spawn(command))

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(one, 0)
        tasks.start_soon(one, 0.3)
    assert [(done.stdout, done.returncode) for done in results] == [(b"out\n", 3)] * 2


@pytest.mark.parametrize("arg", ["-n", "--namespace=x", "--context=x", "-c", "--kubeconfig"])
async def test_arguments_that_have_a_field(arg):
    """kubectl options with a field of their own are refused, because extra_args do not reach every
    command.
    """
    with pytest.raises(ConfigError, match=r"extra_args: .* instead"):
        KubectlExec("pod", extra_args=[arg, "x"])


async def test_further_arguments(bare_box):
    """extra_args reach kubectl, before the pod's name."""
    box = attrs.evolve(bare_box, extra_args=["--request-timeout=30s", "--quiet"], container="main")
    assert (await run(box, "echo", "out")).stdout == b"out\n"


class TestTruth:
    """Each failure has its own message, which says what to do."""

    @pytest.mark.parametrize(
        ("fields", "words"),
        [
            ({"pod": "no-such-pod"}, 'pods "no-such-pod" not found; correct pod and namespace'),
            ({"namespace": "no-such-space"}, "not found; correct pod and namespace"),
            ({"container": "none"}, "container none is not valid for pod"),
            (
                {"context": "none"},
                'context "none" does not exist; choose one of kubectl config get-contexts',
            ),
            ({"kubeconfig": "/no/such/file"}, "no such file or directory; correct kubeconfig"),
            ({"extra_args": ["--as=somebody"]}, 'User "somebody" cannot get resource "pods"'),
            ({"extra_args": ["--token=expired"]}, "(Unauthorized); log in again"),
            ({"extra_args": ["--server=http://127.0.0.1:1"]}, "was refused"),
            (
                {"extra_args": ["--no-such-flag"]},
                "unknown flag: --no-such-flag; correct extra_args",
            ),
            (
                {"kubectl_path": "no-such-kubectl"},
                "install kubectl (https://kubernetes.io/docs/tasks/tools/)",
            ),
            ({"pod": "deployment/none"}, 'deployments.apps "none" not found'),
            ({"pod": None, "selector": "app=none"}, "no pod of app=none is Ready"),
        ],
        ids=lambda value: "-".join(value) if isinstance(value, dict) else "",
    )
    async def test_nothing_was_started(self, bare_box, fields, words, client):
        """The error is a TransportError, nothing ran, and there is nothing to clean up."""
        done = await run(attrs.evolve(bare_box, **{"kubectl_path": client} | fields), "true")
        assert isinstance(done.error, TransportError), done
        assert words in str(done.error)
        assert (done.error.started, done.returncode, done.stdout) == (False, None, b"")
        assert done.cleanup is Cleanup.NOT_NEEDED

    async def test_kubectl_asks_for_a_password(self, bare_box, tmp_path, client):
        """kubectl gets no answer: it must not take a variable's value or stdin for a password. The
        call ends at once.
        """
        config = json.loads(
            subprocess.run(
                ["kubectl", "config", "view", "--raw", "-o", "json"],
                capture_output=True,
                check=True,
            ).stdout
        )
        config["users"][0]["user"] = {}
        (tmp_path / "config").write_text(json.dumps(config))
        box = attrs.evolve(bare_box, kubeconfig=str(tmp_path / "config"), kubectl_path=client)
        done = await run(box, "true", stdin=b"st4in\nst4in\n", env={"A": "s3cret"})
        assert isinstance(done.error, TransportError), done
        assert "the kubeconfig has no credentials for this cluster" in str(done.error)
        assert done.error.started is False
        assert "s3cret" not in repr(done) + str(done.stderr)

    async def test_an_old_kubectl(self, bare_box, fake_kubectl):
        """A kubectl that does not know an option is too old, and the error says so."""
        path = fake_kubectl("echo 'Error: unknown shorthand flag: \"c\" in -c' >&2; exit 1")
        done = await run(attrs.evolve(bare_box, kubectl_path=path, container="main"), "true")
        assert isinstance(done.error, TransportError)
        assert "install a newer kubectl (1.20 or later)" in str(done.error)

    async def test_pending(self, space):
        """The error says what the pod waits for."""
        name = space.start(ready=False, nodeSelector={"no-such": "label"})
        assert until(lambda: "Unschedulable" in space("get", "pod", name, "-o", "json"))
        done = await run(KubectlExec(name, namespace=space.name), "true")
        assert isinstance(done.error, TransportError)
        assert "does not have a host assigned" in str(done.error)
        assert f"pod {name} is Pending: Unschedulable" in str(done.error)
        space.end(name)

    async def test_completed(self, space):
        """The error says that the pod has completed, and how."""
        name = space.start(ready=False, cmd=["sh", "-c", "exit 5"])
        assert until(
            lambda: space("get", "pod", name, "-o", "jsonpath={.status.phase}") == "Failed"
        )
        done = await run(KubectlExec(name, namespace=space.name), "true")
        assert isinstance(done.error, TransportError)
        assert f"pod {name} has completed (Failed: Error); start a new one" in str(done.error)
        assert done.error.started is False
        space.end(name)

    async def test_crash_looping(self, space):
        """The error has the container's last exit code, and says where to look."""
        name = space.start(ready=False, cmd=["sh", "-c", "exit 5"], restartPolicy="Always")
        assert until(lambda: "CrashLoopBackOff" in space("get", "pod", name, "-o", "json"))
        done = await run(KubectlExec(name, namespace=space.name), "true")
        assert isinstance(done.error, TransportError)
        assert "CrashLoopBackOff" in str(done.error)
        assert "it ended before with exit code 5: Error" in str(done.error)
        assert "kubectl logs --previous" in str(done.error)
        space.end(name)

    async def test_no_image(self, space):
        """The error says that the image cannot be pulled."""
        name = space.start("anyspawn.invalid/none:1", ready=False)
        assert until(lambda: "ImagePull" in space("get", "pod", name, "-o", "json"))
        done = await run(KubectlExec(name, namespace=space.name), "true")
        assert isinstance(done.error, TransportError)
        assert "correct the image's name, or how it is pulled" in str(done.error)
        space.end(name)

    async def test_the_node_does_not_answer(self, space, busybox, fake_kubectl):
        """A fake kubectl reports the failure, because the only node's real kubelet must keep
        running.
        """
        said = "Error from server: error dialing backend: dial tcp 10.0.0.9:10250: connect: connection refused"
        path = fake_kubectl(f"echo '{said}' >&2; exit 1")
        done = await run(KubectlExec(busybox, namespace=space.name, kubectl_path=path), "true")
        assert isinstance(done.error, TransportError)
        assert "the pod's node does not answer: see kubectl get nodes" in str(done.error)
        assert done.error.started is False


@pytest.mark.parametrize("how", ["deleted", "deleted by force", "container ended"])
async def test_the_pod_goes_away_meanwhile(space, own, how):
    """The error is a TransportError, the output so far is kept, and the call ends long before its
    timeout.
    """
    event, results = anyio.Event(), []

    async def call():
        async def on_output(stream, chunk):
            event.set()

        box = KubectlExec(own, namespace=space.name, resident=0)
        results.append(
            await run(box, "sh", "-c", "echo ready; sleep 999", on_output=on_output, timeout=60)
        )

    def end():
        if how == "container ended":
            space(
                "exec", own, "--", "sh", "-c", "kill -TERM 1", check=False
            )  # this command may be killed as well
        else:
            args = ["--now"] if how == "deleted" else ["--force", "--grace-period=0"]
            space("delete", "pod", own, *args, "--wait=false")

    began = time.monotonic()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(call)
        with anyio.fail_after(60):
            await event.wait()
        await anyio.to_thread.run_sync(end)
    (done,) = results
    assert isinstance(done.error, TransportError), done
    assert (done.error.started, done.returncode, done.stdout) == (True, None, b"ready\n")
    assert time.monotonic() - began < 55


@pytest.fixture(scope="session")
def without_sh(space):
    """A pod without a shell."""
    return space.start("distroless", cmd=["/app/cat"], stdin=True)


async def test_without_a_shell(space, without_sh, caplog):
    """Without sh the command runs without a supervisor, which is logged once. Variables cannot be
    passed then, which is an error.
    """
    box = KubectlExec(without_sh, namespace=space.name, shared="trusted", default_timeout=60)
    done = await run(box, "/app/cat", stdin=b"in")
    assert (done.stdout, done.error, done.cleanup) == (b"in", None, Cleanup.NOT_NEEDED)
    done = await run(box, "/app/none")
    assert isinstance(done.error, NotStartedError), done
    done = await run(box, "/app/cat", "/no/such/file")
    assert isinstance(done.error, ExitError)
    assert done.stderr.endswith(b"No such file or directory\n")
    done = await run(box, "/app/cat", env={"A": "b"})
    assert isinstance(done.error, TransportError)
    assert "has no sh, and so no supervisor: env cannot be passed on" in str(done.error)
    warnings = [
        record.getMessage() for record in caplog.records if record.levelno == logging.WARNING
    ]
    assert warnings == [f"pod {without_sh} has no sh: its commands run without a supervisor"]
    done = await run(attrs.evolve(box, supervisor="required"), "/app/cat", stdin=b"in")
    assert isinstance(done.error, TransportError)
    assert "has no sh, which supervisor='required' needs" in str(done.error)
    assert (done.error.started, done.stdout) == (False, b"")


async def test_supervisor_off(space, bare_box, client):
    """Without a supervisor, kubectl's last line on stderr tells its failures from the program's
    exits, and is removed. A clean-up is then unconfirmed.
    """
    box = attrs.evolve(bare_box, supervisor="off", kubectl_path=client)
    done = await run(box, "sh", "-c", "cat; echo err >&2; exit 1", stdin=b"in")
    assert (done.stdout, done.stderr, done.returncode) == (b"in", b"err\n", 1)
    assert isinstance(done.error, ExitError)
    assert isinstance((await run(box, "no-such-program")).error, NotStartedError)
    done = await run(attrs.evolve(box, pod="no-such-pod"), "true")
    assert isinstance(done.error, TransportError)
    assert done.error.started is False
    with pytest.raises(ConfigError, match="env cannot be passed on by kubectl exec itself"):
        await run(box, "true", env={"A": "b"})
    with pytest.raises(ConfigError, match="cwd cannot be passed on"):
        await run(box, "true", cwd="/")
    done = await run(box, "sh", "-c", "echo ready; sleep 3", output_limit=5)
    assert isinstance(done.error, OutputLimitError)
    assert done.cleanup is Cleanup.UNCONFIRMED
    assert not eventually(lambda: space.processes(bare_box.pod))  # the program ends by itself later


async def test_a_second_container(space):
    """Without a name kubectl uses the first container; its message about that is not in
    the output.
    """
    two = {
        "name": "other",
        "image": "busybox",
        "imagePullPolicy": "IfNotPresent",
        "command": ["sleep", "1000"],
    }
    main = {**two, "name": "main"}
    name = space.start(containers=[main, two])
    box = KubectlExec(name, namespace=space.name, resident=0)
    for supervisor in ("auto", "off"):
        done = await run(
            attrs.evolve(box, supervisor=supervisor), "sh", "-c", "echo out; echo err >&2"
        )
        assert (done.stdout, done.stderr) == (b"out\n", b"err\n")
    done = await run(attrs.evolve(box, container="other"), "hostname")
    assert done.stdout.decode().strip() == name
    space.end(name)
