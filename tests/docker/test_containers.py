"""`anyspawn.containers` with a real daemon: the life of a container, its confinement seen from
inside, and orphans.
"""

from __future__ import annotations

import os
import pty
import re
import subprocess
import sys
import threading
import time
from datetime import UTC, datetime, timedelta

import anyio
import pytest

from anyspawn import (
    Cleanup,
    Command,
    ConfigError,
    ExitError,
    NotStartedError,
    SpawnError,
    SpawnTimeoutError,
    TransportError,
    spawn,
)
from anyspawn.containers import (
    ContainerManager,
    ContainerSpec,
    SecurityConfig,
    _manager,
    reap_orphans,
    running,
)
from engines import docker, made_by_us
from machine import eventually

pytestmark = pytest.mark.anyio


@pytest.fixture
def manager():
    return ContainerManager()


def gather():
    """Return a callback and a dict in which it collects the output of each stream."""
    found = {"stdout": b"", "stderr": b""}

    def on_output(stream, chunk):
        found[stream] += chunk

    return on_output, found


async def test_the_life_of_a_container(manager, tmp_path):
    """A container is created, inspected, run with input, inspected again, and removed."""
    (tmp_path / "file").write_text("from the host")
    tmp_path.chmod(0o777)
    spec = ContainerSpec(
        image="busybox",
        cmd=["sh", "-c", "cat file; cat; echo $A; echo err >&2; pwd; touch made; exit 7"],
        env={"A": "b\nc"},
        workspace=tmp_path,
        attach_stdin=True,
    )
    on_output, found = gather()
    before = datetime.now(UTC)
    async with manager:
        container = await manager.create(spec)
        info = await manager.inspect(container)
        assert (info.state, info.exit_code, info.started, info.finished, info.oom) == (
            "created",
            None,
            None,
            None,
            False,
        )
        assert info.labels["io.anyspawn.owner"].split("/")[1] == str(os.getpid())
        assert [
            (mount.type, mount.source, mount.target, mount.writable) for mount in info.mounts
        ] == [("bind", str(tmp_path), "/work", True)]
        assert info.raw["Config"]["Image"] == info.image == "busybox"
        assert await manager.run(container, stdin=b"input\n", on_output=on_output) == 7
        assert found == {"stdout": b"from the hostinput\nb c\n/work\n", "stderr": b"err\n"}
        info = await manager.inspect(container)
        assert (info.state, info.exit_code) == ("exited", 7)
        assert before <= info.created <= min(info.started, info.finished)
        assert max(info.started, info.finished) <= datetime.now(UTC)
        assert abs(datetime.now(UTC) - info.finished) < timedelta(minutes=5)
        await manager.remove(container)
        await manager.remove(container)
        with pytest.raises(TransportError, match="o such container"):
            await manager.inspect(container)
    assert (tmp_path / "made").exists()


async def test_a_workspace_that_its_user_cannot_write(manager, tmp_path, caplog):
    """The log warns that the user cannot write the workspace and what to do; if the user can, it is
    silent.
    """
    for mode, owner, told in ((0o755, "65534:65534", True), (0o777, "65534:65534", False)):
        caplog.clear()
        tmp_path.chmod(mode)
        spec = ContainerSpec(
            image="busybox",
            cmd=["touch", "made"],
            workspace=tmp_path,
            security=SecurityConfig(user=owner),
        )
        container = await manager.create(spec)
        assert (await manager.run(container) != 0) is told
        await manager.remove(container)
        assert (f"workspace '{tmp_path}' cannot be written by user {owner}" in caplog.text) is told


async def test_entrypoint_and_mount_target(manager, tmp_path):
    """The entrypoint's own arguments come before the command's."""
    spec = ContainerSpec(
        image="busybox",
        entrypoint=["sh", "-c", 'echo "$0 $@"; pwd'],
        cmd=["a", "b c"],
        workspace=tmp_path,
        mount_target="/src",
    )
    on_output, found = gather()
    container = await manager.create(spec)
    assert await manager.run(container, on_output=on_output) == 0
    assert found["stdout"] == b"a b c\n/src\n"
    await manager.remove(container)


@pytest.mark.parametrize("stdin", [False, True])
async def test_with_a_terminal(manager, stdin):
    """With a terminal there is one stream, and a tty inside, whether input is attached or not."""
    script = "tty; read x; echo got $x; exit 3" if stdin else "tty; exit 3"
    container = await manager.create(
        ContainerSpec(image="busybox", cmd=["sh", "-c", script], tty=True, attach_stdin=stdin)
    )
    on_output, found = gather()
    assert (
        await manager.run(container, stdin=b"input\n" if stdin else b"", on_output=on_output) == 3
    )
    assert b"/dev/pts/0\r\n" in found["stdout"]
    assert (b"got input\r\n" in found["stdout"]) is stdin
    assert (await manager.inspect(container)).tty
    await manager.remove(container)


async def test_output_goes_to_our_own_streams(tmp_path):
    """Without a callback, the output goes to our own stdout and stderr."""
    code = """
import anyio, sys
from anyspawn.containers import ContainerManager, ContainerSpec
async def main():
    manager = ContainerManager()
    spec = ContainerSpec(image="busybox", cmd=["sh", "-c", "echo out; echo err >&2; exit 4"], remove_on_exit=True)
    sys.exit(await manager.run(await manager.create(spec)))
anyio.run(main)
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, timeout=60, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (4, b"out\n", b"err\n")


async def test_timeout(manager):
    """At the timeout the container is stopped and removed, even if it ignores SIGTERM; the error
    says so.
    """
    began = time.monotonic()
    await manager.run(
        await manager.create(ContainerSpec(image="busybox", cmd=["true"], remove_on_exit=True))
    )
    timeout = round(3 * (time.monotonic() - began) + 2)
    spec = ContainerSpec(
        image="busybox",
        cmd=["sh", "-c", "trap '' TERM; echo out; while :; do sleep 1; done"],
        timeout=timeout,
    )
    container = await manager.create(spec)
    on_output, found = gather()
    began = time.monotonic()
    with pytest.raises(
        SpawnTimeoutError, match=f"timed out after {timeout} s, and was stopped and removed"
    ):
        await manager.run(container, on_output=on_output)
    assert time.monotonic() - began < 6 * timeout + 10
    assert found["stdout"] == b"out\n"
    assert container[:12] not in made_by_us()


@pytest.mark.parametrize("keep", [False, True])
async def test_cancelled_while_it_runs(manager, keep):
    """A cancellation stops the container, and removes it if remove_on_exit is set."""
    cmd = ["sh", "-c", "echo ready; exec sleep 1000"]
    container = await manager.create(
        ContainerSpec(image="busybox", cmd=cmd, remove_on_exit=not keep)
    )
    with anyio.CancelScope() as scope:
        await manager.run(container, on_output=lambda *_: scope.cancel())
    if keep:
        assert (await manager.inspect(container)).state == "exited"
        await manager.remove(container)
    assert container[:12] not in made_by_us()


@pytest.mark.parametrize(("cmd", "pause"), [(["sleep", "1000"], 0.02), (["true"], 0.03)])
async def test_run_at_moments_that_are_cancelled(manager, cmd, pause):
    """Whenever the run is cancelled, a container with remove_on_exit is removed."""
    for step in range(14):
        container = await manager.create(
            ContainerSpec(image="busybox", cmd=cmd, remove_on_exit=True)
        )
        with anyio.move_on_after(step * pause):
            await manager.run(container)
        assert container[:12] not in made_by_us()


async def test_run_that_is_cancelled_before_it_begins_stops_nothing(manager, containers):
    """The container already runs, so someone else started it."""
    container = containers("busybox")
    with anyio.CancelScope() as scope:
        scope.cancel()
        await manager.run(container)
    assert (await manager.inspect(container)).state == "running"


async def test_a_removal_that_docker_does_not_answer(fake_docker, monkeypatch, caplog):
    """If docker does not answer, the container may go on, so this is an error."""
    monkeypatch.setattr(_manager, "_ASK", 2.0)
    path = fake_docker('[ $1 != rm ] || sleep 60; exec $real "$@"')
    with pytest.raises(TransportError, match="docker did not answer within 2 s"):
        async with running(ContainerSpec(image="busybox"), docker_path=path):
            pass
    assert "may still run" in caplog.text
    await ContainerManager().remove(*made_by_us())


async def test_remove_on_exit(manager):
    container = await manager.create(
        ContainerSpec(image="busybox", cmd=["true"], remove_on_exit=True)
    )
    assert await manager.run(container) == 0
    assert not made_by_us()


async def test_stop(manager):
    """stop() sends SIGTERM, which an init passes on, and SIGKILL after the grace. Stopping a
    stopped container does nothing.
    """
    spec = ContainerSpec(
        image="busybox", cmd=["sh", "-c", "trap 'exit 9' TERM; while :; do sleep 0.1; done"]
    )
    container = await manager.create(spec)
    await manager.start(container)
    await manager.stop(container)
    assert (await manager.inspect(container)).exit_code == 9
    await manager.stop(container)
    await manager.remove(container)
    container = await manager.create(
        ContainerSpec(
            image="busybox", cmd=["sh", "-c", "trap '' TERM; while :; do sleep 0.1; done"]
        )
    )
    await manager.start(container)
    began = time.monotonic()
    await manager.stop(container, grace=1)
    assert 1 <= time.monotonic() - began < 9
    assert (await manager.inspect(container)).exit_code == 137
    await manager.remove(container)


async def test_created_at_moments_that_are_cancelled(manager):
    """Whenever the creation is cancelled, no container is left."""
    for step in range(20):
        with anyio.move_on_after(step * 0.004):
            async with manager.running(ContainerSpec(image="busybox", cmd=["sleep", "1000"])):
                pass
    assert not eventually(made_by_us, 30)


async def test_errors(manager):
    """Errors carry docker's own message, and a failed creation leaves nothing."""
    with pytest.raises(TransportError, match="No such image: anyspawn-none:1"):
        await manager.create(ContainerSpec(image="anyspawn-none:1"))
    spec = ContainerSpec(
        image="busybox", cmd=["no-such-program"], security=SecurityConfig(init=False)
    )
    container = await manager.create(spec)
    with pytest.raises(SpawnError, match="no-such-program"):
        await manager.run(container)
    await manager.remove(container)
    with pytest.raises(TransportError, match="install the docker CLI"):
        await ContainerManager(docker_path="no-such-docker").inspect("x")
    with pytest.raises(ConfigError, match="container must be a name or an id"):
        await manager.stop("-x")
    assert not await manager.pull_if_missing("busybox")


async def test_pull_if_missing(fake_docker):
    """An image that exists is not pulled. A missing one is, and the callback gets each line of
    progress.
    """
    lines = []
    path = fake_docker(
        'case "$1 $2" in "image inspect") exit 1;; pull*) echo "abc: Pulling fs layer"; echo "abc: Pull complete";; esac'
    )
    assert await ContainerManager(docker_path=path).pull_if_missing("x", on_progress=lines.append)
    assert lines == ["abc: Pulling fs layer", "abc: Pull complete"]
    path = fake_docker(
        'case "$1 $2" in "image inspect") exit 1;; pull*) echo "Error: no such host" >&2; exit 1;; esac'
    )
    with pytest.raises(TransportError, match="no such host"):
        await ContainerManager(docker_path=path).pull_if_missing("x")


INSIDE = """
grep -E 'CapEff|NoNewPrivs|Seccomp:' /proc/self/status
id -u
touch /x 2>&1
touch /tmp/x && echo tmp is writable
ls /sys/class/net
"""


async def test_confinement_from_inside():
    """By default a container has no capability, no new privileges, a seccomp filter, the user
    nobody, a read-only root and no network.
    """
    async with running(ContainerSpec(image="busybox")) as box:
        done = await box.spawn(Command(["sh", "-c", INSIDE]))
    lines = done.stdout.decode().split("\n")
    assert [" ".join(line.split()) for line in lines[:3]] == [
        "CapEff: 0000000000000000",
        "NoNewPrivs: 1",
        "Seccomp: 2",
    ]
    assert lines[3] == "65534"
    assert "Read-only file system" in lines[4]
    assert lines[5:] == ["tmp is writable", "lo", ""]


@pytest.mark.parametrize(
    ("security", "script", "expected"),
    [
        (
            {"cap_drop": ["NET_RAW"], "user": None},
            "grep CapEff /proc/self/status",
            "CapEff: 00000000a80405fb",
        ),
        (
            {"cap_add": ["CHOWN"], "user": None},
            "grep CapEff /proc/self/status",
            "CapEff: 0000000000000001",
        ),
        ({"no_new_privileges": False}, "grep NoNewPrivs /proc/self/status", "NoNewPrivs: 0"),
        ({"seccomp": "unconfined"}, "grep Seccomp: /proc/self/status", "Seccomp: 0"),
        ({"read_only": False, "user": None}, "touch /x && echo written", "written"),
        ({"user": "1234:5678"}, "echo $(id -u) $(id -g)", "1234 5678"),
        (
            {"tmpfs": ["/scratch:size=1m,mode=1777"]},
            "touch /scratch/x; touch /tmp/x 2>/dev/null || echo tmp is not",
            "tmp is not",
        ),
        ({"init": False}, "cat /proc/1/comm", "sh"),
    ],
)
async def test_each_setting_can_be_loosened(security, script, expected):
    """Each setting can be loosened by its name, and the others stay strict."""
    async with running(ContainerSpec(image="busybox", security=SecurityConfig(**security))) as box:
        done = await box.spawn(Command(["sh", "-c", script]))
    assert " ".join(done.stdout.decode().split()) == expected, done.stderr


async def test_network_can_be_had():
    async with running(ContainerSpec(image="busybox", network="bridge")) as box:
        done = await box.spawn(Command(["ls", "/sys/class/net"]))
    assert "eth0" in done.stdout.decode().split()


async def test_a_fork_bomb_meets_the_limit_of_processes():
    """The bomb stops at the limit of processes, and the rest of the machine works on."""
    async with running(
        ContainerSpec(image="busybox", security=SecurityConfig(pids_limit=32))
    ) as box:
        done = await box.spawn(Command(["sh", "-c", "b() { b | b & }; b; sleep 1000"], timeout=1.5))
        assert isinstance(done.error, (SpawnTimeoutError, ExitError))
        script = "n=0; while [ $n -lt 60 ]; do sleep 5 & n=$((n + 1)); done"
        done = await box.spawn(Command(["sh", "-c", script], timeout=20))
    assert b"fork" in done.stderr, done


async def test_the_memory_limit_ends_a_program():
    """The exit code is 137, and the container reports oom if docker does; on a busy machine docker
    misses some.
    """
    manager = ContainerManager()
    spec = ContainerSpec(
        image="python:3-slim",
        cmd=["python3", "-c", "x = b'x' * 500_000_000"],
        security=SecurityConfig(memory="24MiB", init=False),
    )
    container = await manager.create(spec)
    assert await manager.run(container) == 137
    said = docker("inspect", "--format={{.State.OOMKilled}}", container) == "true"
    assert (await manager.inspect(container)).oom is said
    await manager.remove(container)


async def test_a_seccomp_profile(tmp_path):
    """The profile is loaded from a file and in force: the kernel refuses the system call."""
    profile = tmp_path / "profile.json"
    profile.write_text(
        '{"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO"}]}'
    )
    async with running(
        ContainerSpec(image="busybox", security=SecurityConfig(seccomp=profile))
    ) as box:
        done = await box.spawn(Command(["sh", "-c", "touch /tmp/x && mkdir /tmp/y"]))
    assert b"Operation not permitted" in done.stderr
    assert done.returncode == 1


@pytest.mark.parametrize("how", ["return", "exception", "cancellation"])
async def test_running_leaves_nothing(how):
    """No container is left, however the block ends."""
    with anyio.CancelScope() as scope:
        try:
            async with running(ContainerSpec(image="python:3-slim")) as box:
                done = await box.spawn(Command(["python3", "-c", "print(1)"]))
                assert (done.stdout, done.cleanup) == (b"1\n", Cleanup.NOT_NEEDED)
                if how == "exception":
                    raise ZeroDivisionError
                if how == "cancellation":
                    scope.cancel()
                    await anyio.sleep_forever()
        except ZeroDivisionError:
            assert how == "exception"
    assert not made_by_us()


ORPHAN = """
import anyio, sys
from anyspawn.containers import ContainerManager, ContainerSpec, running
async def main():
    await ContainerManager().create(ContainerSpec(image="busybox", cmd=["true"]))
    async with running(ContainerSpec(image="busybox")):
        print("ready", flush=True)
        await anyio.sleep_forever()
anyio.run(main)
"""


def orphan():
    parent = subprocess.Popen([sys.executable, "-c", ORPHAN], stdout=subprocess.PIPE)
    assert parent.stdout.readline() == b"ready\n"
    return parent


async def test_orphans(manager):
    """Containers of dead owners are removed, whether they run or not. Those of living owners and of
    other people never are.
    """
    ours = await manager.create(ContainerSpec(image="busybox", cmd=["true"]))
    foreign = docker("create", "--label", "io.anyspawn.owner=other-boot.1/1/1", "busybox", "true")
    parent = orphan()
    try:
        await reap_orphans()
        made = made_by_us()
        assert len(made) == 3
    finally:
        parent.kill()
        parent.wait()
        parent.stdout.close()

    def states(found):
        return sorted(each.state for each in found if each.id[:12] in made)

    assert states(await reap_orphans(dry_run=True, kept=True)) == ["created", "running"]
    assert len(made_by_us()) == 3
    # a manager's containers are meant to stay, so only kept=True removes them
    assert states(await manager.prune()) == ["running"]
    assert states(await manager.prune(kept=True)) == ["created"]
    assert [container[:12] for container in made_by_us()] == [ours[:12]]
    assert docker("inspect", "--format", "{{.State.Status}}", foreign) == "created"
    docker("rm", foreign)
    await manager.remove(ours)


async def test_an_owner_whose_pid_was_reused_is_dead(manager):
    """The start time distinguishes an owner from a later process with the same pid."""
    from anyspawn._owner import host_id, start_time

    old = f"{host_id()}/{os.getpid()}/{int(start_time(os.getpid())) - 1}"
    container = docker(
        "create",
        "--label",
        f"io.anyspawn.owner={old}",
        "--label",
        "io.anyspawn.id=ab",
        "busybox",
        "true",
    )
    assert [each.id for each in await reap_orphans()] == [container]


BOX = [sys.executable, "-m", "anyspawn", "box"]


def box(*args, **options):
    return subprocess.run([*BOX, *args], capture_output=True, timeout=60, check=False, **options)


class TestBox:
    def test_a_command_in_this_folder(self, tmp_path):
        """The image fits the command, the folder is the workspace, secrets stay outside, and no
        container is left.
        """
        tmp_path.chmod(0o755)
        (tmp_path / "app.py").write_text(
            "import os, sys; print(sys.stdin.read(), os.getcwd(), os.environ.get('API_KEY'), os.environ['LANG']); sys.exit(3)"
        )
        env = os.environ | {"API_KEY": "s3cret", "LANG": "C.UTF-8"}
        done = box("--", "python3", "app.py", cwd=tmp_path, input=b"in", env=env)
        assert (done.returncode, done.stdout) == (3, b"in /work None C.UTF-8\n"), done.stderr
        assert not eventually(made_by_us)

    def test_options(self, tmp_path):
        """Options set the image, workspace, network and a variable, and keep the container."""
        tmp_path.chmod(0o755)
        env = os.environ | {"TOKEN": "t"}
        options = [
            "--image",
            "busybox",
            "--workspace",
            str(tmp_path),
            "--network",
            "bridge",
            "--env",
            "TOKEN",
            "--keep",
        ]
        done = box(*options, "--", "sh", "-c", "echo $TOKEN; ls /sys/class/net; id -u", env=env)
        words = done.stdout.split()
        assert words[0] == b"t"
        assert b"eth0" in words
        assert words[-1] != b"0"
        (kept,) = made_by_us()
        docker("rm", kept)

    @pytest.mark.parametrize(("image", "status"), [("golang", 0), ("other", 126)])
    def test_what_is_built_in_tmp_runs_in_the_image_of_a_compiler(self, image, status):
        """Only images of compilers get a /tmp that programs can be executed in; in others it is
        noexec.
        """
        name = f"anyspawn-test-{os.getpid()}/{image}:1"
        docker("tag", "busybox", name)
        try:
            script = "cp /bin/busybox /tmp/true && /tmp/true"
            done = box("--image", name, "--", "sh", "-c", script)
        finally:
            docker("rmi", name)
        assert done.returncode == status, done.stderr

    def test_failures(self, tmp_path):
        """Each failure is one line on stderr, with a status that is not the program's."""
        done = box("--image", "busybox", "--workspace", "/no/such", "--", "true")
        assert (done.returncode, done.stderr.count(b"\n")) == (125, 1)
        assert b"workspace: '/no/such' is not a directory" in done.stderr
        done = box("--image", "anyspawn-none:1", "--", "true")
        assert (done.returncode, done.stdout) == (125, b"")
        done = box("--image", "busybox", "--docker-path", "no-such-docker", "--", "true")
        assert b"install the docker CLI" in done.stderr
        assert not made_by_us()

    def test_killed(self):
        """When the command line is killed, its container is removed."""
        process = subprocess.Popen(
            [
                *BOX,
                "--image",
                "busybox",
                "--",
                "sh",
                "-c",
                "trap '' TERM; echo ready; while :; do sleep 1; done",
            ],
            stdout=subprocess.PIPE,
            stdin=subprocess.PIPE,
        )
        assert process.stdout.readline() == b"ready\n"
        assert made_by_us()
        process.kill()
        process.wait()
        process.stdout.close()
        process.stdin.close()
        assert not eventually(made_by_us)


def on_terminal(args, steps, size=(24, 80)):
    """Run the command line on a terminal. For each step, wait for a text, then type another. Return
    everything that was shown.
    """
    import fcntl
    import struct
    import termios

    pid, fd = pty.fork()
    if pid == 0:
        os.execv(sys.executable, [*BOX, *args])
    fcntl.ioctl(fd, termios.TIOCSWINSZ, struct.pack("HHHH", *size, 0, 0))
    shown, todo = b"", list(steps)
    killer = threading.Timer(60, os.kill, (pid, 9))
    killer.start()
    try:
        while True:
            try:
                chunk = os.read(fd, 4096)
            except OSError:
                break
            shown += chunk
            if todo and todo[0][0] in shown:
                step = todo.pop(0)[1]
                if callable(step):
                    step(fd, pid)
                else:
                    os.write(fd, step)
    finally:
        killer.cancel()
        os.close(fd)
    _, status = os.waitpid(pid, 0)
    return shown, os.waitstatus_to_exitcode(status)


class TestTerminal:
    def test_progress_of_a_pull(self, fake_docker):
        """A terminal shows a progress bar; other outputs show nothing."""
        lines = "latest: Pulling from library/busybox|0123456789ab: Pulling fs layer|cdef01234567: Pulling fs layer|0123456789ab: Pull complete|Digest: sha256:0|Status: Downloaded"
        pull = f'echo "{lines}" | tr "|" "\\n"; sleep 0.5'
        path = fake_docker(
            f'case "$1 $2" in "image inspect") exit 1;; "pull "*) {pull};; *) exec $real "$@";; esac'
        )
        args = ["--image", "busybox", "--docker-path", path, "--", "echo", "done"]
        shown, status = on_terminal(args, [])
        plain = re.sub(rb"\x1b\[[0-9;?]*[A-Za-z]", b"", shown)
        assert (status, b"pulling busybox" in plain, b"1/2 layers" in plain, b"done" in plain) == (
            0,
            True,
            True,
            True,
        ), shown
        plain = box(*args, stdin=subprocess.DEVNULL)
        told = [line for line in plain.stderr.splitlines() if b"cannot be written" not in line]
        assert (plain.returncode, plain.stdout, told) == (0, b"done\n", [])

    def test_there_is_one_inside(self):
        """If there is a terminal outside, there is one inside, and typed text arrives."""
        shown, status = on_terminal(
            ["--image", "busybox", "--", "sh", "-c", "tty; read x; echo got $x; exit 5"],
            [(b"/dev/", b"typed\n")],
        )
        assert b"/dev/pts/0" in shown
        assert b"got typed" in shown
        assert status == 5
        assert not eventually(made_by_us)

    def test_resize(self):
        """The new size of the window arrives inside."""
        import fcntl
        import struct
        import termios

        def resize(fd, pid):
            fcntl.ioctl(fd, termios.TIOCSWINSZ, struct.pack("HHHH", 33, 99, 0, 0))

        code = (
            "import os, time\n"
            "def until(columns):\n"
            "    end = time.monotonic() + 30\n"
            "    while os.get_terminal_size().columns != columns and time.monotonic() < end: time.sleep(0.05)\n"
            # docker has passed the first size on, and listens for changes from now on
            "until(80)\n"
            "print('ready', flush=True)\n"
            "until(99)\n"
            "print('columns', os.get_terminal_size().columns)\n"
        )
        shown, _ = on_terminal(
            ["--image", "python:3-slim", "--", "python3", "-c", code], [(b"ready", resize)]
        )
        assert b"columns 99" in shown

    def test_ctrl_c(self):
        """Ctrl-C reaches the program, which can handle it."""
        script = "trap 'echo interrupted; exit 7' INT; echo ready; while :; do sleep 0.1; done"
        shown, status = on_terminal(
            ["--image", "busybox", "--", "sh", "-c", script], [(b"ready", b"\x03")]
        )
        assert b"interrupted" in shown
        assert status == 7
        assert not eventually(made_by_us)


def test_prune_command():
    """`prune --dry-run` lists the containers, `prune` removes them; both print one line each and a
    count.
    """
    prune = [sys.executable, "-m", "anyspawn", "prune", "--kept", "--all-boots"]
    parent = orphan()
    parent.kill()
    parent.wait()
    parent.stdout.close()
    made = made_by_us()
    assert len(made) == 2
    for options, words in ((["--dry-run"], "would be removed"), ([], "removed")):
        assert len(made_by_us()) == 2
        *lines, count = subprocess.run(
            [*prune, *options], capture_output=True, text=True, check=True
        ).stdout.splitlines()
        ours = [line for line in lines if any(container in line for container in made)]
        assert ["busybox" in line for line in ours] == [True, True]
        assert count == f"{len(lines)} {words}"
    assert not made_by_us()
    failed = subprocess.run(
        [*prune, "--docker-path", "no-such-docker"], capture_output=True, text=True, check=False
    )
    assert failed.returncode == 1
    assert "no-such-docker" in failed.stderr


def test_run_command(busybox):
    """`anyspawn run` works with both docker modes."""
    base = [sys.executable, "-m", "anyspawn", "run"]
    done = subprocess.run(
        [*base, "--mode", "docker_run", "--image", "busybox", "--", "sh", "-c", "cat; exit 3"],
        input=b"in",
        capture_output=True,
        check=False,
    )
    assert (done.returncode, done.stdout) == (3, b"in")
    done = subprocess.run(
        [*base, "--mode", "docker_exec", "--container", busybox, "--", "sh", "-c", "cat; exit 3"],
        input=b"in",
        capture_output=True,
        check=False,
    )
    assert (done.returncode, done.stdout) == (3, b"in")
    done = subprocess.run(
        [*base, "--mode", "docker_run", "--", "true"], capture_output=True, check=False
    )
    assert (done.returncode, done.stderr.splitlines()) == (
        125,
        [b"anyspawn: docker_run: --image is missing (see 'anyspawn run --help')"],
    )


async def test_spawn_beside(busybox):
    """`running` gives a sandbox that spawn takes like any other."""
    async with running(ContainerSpec(image="busybox")) as box:
        done = await spawn(["echo", "hello"], sandbox=box, check=True)
    assert done.stdout == b"hello\n"


async def test_a_second_run_whose_connection_is_lost(fake_docker, tmp_path):
    """A second run that fails must not report the first run's success."""
    lost = tmp_path / "lost"
    path = fake_docker(
        f'[ $1 != start ] || [ ! -e {lost} ] || {{ echo "error during connect: EOF" >&2; exit 1; }}; exec $real "$@"'
    )
    manager = ContainerManager(docker_path=path)
    container = await manager.create(ContainerSpec(image="busybox", cmd=["true"]))
    assert await manager.run(container) == 0
    lost.touch()
    with pytest.raises(TransportError, match="error during connect"):
        await manager.run(container)
    await manager.remove(container)


async def test_a_creation_whose_answer_is_lost(fake_docker):
    """docker created the container, but its answer was lost. The container must not be
    left behind.
    """
    path = fake_docker(
        '$real "$@" || exit; [ $1 != create ] || { echo "error during connect: EOF" >&2; exit 1; }'
    )
    with pytest.raises(TransportError):
        await ContainerManager(docker_path=path).create(
            ContainerSpec(image="busybox", cmd=["true"])
        )
    assert not made_by_us()


def test_a_run_command_whose_input_does_not_end(busybox):
    """The command ends at its timeout, or when its program exits without reading all input."""
    base = [
        sys.executable,
        "-m",
        "anyspawn",
        "run",
        "--mode",
        "docker_exec",
        "--container",
        busybox,
        "--timeout",
        "1s",
    ]
    for program, status, said in (("cat", 124, b"timed out after 1 s"), ("true", 0, b"")):
        with subprocess.Popen(
            [*base, "--", program], stdin=subprocess.PIPE, stderr=subprocess.PIPE
        ) as process:
            assert process.wait(30) == status
            assert said in process.stderr.read()


@pytest.mark.parametrize("init", [True, False])
@pytest.mark.parametrize(
    ("program", "kind"), [("no-such-program", "not_found"), ("/etc/passwd", "not_executable")]
)
async def test_a_program_that_cannot_be_executed(manager, init, program, kind):
    """The program never ran, whether docker reports that or the container's init."""
    spec = ContainerSpec(
        image="busybox", cmd=[program], remove_on_exit=True, security=SecurityConfig(init=init)
    )
    container = await manager.create(spec)
    with pytest.raises(NotStartedError) as caught:
        await manager.run(container, on_output=lambda *_: None)
    assert caught.value.kind == kind


def dead(number, *labels, owner=None):
    """Run a container of a dead owner, with additional labels."""
    from anyspawn._owner import host_id

    owner = f"{host_id()}/99999999/1" if owner is None else owner
    words = [f"io.anyspawn.owner={owner}", f"io.anyspawn.id=ab{number}", *labels]
    labels = [word for label in words for word in ("--label", label)]
    return docker("run", "-d", *labels, "busybox", "sleep", "300")


async def test_removers_side_by_side(manager):
    """If another remover is faster, the container is already gone, which is not a failure."""
    orphans = {dead(number) for number in range(3)}
    single = await manager.create(ContainerSpec(image="busybox", cmd=["sleep", "300"]))
    await manager.start(single)
    async with anyio.create_task_group() as tasks:
        for _ in range(4):
            tasks.start_soon(reap_orphans)
            tasks.start_soon(manager.remove, single)
    assert not orphans & set(docker("ps", "-aq", "--no-trunc").split())
    assert not made_by_us()


async def test_labels_that_nobody_expected(manager):
    """Odd labels do not prevent orphans from being found and removed."""
    odd = [
        dead(1, owner="a\tb"),
        dead(2, owner=""),
        dead(3, owner="x" * 10_000),
        dead(4, owner="a\nb/1/1"),
        docker("create", "--label", "io.anyspawn.owner", "busybox", "true"),
    ]
    try:
        orphan = dead(5, "a=b,c\td\ne", "io.anyspawn.remove-on-exit")
        removed = {each.id for each in await manager.prune()}
        assert removed & {orphan, *odd} == {orphan}
    finally:
        docker("rm", "-f", *odd)


async def test_what_an_earlier_boot_left(manager):
    """With all_boots=True, containers from an earlier boot of this host are removed, but never
    those of other hosts.
    """
    from anyspawn._owner import machine_id

    ours = dead(1, owner=f"an-earlier-boot.1/1/1/{machine_id()}")
    foreign = [
        dead(2, owner="another-boot.1/1/1/0123456789abcdef"),
        dead(3, owner="another-boot.1/1/1/"),
        dead(4, owner="another-boot.1/1/1"),
    ]
    try:
        assert not {each.id for each in await manager.prune()} & {ours, *foreign}
        removed = {each.id for each in await manager.prune(all_boots=True)}
        assert removed & {ours, *foreign} == {ours}
    finally:
        docker("rm", "-f", *foreign)
