"""The docker sandboxes with podman's CLI."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from datetime import UTC, datetime
from pathlib import Path

import attrs
import pytest

from anyspawn import (
    Cleanup,
    DockerExec,
    DockerRun,
    ExitError,
    NotStartedError,
    SpawnTimeoutError,
    TransportError,
    spawn,
)
from anyspawn.containers import ContainerManager, ContainerSpec, SecurityConfig, running
from engine_faults import DOCKER, FAULTS

pytestmark = pytest.mark.anyio

RUNTIME = """#!/bin/sh
# runc, for machines where root may not raise limits: podman asks for that whatever it is told
for a in "$@"; do
  case "$previous" in --bundle | -b | --process | -p) file=$a ;; esac
  previous=$a
done
[ -d "$file" ] && file=$file/config.json
[ ! -f "$file" ] || sed -i -E 's#,"rlimits": *\\[[^]]*\\]##; s#"rlimits": *\\[[^]]*\\],##' "$file"
exec runc "$@"
"""
PODMAN = """#!/bin/sh
exec {podman} --root {folder}/root --runroot {folder}/runroot --storage-driver overlay \
  --events-backend file --runtime {folder}/runtime --cgroup-manager cgroupfs "$@"
"""
LOOSE = SecurityConfig(memory=None, pids_limit=None, init=False)


@pytest.fixture(scope="session")
def podman(daemon):
    """A podman with its own storage that contains busybox."""
    found = shutil.which("podman")
    if found is None or shutil.which("runc") is None:
        pytest.skip("podman and runc are not installed")
    folder = Path(tempfile.mkdtemp(prefix="podman-"))  # podman does not accept long paths
    for name, text in (
        ("runtime", RUNTIME),
        ("podman", PODMAN.format(podman=found, folder=folder)),
    ):
        (folder / name).write_text(text)
        (folder / name).chmod(0o755)
    path = str(folder / "podman")
    saved = subprocess.run(
        ["docker", "save", "busybox:latest"], stdout=subprocess.PIPE, check=True
    ).stdout
    subprocess.run([path, "load"], input=saved, capture_output=True, check=True)
    yield path
    subprocess.run([path, "rm", "-af", "--time=0"], stdout=subprocess.PIPE, check=False)
    subprocess.run([path, "rmi", "-af"], stdout=subprocess.PIPE, check=False)
    shutil.rmtree(folder, ignore_errors=True)


def left(podman):
    return subprocess.run([podman, "ps", "-aq"], stdout=subprocess.PIPE, check=True).stdout.split()


async def test_docker_run(podman):
    """Input, output, variables, statuses, a missing program, a missing image and a timeout work as
    with docker; no container is left.
    """
    sandbox = DockerRun("busybox", docker_path=podman, network="none", default_timeout=60)
    done = await spawn(
        ["sh", "-c", "cat; echo $A; echo err >&2; exit 3"],
        stdin=b"in\n",
        env={"A": "b\nc"},
        sandbox=sandbox,
    )
    assert (done.stdout, done.stderr, done.returncode) == (b"in\nb c\n", b"err\n", 3)
    for code in (125, 126, 127, 137):
        done = await spawn(["sh", "-c", f"exit {code}"], sandbox=sandbox)
        assert isinstance(done.error, ExitError), done
        assert done.returncode == code
    assert isinstance((await spawn(["no-such-program"], sandbox=sandbox)).error, NotStartedError)
    done = await spawn(["true"], sandbox=attrs.evolve(sandbox, image="anyspawn-none:1"))
    assert isinstance(done.error, TransportError)
    assert done.error.started is False
    done = await spawn(
        ["sh", "-c", "trap '' TERM; while :; do sleep 1; done"], sandbox=sandbox, timeout=1
    )
    assert isinstance(done.error, SpawnTimeoutError)
    assert done.cleanup is Cleanup.CONFIRMED
    assert not left(podman)


async def test_docker_exec(podman):
    """The supervisor works as with docker: nothing of a process tree is left."""
    async with running(ContainerSpec(image="busybox", security=LOOSE), docker_path=podman) as box:
        assert isinstance(box, DockerExec)
        done = await spawn(
            ["sh", "-c", "cat; echo $A; exit 125"], stdin=b"in\n", env={"A": "b\nc"}, sandbox=box
        )
        assert (done.stdout, done.returncode) == (b"in\nb c\n", 125)
        assert isinstance((await spawn(["no-such-program"], sandbox=box)).error, NotStartedError)
        done = await spawn(
            ["sh", "-c", "env -i setsid sleep 999 & sleep 999"], sandbox=box, timeout=1
        )
        assert isinstance(done.error, SpawnTimeoutError)
        assert done.cleanup is Cleanup.CONFIRMED
        assert (
            await spawn(["sh", "-c", "ps | grep -c '[s]leep 999'"], sandbox=box)
        ).stdout == b"0\n"
    done = await spawn(["true"], sandbox=DockerExec("anyspawn-none", docker_path=podman))
    assert isinstance(done.error, TransportError)
    assert done.error.started is False
    assert not left(podman)


async def test_containers(podman):
    """A container is created, run, inspected and removed."""
    before = datetime.now(UTC)
    manager = ContainerManager(docker_path=podman)
    container = await manager.create(
        ContainerSpec(image="busybox", cmd=["sh", "-c", "echo out; exit 7"], security=LOOSE)
    )
    found = []
    assert await manager.run(container, on_output=lambda *chunk: found.append(chunk)) == 7
    assert found == [("stdout", b"out\n")]
    info = await manager.inspect(container)
    assert (info.state, info.exit_code) == ("exited", 7)
    assert before <= info.created <= min(info.started, info.finished)
    assert max(info.started, info.finished) <= datetime.now(UTC)
    assert await manager.prune() == []
    await manager.remove(container)
    assert not left(podman)


@pytest.fixture
def shim(podman, tmp_path):
    """A `docker` that is podman, as on Fedora and RHEL."""
    path = tmp_path / "docker"
    path.write_text(f'#!/bin/sh\nexec {podman} "$@"\n')
    path.chmod(0o755)
    return str(path)


async def test_a_docker_that_is_podman(shim, podman, monkeypatch):
    """anyspawn recognises podman by its version output, and handles its statuses, timeouts, proxies
    and lists.
    """
    monkeypatch.setenv("HTTP_PROXY", "http://user:PASSWORD@proxy.example:3128")
    sandbox = DockerRun("busybox", docker_path=shim, network="none", default_timeout=60)
    for code in (125, 126, 127):
        done = await spawn(["sh", "-c", f"exit {code}"], sandbox=sandbox)
        assert isinstance(done.error, ExitError), done
        assert done.returncode == code
    done = await spawn(["sh", "-c", "env | grep -i _proxy="], sandbox=sandbox, env={"A": "b"})
    assert done.stdout == b""
    done = await spawn(
        ["sh", "-c", "trap '' TERM; while :; do sleep 1; done"], sandbox=sandbox, timeout=1
    )
    assert done.cleanup is Cleanup.CONFIRMED
    assert done.duration < 1 + 9, "podman gives what ignores SIGTERM ten seconds"
    manager = ContainerManager(docker_path=shim)
    spec = ContainerSpec(image="busybox", cmd=["true"], security=LOOSE)
    container = await manager.create(spec)
    odd = subprocess.run(
        [podman, "create", "--label", "io.anyspawn.owner=a\tb", "busybox", "true"],
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    ).stdout.strip()
    assert await manager.prune() == []
    await manager.remove(container)
    await manager.remove(odd)
    assert not left(podman)


PODMANS_FAULTS = [
    fault
    for fault in FAULTS
    if set(DOCKER) <= set(fault.modes) and not fault.environ and "docker_path" not in fault.settings
]


@pytest.mark.parametrize("fault", PODMANS_FAULTS, ids=lambda fault: fault.name)
async def test_faults(fault, shim):
    """podman's own failures are not the program's, however the command is run."""
    async with running(ContainerSpec(image="busybox", security=LOOSE), docker_path=shim) as box:
        for base in (
            DockerRun("busybox", docker_path=shim),
            box,
            attrs.evolve(box, supervisor="off"),
        ):
            sandbox = attrs.evolve(base, default_timeout=60, **fault.settings)
            argv = fault.argv or ["true"]
            done = await spawn(argv, cwd=fault.cwd, sandbox=sandbox)
            assert type(done.error) is fault.outcome, (base.name, done)
            assert done.error.kind == fault.kind, (base.name, done)
            assert getattr(done.error, "started", False) is False, (base.name, done)
