"""Shared by the tests of several sandboxes: difficult variables, processes that are hard to kill, a
view of all argvs.
"""

from __future__ import annotations

import anyio

from anyspawn import Cleanup, spawn
from anyspawn._spawn import call, remote, resident
from anyspawn._spawn.connection import Bounds
from anyspawn.testing._cases import NASTY, TREES
from anyspawn.testing._machine import all_command_lines, command_lines

__all__ = [
    "CHAINS",
    "NASTY",
    "TREES",
    "all_command_lines",
    "be_patient",
    "cancelled_after",
    "command_lines",
    "no_chain_meets_the_next_call",
]

CHAINS = {
    "in one group": "f() { echo >>/tmp/chain; f & }; f",
    "with streams closed": "f() { echo >>/tmp/chain; f >&- 2>&- & }; f",
    "in sessions": 'echo >>/tmp/chain; (setsid sh -c "$CHAIN" >&- 2>&- &)',
}
"""Each process starts the next one and exits at once, so that nobody can look at it in time. CHAIN
must be set to the script itself.
"""


def be_patient(monkeypatch):
    """Extend the time limits: on a busy machine a resident may be slow without being broken."""
    for module in (call, remote, resident):
        monkeypatch.setattr(module, "BOUNDS", Bounds(cleanup=60.0, remote=20.0))


async def no_chain_meets_the_next_call(sandbox, chain):
    """Run a chain with and without a long stdin, and check with the next call in the same place
    that it has stopped.
    """
    for stdin in (b"", b"x" * 100_000):
        done = await spawn(
            ["sh", "-c", CHAINS[chain]], sandbox=sandbox, stdin=stdin, env={"CHAIN": CHAINS[chain]}
        )
        assert (done.error, done.cleanup is Cleanup.UNCONFIRMED) == (None, False), done
        script = "for i in 1 2 3 4 5 6 7 8 9; do wc -c </tmp/chain; done | sort -u | wc -l"
        assert (await spawn(["sh", "-c", script], sandbox=sandbox, check=True)).stdout == b"1\n"


async def cancelled_after(steps, call):
    """Start a call, and cancel it after some steps of the event loop."""
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(call)
        for _ in range(steps):
            await anyio.lowlevel.checkpoint()
        tasks.cancel_scope.cancel()
