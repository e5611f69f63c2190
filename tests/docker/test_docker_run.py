"""`DockerRun` with a real daemon: every way in which a call can end, with no container left
afterwards.
"""

from __future__ import annotations

import logging
import os
import re
import signal
import subprocess
import sys
import time
from contextlib import suppress

import anyio
import attrs
import pytest

from anyspawn import (
    Cleanup,
    Command,
    ConfigError,
    DockerRun,
    ExitError,
    NotStartedError,
    OutputLimitError,
    SpawnTimeoutError,
    TransportError,
    spawn,
)
from anyspawn.containers import SecurityConfig
from cases import all_command_lines, command_lines
from engines import docker, made_by_us
from machine import MARK, eventually, processes_with

pytestmark = pytest.mark.anyio

BUSYBOX = DockerRun("busybox", default_timeout=60)
PYTHON = DockerRun("python:3-slim", default_timeout=60)


async def run(*argv, sandbox=BUSYBOX, **options):
    return await spawn(argv, sandbox=sandbox, **options)


@pytest.fixture(params=[{}, {"resident": 2}], ids=["one for each", "started ahead"])
async def box(request):
    """Containers for one command each, without residents and with them."""
    async with DockerRun("busybox", default_timeout=60, **request.param) as sandbox:
        yield sandbox
    assert not eventually(made_by_us, 30)


async def test_stdin_arrives_with_its_end_and_output_comes_back_after_it(box):
    """The end of stdin closes only that direction; stdout and stderr stay separate."""
    done = await run(
        "sh", "-c", "cat; sleep 0.2; echo after; echo err >&2; exit 3", stdin=b"in\n", sandbox=box
    )
    assert (done.stdout, done.stderr, done.returncode) == (b"in\nafter\n", b"err\n", 3)
    assert isinstance(done.error, ExitError)
    assert done.cleanup is Cleanup.NOT_NEEDED


async def test_both_streams_are_one_where_that_is_asked_for(box):
    """Merged output keeps the order in which it was written. docker's own messages are not in it,
    and a program that was not started has no output.
    """
    both = "i=0; while [ $i -lt 300 ]; do echo o$i; echo e$i >&2; i=$((i+1)); done; exit 3"
    done = await run("sh", "-c", both, merge_stderr=True, sandbox=box)
    lines = b"".join(b"o%d\ne%d\n" % (i, i) for i in range(300))
    assert (done.returncode, done.stdout, done.stderr) == (3, lines, b"")
    assert str(done.error).endswith("e299")
    where = await run("pwd", cwd="/etc", merge_stderr=True, sandbox=box)
    assert (where.error, where.text) == (None, "/etc\n")
    for argv, cwd, kind in (
        (["no-such"], None, "not_found"),
        (["/etc/passwd"], None, "not_executable"),
        (["true"], "/no/such", "cwd"),
    ):
        done = await run(*argv, cwd=cwd, merge_stderr=True, sandbox=box)
        assert isinstance(done.error, NotStartedError), done
        assert (done.error.kind, done.stdout, done.stderr) == (kind, b"", b"")
    missing = attrs.evolve(box, image="no-such-image", resident=0)
    done = await run("true", merge_stderr=True, sandbox=missing)
    assert isinstance(done.error, TransportError)
    assert (done.error.kind, done.error.started, done.stdout) == ("image", False, b"")
    assert b"No such image" in done.stderr


async def test_timeout(box):
    """The container is gone within bounds, the clean-up is confirmed, and the output so far is
    kept.
    """
    timeout = (
        3 * (await run("true", sandbox=box, check=True)).duration + 2
    )  # includes the start of the container
    done = await run(
        "sh",
        "-c",
        "echo out; trap '' TERM; while :; do sleep 1; done",
        timeout=timeout,
        sandbox=box,
    )
    assert isinstance(done.error, SpawnTimeoutError)
    assert (done.stdout, done.cleanup) == (b"out\n", Cleanup.CONFIRMED)
    assert done.duration < timeout + 12


async def test_grace(box):
    """SIGTERM comes first, and output that follows is still read."""
    script = "trap 'echo bye >&2; exit 7' TERM; printf %101s; while :; do sleep 0.1; done"
    done = await run("sh", "-c", script, output_limit=100, grace=60, sandbox=box)
    assert isinstance(done.error, OutputLimitError)
    assert done.stderr.endswith(b"bye\n")  # the shell may first report the end of its sleep
    assert done.duration < 60


async def test_overflow(box):
    """Too much output kills the container. docker waits until its client has read everything, so
    anyspawn must keep reading.
    """
    for _ in range(3):
        done = await run("yes", output_limit=100_000, sandbox=box)
        assert isinstance(done.error, OutputLimitError)
        assert (len(done.stdout), done.cleanup) == (100_000, Cleanup.CONFIRMED)


def client_of(call_id):
    """Return the pid of the docker client that runs a call."""
    name = f"anyspawn-{call_id}".encode()
    found = [
        pid for pid, words in command_lines().items() if words[1:2] == [b"run"] and name in words
    ]
    return found[0] if found else None


async def started(command, event):
    async def on_output(stream, chunk):
        if stream == "stdout":
            event.set()

    return attrs.evolve(command, on_output=on_output)


async def test_the_daemon_keeps_no_output():
    """docker must not log the output to the host's disk, which an endless writer would fill."""
    found = []
    command = Command(["sh", "-c", "echo ready; read -r _ </dev/zero"], timeout=60)

    def on_output(stream, chunk):
        found.append(
            docker(
                "inspect", "--format", "{{.HostConfig.LogConfig.Type}}", f"anyspawn-{command.id}"
            )
        )
        raise InterruptedError

    with pytest.raises(InterruptedError):
        await BUSYBOX.spawn(attrs.evolve(command, on_output=on_output))
    assert found == ["none"]


async def test_the_client_is_killed_by_someone_else():
    """A killed client is not an exit of the program; its container is removed."""
    event, results = anyio.Event(), []
    command = await started(
        Command(["sh", "-c", "echo err >&2; echo ready; sleep 1000"], timeout=60), event
    )

    async def call():
        results.append(await BUSYBOX.spawn(command))

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(call)
        with anyio.fail_after(60):
            await event.wait()
        os.kill(client_of(command.id), signal.SIGKILL)
    (done,) = results
    assert isinstance(done.error, TransportError)
    assert "the docker client was killed from outside by signal 9" in str(done.error)
    assert (done.returncode, done.stdout, done.cleanup) == (None, b"ready\n", Cleanup.CONFIRMED)
    assert not made_by_us()


async def test_cancelled_at_any_moment():
    """Whenever the call is cancelled, no container is left."""

    async def one(delay):
        with anyio.move_on_after(delay):
            await run("sh", "-c", "sleep 0.1; echo x")

    limiter = anyio.CapacityLimiter(
        4
    )  # with more at once, docker may be too slow to confirm anything

    async def limited(delay):
        async with limiter:
            await one(delay)

    async with anyio.create_task_group() as tasks:
        for step in range(24):
            tasks.start_soon(limited, step * 0.025)
    assert not eventually(made_by_us, 30)


async def test_sixteen_at_once(box):
    """Sixteen calls at once each have their own input and output."""
    results = {}

    async def one(number):
        results[number] = await run(
            "sh", "-c", "cat; exit $A", stdin=b"%d" % number, env={"A": str(number)}, sandbox=box
        )

    async with anyio.create_task_group() as tasks:
        for number in range(16):
            tasks.start_soon(one, number)
    assert {number: (done.stdout, done.returncode) for number, done in results.items()} == {
        number: (b"%d" % number, number) for number in range(16)
    }


@pytest.mark.parametrize(
    ("code", "said"),
    [
        *((code, "docker: Error: No such image") for code in (1, 2, 125, 126, 127, 137, 143, 255)),
        (125, ""),
    ],
)
async def test_the_programs_own_status(box, code, said):
    """A status that docker also uses, with docker's own message on stderr, is still the
    program's.
    """
    done = await run("sh", "-c", f"echo '{said}' >&2; exit {code}", sandbox=box)
    assert isinstance(done.error, ExitError), done
    assert (done.returncode, done.cleanup) == (code, Cleanup.NOT_NEEDED)
    assert "memory" not in str(done.error)


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["no-such-program"], "was not found in the container"),
        (["/etc/passwd"], "cannot be executed"),
    ],
)
async def test_a_program_that_cannot_be_started(box, argv, words):
    """The program never ran, and stdout is empty."""
    done = await run(*argv, sandbox=box)
    assert isinstance(done.error, NotStartedError), done
    assert words in done.error.reason
    assert (done.returncode, done.stdout) == (None, b"")


async def test_dockers_own_warnings(caplog):
    """docker's warnings go to the log and not into stderr; a program's own warnings
    stay in stderr.
    """
    published = ["--publish", "127.0.0.1::9"]
    sandbox = DockerRun("busybox", network="host", extra_args=published, default_timeout=60)
    done = await run("sh", "-c", "echo 'WARNING: mine' >&2; exit 3", sandbox=sandbox)
    assert (done.stderr, done.stderr_total) == (b"WARNING: mine\n", 14)
    assert str(done.error).endswith("stderr: WARNING: mine")
    assert "Published ports are discarded" in caplog.text


async def test_out_of_memory():
    """The error mentions the memory, or says that it is the likely cause, since docker sometimes
    fails to report it.
    """
    sandbox = attrs.evolve(PYTHON, security=SecurityConfig(memory="24MiB"))
    done = await run("python3", "-c", "x = b'x' * 500_000_000", sandbox=sandbox)
    assert isinstance(done.error, ExitError)
    assert re.search("the container was out of memory|lack of memory", str(done.error)), done
    assert done.returncode == 137


@pytest.mark.parametrize(
    ("sandbox", "words"),
    [
        (
            DockerRun("no-such-image:1"),
            "No such image: no-such-image:1; pull the image first, or set pull",
        ),
        (DockerRun("busybox", extra_args=["--no-such-flag"]), "correct extra_args"),
        (DockerRun("busybox", network="no-such-network"), "network"),
        (DockerRun("busybox", docker_path="no-such-docker"), "install the docker CLI"),
        (DockerRun("Not A Name"), "invalid reference format"),
    ],
)
async def test_docker_cannot_run_it(sandbox, words):
    """The error is a TransportError, nothing ran, and the message says what to do."""
    done = await run("true", sandbox=sandbox)
    assert isinstance(done.error, TransportError), done
    assert words in str(done.error)
    assert done.error.started is False
    assert done.returncode is None


async def test_a_user_of_a_command(box):
    """A command's user replaces the sandbox's for that command only. An unknown user has its own
    kind of error.
    """
    whose = attrs.evolve(box, user="1234:5678")
    async with whose:
        for user, ids in ((None, "1234 5678"), ("4321", "4321 0"), ("nobody", "65534 65534")):
            done = await run("sh", "-c", "echo $(id -u) $(id -g)", sandbox=whose, user=user)
            assert done.text == f"{ids}\n", done
        for user in ("no-such-user", "0:no-such-group"):
            done = await run("true", sandbox=whose, user=user)
            assert isinstance(done.error, NotStartedError), done
            assert done.error.kind == "user"
            assert "correct user" in str(done.error)


async def test_one_stream_without_a_sh():
    """docker would not keep the order of the two streams, so merge_stderr needs a sh in the image,
    and the error says so.
    """
    sandbox = DockerRun("distroless", default_timeout=60)
    done = await run("/busybox/true", merge_stderr=True, sandbox=sandbox)
    assert isinstance(done.error, TransportError), done
    assert (done.error.kind, done.error.started) == ("shell", False)
    assert "merge_stderr" in str(done.error)


@pytest.mark.parametrize("host", ["tcp://127.0.0.1:1", "unix:///nowhere/docker.sock"])
async def test_no_daemon(host, monkeypatch):
    """Without a daemon the call fails at once. The error says what to do, and no clean-up was
    needed.
    """
    monkeypatch.setenv("DOCKER_HOST", host)
    done = await run("true")
    assert isinstance(done.error, TransportError)
    assert done.error.started is False
    assert "start the daemon, or set DOCKER_HOST" in str(done.error)
    assert done.cleanup is Cleanup.NOT_NEEDED


async def test_a_socket_that_is_not_permitted(tmp_path, fake_docker):
    """The error says which group the user must join."""
    said = "permission denied while trying to connect to the Docker daemon socket at unix:///var/run/docker.sock"
    sandbox = attrs.evolve(BUSYBOX, docker_path=fake_docker(f'echo "docker: {said}" >&2; exit 125'))
    done = await run("true", sandbox=sandbox)
    assert isinstance(done.error, TransportError)
    assert "let this user use the daemon's socket (group docker)" in str(done.error)


async def test_a_client_that_leaves_a_process(fake_docker):
    """The process is killed, and the outcome says so, whatever the status of the client means."""
    leaves = 'case $1 in run) sleep 999 >/dev/null 2>&1 & exit 125;; *) exec $real "$@";; esac'
    done = await run("true", sandbox=attrs.evolve(BUSYBOX, docker_path=fake_docker(leaves)))
    assert (done.ok, done.cleanup) == (False, Cleanup.CONFIRMED), done


@pytest.fixture
def guards():
    """Kill the guards after the test; otherwise they would wait for the daemon."""
    yield
    for pid in processes_with(os.environ[MARK]):
        with suppress(ProcessLookupError):
            os.killpg(
                os.getpgid(pid), signal.SIGKILL
            )  # the whole group, because a guard may have just started a child


async def test_a_client_that_hangs(fake_docker, guards):
    """The call and its clean-up are bounded, and the clean-up is unconfirmed."""
    script = "case $1 in --version) echo Docker;; *) exec sleep 1000;; esac"
    sandbox = attrs.evolve(BUSYBOX, docker_path=fake_docker(script))
    began = time.monotonic()
    done = await run("true", sandbox=sandbox, timeout=0.5)
    assert isinstance(done.error, SpawnTimeoutError)
    assert done.cleanup is Cleanup.UNCONFIRMED
    assert time.monotonic() - began < 0.5 + 16


async def test_a_client_that_does_not_even_say_what_it_is(fake_docker):
    """The call ends at its timeout, and nothing was started."""
    sandbox = attrs.evolve(BUSYBOX, docker_path=fake_docker("exec sleep 1000"))
    with anyio.fail_after(4):
        done = await run("true", sandbox=sandbox, timeout=0.5)
    assert isinstance(done.error, SpawnTimeoutError)


async def test_a_container_that_comes_late(fake_docker):
    """After the client was given up, the daemon may still create the container. The clean-up is
    unconfirmed, and a guard removes the container later.
    """
    command = Command(["true"], timeout=0.5)
    sandbox = attrs.evolve(
        BUSYBOX,
        docker_path=fake_docker('case $1 in run) exec sleep 60;; *) exec $real "$@";; esac'),
    )
    done = await sandbox.spawn(command)
    assert isinstance(done.error, SpawnTimeoutError)
    assert done.cleanup is Cleanup.UNCONFIRMED
    docker(
        "create",
        "--name",
        f"anyspawn-{command.id}",
        "--label",
        f"io.anyspawn.id={command.id}",
        "busybox",
    )
    assert not eventually(made_by_us, 30)


async def test_a_container_that_comes_soon(fake_docker, tmp_path):
    """The client is killed before it reports anything, so anyspawn waits for the container and
    removes it.
    """
    command = Command(["true"], timeout=60)
    name = f"anyspawn-{command.id}"
    create = f"touch {tmp_path}/on; sleep 1; docker create --name {name} --label io.anyspawn.id={command.id} busybox"
    # acts for the daemon, which creates the container late
    late = f'env -i PATH="$PATH" setsid sh -c "{create}" >/dev/null 2>&1 </dev/null &'
    until = f"until [ -e {tmp_path}/on ]; do sleep 0.01; done"
    path = fake_docker(f'[ $1 != run ] || {{ {late} {until}; kill -9 $$; }}; exec $real "$@"')
    sandbox = attrs.evolve(BUSYBOX, docker_path=path)
    done = await sandbox.spawn(command)
    assert isinstance(done.error, TransportError)
    assert str(done.error) == "the docker client was killed from outside by signal 9"
    assert (done.error.started, done.cleanup) == (None, Cleanup.CONFIRMED)
    assert not made_by_us()


@pytest.mark.parametrize("grace", [0, 20])
@pytest.mark.parametrize("kind", [LookupError, SystemExit])
async def test_what_the_callback_raises_while_the_container_is_ended(grace, kind, fake_docker):
    """The caller gets the exception, and the clean-up is still complete."""
    said = []

    def on_output(stream, chunk):
        said.append(stream)
        if said.count("stderr") == 3:
            raise kind

    script = "trap 'for i in 1 2 3 4 5 6 7 8; do echo bye >&2; sleep 0.05; done; exit 7' TERM; printf %101s; "
    script += "while :; do sleep 0.1; done" if grace else "while :; do echo >&2; sleep 0.02; done"
    sandbox = attrs.evolve(
        BUSYBOX, docker_path=fake_docker('[ $1 != rm ] || sleep 0.5; exec $real "$@"')
    )
    with pytest.raises(kind):
        await run(
            "sh", "-c", script, output_limit=100, grace=grace, on_output=on_output, sandbox=sandbox
        )
    assert not made_by_us()


async def test_grace_where_docker_is_slow(fake_docker):
    """The program still gets SIGTERM, and its grace lasts long enough."""
    path = fake_docker('[ $1 != kill ] || sleep 3; exec $real "$@"')
    script = "trap 'exit 7' TERM; printf %101s; while :; do sleep 0.1; done"
    sandbox = attrs.evolve(BUSYBOX, docker_path=path)
    done = await run("sh", "-c", script, output_limit=100, grace=60, sandbox=sandbox)
    assert (type(done.error), done.returncode) == (OutputLimitError, 7)


async def test_the_daemon_goes_away_meanwhile(fake_docker, guards):
    """The client loses the daemon and gives up. It is then unknown whether the program ran to its
    end.
    """
    script = 'case $1 in run) echo ready; echo "docker: unexpected EOF" >&2; exit 125;; *) echo "Cannot connect to the Docker daemon" >&2; exit 1;; esac'
    done = await run("true", sandbox=attrs.evolve(BUSYBOX, docker_path=fake_docker(script)))
    assert isinstance(done.error, TransportError)
    assert done.error.started is None
    assert (done.returncode, done.cleanup) == (None, Cleanup.UNCONFIRMED)


NASTY = {
    "A": "x",
    "EMPTY": "",
    "LINES": "a\n\nb\n",
    "EQUALS": "a=b=",
    "SPACE": " a ",
    "QUOTES": "'\"`$x\\",
    "É": "é",
    "HASH": "#x",
}


async def test_variables_are_exact(box):
    """Line breaks, empty values, quotes and other letters arrive unchanged, also under names that
    control docker itself.
    """
    steering = {
        "PATH": "/bin:/x",
        "HOME": "/h",
        "DOCKER_HOST": "tcp://1.2.3.4:5",
        "LD_PRELOAD": "",
        "HTTPS_PROXY": "http://p",
    }
    env = NASTY | steering
    if box.resident:
        env = {name: value for name, value in env.items() if re.fullmatch("[A-Za-z0-9_]+", name)}
    done = await run("cat", "/proc/self/environ", env=env, sandbox=box)
    found = dict(entry.split("=", 1) for entry in done.stdout.decode().split("\0") if entry)
    assert {name: found.get(name) for name in env} == env


async def test_variables_are_looked_up_at_call_time(box, monkeypatch):
    """A bare name takes the host's value; a name that is unset is left out."""
    monkeypatch.setenv("OF_THE_HOST", "1")
    done = await run(
        "sh",
        "-c",
        "echo $OF_THE_HOST $A ${NOT_SET-unset}",
        env=["OF_THE_HOST", "A=2", "NOT_SET"],
        sandbox=box,
    )
    assert done.stdout == b"1 2 unset\n"


async def test_no_secret_in_any_argv(box):
    """Command lines are sampled on the host, which sees the container's processes too."""
    secret = f"s3cret-{os.getpid()}"
    env = {"TOKEN": secret, "TWO": f"{secret}\n"}
    with all_command_lines() as seen:
        done = await run("sh", "-c", "cat; sleep 0.5", env=env, stdin=secret.encode(), sandbox=box)
    assert done.stdout == secret.encode()
    assert len(seen) > 100
    assert not any(secret.encode() in word for words in seen for word in words)


async def test_settings(tmp_path):
    """Mounts, user, working directory, network and extra arguments take effect."""
    (tmp_path / "file").write_text("mounted")
    tmp_path.chmod(0o755)
    sandbox = DockerRun(
        "busybox",
        mounts=[f"{tmp_path}:/data:ro"],
        user="1234:5678",
        workdir="/data",
        network="none",
        extra_args=["--hostname=box"],
    )
    done = await run(
        "sh",
        "-c",
        "cat file; pwd; id -u; id -g; hostname; ls /sys/class/net; touch x",
        sandbox=sandbox,
    )
    assert done.stdout == b"mounted/data\n1234\n5678\nbox\nlo\n"
    assert b"Read-only" in done.stderr
    assert (await run("pwd", sandbox=sandbox, cwd="/tmp")).stdout == b"/tmp\n"


async def test_pull_missing(fake_docker, caplog):
    """The image is pulled once, which is logged, and the pull does not count towards the command's
    timeout.
    """
    name = f"anyspawn-test-pulled:{os.getpid()}"
    took = (await run("true", check=True)).duration
    path = fake_docker(
        f'case $1 in pull) sleep {3 * took + 2.1}; echo "abc: Pull complete"; exec $real tag busybox {name};; *) exec $real "$@";; esac'
    )
    sandbox = DockerRun(name, docker_path=path, pull="missing")
    try:
        with caplog.at_level(logging.DEBUG, "anyspawn.docker"):
            done = await run("echo", "hello", sandbox=sandbox, timeout=3 * took + 2)
    finally:
        docker("rmi", name, check=False)
    assert (done.stdout, done.error) == (b"hello\n", None)
    assert [
        record.getMessage() for record in caplog.records if record.name == "anyspawn.docker"
    ] == [
        f"pulling {name}",
        f"pulling {name}: abc: Pull complete",
    ]


async def test_pull_fails(fake_docker):
    """The error says that the image could not be pulled, and why."""
    path = fake_docker(
        'case $1 in pull) echo "Error response from daemon: no such host" >&2; exit 1;; *) exec $real "$@";; esac'
    )
    done = await run("true", sandbox=DockerRun("no-such-image:1", docker_path=path, pull="missing"))
    assert isinstance(done.error, TransportError)
    assert "no-such-image:1 could not be pulled: Error response from daemon: no such host" in str(
        done.error
    )


PARENT = """
import anyio, sys
from anyspawn import DockerRun, spawn

async def main():
    await spawn(["sh", "-c", "trap '' TERM INT; while :; do sleep 1; done"], sandbox=DockerRun("busybox"), timeout=1000)

anyio.run(main, backend=sys.argv[1])
"""


@pytest.mark.parametrize("delay", [0.15, None], ids=["while it starts", "while it runs"])
async def test_the_caller_is_killed(delay, anyio_backend):
    """When the caller is killed, its container is removed."""
    parent = subprocess.Popen([sys.executable, "-c", PARENT, anyio_backend[0]])
    try:
        if delay is None:
            assert not eventually(lambda: not made_by_us("running"), 60)
        else:
            eventually(lambda: client_of_any(parent.pid) is None)
    finally:
        parent.kill()
        parent.wait()
    assert not eventually(made_by_us, 30)


def client_of_any(parent):
    children = subprocess.run(
        ["ps", "--ppid", str(parent), "-o", "args="], capture_output=True, text=True, check=False
    ).stdout
    return next((line for line in children.splitlines() if line.startswith("docker run")), None)


async def test_a_daemon_that_does_not_remember(fake_docker):
    """The daemon keeps only its latest events. Without the event of the start, status 127 may be
    docker's or the program's, so the error says neither.
    """
    path = fake_docker('case $1 in events) exit 0;; *) exec $real "$@";; esac')
    done = await run(
        "sh", "-c", "echo ran; exit 127", sandbox=attrs.evolve(BUSYBOX, docker_path=path)
    )
    assert isinstance(done.error, TransportError), done
    assert (done.error.started, done.stdout) == (None, b"ran\n")


async def test_the_guard_goes_on_where_clean_up_was_given_up(fake_docker, tmp_path):
    """The guard goes on after the clean-up was given up, and removes the container when the daemon
    is back.
    """
    away = tmp_path / "away"
    script = f'[ $1 = run ] || [ ! -e {away} ] || {{ echo "Cannot connect to the Docker daemon" >&2; exit 1; }}; exec $real "$@"'
    sandbox = attrs.evolve(BUSYBOX, docker_path=fake_docker(script))

    async def on_output(stream, chunk):
        away.touch()
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await run("sh", "-c", "echo ready; sleep 1000", sandbox=sandbox, on_output=on_output)
    assert made_by_us()
    away.unlink()
    assert not eventually(made_by_us)


@pytest.mark.parametrize(
    "arg", ["--name=x", "--rm=false", "-d", "--detach", "--restart=always", "-dit"]
)
async def test_arguments_that_would_take_the_container_away(arg):
    """Such arguments are refused, because clean-up could not find the container."""
    with pytest.raises(ConfigError, match="would take the container out of our hands"):
        DockerRun("busybox", extra_args=[arg])


@pytest.fixture(scope="module")
def images(daemon):
    """Images whose entrypoint does something else, prints a line first, or is a shell."""
    entrypoints = {
        "echo": '["echo","ENTRY"]',
        "shell": '["/bin/sh","-c"]',
        "banner": '["/bin/sh","-c","echo banner; exec \\"$@\\"","--"]',
    }
    container = docker("create", "busybox", "x")
    for name, entrypoint in entrypoints.items():
        docker("commit", "--change", f"ENTRYPOINT {entrypoint}", container, f"anyspawn-test-{name}")
    docker("rm", container)
    yield {name: f"anyspawn-test-{name}" for name in entrypoints}
    docker("rmi", *(f"anyspawn-test-{name}" for name in entrypoints))


@pytest.mark.parametrize("entrypoint", ["echo", "shell", "banner"])
@pytest.mark.parametrize("resident", [0, 1])
async def test_the_command_is_what_runs(images, entrypoint, resident):
    """The image's entrypoint does not run before the command, even if the program is missing."""
    async with DockerRun(images[entrypoint], resident=resident, default_timeout=60) as sandbox:
        done = await run("sh", "-c", "echo ran; exit 3", sandbox=sandbox)
        assert (done.stdout, done.returncode) == (b"ran\n", 3), done
        done = await run("no-such-program", sandbox=sandbox)
        assert isinstance(done.error, NotStartedError), done


async def test_the_images_entrypoint(images):
    """With entrypoint="image", the command becomes the entrypoint's arguments. Residents cannot do
    that.
    """
    sandbox = DockerRun(images["banner"], entrypoint="image", default_timeout=60)
    done = await run("echo", "x", sandbox=sandbox, cwd="tmp")
    assert (done.stdout, done.error) == (b"banner\nx\n", None), done
    with pytest.raises(ConfigError, match="entrypoint must be 'image', or None"):
        DockerRun("busybox", entrypoint="sh")
    with pytest.raises(ConfigError, match="not the image's entrypoint"):
        DockerRun("busybox", entrypoint="image", resident=1)


async def test_a_working_directory(box, tmp_path):
    """A working directory is absolute or relative to the sandbox's; docker must not create a
    missing one.
    """
    tmp_path.chmod(0o777)
    (tmp_path / "sub").mkdir()
    mounted = attrs.evolve(box, mounts=[f"{tmp_path}:/data"], workdir="/data")
    async with mounted as sandbox:
        done = await run("pwd", cwd="sub", sandbox=sandbox)
        assert (done.stdout, done.error) == (b"/data/sub\n", None), done
        assert (await run("pwd", cwd="/etc", sandbox=sandbox)).stdout == b"/etc\n"
        done = await run("env", cwd="sub", sandbox=sandbox)
        assert b"OLDPWD" not in done.stdout
        done = await run("sh", "-c", "exit 127", cwd="sub", sandbox=sandbox)
        assert done.returncode == 127
        for program, kind in (("no-such-program", "not_found"), ("/", "not_executable")):
            done = await run(program, cwd="sub", sandbox=sandbox)
            assert done.error.kind == kind, done
        done = await run("pwd", cwd="/data/none/none", sandbox=sandbox)
        assert isinstance(done.error, NotStartedError), done
        assert (done.error.kind, done.stderr) == ("cwd", b"")
    assert [path.name for path in tmp_path.iterdir()] == ["sub"]


async def test_a_working_directory_without_a_shell():
    """Without sh a working directory is not possible, and the error says so."""
    done = await run("/app/cat", cwd="/app", sandbox=DockerRun("distroless", default_timeout=60))
    assert isinstance(done.error, TransportError), done
    assert (done.error.started, done.error.kind) == (False, "shell")
    assert "use workdir instead" in str(done.error)


async def test_names_that_begin_alike():
    """Each call reads the events of its own container only."""
    for number, code in (("abcdef12", 3), ("abcdef1234", 125)):
        command = Command(["sh", "-c", f"exit {code}"], id=number, timeout=60)
        done = await BUSYBOX.spawn(command)
        assert isinstance(done.error, ExitError), done
        assert done.returncode == code
