"""What a call in any mode comes to under a fault: success with proof, or an error that tells the
truth.
"""

from __future__ import annotations

import anyio

from anyspawn import (
    Bubblewrap,
    Cleanup,
    Direct,
    NotStartedError,
    SpawnError,
    SpawnTimeoutError,
    TransportError,
    open_process,
    spawn,
)
from machine import kill_all, processes_with

__all__ = ["LOCAL", "USES", "look", "use_once"]

LOCAL = {
    "direct": Direct,
    "bubblewrap": lambda: Bubblewrap(share_env=["FAULTS_MARK"]),
    "bubblewrap resident": lambda: Bubblewrap(share_env=["FAULTS_MARK"], resident=1),
}
"""The sandboxes that need no engine."""

BOUND = 45.0
DATA = bytes(range(256)) * 400
TREE = "echo x; setsid sleep 100 & sleep 100"


def true_error(error):
    """Whether an error may stand for a fault of the host: nothing else is blamed."""
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
    """Use a sandbox, close it, and return the outcome, in bounded time."""
    async with sandbox:
        with anyio.fail_after(BOUND):
            return await USES[use](sandbox)


def look(done, mark):
    """See that what is said to be gone is gone; end what is said to be perhaps there."""
    left = processes_with(mark)
    assert done.cleanup is Cleanup.UNCONFIRMED or not left, done
    kill_all(left)
