"""Corner cases of `Bubblewrap`'s confinement: spellings of folders, the host's descriptors, the end
of a call.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from anyspawn import Bubblewrap, NotStartedError, OutputLimitError, spawn
from machine import bubblewrap_works

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.skipif(
        not bubblewrap_works(), reason="needs bubblewrap, and permission to make user namespaces"
    ),
]


@pytest.mark.parametrize("cwd", ["//", "///", "/.", "/usr/..", "//usr/..", "/proc/self/root"])
async def test_no_spelling_of_the_root_exposes_it(cwd, tmp_path):
    """However the working directory spells the root, the program sees the sandbox's own root."""
    (tmp_path / "secret").write_text("s3cret")
    done = await spawn(["cat", f"{tmp_path}/secret"], sandbox=Bubblewrap(), cwd=cwd)
    assert done.returncode == 1
    assert done.stdout == b""


async def test_an_inner_bind_counts_however_the_outer_is_spelt(tmp_path):
    """A read-only folder in a writable one stays read-only, even if one of the paths is written
    with two slashes.
    """
    kept = tmp_path / "out" / "kept"
    kept.mkdir(parents=True)
    sandbox = Bubblewrap(writable=[f"/{tmp_path}/out"], readonly=[kept])
    done = await spawn(["touch", f"{kept}/no"], sandbox=sandbox, cwd="/usr")
    assert done.returncode == 1
    assert not (kept / "no").exists()


async def test_everything_read_only_leaves_the_private_folders_private(tmp_path):
    """With the whole root bound, /proc and /dev are still the sandbox's own."""
    done = await spawn(
        ["sh", "-c", "echo $$; ls /dev"], sandbox=Bubblewrap(readonly=["/"]), cwd="/", check=True
    )
    own, *devices = done.stdout.decode().split()
    assert own == "2"
    assert not {"kmsg", "mem", "loop0", "tty0"} & set(devices)
    done = await spawn(
        ["cat", f"/proc/{os.getpid()}/comm"], sandbox=Bubblewrap(readonly=["/"]), cwd="/"
    )
    assert done.returncode == 1


@pytest.mark.parametrize(("words", "variables"), [(10_000, 0), (1, 3_100)])
async def test_more_arguments_than_bwrap_takes(words, variables):
    """bwrap takes fewer arguments and variables than the system does. More of them is a
    NotStartedError.
    """
    env = {f"V{index}": "x" for index in range(variables)}
    done = await spawn(["true", *["x"] * words], sandbox=Bubblewrap(), env=env)
    assert isinstance(done.error, NotStartedError)


async def test_grace_is_the_programs():
    """With a grace, the program inside gets SIGTERM and the time to exit by itself."""
    script = "trap 'echo bye >&2; exit 0' TERM; printf %101s; while :; do sleep 0.01; done"
    done = await spawn(["sh", "-c", script], sandbox=Bubblewrap(), output_limit=100, grace=60)
    assert isinstance(done.error, OutputLimitError)
    assert done.stderr.endswith(b"bye\n")  # the shell may first report the end of its sleep


def running(word):
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                if word.encode() in (entry / "cmdline").read_bytes().split(b"\0"):
                    found.append(int(entry.name))
            except OSError:
                continue
    return found


async def test_nothing_is_left_at_the_return_from_a_plain_exit():
    """When the call returns the daemons are already gone."""
    for index in range(5):
        word = f"1000.{os.getpid()}{index}"
        script = f"for i in 1 2 3 4 5 6 7 8; do env -i setsid sleep {word} </dev/null >/dev/null 2>&1 & done; sleep 0.1"
        await spawn(["sh", "-c", script], sandbox=Bubblewrap(), check=True)
        assert not running(word)


async def test_a_refusal_of_the_real_bwrap():
    """If the kernel refuses another namespace, the error has bwrap's own message and says what to
    look at.
    """
    code = (
        "import anyio, anyspawn\n"
        "done = anyio.run(lambda: anyspawn.spawn(['true'], sandbox=anyspawn.Bubblewrap()))\n"
        "print(type(done.error).__name__, done.error.started, done.error)"
    )
    outer = ["bwrap", "--dev-bind", "/", "/", "--unshare-user", "--disable-userns"]
    done = await spawn(
        [*outer, sys.executable, "-c", code],
        env={"PYTHONPATH": os.pathsep.join(sys.path)},
        timeout=60,
        check=True,
    )
    assert done.stdout.startswith(b"TransportError False bwrap: Creating new namespace failed")
    assert b"user.max_user_namespaces" in done.stdout


async def test_a_relative_search_path_does_not_choose_the_runner(tmp_path, monkeypatch):
    """A relative entry of PATH refers to this process's directory, not to the program's cwd."""
    (tmp_path / "cwd").mkdir()
    (tmp_path / "here").mkdir()
    for folder, what in (("here", "exit 0"), ("cwd", f"touch {tmp_path}/taken")):
        fake = tmp_path / folder / "bwrap"
        fake.write_text(f"#!/bin/sh\n{what}\n")
        fake.chmod(0o755)
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.setenv("PATH", f".:{os.environ['PATH']}")
    await spawn(["true"], sandbox=Bubblewrap(), cwd=tmp_path / "cwd")
    assert not (tmp_path / "taken").exists()
