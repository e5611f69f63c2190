"""Features of residents in containers. `test_docker_exec` shows that outcomes are the same with
them.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import anyio
import attrs
import pytest

from anyspawn import (
    Cleanup,
    ConfigError,
    DockerExec,
    DockerRun,
    ExitError,
    NotStartedError,
    OutputLimitError,
    SpawnTimeoutError,
    TransportError,
    spawn,
)
from anyspawn._spawn.child import ended
from cases import (
    CHAINS,
    NASTY,
    TREES,
    be_patient,
    cancelled_after,
    command_lines,
    no_chain_meets_the_next_call,
)
from engines import LABEL, docker, made_by_us, processes_in
from machine import eventually

pytestmark = pytest.mark.anyio
FOREVER = "while :; do sleep 1000; done"


def clients(place):
    """Return the docker clients that talk to a container or run an image."""
    found = command_lines().items()
    return [
        pid
        for pid, argv in found
        if argv[0].endswith(b"docker") and argv[1] in (b"exec", b"run") and place in argv
    ]


async def ready(sandbox, argv=("sh", "-c", "echo ready; sleep 999"), **options):
    """Return an event for the program's first output, a list for the result, and the
    call to start.
    """
    event, results = anyio.Event(), []

    async def call(options):
        def on_output(stream, chunk):
            event.set()

        try:
            results.append(await spawn(argv, sandbox=sandbox, on_output=on_output, **options))
        finally:
            event.set()

    return event, results, lambda: call(options)


async def test_one_client_serves_many_calls(busybox):
    """No client runs before the first call, one serves all that follow, and none is left after the
    block.
    """
    place = busybox.encode()
    async with DockerExec(busybox, resident=3, default_timeout=60) as sandbox:
        assert not clients(place)
        for number in range(5):
            done = await spawn(
                ["sh", "-c", "cat; exit $A"], sandbox=sandbox, stdin=b"in", env={"A": str(number)}
            )
            assert (done.stdout, done.returncode, done.cleanup) == (
                b"in",
                number,
                Cleanup.NOT_NEEDED,
            )
        assert len(clients(place)) == 1
    assert not clients(place)
    assert not eventually(lambda: processes_in(busybox))


async def test_copies_of_a_sandbox(busybox):
    """Copies share residents if these would start the same way, for the same user. Closing one
    sandbox closes those of all.
    """
    place = busybox.encode()
    base = DockerExec(busybox, resident=1, default_timeout=60)
    for _ in range(2):
        for user in ("65534", "1234", None):
            copy = attrs.evolve(base, user=user, name="copy")
            whose = await spawn(["id", "-u"], sandbox=copy, check=True)
            assert whose.text.strip() == (user or "0")
            assert (await spawn(["id", "-u"], sandbox=base, user=user)).text == whose.text
    assert len(clients(place)) == 3
    await base.aclose()
    assert not clients(place)
    assert not eventually(lambda: processes_in(busybox))


async def test_a_sandbox_that_is_called_again(busybox):
    """From the second call on, the sandbox keeps as many residents as calls were served at once,
    eight at most; calls beyond that start their own supervisor without waiting. With resident=0 it
    keeps none.
    """
    place, meet = (
        busybox.encode(),
        "touch /tmp/m/$$; until [ $(ls /tmp/m | wc -l) = %d ]; do :; done",
    )
    for resident, kept in (("auto", (0, 1, 1)), (0, (0, 0, 0))):
        async with DockerExec(busybox, resident=resident, default_timeout=60) as sandbox:
            for number in kept:
                await spawn(["true"], sandbox=sandbox, check=True)
                assert len(clients(place)) == number
    async with DockerExec(busybox, default_timeout=60) as sandbox:
        zombies = zombies_in(busybox)
        for at_once in (2, 10):
            await spawn(["sh", "-c", "rm -rf /tmp/m; mkdir /tmp/m"], sandbox=sandbox, check=True)
            async with anyio.create_task_group() as tasks:
                for _ in range(at_once):
                    argv = ["sh", "-c", meet % at_once]
                    tasks.start_soon(lambda argv=argv: spawn(argv, sandbox=sandbox, check=True))
            assert len(clients(place)) == min(at_once, 8)
    assert not clients(place)
    assert not eventually(lambda: processes_in(busybox))
    assert zombies_in(busybox) <= zombies


def zombies_in(container):
    """Return the number of zombies in a container."""
    script = "cat /proc/[0-9]*/stat 2>/dev/null | grep -c ') Z '; true"
    return int(docker("exec", container, "sh", "-c", script))


async def test_a_sandbox_that_is_called_again_much_later(busybox):
    """A sandbox whose last call is older than idle_timeout starts like a new one."""
    async with DockerExec(busybox, idle_timeout=0.1, default_timeout=60) as sandbox:
        for _ in range(2):
            await spawn(["true"], sandbox=sandbox, check=True)
            assert not clients(busybox.encode())
            await anyio.sleep(0.2)


@pytest.mark.parametrize("resident", ["auto", 1])
async def test_a_container_that_changes(containers, resident):
    """A resident belongs to its container, not to the name. If the container is renamed, replaced,
    paused or restarted, calls have the same outcome as without residents.
    """
    name = containers("busybox")

    async def answers(word):
        for _ in range(3):
            done = await spawn(["cat", "/which"], sandbox=sandbox)
            assert (done.stdout, done.error) == (word, None)

    docker("exec", name, "sh", "-c", "echo old >/which")
    async with DockerExec(name, resident=resident, default_timeout=60) as sandbox:
        await answers(b"old\n")
        docker("rename", name, f"{name}-old")
        docker("run", "-d", "--name", name, "--label", LABEL, "busybox", "sh", "-c", FOREVER)
        try:
            docker("exec", name, "sh", "-c", "echo new >/which")
            await answers(b"new\n")
            docker("pause", name)
            docker("inspect", name)  # while docker answers this, it reports the pause
            for _ in range(2):
                done = await spawn(["cat", "/which"], sandbox=sandbox)
                assert isinstance(done.error, TransportError)
                assert (done.error.kind, done.error.started) == ("target", False)
                assert "is paused" in str(done.error)
                assert done.duration < 30
            docker("unpause", name)
            await answers(b"new\n")
            docker("restart", "-t", "0", name)
            await answers(b"new\n")
        finally:
            docker("rm", "-f", f"{name}-old")


@pytest.mark.parametrize(("resident", "kept"), [("auto", 0), (1, 1)])
async def test_where_changes_cannot_be_seen(busybox, fake_docker, resident, kept):
    """If docker's events are not available, only residents that were asked for are kept."""
    docker_path = fake_docker('[ "$1" != events ] || exit 1; exec "$real" "$@"')
    async with DockerExec(
        busybox, docker_path=docker_path, resident=resident, default_timeout=60
    ) as sandbox:
        for _ in range(4):
            await spawn(["true"], sandbox=sandbox, check=True)
        assert len(clients(busybox.encode())) == kept


async def test_where_none_can_stay_nobody_notices(busybox, fake_docker, tmp_path):
    """If no resident can start, each call starts its own supervisor and runs once; the attempt is
    not repeated for each call.
    """
    tried = tmp_path / "tried"
    docker_path = fake_docker(
        f"case $* in *'anyspawn asks'*) echo >>{tried}; echo no; exit 125 ;; esac\n"
        'exec "$real" "$@"'
    )
    docker("exec", busybox, "rm", "-f", "/tmp/ran")
    async with DockerExec(busybox, docker_path=docker_path, default_timeout=60) as sandbox:
        for _ in range(4):
            argv = ["sh", "-c", "echo >>/tmp/ran; cat"]
            done = await spawn(argv, sandbox=sandbox, stdin=b"in")
            assert (done.stdout, done.error) == (b"in", None)
        done = await spawn(["wc", "-l", "/tmp/ran"], sandbox=sandbox)
        assert done.stdout.split()[0] == b"4"
    assert tried.read_text() == "\n"


async def test_calls_share_nothing_but_their_container(busybox):
    """Each call has its own process, session, variables, working directory and input."""
    script = "cat; echo $A; pwd; cat /proc/$$/stat; A=changed; cd /"
    async with DockerExec(busybox, resident=1, default_timeout=60) as sandbox:
        first = await spawn(
            ["sh", "-c", script], sandbox=sandbox, stdin=b"x", env={"A": "1"}, cwd="/tmp"
        )
        second = await spawn(["sh", "-c", script], sandbox=sandbox, cwd="/etc")
        third = await spawn(["cat", "/proc/self/environ"], sandbox=sandbox, env=NASTY)
        fourth = await spawn(["cat", "/proc/self/environ"], sandbox=sandbox)
    told = [done.stdout.decode().split("\n") for done in (first, second)]
    assert (told[0][:2], told[1][:2]) == (["x1", "/tmp"], ["", "/etc"])
    pids, sessions = zip(
        *((words[2].split()[0], words[2].split()[5]) for words in told), strict=True
    )
    assert pids == sessions
    assert pids[0] != pids[1]
    found = dict(
        entry.split("=", 1) for entry in os.fsdecode(third.stdout).split("\0") if "=" in entry
    )
    assert {name: found.get(name) for name in NASTY} == NASTY
    assert not {
        name
        for name in NASTY
        if name not in ("PATH", "HOME") and f"{name}=".encode() in fourth.stdout
    }


async def test_calls_beyond_their_number_wait(busybox):
    """A slow call does not delay others while a resident is free. With none free, a call waits
    until its own timeout.
    """
    async with (
        DockerExec(busybox, resident=2, default_timeout=60) as sandbox,
        anyio.create_task_group() as tasks,
    ):
        event, _, slow = await ready(sandbox)
        tasks.start_soon(slow)
        await event.wait()
        for _ in range(3):
            assert (await spawn(["true"], sandbox=sandbox)).error is None
        event, _, slow = await ready(sandbox)
        tasks.start_soon(slow)
        await event.wait()
        assert len(clients(busybox.encode())) == 2
        done = await spawn(["true"], sandbox=sandbox, timeout=0.3)
        assert isinstance(done.error, SpawnTimeoutError)
        assert "no slot was free" in str(done.error)
        tasks.cancel_scope.cancel()
    assert not eventually(lambda: processes_in(busybox))


@pytest.mark.parametrize("how", ["timeout", "cancel", "overflow"])
async def test_a_call_that_is_ended_does_not_cost_its_resident(busybox, how):
    """A killed call takes its own tree with it, and the next call uses the same client."""
    async with DockerExec(busybox, resident=1, default_timeout=60) as sandbox:
        for tree in TREES.values():
            await spawn(["true"], sandbox=sandbox, check=True)
            before = clients(busybox.encode())
            if how == "timeout":
                done = await spawn(["sh", "-c", tree], sandbox=sandbox, timeout=0.3)
                assert isinstance(done.error, SpawnTimeoutError)
                assert done.cleanup is Cleanup.CONFIRMED
            elif how == "cancel":
                event, _, call = await ready(sandbox, ["sh", "-c", f"echo ready; {tree}"])
                async with anyio.create_task_group() as tasks:
                    tasks.start_soon(call)
                    await event.wait()
                    tasks.cancel_scope.cancel()
            else:
                done = await spawn(
                    ["sh", "-c", f"({tree}) & yes"], sandbox=sandbox, output_limit=100_000
                )
                assert isinstance(done.error, OutputLimitError)
                assert done.cleanup is Cleanup.CONFIRMED
            assert not [words for words in processes_in(busybox) if "sleep" in words.split()[0]]
            assert clients(busybox.encode()) == before


@pytest.mark.parametrize("who", ["the client", "the supervisor"])
async def test_a_resident_that_dies_between_calls(busybox, who):
    """The next call gets a new resident and succeeds."""
    async with DockerExec(busybox, resident=1, default_timeout=60) as sandbox:
        await spawn(["true"], sandbox=sandbox, check=True)
        (client,) = clients(busybox.encode())
        if who == "the client":
            os.kill(client, signal.SIGKILL)
        else:
            # also kills this shell itself
            script = "kill -9 $(grep -l anyspawn /proc/[0-9]*/cmdline | cut -d/ -f3)"
            docker("exec", busybox, "sh", "-c", script, check=False)
        assert not eventually(lambda: not ended(client))
        assert (await spawn(["echo", "on"], sandbox=sandbox, check=True)).stdout == b"on\n"
    assert not eventually(lambda: processes_in(busybox))


@pytest.mark.parametrize("size", [0, 100_000])
@pytest.mark.parametrize("who", ["the client", "the supervisor"])
async def test_a_resident_that_dies_before_it_begins(busybox, who, size):
    """The call gets a new resident, and its program runs only once."""
    inside = "kill -%s $(grep -l 'anyspawn.resident.[0-9a-f]\\{32\\}.$' /proc/[0-9]*/cmdline | cut -d/ -f3)"
    docker("exec", busybox, "rm", "-f", "/tmp/ran")
    async with DockerExec(busybox, resident=1, default_timeout=60) as sandbox:
        await spawn(["true"], sandbox=sandbox, check=True)
        (client,) = clients(busybox.encode())

        def kill(signum):
            if who == "the client":
                os.kill(client, signum)
            else:
                docker("exec", busybox, "sh", "-c", inside % signum.value)

        kill(signal.SIGSTOP)
        if who == "the client":
            states = [task / "stat" for task in Path(f"/proc/{client}/task").iterdir()]
            assert not eventually(
                lambda: [path for path in states if ") T " not in path.read_text()]
            )
        results = []

        async def call():
            results.append(
                await spawn(
                    ["sh", "-c", "echo >> /tmp/ran; wc -c"], sandbox=sandbox, stdin=bytes(size)
                )
            )

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(call)
            await anyio.wait_all_tasks_blocked()
            kill(signal.SIGKILL)
        (done,) = results
        assert (done.error, done.stdout.strip(), done.cleanup) == (
            None,
            b"%d" % size,
            Cleanup.NOT_NEEDED,
        ), done
        assert clients(busybox.encode()) != [client]
        assert (await spawn(["wc", "-l", "/tmp/ran"], sandbox=sandbox, check=True)).stdout.split()[
            0
        ] == b"1"
    assert not eventually(lambda: processes_in(busybox))


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGKILL])
async def test_a_resident_that_dies_during_a_call(busybox, signum):
    """The call is a TransportError: its program is killed and not run again. The next call gets a
    new resident.
    """
    docker("exec", busybox, "rm", "-f", "/tmp/ran")
    async with DockerExec(busybox, resident=1, default_timeout=60) as sandbox:
        await spawn(["true"], sandbox=sandbox, check=True)
        event, results, call = await ready(
            sandbox, ["sh", "-c", "echo >> /tmp/ran; echo ready; sleep 999"]
        )
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(call)
            await event.wait()
            os.kill(clients(busybox.encode())[0], signum)
        (done,) = results
        assert isinstance(done.error, TransportError), done
        assert (done.error.started, done.stdout, done.cleanup) == (
            True,
            b"ready\n",
            Cleanup.CONFIRMED,
        )
        assert (await spawn(["wc", "-l", "/tmp/ran"], sandbox=sandbox, check=True)).stdout.split()[
            0
        ] == b"1"
    assert not eventually(lambda: processes_in(busybox))


@pytest.mark.parametrize("chain", CHAINS)
async def test_a_chain_of_processes_does_not_meet_the_next_call(busybox, chain, monkeypatch):
    """The helper calls with an empty and a long stdin, because feeding the long one takes processes
    too.
    """
    be_patient(monkeypatch)
    async with DockerExec(busybox, resident=1, default_timeout=60) as sandbox:
        await no_chain_meets_the_next_call(sandbox, chain)


async def test_idle_residents_end(busybox):
    """Idle residents end after `idle_timeout` without a further call; a later call starts a new
    one.
    """
    sandbox = DockerExec(busybox, resident=2, idle_timeout=0.2, default_timeout=60)
    await spawn(["true"], sandbox=sandbox, check=True)
    with anyio.fail_after(10):
        while clients(busybox.encode()):
            await anyio.sleep(0.01)
    await spawn(["true"], sandbox=sandbox, check=True)
    await sandbox.aclose()


async def test_cancelled_at_fifty_moments(busybox):
    """Nothing of the cancelled calls is left, and the residents still work."""
    async with DockerExec(busybox, resident=4, default_timeout=60) as sandbox:

        async def one(delay):
            with anyio.move_on_after(delay):
                await spawn(
                    ["sh", "-c", "setsid sleep 999 & sleep 0.02; exit 3"],
                    sandbox=sandbox,
                    stdin=b"x" * 100_000,
                )

        async with anyio.create_task_group() as tasks:
            for step in range(50):
                tasks.start_soon(one, step * 0.004)
        assert (await spawn(["echo", "on"], sandbox=sandbox, check=True)).stdout == b"on\n"
        assert not [words for words in processes_in(busybox) if "sleep" in words.split()[0]]
    assert not eventually(lambda: processes_in(busybox))


async def test_cancelled_at_each_of_its_first_steps(busybox):
    """Whether the program was started or not, nothing of it is left, and the next call gets a
    resident.
    """
    async with DockerExec(busybox, resident=1, default_timeout=60) as sandbox:
        await spawn(["true"], sandbox=sandbox, check=True)
        for steps in range(24):
            await cancelled_after(
                steps, lambda: spawn(["sh", "-c", "setsid sleep 999 & wait"], sandbox=sandbox)
            )
            assert (await spawn(["echo", "on"], sandbox=sandbox, check=True)).stdout == b"on\n"
            assert not [words for words in processes_in(busybox) if words.startswith("sleep")]
        assert len(clients(busybox.encode())) == 1


@pytest.mark.parametrize("size", [1, 4095, 4096, 4097, 70_000, 64 * 2**20])
async def test_input_of_any_size_that_is_read_or_not(busybox, size):
    """Input arrives complete, and unread input does not reach the next command."""
    data = os.urandom(size)
    async with DockerExec(busybox, resident=1, default_timeout=60) as sandbox:
        done = await spawn(["md5sum"], sandbox=sandbox, stdin=data)
        assert done.stdout.split()[0].decode() == hashlib.md5(data).hexdigest(), done
        assert (await spawn(["sh", "-c", "exit 3"], sandbox=sandbox, stdin=data)).returncode == 3
        assert (await spawn(["cat"], sandbox=sandbox, check=True)).stdout == b""
        assert len(clients(busybox.encode())) == 1


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_much_output(python):
    """256 MiB come back complete, and the resident still works."""
    async with DockerExec(python, resident=1, default_timeout=120) as sandbox:
        script = "head -c 268435456 /dev/zero"
        done = await spawn(
            ["sh", "-c", script], sandbox=sandbox, overflow="truncate", output_limit=1000
        )
        assert (done.error, done.stdout_total) == (None, 2**28)
        assert (await spawn(["echo", "on"], sandbox=sandbox, check=True)).stdout == b"on\n"


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_a_task_that_is_cancelled_while_clients_start(busybox):
    """A cancellation that arrives while the client of docker's events starts is not lost."""
    for steps in range(12):
        async with DockerExec(busybox, resident=1) as sandbox:
            task = asyncio.ensure_future(spawn(["sleep", "999"], sandbox=sandbox, timeout=None))
            for _ in range(steps):
                await asyncio.sleep(0)
            task.cancel()
            with pytest.raises(asyncio.CancelledError), anyio.fail_after(30):
                await task


async def test_a_read_only_root(containers):
    """The supervisor needs no file in the container."""
    name = containers("busybox", "--read-only")
    async with DockerExec(name, resident=1, default_timeout=60) as sandbox:
        for size in (10, 100_000):
            assert (
                len((await spawn(["cat"], sandbox=sandbox, stdin=bytes(size), check=True)).stdout)
                == size
            )


async def test_frames_that_a_program_forges_for_the_next(busybox):
    """The nonces that a program could know are used up. Forged frames are plain output of the call
    that writes them.
    """
    async with DockerExec(busybox, resident=1, default_timeout=60) as sandbox:
        script = r"printf '\036%032d exit 0\036\036%032d clean\036' 0 0 | tee /dev/stderr; exit 9"
        done = await spawn(["sh", "-c", script], sandbox=sandbox)
        assert (done.returncode, done.stdout, done.stderr) == (9, done.stderr, done.stdout)
        assert (await spawn(["cat"], sandbox=sandbox, stdin=b"x")).stdout == b"x"


async def test_what_a_command_leaves_behind_is_gone_before_the_next(busybox):
    """Processes that a command leaves are killed before the next one starts, and one that holds a
    stream after `wait_delay`.
    """
    async with DockerExec(busybox, resident=1, default_timeout=60) as sandbox:
        done = await spawn(
            ["sh", "-c", "setsid sleep 999 & env -i setsid sleep 999 & exit 4"],
            sandbox=sandbox,
            wait_delay=0.3,
        )
        assert (done.returncode, done.output_incomplete, done.cleanup) == (
            4,
            True,
            Cleanup.CONFIRMED,
        )
        assert not [words for words in processes_in(busybox) if words.startswith("sleep")]
        assert (await spawn(["cat"], sandbox=sandbox, stdin=b"x")).stdout == b"x"
        assert len(clients(busybox.encode())) == 1


async def test_what_many_commands_leave_behind(busybox):
    """Each call kills its own processes and none of another call."""
    async with DockerExec(busybox, resident=8, default_timeout=60) as sandbox:
        outcomes = []

        async def one(number):
            left = "setsid sleep 999 >&- 2>&- & " if number % 2 else ""
            done = await spawn(
                ["sh", "-c", f"{left}sleep 0.0{number % 7}; cat"],
                sandbox=sandbox,
                stdin=b"%d" % number,
            )
            outcomes.append((done.error, int(done.stdout), done.cleanup))

        async with anyio.create_task_group() as tasks:
            for number in range(64):
                tasks.start_soon(one, number)
        assert sorted(outcomes, key=lambda outcome: outcome[1]) == [
            (None, n, Cleanup.CONFIRMED if n % 2 else Cleanup.NOT_NEEDED) for n in range(64)
        ]
        assert not [words for words in processes_in(busybox) if words.startswith("sleep")]
        assert len(clients(busybox.encode())) == 8


PARENT = """
import anyio, sys
from anyspawn import DockerExec, DockerRun, spawn

async def main():
    if sys.argv[2] == "exec":
        sandbox = DockerExec(sys.argv[3], resident=2)
    else:
        sandbox = DockerRun("busybox", resident=2, default_timeout=60)
    await spawn(["true"], sandbox=sandbox, check=True)
    await spawn(["sh", "-c", "echo ready; setsid sleep 999 & sleep 999"], sandbox=sandbox, timeout=1000,
                on_output=lambda *_: print("ready", flush=True))

anyio.run(main, backend=sys.argv[1])
"""


@pytest.mark.parametrize("mode", ["exec", "run"])
async def test_the_caller_is_killed(busybox, mode, anyio_backend):
    """Nothing is left of the caller's call, of its residents, or of containers that were started
    ahead.
    """
    parent = subprocess.Popen(
        [sys.executable, "-c", PARENT, anyio_backend[0], mode, busybox], stdout=subprocess.PIPE
    )
    try:
        assert parent.stdout.readline() == b"ready\n"
    finally:
        parent.kill()
        parent.wait()
        parent.stdout.close()
    assert not eventually(lambda: processes_in(busybox))
    assert not eventually(made_by_us, 20)


async def test_containers_started_ahead():
    """Each container serves one command while the next ones wait, and none is left at the end."""
    async with DockerRun("busybox", resident=2, default_timeout=60) as sandbox:
        assert not made_by_us()
        names = set()
        for _ in range(4):
            done = await spawn(
                ["sh", "-c", "ls /tmp; touch /tmp/x; hostname"], sandbox=sandbox, check=True
            )
            assert len(done.stdout.split()) == 1  # it does not contain the file of an earlier one
            names.add(done.stdout.strip())
        assert len(names) == 4

        async def two_of(gone):
            with anyio.fail_after(60):
                while len(found := set(made_by_us("running")) - gone) != 2:
                    await anyio.sleep(0.05)
            return found

        used = {name.decode() for name in names}
        first = await two_of(used)
        done = await spawn(["hostname"], sandbox=sandbox, check=True)
        (older,) = first - {done.stdout.decode().strip()}
        assert older in await two_of(used | first - {older})
        assert (
            await spawn(["hostname"], sandbox=sandbox, check=True)
        ).stdout.decode().strip() == older
    assert not eventually(made_by_us)


async def test_a_container_that_goes_away():
    """If the container of a running call goes away, that is a TransportError. If a waiting one
    does, the next call gets another.
    """
    async with DockerRun("busybox", resident=1, default_timeout=60) as sandbox:
        done = await spawn(["hostname"], sandbox=sandbox, check=True)

        async def waiting(others):
            with anyio.fail_after(60):
                while not (found := set(made_by_us("running")) - others):
                    await anyio.sleep(0.05)
            return found

        (container,) = await waiting({done.stdout.decode().strip()})
        name = docker("inspect", "--format", "{{.Name}}", container).lstrip("/")
        (client,) = clients(name.encode())
        docker("rm", "-f", container)
        assert not eventually(lambda: not ended(client))
        event, results, call = await ready(sandbox, ["sh", "-c", "hostname; sleep 999"])
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(call)
            await event.wait()
            await anyio.to_thread.run_sync(lambda: docker("rm", "-f", *made_by_us()))
        (done,) = results
        assert isinstance(done.error, TransportError)
        assert (done.error.started, done.cleanup) == (True, Cleanup.CONFIRMED)
    assert not eventually(made_by_us)


async def test_an_image_that_is_not_there():
    """A missing image is the same error as without residents."""
    async with DockerRun("anyspawn-no-such-image", resident=1, default_timeout=60) as sandbox:
        done = await spawn(["true"], sandbox=sandbox)
        assert isinstance(done.error, TransportError)
        assert (done.error.started, done.returncode) == (False, None)
        assert "pull the image first" in str(done.error)


async def test_an_image_without_a_shell():
    """A resident needs a shell, and the error says so."""
    async with DockerRun("distroless", resident=1, default_timeout=60) as sandbox:
        done = await spawn(["/app/cat"], sandbox=sandbox)
        assert isinstance(done.error, TransportError)
        assert 'exec: "sh"' in str(done.error)


async def test_the_event_loop_ends(busybox, anyio_backend):
    """If nobody closes the sandbox, its residents end with the event loop."""
    code = (
        "import anyio, sys\n"
        "from anyspawn import DockerExec, spawn\n"
        "sandbox = DockerExec(sys.argv[2], resident=2, shared='trusted')\n"
        "for _ in range(2):\n"
        "    anyio.run(lambda: spawn(['true'], sandbox=sandbox, check=True), backend=sys.argv[1])\n"
        "import os, pathlib\n"
        "print(pathlib.Path(f'/proc/self/task/{os.getpid()}/children').read_text() or 'none')\n"
    )
    argv = [sys.executable, "-W", "error", "-c", code, anyio_backend[0], busybox]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False)
    assert (done.stdout, done.stderr) == ("none\n", "")
    assert not eventually(lambda: processes_in(busybox))


def test_settings():
    """The error names the field."""
    for fields in ({"resident": -1}, {"resident": True}, {"resident": "2"}, {"idle_timeout": 0}):
        with pytest.raises(ConfigError, match=next(iter(fields))):
            DockerExec("x", **fields)
    with pytest.raises(ConfigError, match="leave supervisor at 'auto'"):
        DockerExec("x", resident=1, supervisor="off")


async def test_the_callers_own_stdin(busybox):
    """A resident's stdin is its lifeline, so stdin=None is refused."""
    for sandbox in (
        DockerExec(busybox, resident=1, default_timeout=60),
        DockerRun("busybox", resident=1, default_timeout=60),
    ):
        with pytest.raises(ConfigError, match="the supervisor reads that stream"):
            await spawn(["cat"], sandbox=sandbox, stdin=None)


def test_launches_differ_by_nothing_but_the_command():
    """Residents are found by the argv that starts them, so it must be the same for all commands."""
    argvs = set()
    for sandbox in (
        DockerExec("c", resident=1, user="u", workdir="/w"),
        DockerRun("i", resident=1, default_timeout=60),
    ):
        from anyspawn import Command

        for command in (Command(["a", "b"], cwd="/x", env={"A": "1"}), Command(["c"], stdin=b"x")):
            argv = sandbox.launch(command).argv
            argvs.add(argv)
    assert len(argvs) == 2
    assert "secret" not in json.dumps([list(argv) for argv in argvs])


async def test_a_program_that_is_none_any_more(busybox):
    """A program may exit with 126 or 127 after it ran before. If it is then removed or not
    executable, the error must say so.
    """
    async with DockerExec(busybox, resident=1, default_timeout=60) as sandbox:

        async def inside(script):
            await spawn(["sh", "-c", script], sandbox=sandbox, check=True)

        program = ["/tmp/program", "x"]
        await inside(
            "printf '#!/bin/sh\necho $1 $A; exit $B\n' >/tmp/program; chmod +x /tmp/program"
        )
        for status in (0, 126, 127, 0):
            done = await spawn(program, sandbox=sandbox, env={"A": "a b", "B": str(status)})
            assert (done.stdout, done.returncode) == (b"x a b\n", status), done
        await inside("chmod -x /tmp/program")
        assert "cannot be executed" in str((await spawn(program, sandbox=sandbox)).error)
        await inside("chmod +x /tmp/program")
        for _ in range(2):
            await spawn(program, sandbox=sandbox, check=True)
        await inside("rm /tmp/program")
        for _ in range(2):
            done = await spawn(program, sandbox=sandbox)
            assert isinstance(done.error, NotStartedError)
            assert "was not found" in str(done.error)


async def test_a_program_that_removes_itself(python):
    """A program that removes itself or its working directory was started, whatever its
    status is.
    """
    async with DockerExec(python, resident=1, default_timeout=60) as sandbox:
        make = "mkdir -p /tmp/w; printf '#!/bin/sh\\n[ -z $1 ] || { echo did; rm -rf $0 /tmp/w; exit 127; }\\n' >/tmp/go; chmod +x /tmp/go"
        for program in ("/tmp/go", "sh"):
            await spawn(["sh", "-c", make], sandbox=sandbox, check=True)
            argv = [program] if program == "/tmp/go" else ["sh", "/tmp/go"]
            await spawn(argv, sandbox=sandbox, cwd="/tmp/w", check=True)
            done = await spawn([*argv, "x"], sandbox=sandbox, cwd="/tmp/w")
            assert isinstance(done.error, ExitError), done
            assert (done.stdout, done.returncode) == (b"did\n", 127)


async def test_a_program_of_another_place(busybox):
    """A known program with the same name in another place does not count as known."""
    async with DockerExec(busybox, resident=1, default_timeout=60) as sandbox:
        script = "mkdir -p /tmp/a; printf '#!/bin/sh\\n' >/tmp/a/thing; chmod +x /tmp/a/thing"
        await spawn(["sh", "-c", script], sandbox=sandbox, check=True)
        for _ in range(2):
            await spawn(["thing"], sandbox=sandbox, env={"PATH": "/tmp/a:/bin"}, check=True)
            assert isinstance((await spawn(["thing"], sandbox=sandbox)).error, NotStartedError)
            await spawn(["./thing"], sandbox=sandbox, cwd="/tmp/a", check=True)
            assert isinstance(
                (await spawn(["./thing"], sandbox=sandbox, cwd="/tmp")).error, NotStartedError
            )
