"""What the tests of several sandboxes have in common: nasty variables, trees that are hard to end,
a look at all argvs.
"""

from __future__ import annotations

import threading
from contextlib import contextmanager
from pathlib import Path

import anyio

from anyspawn import Cleanup, spawn
from anyspawn._spawn import call, remote, resident
from anyspawn._spawn.connection import Bounds

NASTY = {
    "A": "x",
    "EMPTY": "",
    "LINES": "a\n\nb\n",
    "EQUALS": "a=b=",
    "SPACE": " a\t",
    "QUOTES": "'\"`$x\\n\\",
    "OTHER": "é\udc80\x01\x7f",
    "PATH": "/bin:/usr/bin:/x",
    "HOME": "/h",
    "IFS": "x",
    "DOCKER_HOST": "tcp://1.2.3.4:5",
    "KUBECONFIG": "/none",
    "LD_PRELOAD": "",
}

TREES = {
    "a shell's tree": "sleep 999 & sh -c 'sleep 999 & sleep 999' & sleep 999",
    "setsid": "setsid sleep 999 & setsid sh -c 'setsid sleep 999' & sleep 999",
    "env -i": "env -i sleep 999 & env -i setsid sh -c 'sleep 999 & sleep 999' & sleep 999",
    "a fork loop": "while :; do sleep 0.05 & sleep 0.01; done",
    "TERM ignored": "trap '' TERM INT HUP; setsid sleep 999 & while :; do sleep 1; done",
    "streams closed": "exec >/dev/null 2>&1 </dev/null; setsid sleep 999 & sleep 999",
}

CHAINS = {
    "in one group": "f() { echo >>/tmp/chain; f & }; f",
    "with streams closed": "f() { echo >>/tmp/chain; f >&- 2>&- & }; f",
    "in sessions": 'echo >>/tmp/chain; (setsid sh -c "$CHAIN" >&- 2>&- &)',
}
"""Each process starts the next one and ends at once, so that it is gone before it is looked at;
CHAIN is to be set to the same.
"""


def be_patient(monkeypatch):
    """Have no resident given up for taking long to answer, as a busy machine's may, rightly."""
    for module in (call, remote, resident):
        monkeypatch.setattr(module, "BOUNDS", Bounds(cleanup=60.0, remote=20.0))


async def no_chain_meets_the_next_call(sandbox, chain):
    """Run a chain with and without a long stdin, and see by the next call in the same place that it
    is at its end.
    """
    for stdin in (b"", b"x" * 100_000):
        done = await spawn(
            ["sh", "-c", CHAINS[chain]], sandbox=sandbox, stdin=stdin, env={"CHAIN": CHAINS[chain]}
        )
        assert (done.error, done.cleanup is Cleanup.UNCONFIRMED) == (None, False), done
        script = "for i in 1 2 3 4 5 6 7 8 9; do wc -c </tmp/chain; done | sort -u | wc -l"
        assert (await spawn(["sh", "-c", script], sandbox=sandbox, check=True)).stdout == b"1\n"


def command_lines():
    """Return the argv of every process of this host, by pid; containers' processes are among
    them.
    """
    found = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                found[int(entry.name)] = (entry / "cmdline").read_bytes().split(b"\0")
            except OSError:
                continue
    return found


@contextmanager
def all_command_lines():
    """Give a list that fills with every argv of this host, until the block ends."""
    seen, stop = [], threading.Event()

    def sample():
        while not stop.is_set():
            seen.extend(command_lines().values())

    thread = threading.Thread(target=sample)
    thread.start()
    try:
        yield seen
    finally:
        stop.set()
        thread.join()


async def cancelled_after(steps, call):
    """Begin a call, and cancel it after so many steps of the event loop."""
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(call)
        for _ in range(steps):
            await anyio.lowlevel.checkpoint()
        tasks.cancel_scope.cancel()
