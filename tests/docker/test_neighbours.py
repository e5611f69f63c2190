"""Programs that attack the calls beside and after them, in containers of their own and in shared
ones.
"""

from __future__ import annotations

import logging
import os

import attrs
import pytest

import anyspawn
from anyspawn import Cleanup, ConfigError, DockerExec, DockerRun, KubectlExec, spawn
from anyspawn.hooks import ExecToolHook
from cases import command_lines
from engines import docker
from machine import kill_all
from replaced import check_replaced_tools

pytestmark = pytest.mark.anyio

HIDE = (
    "ulimit -x 7 2>/dev/null || ulimit -w 7; env -i setsid sleep {} </dev/null >/dev/null 2>&1 & "
    "until [ -z \"$(tr -d '\\0' </proc/$!/environ)\" ]; do :; done"
)
"""Leaves a program behind without the limit and the variable by which the supervisor
would find it.
"""


def sleeping(seconds):
    word = seconds.encode()
    return [pid for pid, argv in command_lines().items() if argv[:2] == [b"sleep", word]]


@pytest.mark.parametrize("resident", [0, 1])
async def test_what_hides_in_a_shared_container_is_told_of(python, resident):
    """anyspawn cannot distinguish the hidden process from those of others, so it does not kill it,
    and the clean-up is unconfirmed.
    """
    seconds = f"777.{os.getpid()}{resident}"
    async with DockerExec(python, resident=resident, default_timeout=60) as sandbox:
        try:
            done = await spawn(["sh", "-c", HIDE.format(seconds)], sandbox=sandbox)
            assert (done.error, done.cleanup) == (None, Cleanup.UNCONFIRMED)
            assert len(sleeping(seconds)) == 1
        finally:
            kill_all(sleeping(seconds))
        assert (await spawn(["true"], sandbox=sandbox)).cleanup is Cleanup.NOT_NEEDED


@pytest.mark.parametrize("image", ["busybox", "python:3-slim"])
async def test_what_hides_in_a_container_of_our_own_has_ended(image):
    """In a container for one command, every process is the command's: the hidden one is killed, and
    that is confirmed.
    """
    seconds = f"778.{os.getpid()}"
    async with DockerRun(image, resident=1, default_timeout=60) as sandbox:
        for _ in range(2):
            done = await spawn(["sh", "-c", HIDE.format(seconds)], sandbox=sandbox)
            assert (done.error, done.cleanup) == (None, Cleanup.CONFIRMED)
            assert not sleeping(seconds)


ATTACK = r"""
import os, signal, sys, time
done = set()
while True:
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open(f"/proc/{pid}/cmdline", "rb") as file:
                if b"anyspawn" not in file.read() or os.fstat(file.fileno()).st_uid == os.getuid():
                    continue
        except OSError:
            continue
        tried = []
        for what in (
            lambda: os.kill(int(pid), signal.SIGSTOP),
            lambda: os.open(f"/proc/{pid}/fd/0", os.O_RDONLY),
            lambda: os.open(f"/proc/{pid}/fd/1", os.O_WRONLY),
            lambda: os.open(f"/proc/{pid}/mem", os.O_RDWR),
            lambda: os.open(f"/proc/{pid}/environ", os.O_RDONLY),
        ):
            try:
                what()
                tried.append("did")
            except OSError:
                tried.append("no")
        if pid not in done:
            done.add(pid)
            print(*tried, flush=True)
"""
"""Tries to stop, read and impersonate every supervisor of another user that it sees."""


@pytest.mark.parametrize("resident", [0, 1])
async def test_another_user_cannot_reach_a_supervisor(python, resident):
    """A program of another user that is not root cannot affect the calls beside it."""
    attacker = DockerExec(python, user="1001", default_timeout=60)
    async with (
        DockerExec(python, user="1002", resident=resident, default_timeout=60) as victim,
        anyspawn.open_process(["python3", "-c", ATTACK], sandbox=attacker) as process,
    ):
        for _ in range(5):
            script = "cat; echo no; exit 2"
            done = await spawn(["sh", "-c", script], sandbox=victim, stdin=b"in", env={"KEY": "k"})
            assert (done.stdout, done.returncode, done.cleanup) == (
                b"inno\n",
                2,
                Cleanup.NOT_NEEDED,
            ), done
        told = await process.stdout.receive()
        assert b"no no no no no" in told
        assert b"did" not in told


SEARCH = r"""
import os, sys
secrets, looked = [word[::-1].encode() for word in sys.argv[1:]], 0
for pid in filter(str.isdigit, os.listdir("/proc")):
    if int(pid) in (os.getpid(), os.getppid()):
        continue
    try:
        with open(f"/proc/{pid}/maps") as maps, open(f"/proc/{pid}/mem", "rb", 0) as memory:
            for line in maps:
                where, what, *_ = line.split()
                if what.startswith("rw"):
                    begin, end = (int(number, 16) for number in where.split("-"))
                    memory.seek(begin)
                    found = memory.read(end - begin)
                    print(*(pid for secret in secrets if secret in found), sep="", end="")
            looked += 1
    except ProcessLookupError:
        pass
sys.exit(looked == 0)
"""
"""Looks for words, which it gets reversed, in the memory of every process."""


@pytest.mark.parametrize("resident", [0, "auto", 1])
async def test_a_later_program_does_not_find_what_an_earlier_one_was_given(python, resident):
    """A supervisor keeps neither variables nor input after their call."""
    async with DockerExec(python, resident=resident, default_timeout=60) as sandbox:
        for _ in range(2):
            argv = ["sh", "-c", "cat >/dev/null"]
            await spawn(argv, sandbox=sandbox, env={"KEY": "s3cret-a"}, stdin=b"s3cret-b")
        argv = ["python3", "-c", SEARCH, "s3cret-a"[::-1], "s3cret-b"[::-1]]
        done = await spawn(argv, sandbox=sandbox)
        assert (done.stdout, done.returncode) == (b"", 0), done


FORGE = r"""
import os, time
while True:
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open(f"/proc/{pid}/cmdline", "rb") as file:
                if not file.read().startswith(b"cat\0/tmp/told"):
                    continue
            with open(f"/proc/{pid}/environ", "rb") as file:
                key = file.read().partition(b"KEY=")[2].partition(b"\0")[0]
            with open(f"/proc/{pid}/fd/1", "wb", 0) as output:
                output.write(b"forged with " + key)
            with open("/tmp/told", "wb") as told:
                told.write(b"x")
            raise SystemExit
        except OSError:
            pass
"""
"""Waits for the program of a later call, reads its variables, and writes to its stdout."""


@pytest.mark.parametrize("resident", [0, "auto"])
async def test_a_program_that_stays_forges_the_next_call(python, resident):
    """A supervisor for each call is no safer than a resident: a process of the same user can read
    another call's program and write in its place.
    """
    begin = "ulimit -x 7 2>/dev/null || ulimit -w 7; mkfifo /tmp/told; "
    begin += f"env -i PATH=$PATH setsid python3 -c '{FORGE}' </dev/null >/dev/null 2>&1 &"
    async with DockerExec(python, resident=resident, default_timeout=60) as sandbox:
        await spawn(["rm", "-f", "/tmp/told"], sandbox=sandbox, check=True)
        done = await spawn(["sh", "-c", begin], sandbox=sandbox)
        assert done.cleanup is Cleanup.UNCONFIRMED
        done = await spawn(["cat", "/tmp/told"], sandbox=sandbox, env={"KEY": "k"})
        assert done.stdout == b"forged with kx", done


async def test_a_call_leaves_nothing_for_the_next():
    """Each call has its own container."""
    async with DockerRun("busybox", resident=1, default_timeout=60) as sandbox:
        names = {(await spawn(["hostname"], sandbox=sandbox, check=True)).stdout for _ in range(3)}
    assert len(names) == 3


@pytest.mark.parametrize("place", [DockerExec("box"), KubectlExec("pod")], ids=lambda box: box.name)
def test_a_filter_refuses_a_place_that_is_shared(place):
    """A filter in a shared container is refused unless the sandbox is trusted. A hook that observes
    is allowed, because it has no verdict to forge.
    """
    with pytest.raises(ConfigError, match="shared to 'trusted'"):
        ExecToolHook(name="guard", command="true", sandbox=place)
    ExecToolHook(name="guard", command="true", sandbox=attrs.evolve(place, shared="trusted"))
    ExecToolHook(name="guard", command="true", sandbox=place, mode="observe")
    with pytest.raises(ConfigError, match="shared must be 'untrusted' or 'trusted', not 'yes'"):
        attrs.evolve(place, shared="yes")


async def test_a_place_that_is_shared_is_warned_of_once(busybox, caplog):
    """Each untrusted sandbox warns once, a trusted one never."""
    for trusted, expected in (("untrusted", 1), ("trusted", 0)):
        caplog.clear()
        sandbox = DockerExec(busybox, shared=trusted, default_timeout=60, resident=0)
        for _ in range(2):
            await spawn(["true"], sandbox=sandbox, check=True)
        warned = [record for record in caplog.records if record.levelno == logging.WARNING]
        assert len(warned) == expected
        assert all("can forge the outcome" in record.getMessage() for record in warned)


@pytest.mark.parametrize("anyio_backend", [("asyncio", {})])
@pytest.mark.parametrize("resident", [0, 1])
async def test_tools_that_root_has_replaced(containers, resident):
    """If root replaces a tool by one that does nothing or fails, a failed call must not succeed,
    and a running program must not count as gone.
    """
    own = containers("busybox")
    sandbox = DockerExec(own, resident=resident, default_timeout=60)
    await check_replaced_tools(
        sandbox,
        lambda *argv: docker("exec", own, *argv),
        lambda: docker("top", own, "-o", "pid,args").splitlines(),
    )
