"""Start a program that does not exit, give it one second, and count the processes that still run:
with asyncio alone, then with anyspawn.
"""

import asyncio
import os
import signal
import subprocess

import anyspawn

SECONDS = f"600.{os.getpid()}"  # a number of our own, by which the processes are counted
PROGRAM = ["sh", "-c", f"sleep {SECONDS} & sleep {SECONDS}"]


async def with_asyncio() -> str:
    process = await asyncio.create_subprocess_exec(*PROGRAM)
    try:
        await asyncio.wait_for(process.wait(), timeout=1)
    except TimeoutError as error:
        process.kill()
        return repr(error)
    return "done"


async def with_anyspawn() -> str:
    done = await anyspawn.spawn(PROGRAM, timeout=1)
    return str(done.error)


def running() -> list[int]:
    """Return the numbers of the processes that PROGRAM started."""
    lines = subprocess.run(
        ["ps", "-A", "-o", "pid=,args="], stdout=subprocess.PIPE, text=True, check=True
    ).stdout.splitlines()
    return [int(line.split()[0]) for line in lines if f"sleep {SECONDS}" in line]


async def main() -> None:
    for way in (with_asyncio, with_anyspawn):
        said = await way()
        await asyncio.sleep(0.5)  # for the kernel to end what was killed
        left = running()
        print(f"{way.__name__}: {said}; {len(left)} processes still run")
        for pid in left:
            os.kill(pid, signal.SIGKILL)


if __name__ == "__main__":
    asyncio.run(main())
