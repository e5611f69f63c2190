"""`DockerExec` with a real daemon: the supervisor inside, on busybox's sh and on dash."""

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
    ConfigError,
    DockerExec,
    ExitError,
    NotStartedError,
    OutputLimitError,
    SpawnTimeoutError,
    TransportError,
    spawn,
)
from cases import CHAINS, NASTY, TREES, all_command_lines, be_patient, command_lines
from engines import docker, processes_in
from machine import eventually

pytestmark = pytest.mark.anyio


@pytest.fixture(autouse=True)
def no_container_is_left():
    """Replace the check of conftest: no test here makes containers, but parallel tests do."""


SANDBOXES = {}


@pytest.fixture(autouse=True)
def sandboxes():
    """Share one sandbox per container within a test, so that a second command can use its
    residents.
    """
    yield
    SANDBOXES.clear()


async def run(box, *argv, **options):
    sandbox = box if isinstance(box, DockerExec) else await sandbox_for(box)
    return await spawn(argv, sandbox=sandbox, **options)


async def left_in(box):
    """Return the processes that a test left in a container, after its residents are closed."""
    if box in SANDBOXES:
        await SANDBOXES[box].aclose()
    return eventually(lambda: processes_in(box))


async def sandbox_for(box):
    if box not in SANDBOXES:
        SANDBOXES[box] = DockerExec(box, default_timeout=60, resident=getattr(box, "resident", 0))
        if SANDBOXES[box].resident:
            await spawn(["true"], sandbox=SANDBOXES[box], check=True)
    return SANDBOXES[box]


async def test_stdin_and_output(box):
    """Input and output are exact, both streams are separate, and none of the supervisor's own
    output is in them.
    """
    done = await run(box, "sh", "-c", "cat; echo err >&2; exit 3", stdin=b"in\n\x1e\0\xff")
    assert (done.stdout, done.stderr, done.returncode) == (b"in\n\x1e\0\xff", b"err\n", 3)
    assert isinstance(done.error, ExitError)
    assert done.cleanup is Cleanup.NOT_NEEDED


async def test_variables_are_exact(box):
    """Line breaks, empty values, quotes and any byte arrive unchanged, also under names that
    control a shell or docker itself.
    """
    done = await run(box, "cat", "/proc/self/environ", env=NASTY)
    found = dict(
        entry.split("=", 1) for entry in os.fsdecode(done.stdout).split("\0") if "=" in entry
    )
    assert {name: found.get(name) for name in NASTY} == NASTY
    assert not any(name.startswith("ANYSPAWN_") and name != "ANYSPAWN_ID" for name in found)


async def test_stdin_of_any_size(box):
    """Input of any size arrives complete and ends."""

    async def one(size):
        data = os.urandom(size)
        done = await run(box, "md5sum", stdin=data)
        assert done.stdout.split()[0].decode() == hashlib.md5(data).hexdigest(), done

    async with anyio.create_task_group() as tasks:
        for size in (0, 1, 4096, 65_000, 65_536, 65_537, 1_000_003, 16 * 2**20):
            tasks.start_soon(one, size)


@pytest.mark.parametrize("anyio_backend", ["asyncio"])  # the time is docker's, not the loop's
@pytest.mark.heavy
async def test_much_output(python):
    """256 MiB come back complete, with bounded memory."""
    digest, total = hashlib.md5(), 0

    def on_output(stream, chunk):
        nonlocal total
        digest.update(chunk)
        total += len(chunk)

    done = await run(
        python,
        "sh",
        "-c",
        "head -c 268435456 /dev/zero",
        on_output=on_output,
        overflow="truncate",
        output_limit=1000,
        timeout=120,
    )
    assert (done.error, total, done.stdout_total) == (None, 2**28, 2**28)
    expected = hashlib.md5()
    for _ in range(256):
        expected.update(bytes(2**20))
    assert digest.digest() == expected.digest()


async def test_the_programs_own_status(box):
    """A status that docker also uses, with docker's own message on stderr, is still the
    program's.
    """

    async def one(code):
        said = "Error response from daemon: No such container: x"
        done = await run(box, "sh", "-c", f"echo '{said}' >&2; exit {code}")
        assert isinstance(done.error, ExitError), done
        assert (done.returncode, done.cleanup) == (code, Cleanup.NOT_NEEDED)

    async with anyio.create_task_group() as tasks:
        for code in (1, 2, 125, 126, 127, 137, 143, 255):
            tasks.start_soon(one, code)


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["no-such-program"], "was not found in the container"),
        (["/etc/passwd"], "cannot be executed"),
    ],
)
async def test_a_program_that_cannot_be_started(box, argv, words):
    """The program never ran, and both outputs are empty."""
    done = await run(box, *argv)
    assert isinstance(done.error, NotStartedError), done
    assert words in done.error.reason
    assert (done.returncode, done.stdout, done.stderr) == (None, b"", b"")


@pytest.mark.parametrize("how", ["timeout", "cancel", "overflow"])
async def test_nothing_is_left_in_the_container(box, how):
    """However the program changes its session, environment and signals, nothing of it is left."""
    began = time.monotonic()

    async def one(script):
        if how == "timeout":
            done = await run(box, "sh", "-c", script, timeout=1.5)
            assert isinstance(done.error, SpawnTimeoutError)
            assert done.cleanup is Cleanup.CONFIRMED
        elif how == "cancel":
            with anyio.move_on_after(1.5):
                await run(box, "sh", "-c", script)
        else:
            done = await run(box, "sh", "-c", f"({script}) & yes", output_limit=100_000)
            assert isinstance(done.error, OutputLimitError)
            assert done.cleanup is Cleanup.CONFIRMED

    async with anyio.create_task_group() as tasks:
        for script in TREES.values():
            tasks.start_soon(one, script)
    assert not await left_in(box)
    assert time.monotonic() - began < 40


@pytest.mark.parametrize("anyio_backend", ["asyncio"])  # the daemon takes the time, not the loop
async def test_forty_timeouts_at_once(busybox, monkeypatch):
    """All forty clean-ups are confirmed, even on a busy machine."""
    be_patient(monkeypatch)
    sandbox, outcomes = DockerExec(busybox, resident=0, shared="trusted"), []

    async def one():
        outcomes.append(await run(sandbox, "sh", "-c", "sleep 1000 & sleep 1000", timeout=6))

    async with anyio.create_task_group() as tasks:
        for _ in range(40):
            tasks.start_soon(one)
    assert {type(done.error) for done in outcomes} == {SpawnTimeoutError}
    assert [done.cleanup for done in outcomes] == [Cleanup.CONFIRMED] * 40
    assert not await left_in(busybox)


async def test_what_a_program_leaves_behind_is_ended(box):
    """A process that holds no stream is killed at once. One that holds a stream is killed after
    `wait_delay`, and the outcome says that output may be missing.
    """
    done = await run(box, "sh", "-c", "sleep 999 >/dev/null 2>&1 & echo out; exit 4")
    assert (done.returncode, done.stdout, done.output_incomplete) == (4, b"out\n", False)
    assert done.duration < 30
    done = await run(box, "sh", "-c", "setsid sleep 999 & echo out; exit 4", wait_delay=0.3)
    assert (done.returncode, done.stdout, done.output_incomplete) == (4, b"out\n", True)
    assert done.cleanup is Cleanup.CONFIRMED
    assert not await left_in(box)


@pytest.mark.parametrize("chain", CHAINS)
@pytest.mark.parametrize("end", ["by itself", "overflow"])
async def test_a_chain_of_processes_is_ended(box, chain, end):
    """Each process of the chain starts the next one and exits before the supervisor can
    look at it.
    """
    script, rest = CHAINS[chain], "; echo much; sleep 999" if end == "overflow" else ""
    done = await run(box, "sh", "-c", script + rest, env={"CHAIN": script}, output_limit=3)
    assert isinstance(done.error, OutputLimitError) if rest else done.error is None, done
    assert done.cleanup is not Cleanup.UNCONFIRMED
    length = docker("exec", box, "wc", "-c", "/tmp/chain")
    assert int(length.split()[0]) > 0
    assert docker("exec", box, "wc", "-c", "/tmp/chain") == length
    docker("exec", box, "rm", "/tmp/chain")


THREAD = """
import ctypes, os, platform, threading, time
if os.fork():
    os._exit(3)
os.setsid()
os.closerange(0, 3)
threading.Thread(target=time.sleep, args=(999,)).start()
ctypes.CDLL(None).syscall({"x86_64": 60}.get(platform.machine(), 93), 0)  # the first thread alone
"""


@pytest.mark.parametrize("resident", [0, 1])
async def test_a_process_whose_first_thread_has_ended_is_ended(python, resident):
    """Such a process looks like a zombie, but its other threads still run."""
    async with DockerExec(python, resident=resident) as sandbox:
        done = await spawn(["python3", "-c", THREAD], sandbox=sandbox, timeout=30)
        assert (done.returncode, done.cleanup is Cleanup.UNCONFIRMED) == (3, False), done
        threads = 'for p in /proc/[0-9]*; do set -- $p/task/*; [ $# -le 1 ] || echo "$p"; done'
        assert (await spawn(["sh", "-c", threads], sandbox=sandbox, check=True)).stdout == b""


async def test_what_the_container_itself_starts_goes_on(containers):
    """The container's own processes survive, even if they come and go while the supervisor looks
    for a chain.
    """
    beat = "set -e; while :; do sleep 0.01; echo >>/tmp/beat; done"
    box = containers("busybox", cmd=("sh", "-c", beat))
    for resident in (0, 1):
        async with DockerExec(box, resident=resident) as sandbox:
            for _ in range(4):
                done = await spawn(["sh", "-c", CHAINS["in one group"]], sandbox=sandbox)
                assert (done.error, done.cleanup) == (None, Cleanup.CONFIRMED)
                at = docker("exec", box, "wc", "-c", "/tmp/beat")
                assert not eventually(
                    lambda at=at: docker("exec", box, "wc", "-c", "/tmp/beat") == at, 10
                )
    docker("rm", "-f", box)  # its loop is work for the machine until the last test


async def test_grace(box):
    """SIGTERM goes to the whole tree first. The output that follows is read, and the status is the
    program's own.
    """
    script = "trap 'echo bye >&2; exit 7' TERM; printf %101s; while :; do sleep 0.1; done"
    done = await run(box, "sh", "-c", script, output_limit=100, grace=60)
    assert isinstance(done.error, OutputLimitError)
    assert done.returncode == 7
    assert done.stderr.endswith(b"bye\n")  # the shell may first report the end of its sleep
    assert done.duration < 60
    script = "trap '' TERM; echo ready; while :; do sleep 0.1; done"
    done = await run(box, "sh", "-c", script, output_limit=5, grace=0.5)
    assert (done.returncode, done.cleanup) == (137, Cleanup.CONFIRMED)


PARENT = """
import anyio, json, sys
from anyspawn import DockerExec, spawn

async def main():
    box, trees, size = DockerExec(sys.argv[2], resident=int(sys.argv[5])), json.loads(sys.argv[3]), int(sys.argv[4])
    async with anyio.create_task_group() as tasks:
        for number, script in enumerate(trees):
            argv = ["sh", "-c", f"echo > /tmp/started{number}; {script}"]
            tasks.start_soon(lambda argv=argv: spawn(argv, sandbox=box, timeout=1000, stdin=b"x" * size))

anyio.run(main, backend=sys.argv[1])
"""


@pytest.mark.parametrize("size", [0, 1_000_000], ids=["no stdin", "unread stdin"])
async def test_the_caller_is_killed(box, size, anyio_backend):
    """When the caller is killed, everything in the container is gone within about 2 seconds."""
    docker("exec", box, "sh", "-c", "rm -f /tmp/started*")
    trees = list(TREES.values())
    args = [anyio_backend[0], box, json.dumps(trees), str(size), str(box.resident * len(trees))]
    parent = subprocess.Popen([sys.executable, "-c", PARENT, *args])
    try:
        assert not eventually(
            lambda: len(docker("exec", box, "ls", "/tmp").split()) < len(trees), 30
        )
    finally:
        parent.kill()
        parent.wait()
    began = time.monotonic()
    processes_in(box)
    assert not eventually(lambda: processes_in(box), 2 + 10 * (time.monotonic() - began))


async def test_the_client_is_ended_by_someone_else(box):
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
            (pid,) = clients_of(box)
            os.kill(pid, signum)
        (done,) = results
        assert isinstance(done.error, TransportError), done
        assert done.error.started is True
        assert "the connection was lost while 'sh' ran" in str(done.error)
        assert (done.returncode, done.stdout) == (None, b"ready\n")
        assert done.cleanup is Cleanup.CONFIRMED
        assert not await left_in(box)


def clients_of(box):
    return [
        pid
        for pid, words in command_lines().items()
        if words[:2] == [b"docker", b"exec"] and box.encode() in words
    ]


async def test_cancelled_at_fifty_moments(box):
    """Whenever the call is cancelled, nothing is left in the container."""
    limiter = anyio.CapacityLimiter(8)

    async def one(delay):
        async with limiter:
            with anyio.move_on_after(delay):
                await run(
                    box, "sh", "-c", "setsid sleep 999 & sleep 0.02; exit 3", stdin=b"x" * 100_000
                )

    async with anyio.create_task_group() as tasks:
        for step in range(50):
            tasks.start_soon(one, step * 0.004)
    assert not await left_in(box)


async def test_sixteen_at_once(box):
    """Sixteen calls at once each have their own input, output and variables."""
    results = {}

    async def one(number):
        results[number] = await run(
            box, "sh", "-c", "cat; exit $A", stdin=b"%d" % number, env={"A": str(number)}
        )

    async with anyio.create_task_group() as tasks:
        for number in range(16):
            tasks.start_soon(one, number)
    assert {number: (done.stdout, done.returncode) for number, done in results.items()} == {
        number: (b"%d" % number, number) for number in range(16)
    }


async def test_a_program_that_does_not_read_its_stdin(box):
    """Ten megabytes of unread input do not delay the call."""
    done = await run(box, "sh", "-c", "exit 3", stdin=bytes(10_000_000))
    assert (done.returncode, done.cleanup) == (3, Cleanup.NOT_NEEDED)


async def test_output_that_looks_like_frames(box):
    """Forged frames and halves of frames are plain output."""
    forged = b"\x1e" + b"0" * 32 + b" exit 0\x1e" + b"\x1e" * 5 + b"clean\x1e" + b"\x1e" + b"0" * 31
    done = await run(box, "sh", "-c", "cat >&2; exit 9", stdin=forged)
    assert (done.stderr, done.returncode) == (forged, 9)


async def test_the_nonce_cannot_be_read_by_the_program(box):
    """The nonce is not in any argv or environment that a program can read."""
    script = "cat /proc/[0-9]*/cmdline /proc/[0-9]*/environ 2>/dev/null | tr '\\0' '\\n' | grep -E '^(ANYSPAWN_NONCE=|[0-9a-f]{32}$)'"
    done = await run(box, "sh", "-c", script)
    assert done.stdout == b""


async def test_no_secret_in_any_argv(box):
    """Command lines are sampled on the host, which sees the container's processes too."""
    secret = f"s3cret-{os.getpid()}"
    with all_command_lines() as seen:
        done = await run(
            box,
            "sh",
            "-c",
            "cat; sleep 0.5",
            env={"TOKEN": secret, "TWO": f"{secret}\n"},
            stdin=secret.encode(),
        )
    assert done.stdout == secret.encode()
    assert len(seen) > 100
    assert not any(secret.encode() in word for words in seen for word in words)


@pytest.fixture
def own(containers):
    """A container that the test may break."""
    name = containers("busybox")
    yield name
    docker("rm", "-f", name, check=False)


async def test_a_container_that_is_not_there():
    """The error is a TransportError, nothing ran, and the message says what to do."""
    done = await run("anyspawn-no-such-container", "true")
    assert isinstance(done.error, TransportError), done
    assert (done.error.started, done.returncode, done.cleanup) == (False, None, Cleanup.NOT_NEEDED)
    assert (
        "No such container: anyspawn-no-such-container; start the container, or correct its name"
        in str(done.error)
    )


async def test_a_container_that_is_paused_or_stopped(own):
    """A paused and a stopped container each have their own message."""
    docker("pause", own)
    done = await run(own, "true")
    assert isinstance(done.error, TransportError)
    assert "is paused" in str(done.error)
    assert "docker unpause" in str(done.error)
    docker("unpause", own)
    docker("kill", own)
    done = await run(own, "true")
    assert isinstance(done.error, TransportError)
    assert done.error.started is False
    assert "is not running; start the container" in str(done.error)


@pytest.mark.parametrize("how", ["rm", "kill", "restart"])
async def test_the_container_goes_away_meanwhile(own, how):
    """The error is a TransportError, and the output so far is kept."""
    event, results = anyio.Event(), []

    async def call():
        async def on_output(stream, chunk):
            event.set()

        results.append(await run(own, "sh", "-c", "echo ready; sleep 999", on_output=on_output))

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(call)
        with anyio.fail_after(60):
            await event.wait()
        args = {"rm": ["rm", "-f"], "kill": ["kill"], "restart": ["restart", "-t", "0"]}[how]
        await anyio.to_thread.run_sync(lambda: docker(*args, own))
    (done,) = results
    assert isinstance(done.error, TransportError), done
    assert (done.error.started, done.returncode, done.stdout) == (True, None, b"ready\n")
    assert done.cleanup is Cleanup.CONFIRMED


async def test_paused_meanwhile(own):
    """The call ends within bounds, and its clean-up is unconfirmed."""

    async def on_output(stream, chunk):
        await anyio.to_thread.run_sync(lambda: docker("pause", own))

    done = await run(own, "sh", "-c", "echo ready; sleep 999", on_output=on_output, output_limit=5)
    docker("unpause", own)
    assert isinstance(done.error, OutputLimitError)
    assert done.cleanup is Cleanup.UNCONFIRMED
    assert done.duration < 30
    assert not eventually(lambda: processes_in(own))  # its lifeline was cut meanwhile


async def test_no_daemon(monkeypatch, busybox):
    """Without a daemon the call fails at once, and the error says what to do."""
    monkeypatch.setenv("DOCKER_HOST", "tcp://127.0.0.1:1")
    done = await run(busybox, "true")
    assert isinstance(done.error, TransportError)
    assert done.error.started is False
    assert "start the daemon, or set DOCKER_HOST" in str(done.error)


@pytest.fixture(scope="session")
def bare(containers):
    """A container without a shell."""
    return containers("distroless", "-i", cmd=("/app/cat",))


async def test_without_a_shell(bare, caplog):
    """Without sh the command runs without a supervisor, which is logged once. A clean-up is then
    unconfirmed.
    """
    sandbox = DockerExec(bare, shared="trusted", default_timeout=60)
    done = await run(sandbox, "/app/cat", stdin=b"in", env={"A": "b"})
    assert (done.stdout, done.error, done.cleanup) == (b"in", None, Cleanup.NOT_NEEDED)
    done = await run(sandbox, "/app/cat", "/proc/self/environ", env={"A": " x=", "B": "c\nd"})
    found = dict(entry.split("=", 1) for entry in done.stdout.decode().split("\0") if "=" in entry)
    assert (found["A"], found["B"]) == (" x=", "c\nd")
    done = await run(sandbox, "/app/none")
    assert isinstance(done.error, NotStartedError), done
    warnings = [
        record.getMessage() for record in caplog.records if record.levelno == logging.WARNING
    ]
    assert warnings == [f"container {bare} has no sh: its commands run without a supervisor"]


async def test_a_shell_is_required(bare):
    """With supervisor="required", a container without sh is refused, and nothing runs."""
    done = await run(DockerExec(bare, supervisor="required"), "/app/cat", stdin=b"in")
    assert isinstance(done.error, TransportError)
    assert done.error.started is False
    assert "has no sh, which supervisor='required' needs" in str(done.error)
    assert done.stdout == b""


async def test_supervisor_off(busybox):
    """Without a supervisor, statuses and variables are the same, but a clean-up is unconfirmed."""
    sandbox = DockerExec(busybox, supervisor="off", default_timeout=60)
    done = await run(sandbox, "sh", "-c", "cat; echo $A; exit 3", stdin=b"in", env={"A": "b"})
    assert (done.stdout, done.returncode) == (b"inb\n", 3)
    assert isinstance((await run(sandbox, "no-such-program")).error, NotStartedError)
    assert isinstance(
        (await run(DockerExec("anyspawn-none", supervisor="off"), "true")).error, TransportError
    )
    done = await run(sandbox, "sh", "-c", "echo ready; sleep 3", output_limit=5)
    assert isinstance(done.error, OutputLimitError)
    assert done.cleanup is Cleanup.UNCONFIRMED
    assert not eventually(lambda: processes_in(busybox))  # the program ends by itself later


async def test_settings(busybox):
    """A command's user and working directory override the sandbox's."""
    sandbox = DockerExec(busybox, user="1234:5678", workdir="/etc", resident=0)
    assert (await run(sandbox, "sh", "-c", "id -u; id -g; pwd")).stdout == b"1234\n5678\n/etc\n"
    assert (await run(sandbox, "pwd", cwd="/tmp")).stdout == b"/tmp\n"
    assert (await run(sandbox, "id", "-u", user="4321")).stdout == b"4321\n"
    for supervisor in ("auto", "off"):
        for user in ("no-such-user", "0:no-such-group"):
            other = attrs.evolve(sandbox, workdir=None, supervisor=supervisor)
            done = await run(other, "true", user=user)
            assert isinstance(done.error, NotStartedError), done
            assert (done.error.kind, done.stdout) == ("user", b"")
            assert "correct user" in str(done.error)
    done = await run(
        sandbox, "sh", "-c", "setsid sleep 999 & echo ready; sleep 999", output_limit=5
    )
    assert done.cleanup is Cleanup.CONFIRMED
    assert not eventually(lambda: processes_in(busybox))


@pytest.mark.parametrize(
    "spoil", ["rm -f /usr/bin/grep /bin/grep", "true"], ids=["without grep", "with a low limit"]
)
async def test_where_processes_cannot_be_found_nothing_is_claimed(containers, spoil):
    """If the supervisor cannot look at the processes, it kills what it can, but must not confirm
    the clean-up.
    """
    name = containers("busybox", *(["--ulimit", "locks=1000"] if spoil == "true" else []))
    docker("exec", name, "sh", "-c", spoil)
    done = await run(
        name, "sh", "-c", "env -i setsid sleep 4 & echo ready; sleep 4", output_limit=5
    )
    assert isinstance(done.error, OutputLimitError)
    left = processes_in(name)
    assert not left or done.cleanup is Cleanup.UNCONFIRMED
    assert not eventually(lambda: processes_in(name))


async def test_input_that_is_lost_in_the_container(containers):
    """The reader inside is killed for using too much memory. The command got only part of its
    input, which must not count as success.
    """
    name = containers("busybox", "--memory=32m", "--memory-swap=32m")
    done = await run(name, "wc", "-c", stdin=bytes(60_000_000))
    assert isinstance(done.error, TransportError), done
    assert "did not arrive whole" in str(done.error)


@pytest.mark.parametrize("image", ["busybox", "python:3-slim"])
async def test_out_of_memory(containers, image):
    """A program that the kernel killed for lack of memory is distinguished from one that exits with
    137, and the next call is not affected.
    """
    name = containers(image, "--memory=64m", "--memory-swap=64m")
    for resident in (0, 1):
        async with DockerExec(name, resident=resident, shared="trusted") as box:
            for _ in range(2):
                done = await spawn(["tail", "/dev/zero"], sandbox=box, timeout=60)
                assert isinstance(done.error, ExitError), done
                assert (done.returncode, "for lack of memory" in str(done.error)) == (137, True)
                done = await spawn(["sh", "-c", "exit 137"], sandbox=box, timeout=60)
                assert done.returncode == 137
                assert "memory" not in str(done.error)


async def test_variables_that_are_too_long(box):
    """The command never ran, and the error says why."""
    done = await run(box, "/bin/true", env={"BIG": "x" * 140_000})
    assert isinstance(done.error, NotStartedError), done
    assert "too long" in done.error.reason


async def test_names_that_the_supervisor_uses_for_itself(box):
    """Variables with the names of the supervisor's own reach the command with their values."""
    env = {
        "i": "x y",
        "n": "1",
        "line": "2",
        "rs": "3",
        "nonce": "4",
        "tag": "5",
        "id": "6",
        "file": "7",
        "status": "8",
    }
    done = await run(box, "cat", "/proc/self/environ", env=env)
    assert {f"{name}={value}".encode() for name, value in env.items()} <= set(
        done.stdout.split(b"\0")
    )
    with pytest.raises(ConfigError, match="one of the supervisor's own names"):
        await run(box, "true", env={"ANYSPAWN_i": "1"})


async def test_errors_of_a_program_without_the_supervisor(busybox):
    """A line that begins with Error on stderr does not turn the program's exit into docker's
    failure.
    """
    done = await run(
        DockerExec(busybox, supervisor="off"), "sh", "-c", "echo 'Error: disk full' >&2; exit 3"
    )
    assert isinstance(done.error, ExitError)
    assert done.returncode == 3


async def test_max_concurrent_holds_without_a_shell(bare, caplog):
    """max_concurrent also counts calls without a supervisor, and the warning is logged once."""
    sandbox = DockerExec(bare, max_concurrent=1, shared="trusted", default_timeout=60)
    async with anyio.create_task_group() as tasks:
        for _ in range(3):
            tasks.start_soon(lambda: run(sandbox, "/app/cat", stdin=b"x"))
    assert len([record for record in caplog.records if record.levelno == logging.WARNING]) == 1


async def test_a_container_that_shares_our_pid_namespace(containers):
    """The supervisor kills only the command's processes, never its own client."""
    name = containers("busybox", "--pid=host")
    done = await run(name, "sh", "-c", "echo out; exit 3")
    assert (done.stdout, done.returncode, done.cleanup) == (b"out\n", 3, Cleanup.NOT_NEEDED), done
    done = await run(name, "sh", "-c", "setsid sleep 999 & echo ready; sleep 999", output_limit=5)
    assert (done.stdout, done.returncode, done.cleanup) == (b"ready", 137, Cleanup.CONFIRMED), done


async def test_a_client_that_asks_a_question_is_told_nothing(fake_docker, tmp_path):
    """A client that does not start the supervisor gets neither variables nor stdin."""
    heard = tmp_path / "heard"
    path = fake_docker(f"printf 'Password: '; cat >{heard}; exit 1")
    sandbox = DockerExec("somewhere", docker_path=path)
    done = await run(sandbox, "true", env={"SECRET": "x"}, stdin=b"y", timeout=30)
    assert isinstance(done.error, TransportError)
    assert heard.read_bytes() == b""
