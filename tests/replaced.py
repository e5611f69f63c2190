"""Outcomes of calls in a shared container where root has replaced the supervisors' tools."""

from __future__ import annotations

import os

from anyspawn import Cleanup, spawn

BUSYBOX = "/bin/busybox"


async def check_replaced_tools(sandbox, call, running):
    """Check that each outcome is the program's own or an error, and that no clean-up is confirmed
    while the program still runs.

    Args:
        sandbox: A sandbox with busybox's tools in which programs are root. It is closed.
        call: Calls a program in the container through its engine.
        running: Returns the command lines of the container's processes.
    """
    for number, tool in enumerate(("sh", "setsid", "cat", "head", "grep")):
        path = call("which", tool)
        for status in (0, 1):
            word = f"{os.getpid()}.{number}{status}"
            plant = (
                f"rm {path}; printf '#!{BUSYBOX} sh\\nexit {status}\\n' >{path}; chmod +x {path}"
            )
            script = f"{BUSYBOX} cat; echo no; {BUSYBOX} setsid {BUSYBOX} sleep {word} & exit 3"
            argv = [BUSYBOX, "sh", "-c", script]
            async with sandbox:
                await spawn(["sh", "-c", plant], sandbox=sandbox)
                try:
                    done = await spawn(argv, sandbox=sandbox, stdin=b"in\n", timeout=5)
                finally:
                    call(BUSYBOX, "ln", "-f", BUSYBOX, path)
            what = (tool, status, done)
            assert done.error is not None, what
            assert done.returncode in (None, 3), what
            if any(word in line for line in running()):
                assert done.cleanup is Cleanup.UNCONFIRMED, what
                call("pkill", "-f", word)
