"""A separate host process, in which a test injects faults that would harm the test itself.

Run it with an event loop, a mode of `uses`, and the name of a function. It prints a line for each
program that runs, and one for the outcome.
"""

from __future__ import annotations

import ctypes
import gc
import os
import resource
import signal
import sys
import traceback

import anyio

import anyspawn
from machine import MARK, children, eventually, open_fds
from uses import ENGINES, LOCAL, TREE, left_by, use_once

MODES = LOCAL | ENGINES

AMBIENT, CLEAR_ALL = 47, 4
"""PR_CAP_AMBIENT and the argument that clears the set: programs must not inherit the capabilities
of this process.
"""

POINTS = 5


def say(*words):
    sys.stdout.write(f"{' '.join(map(str, words))}\n")
    sys.stdout.flush()


async def use(mode, name):
    """Use the mode in one way, report the outcome, and stay until this process is killed."""
    try:
        done = await use_once(MODES[mode](), name)
        say(done.cleanup.name, name, done)
    except BaseException:
        say("FAILED", repr(traceback.format_exc()))
    sys.stdin.readline()


async def use_with_few_processes(mode, limit, name):
    """Do the same while this user may have only some processes."""
    _, hard = resource.getrlimit(resource.RLIMIT_NPROC)
    resource.setrlimit(resource.RLIMIT_NPROC, (int(limit), hard))
    await use(mode, name)


async def outlast(mode):
    """Run a program that exits in time, while this host may be stopped."""
    argv = ["sh", "-c", "echo; sleep 0.5; exit 3"]
    async with MODES[mode]() as sandbox:
        done = await anyspawn.spawn(
            argv, sandbox=sandbox, timeout=8, on_output=lambda *_: say("ready")
        )
    say(done.returncode, type(done.error).__name__, done.cleanup.name)


async def stay(mode):
    """Run a call and a live process that do not end."""

    async def call():
        await anyspawn.spawn(
            ["sh", "-c", TREE], sandbox=sandbox, timeout=None, on_output=lambda *_: say("ready")
        )

    async def live():
        async with anyspawn.open_process(["sh", "-c", TREE], sandbox=sandbox) as process:
            await process.stdout.receive()
            say("ready")
            await process.wait()

    async with MODES[mode]() as sandbox, anyio.create_task_group() as tasks:
        tasks.start_soon(call)
        tasks.start_soon(live)


class Interrupt:
    """Sends SIGINT to this process when the n-th call of a C function by anyspawn or subprocess
    returns.
    """

    def __init__(self, number):
        self.number = number
        self.seen = 0

    def __call__(self, frame, event, _):
        if event != "c_return":
            return
        file = frame.f_code.co_filename
        if "/anyspawn/" in file or file.endswith("/subprocess.py"):
            self.seen += 1
            if self.seen == self.number:
                os.kill(os.getpid(), signal.SIGINT)


async def end_early(mode):
    async with MODES[mode]() as sandbox:
        await anyspawn.spawn(["sh", "-c", TREE], sandbox=sandbox, output_limit=1, timeout=60)


async def leave_block(mode):
    async with (
        MODES[mode]() as sandbox,
        anyspawn.open_process(["sh", "-c", TREE], sandbox=sandbox) as process,
    ):
        await process.stdout.receive()


def interrupted(backend, mode):
    """Interrupt calls at several moments spread over their duration, and report what goes wrong."""
    for work in (end_early, leave_block):
        interrupt_once(backend, mode, work, 0)
        total, _ = interrupt_once(backend, mode, work, 0)
        gc.collect()
        before = open_fds()
        for number in range(1, total, total // POINTS + 1):
            seen, raised = interrupt_once(backend, mode, work, number)
            left = left_by(os.environ[MARK])
            gc.collect()
            more = open_fds().keys() - before.keys()
            wrong = {
                "raised": raised is not KeyboardInterrupt and seen >= number and raised,
                "left": left,
                "children": eventually(children),
                "descriptors": more,
            }
            if any(wrong.values()):
                say(work.__name__, number, wrong)
    say("over")


def interrupt_once(backend, mode, work, number):
    """Return the number of moments, and what was raised."""
    interrupt, raised = Interrupt(number), "nothing"
    sys.setprofile(interrupt)
    try:
        anyio.run(work, mode, backend=backend)
    except BaseException as exc:
        raised = type(exc)
    finally:
        sys.setprofile(None)
    return interrupt.seen, raised


def main(backend, mode, what, *rest):
    ctypes.CDLL(None).prctl(AMBIENT, CLEAR_ALL, 0, 0, 0)
    if what == "interrupted":
        interrupted(backend, mode)
    else:
        work = {w.__name__: w for w in (use, use_with_few_processes, outlast, stay)}[what]
        anyio.run(work, mode, *rest, backend=backend)


if __name__ == "__main__":
    main(*sys.argv[1:])
