"""Each step that a supervisor takes in a container is broken in turn: the call must be an error or
have the right result. `docker` is a script that runs the container's shell on this host.
"""

from __future__ import annotations

import itertools
import os
import shutil
import uuid

import anyio
import pytest

from anyspawn import Cleanup, DockerExec, TransportError, spawn
from machine import kill_all, processes_with

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.heavy,
    pytest.mark.skipif(os.geteuid() != 0, reason="other users are needed"),
]

DOCKER = r"""#!/bin/dash
while [ "$1" != box ]; do shift; done
shift 2
export PATH={own}:{path}
cd /
exec {setsid} -w {limited} {own}/sh "$@"
"""
TOOLS = ("setsid", "head", "dd", "cat", "grep", "sleep", "readlink")
FAULTS = ("exit 0", "exit 1", "kill -9 $$", "kill -9 $PPID; exit 1")
USERS = itertools.count(50_000 + os.getpid() % 5000 * 1000)
"""Limits of processes are counted per user, so each test takes a new one."""
SIZES = (1000, 65_200)


@pytest.fixture
def anyio_backend():
    """The scripts are under test, so one event loop is enough."""
    return "asyncio"


@pytest.fixture(params=["dash", "bash", "busybox"])
def container(request, tmp_path):
    """Return a function that makes a `docker` whose containers have one shell, and fake tools
    before the real ones.
    """
    for folder in (tmp_path, *tmp_path.parents[:2]):
        folder.chmod(0o755)

    def make(limited="", tools=(), fault=""):
        folder = tmp_path / uuid.uuid4().hex
        own = folder / "bin"
        own.mkdir(parents=True)
        (own / "sh").symlink_to(shutil.which(request.param))
        for tool in tools:
            (own / tool).write_text(f"#!/bin/dash\nPATH={os.environ['PATH']}\n{fault}\n")
            (own / tool).chmod(0o755)
        docker = folder / "docker"
        setsid = shutil.which("setsid")
        docker.write_text(
            DOCKER.format(own=own, path=os.environ["PATH"], setsid=setsid, limited=limited)
        )
        docker.chmod(0o755)
        return str(docker)

    return make


async def tells_the_truth(docker, size, resident, what):
    """Make calls that must read all of their stdin and leave a process behind, and check that their
    outcomes are true.
    """
    async with DockerExec(
        "box", docker_path=docker, resident=resident, shared="trusted", default_timeout=3
    ) as sandbox:
        for _ in range(2 if resident else 1):
            mark, stdin = uuid.uuid4().hex, os.urandom(size // 2).hex().encode()
            script = f": {mark}; sleep 998 >/dev/null 2>&1 </dev/null & exec /bin/cat"
            try:
                with anyio.fail_after(60):
                    done = await spawn(
                        ["/bin/dash", "-c", script], sandbox=sandbox, stdin=stdin, env={"M": mark}
                    )
                said = (*what, size, resident, done.error, done.cleanup)
                assert done.error is not None or done.stdout == stdin, said
                assert done.cleanup is Cleanup.UNCONFIRMED or not processes_with(mark), said
                assert done.error is None or str(done.error).strip() not in ("", "failed"), said
            finally:
                kill_all(processes_with(mark))


async def all_at_once(cases):
    async with anyio.create_task_group() as tasks:
        for docker, what in cases:
            for size, resident in itertools.product(SIZES, (0, 1)):
                tasks.start_soon(tells_the_truth, docker, size, resident, what)


async def in_turn(cases, first):
    """Make each call with each size, and with each size every other one in a resident."""
    async with anyio.create_task_group() as tasks:
        for number, (docker, what) in enumerate(cases, first):
            for place, size in enumerate(SIZES):
                tasks.start_soon(tells_the_truth, docker, size, (number + place) % 2, what)


async def test_nothing_is_broken(container):
    """Without a fault, the calls succeed."""
    for size, resident in itertools.product(SIZES, (0, 1)):
        box = DockerExec("box", docker_path=container(), resident=resident, shared="trusted")
        async with box:
            done = await spawn(["/bin/cat"], sandbox=box, stdin=bytes(size))
            assert (done.error, done.stdout, done.cleanup) == (
                None,
                bytes(size),
                Cleanup.NOT_NEEDED,
            )


OTHERS = [name for name in ("mksh", "ksh93", "yash", "zsh") if shutil.which(name)]


@pytest.mark.parametrize("container", OTHERS, indirect=True)
@pytest.mark.parametrize("resident", [0, 1])
async def test_other_shells(container, resident):
    """Other shells either work, or are refused before anything starts; the error says which shells
    work.
    """
    cat, seven = ["/bin/cat"], ["/bin/dash", "-c", "/bin/cat; exit 7"]
    box = DockerExec("box", docker_path=container(), resident=resident, shared="trusted")
    async with box:
        for size, (argv, status) in itertools.product((0, *SIZES), ((cat, 0), (seven, 7))):
            stdin = os.urandom(size)
            done = await spawn(argv, sandbox=box, stdin=stdin, timeout=60)
            if isinstance(done.error, TransportError):
                assert (done.error.started, done.cleanup) == (False, Cleanup.NOT_NEEDED), done
                assert "dash" in str(done.error), done
            else:
                assert (done.returncode, done.stdout) == (status, stdin), done
                assert done.cleanup is not Cleanup.UNCONFIRMED, done


async def test_a_limit_of_processes(container):
    """Any step may fail at the limit."""
    async with anyio.create_task_group() as tasks:
        for processes, size, resident in itertools.product((2, 3, 4, 5, 6, 8), SIZES, (0, 1)):
            as_user = f"setpriv --reuid={next(USERS)} --clear-groups"
            docker = container(f"{as_user} prlimit --nproc={processes}")
            tasks.start_soon(tells_the_truth, docker, size, resident, ("processes", processes))


async def test_a_limit_of_open_files(container):
    """Any step may fail at the limit."""
    await all_at_once(
        (container(f"prlimit --nofile={count}"), ("files", count)) for count in range(4, 14, 2)
    )


async def test_a_limit_of_locks(container):
    """Supervisors mark their processes with this limit, and cannot raise it again if it was set
    lower before.
    """
    await in_turn(
        ((container(f"prlimit --locks={count}"), ("locks", count)) for count in (0, 5)), 0
    )


async def test_a_limit_of_memory(container):
    """Any step may fail at the limit."""
    await all_at_once(
        (container(f"prlimit --as={size << 10}"), ("memory", size))
        for size in (700, 1500, 2800, 4000, 6000)
    )


@pytest.mark.parametrize("tool", TOOLS)
async def test_a_tool_fails(container, tool):
    """A tool fails with a status or a signal, or kills the shell that called it."""
    cases = ((container(tools=[tool], fault=fault), (tool, fault)) for fault in FAULTS)
    await in_turn(cases, TOOLS.index(tool))
