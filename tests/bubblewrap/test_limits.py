"""Limits of `Bubblewrap`: a program cannot exceed them, and its error names the limit that it
reached.
"""

from __future__ import annotations

import itertools
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from anyspawn import (
    Bubblewrap,
    ConfigError,
    Direct,
    DockerRun,
    Egress,
    ExitError,
    KubectlRun,
    Limits,
    SpawnTimeoutError,
    spawn,
)
from anyspawn._bounds import homes
from anyspawn.argv import docker_run_argv
from anyspawn.containers import SecurityConfig
from machine import bubblewrap_works, eventually

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.skipif(
        not bubblewrap_works(), reason="needs bubblewrap, and permission to make user namespaces"
    ),
]

SMALL = Limits(memory="64MiB", processes=20, cpu=1, tmp="8MiB", files=50, file_size="4MiB")
PYTHON = "/usr/bin/python3"
HOG = "x = bytearray(200 << 20)"
FORKS = """
import os, signal, time
children = []
try:
    for n in range(60):
        if (pid := os.fork()) == 0:
            time.sleep(100)
        children.append(pid)
except OSError as exc:
    print(len(children), type(exc).__name__)
for pid in children:
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
raise SystemExit(3 if len(children) < 60 else 0)
"""
BOMB = ":(){ :|: & }; :; sleep 0.5; exit 3"
FILES = "held = [open('/dev/null') for n in range(100)]"
MANY = itertools.count(23)
"""Limits that no other test has."""
BURN = "import os\nfor n in range(3): os.fork()\nwhile True: pass"


@pytest.fixture(params=[0, 1], ids=["one for each", "kept"])
async def small(request):
    async with Bubblewrap(limits=SMALL, resident=request.param) as sandbox:
        yield sandbox


async def test_a_memory_hog(small):
    """The program is killed or gets a MemoryError. With a control group, the error
    names the limit.
    """
    error = (await spawn([PYTHON, "-c", HOG], sandbox=small)).error
    assert isinstance(error, ExitError)
    if "memory" in homes():
        assert "it ran out of memory (limits.memory: 64MiB)" in error.message
    else:
        assert "MemoryError" in str(error)


async def test_too_many_processes(small):
    """The program cannot have more processes than the limit; the next call can use all of them
    again.
    """
    for _ in range(2):
        done = await spawn([PYTHON, "-c", FORKS], sandbox=small, timeout=30)
        if "pids" not in homes() and os.geteuid() == 0:
            pytest.skip(
                "nothing bounds the processes of a host that is root without control groups"
            )
        assert done.returncode == 3, done
        assert int(done.text.split()[0]) < 20
        if "pids" in homes():
            assert "it was refused processes (limits.processes: 20)" in done.error.message


async def test_with_a_way_out():
    """An `Egress` as network does not change the limits."""
    sandbox = Bubblewrap(limits=SMALL, network=Egress(allow=["pypi.org"]))
    error = (await spawn([PYTHON, "-c", HOG], sandbox=sandbox)).error
    assert isinstance(error, ExitError)
    assert ("ran out of memory" in error.message) == ("memory" in homes())
    done = await spawn(["sh", "-c", "ulimit -n"], sandbox=sandbox)
    assert done.text == "50\n"


@pytest.mark.skipif(os.geteuid() != 0, reason="another user takes a host that is root")
async def test_as_another_user():
    """The limits hold for another user too, even if this process cannot set that user's limits."""
    sandbox = Bubblewrap(limits=SMALL, user="nobody")
    done = await spawn(["sh", "-c", "ulimit -n; ulimit -f"], sandbox=sandbox)
    assert done.text.split() == ["50", "8192"]
    assert not (await spawn([PYTHON, "-c", HOG], sandbox=sandbox)).ok


async def test_a_fork_bomb(small):
    """The host keeps working, and the bomb is gone when the call returns."""
    if "pids" not in homes() and os.geteuid() == 0:
        pytest.skip("nothing bounds the processes of a host that is root without control groups")
    done = await spawn(["bash", "-c", BOMB], sandbox=small, timeout=3)
    assert not done.ok
    assert (await spawn(["true"])).ok


@pytest.mark.parametrize("place", ["/tmp", "/dev/shm", "/home", "/var/tmp", "/"])
async def test_a_full_disk(small, place):
    """The sandbox's private folders together hold at most `tmp`."""
    fill = f"for n in 1 2 3 4; do head -c 3000000 /dev/zero >{place}/$n || exit 9; done"
    done = await spawn(["sh", "-c", fill], sandbox=small)
    assert done.returncode == 9
    assert "No space left on device" in str(done.error)


async def test_nothing_can_be_written_beside_them(small):
    """/dev is read-only, so files there cannot get around the limit."""
    assert "Read-only" in str((await spawn(["sh", "-c", "echo >/dev/x"], sandbox=small)).error)


async def test_a_large_file(small, tmp_path):
    """The limit on a file's size holds in a bound folder of the host too."""
    sandbox = Bubblewrap(limits=SMALL, writable=[tmp_path])
    done = await spawn(["head", "-c", "9000000", "/dev/zero"], sandbox=small)
    assert done.ok
    fill = f"head -c 9000000 /dev/zero >{tmp_path}/x"
    assert not (await spawn(["sh", "-c", fill], sandbox=sandbox)).ok
    assert (tmp_path / "x").stat().st_size == 4 << 20


async def test_too_many_files(small):
    """The program gets EMFILE."""
    assert "Too many open files" in str((await spawn([PYTHON, "-c", FILES], sandbox=small)).error)


async def test_processors(small):
    """A program with many busy processes gets one processor, or its share of time."""
    done = await spawn(
        [PYTHON, "-c", "import os; print(len(os.sched_getaffinity(0)))"], sandbox=small
    )
    if "cpu" not in homes():
        assert done.text == "1\n"
    burning = await spawn([PYTHON, "-c", BURN], sandbox=small, timeout=1)
    assert isinstance(burning.error, SpawnTimeoutError)


async def test_defaults_and_none():
    """Limits have defaults; limits=None turns them off."""
    show = ["sh", "-c", "ulimit -n; ulimit -f"]
    assert (await spawn(show, sandbox=Bubblewrap())).text.split()[0] == "1024"
    assert (await spawn(show, sandbox=Bubblewrap(limits=None))).text == (await spawn(show)).text


def groups_for(limits):
    """Return this process's control groups that allow as many processes as ``limits``."""
    paths = Path(homes()["pids"].path).glob(f"anyspawn.*-{os.getpid()}-*")
    return {path for path in paths if int((path / "pids.max").read_text()) == limits.processes}


def charged(limits):
    """Count the processes of those groups that are not reaped yet. Without control
    groups it is 0.
    """
    groups = groups_for(limits) if "pids" in homes() else ()
    return sum(int((path / "pids.current").read_text()) for path in groups)


async def test_a_control_group_serves_the_next_program():
    """An empty group serves the next call. A group whose limit was reached does not, and a missing
    one is replaced.
    """
    if "pids" not in homes():
        pytest.skip("needs a control group for processes")
    limits = Limits(processes=next(MANY), memory=None)
    sandbox = Bubblewrap(limits=limits)
    await spawn(["true"], sandbox=sandbox, check=True)
    (first,) = groups_for(limits)
    assert not eventually(lambda: charged(limits))  # wait until all are reaped
    await spawn(["true"], sandbox=sandbox, check=True)
    assert groups_for(limits) == {first}
    assert not eventually(lambda: charged(limits))
    done = await spawn([PYTHON, "-c", FORKS], sandbox=sandbox)
    assert "refused processes" in str(done.error)
    assert not groups_for(limits)
    assert (await spawn(["true"], sandbox=sandbox)).ok
    (second,) = groups_for(limits)
    assert not (second / "cgroup.procs").read_text()
    second.rmdir()
    assert (await spawn(["true"], sandbox=sandbox)).ok


async def test_a_control_group_that_holds_memory_serves_no_other():
    """Files that a program leaves in the host's memory still count in its group, so the next
    program needs a new one.
    """
    if "memory" not in homes() or not os.access("/dev/shm", os.W_OK):
        pytest.skip("needs a control group for memory, and /dev/shm")
    with tempfile.TemporaryDirectory(dir="/dev/shm") as folder:
        limits = Limits(memory="64MiB", processes=next(MANY))
        sandbox = Bubblewrap(writable=[{folder: "/w"}], limits=limits)
        for _ in range(4):
            script = "head -c 24M /dev/zero >$(mktemp /w/XXXXXX)"
            done = await spawn(["sh", "-c", script], sandbox=sandbox)
            assert done.ok, done
            assert not eventually(lambda: charged(limits))


def test_no_control_group_is_left():
    """Every control group is removed when the interpreter exits."""
    run = (
        "import anyio, os\n"
        "from anyspawn import Bubblewrap, spawn\n"
        "anyio.run(lambda: spawn(['true'], sandbox=Bubblewrap(), check=True))\n"
        "print(os.getpid())"
    )
    own = subprocess.run([sys.executable, "-c", run], stdout=subprocess.PIPE, check=True)
    for home in homes().values():
        assert not list(Path(home.path).glob(f"anyspawn.*-{int(own.stdout)}-*"))


async def test_a_program_of_this_host():
    """`Direct` takes limits too. They hold for whatever the program executes later."""
    sandbox = Direct(limits=Limits(files=50, memory="64MiB"))
    done = await spawn(
        ["sh", "-c", "sleep 0.2; ulimit -n; exec python3 -c 'x = bytearray(200 << 20)'"],
        sandbox=sandbox,
    )
    assert done.text == "50\n"
    assert isinstance(done.error, ExitError)


ORDINARY = """
import sys, anyio
from anyspawn import Bubblewrap, Limits, spawn
async def main():
    limits = Limits(memory="64MiB", processes=20)
    for code in sys.argv[1:]:
        done = await spawn(["/usr/bin/python3", "-c", code], sandbox=Bubblewrap(limits=limits))
        print(done.returncode, str(done.error).splitlines()[-1], done.text.split())
anyio.run(main)
"""


def test_an_ordinary_user(unprivileged):
    """A user who cannot make control groups gets the kernel's resource limits instead."""
    done = unprivileged.run(ORDINARY, HOG, FORKS)
    hog, forks = done.stdout.splitlines()
    assert hog.startswith("1   MemoryError")
    assert forks.startswith("3 ")
    assert "BlockingIOError" in forks


def test_those_of_a_container():
    """Limits become docker options, and stand after those of the security settings, which they
    override.
    """
    box = DockerRun("image", limits=SMALL, security=SecurityConfig())
    argv = docker_run_argv(box, box_command())
    for option in (
        "--memory=67108864",
        "--memory-swap=67108864",
        "--pids-limit=20",
        "--cpus=1",
        "--ulimit=nofile=50:50",
        "--ulimit=fsize=4194304:4194304",
    ):
        assert option in argv
    assert argv.index("--pids-limit=20") > argv.index("--pids-limit=256")
    assert any(arg.startswith("--tmpfs=/tmp") and arg.endswith("size=8388608") for arg in argv)


def test_those_of_a_pod():
    """Limits become the container's limits, unless `resources` sets another value."""
    from anyspawn.sandboxes.kubectl_run import pod_manifest

    sandbox = KubectlRun("image", limits=SMALL, resources={"limits": {"memory": "1Gi"}})
    pod = pod_manifest(sandbox, box_command(), seconds=10, owner="x")
    assert pod["spec"]["containers"][0]["resources"]["limits"] == {
        "memory": "1Gi",
        "ephemeral-storage": "8388608",
        "cpu": "1000m",
    }


def box_command():
    from anyspawn import Command

    return Command(["true"])


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"memory": "lots"}, "memory: 'lots' is not a size"),
        ({"memory": 0}, "memory must be at least 1 byte"),
        ({"memory": 1.5}, "memory must be a size"),
        ({"tmp": True}, "tmp must be a size"),
        ({"processes": 0}, "processes must be a whole number from 1 up"),
        ({"files": "many"}, "files must be a whole number"),
        ({"cpu": 0}, "cpu must be a number of processors"),
        ({"file_size": "-1"}, "file_size: '-1' is not a size"),
    ],
)
def test_wrong_values(fields, words):
    """The error names the field and what is expected."""
    with pytest.raises(ConfigError) as caught:
        Limits(**fields)
    assert words in str(caught.value)


@pytest.mark.parametrize("kind", [Bubblewrap, Direct])
def test_what_are_no_limits(kind):
    """A mapping is refused: only configuration files have one."""
    with pytest.raises(ConfigError, match="limits must be Limits or None, not dict"):
        kind(limits={"memory": 1})
