"""docker's own failures are never the program's. Each fault is tried in each way to run a command,
on the first and on the second call, on both event loops.
"""

from __future__ import annotations

import anyio
import attrs
import pytest

from anyspawn import DockerExec, DockerRun, NotStartedError, TransportError, spawn
from anyspawn.containers import SecurityConfig
from engine_faults import FAULTS
from engines import docker

RUNS = {
    "docker_run": {},
    "docker_run with an init": {"security": SecurityConfig(user=None)},
    "docker_run ahead": {"resident": 1},
}
EXECS = {
    "docker_exec": {"resident": 0},
    "docker_exec off": {"supervisor": "off"},
    "docker_exec without sh": {},
    "docker_exec resident": {"resident": 1},
}
CASES = [
    pytest.param(fault, mode, id=f"{fault.name}-{mode}")
    for fault in FAULTS
    for mode in (*RUNS, *EXECS)
    if mode.partition(" ")[0] in fault.modes
]


@pytest.fixture(scope="module")
def bare(containers):
    return containers("distroless", "-i", cmd=("/app/cat",))


def sandbox_of(mode, settings, busybox, bare):
    if mode in RUNS:
        sandbox = DockerRun("busybox", default_timeout=60, **RUNS[mode])
    else:
        container = bare if mode.endswith("without sh") else busybox
        sandbox = DockerExec(container, default_timeout=60, shared="trusted", **EXECS[mode])
    known = {field.name for field in attrs.fields(type(sandbox))}
    return attrs.evolve(sandbox, **{key: value for key, value in settings.items() if key in known})


@pytest.mark.parametrize(("fault", "mode"), CASES)
def test_a_fault_is_told_from_the_programs_exit(fault, mode, busybox, bare, monkeypatch):
    """The error has the right kind, nothing was started, and stdout contains nothing of
    docker's.
    """
    settings = fault.settings
    if "user" in settings and "security" in RUNS.get(mode, {}):
        settings = {"security": SecurityConfig(user=settings["user"])}
    sandbox = sandbox_of(mode, settings, busybox, bare)
    if mode.endswith("without sh"):
        assert anyio.run(once, sandbox_of(mode, {}, busybox, bare), ["/app/cat"]).ok
    argv = fault.argv or (["/app/cat"] if mode.endswith("without sh") else ["cat"])
    for name, value in fault.environ.items():
        monkeypatch.setenv(name, value)
    for loop in ("asyncio", "trio"):
        done = anyio.run(once, sandbox, argv, fault.cwd, backend=loop)
        fault.is_told(done, loop)


async def once(sandbox, argv, cwd=None):
    async with sandbox:
        return await spawn(argv, cwd=cwd, stdin=b"", sandbox=sandbox)


# The outcome depends on the daemon and the shells, so one loop for each image is enough.
@pytest.mark.parametrize(("image", "loop"), [("busybox", "asyncio"), ("python:3-slim", "trio")])
def test_near_the_limit_of_processes_stdin_is_whole_or_an_error(image, loop, containers):
    """However few processes may still be started, the program gets its whole stdin or the call is
    an error. A filter that allows by default must never read an empty request.
    """
    container = containers(image, "--pids-limit=100")
    anyio.run(near_the_limit, container, backend=loop)


async def near_the_limit(container):
    def sandbox(**fields):
        return DockerExec(container, default_timeout=20, shared="trusted", **fields)

    outcomes = []
    async with sandbox(resident=1) as resident:
        await spawn(["true"], sandbox=resident, check=True)
        modes = resident, sandbox(resident=0), sandbox(supervisor="off")
        there = len(docker("top", container).splitlines()) - 1  # without its heading
        for room in (12, 5, 4, 3, 1):
            docker("update", f"--pids-limit={there + room}", container)
            for mode in modes:
                for stdin in (b"deny", b"deny" * 50_000):
                    done = await spawn(["cat"], stdin=stdin, sandbox=mode)
                    outcomes.append(done)
                    if done.error is None:
                        assert done.stdout == stdin, (room, mode, done)
                    else:
                        assert isinstance(done.error, (NotStartedError, TransportError)), done
        docker("update", "--pids-limit=100", container)
        for mode in modes:
            assert (await spawn(["cat"], stdin=b"deny", sandbox=mode)).stdout == b"deny"
    assert {done.ok for done in outcomes} == {True, False}
