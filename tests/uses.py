"""Calls in any mode under a fault: each must succeed provably, or give a true error."""

from __future__ import annotations

import errno
import os
from contextlib import asynccontextmanager
from pathlib import Path

import anyio
from attrs import field, frozen

from anyspawn import (
    Bubblewrap,
    Cleanup,
    Command,
    Completed,
    Direct,
    DockerExec,
    DockerRun,
    Launch,
    NotStartedError,
    SpawnError,
    SpawnTimeoutError,
    TransportError,
    open_box,
    open_process,
    spawn,
)
from anyspawn._model import Fill
from anyspawn.sandboxes._supervised import (
    SupervisedSandbox,
    explain_report,
    known_by,
    supervised,
)
from anyspawn.supervisor import SWEEP, resident_script, script
from machine import kill_all, processes_with

__all__ = ["ENGINES", "LOCAL", "TREE", "USES", "left_by", "look", "use_once"]


@frozen(kw_only=True)
class Supervised(SupervisedSandbox):
    """The supervisor of the exec modes on this host, without a client in between."""

    name: str = "supervised"
    shared: str = field(default="trusted")
    _target = "this host"

    def launch(self, command: Command) -> Launch:
        stays = self.resident not in (0, "auto")
        begun = ("sh", "-c", script(), "anyspawn", *command.argv)
        if stays:
            begun = ("sh", "-c", resident_script(), "anyspawn", Fill("resident.?", "id"))
        sweep = ("sh", "-c", SWEEP, "anyspawn", *known_by(command, stays=stays))
        return supervised(
            command,
            explain=lambda completed, report: explain_report(completed, report, lost),
            cwd=command.cwd,
            stays=stays,
            argv=begun,
            remote=True,
            stop=(*sweep, "TERM"),
            end=(*sweep, "KILL"),
            gone=sweep,
        )


def lost(stderr, code, *, started):
    return TransportError(f"sh: {stderr} ({code})", started=started, kind="connection")


@asynccontextmanager
async def boxed(sandbox):
    """The sandbox of a box's calls, while the box is open."""
    async with open_box(sandbox) as box:
        yield box._place.sandbox


LOCAL = {
    "direct": Direct,
    "bubblewrap": lambda: Bubblewrap(share_env=["FAULTS_MARK"]),
    "bubblewrap resident": lambda: Bubblewrap(share_env=["FAULTS_MARK"], resident=1),
    "bubblewrap box": lambda: boxed(Bubblewrap(share_env=["FAULTS_MARK"])),
    "supervised": lambda: Supervised(resident=0),
    "supervised resident": lambda: Supervised(resident=1),
}
"""The sandboxes that need no engine."""

ENGINES = {
    "docker_exec": lambda: DockerExec(os.environ["CONTAINER"], shared="trusted", resident=0),
    "docker_exec resident": lambda: DockerExec(
        os.environ["CONTAINER"], shared="trusted", resident=1
    ),
    "docker_run": lambda: DockerRun("busybox"),
    "docker_run box": lambda: boxed(DockerRun("busybox", default_timeout=60)),
}
"""The sandboxes that need a daemon; the first two also need a container."""

BOUND = 45.0
DATA = bytes(range(256)) * 400
LONG = "4711"
TREE = f"echo x; setsid sleep {LONG} & sleep {LONG}"


def true_error(error):
    """Return whether an error blames only the host."""
    if isinstance(error, NotStartedError):
        return error.kind in ("resources", "other")
    return isinstance(error, (TransportError, SpawnTimeoutError))


async def plain(sandbox):
    done = await spawn(["cat"], sandbox=sandbox, stdin=DATA, timeout=20)
    if done.error is None:
        assert (done.stdout, done.returncode) == (DATA, 0), done
    else:
        assert true_error(done.error), done
        assert done.returncode is None or isinstance(done.error, SpawnTimeoutError), done
    return done


async def exit_status(sandbox):
    done = await spawn(["sh", "-c", "echo x; exit 3"], sandbox=sandbox, timeout=20)
    if done.returncode is None:
        assert true_error(done.error), done
    else:
        assert (done.returncode, done.stdout) == (3, b"x\n"), done
    return done


async def ended(sandbox):
    done = await spawn(["sh", "-c", TREE], sandbox=sandbox, timeout=1, grace=0.1)
    assert true_error(done.error), done
    return done


async def live(sandbox):
    process = None
    try:
        async with open_process(["cat"], sandbox=sandbox, timeout=20) as process:
            await process.stdin.send(b"x" * 1000)
            data = b""
            while len(data) < 1000:
                data += await process.stdout.receive()
            assert data == b"x" * 1000
            await process.stdin.aclose()
            assert await process.wait() == 0
    except SpawnError as exc:
        assert true_error(exc), exc
        return exc.completed
    except (anyio.BrokenResourceError, anyio.EndOfStream, anyio.ClosedResourceError):
        assert process is not None
        assert true_error(process.completed.error), process.completed
    return process.completed


async def live_tree(sandbox):
    try:
        async with open_process(["sh", "-c", TREE], sandbox=sandbox, timeout=20) as process:
            assert await process.stdout.receive() == b"x\n"
    except SpawnError as exc:
        assert true_error(exc), exc
        return exc.completed
    return process.completed


USES = {use.__name__: use for use in (plain, exit_status, ended, live, live_tree)}


async def use_once(sandbox, use):
    """Use a sandbox or a box once within bounded time, close it, and return the outcome."""
    with anyio.fail_after(BOUND):
        try:
            async with sandbox as opened:
                return await USES[use](opened)
        except (SpawnError, OSError) as exc:  # the box could not be opened
            error = exc if isinstance(exc, SpawnError) else NotStartedError(str(exc), kind="other")
            assert true_error(error) or exc.errno in (errno.EMFILE, errno.EAGAIN), exc
            return error.completed or Completed(argv=(use,), error=error)


def left_by(mark):
    """Return the processes of a use's tree; hosts and residents end by themselves."""
    return [pid for pid in processes_with(mark) if LONG in argv_of(pid)]


def argv_of(pid):
    try:
        return Path(f"/proc/{pid}/cmdline").read_text()
    except OSError:
        return ""


def look(done, mark):
    """Check that confirmed processes are gone, and kill the unconfirmed ones."""
    left = left_by(mark)
    assert done.cleanup is Cleanup.UNCONFIRMED or not left, done
    kill_all(left)
