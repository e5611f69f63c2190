"""Input and output arrive complete, in order, and without a deadlock."""

from __future__ import annotations

import os
import subprocess
import sys
import time

import anyio
import pytest

from anyspawn import ExitError, SpawnTimeoutError, spawn

pytestmark = pytest.mark.anyio
MB = 10**6


async def test_ten_megabytes_through_cat_are_identical():
    data = os.urandom(10 * MB)
    done = await spawn(["cat"], stdin=data, check=True)
    assert done.stdout == data
    assert done.stdout_total == len(data)


async def test_a_large_input_that_is_never_read_does_not_hide_the_exit_status():
    """10 MB of input that the program never reads neither block nor fail the call: its output and
    status arrive.
    """
    done = await spawn(["sh", "-c", "echo out; exit 3"], stdin=bytes(10 * MB), timeout=20)
    assert isinstance(done.error, ExitError)
    assert (done.returncode, done.stdout) == (3, b"out\n")


@pytest.mark.parametrize("size", [10, 4097, 65537, 10 * MB])
async def test_a_program_may_close_its_input_and_go_on(size):
    """Input that meets a closed stream is not an error: a program may stop reading."""
    done = await spawn(
        ["sh", "-c", "exec 0<&-; echo on; sleep 0.05; echo done"], stdin=bytes(size), check=True
    )
    assert done.stdout == b"on\ndone\n"


async def test_a_program_may_read_a_part_of_its_input():
    """A program may read part of its input and exit, as `head` does."""
    done = await spawn(["head", "-c", "3"], stdin=b"abc" + bytes(10 * MB), check=True)
    assert done.stdout == b"abc"


async def test_unread_input_does_not_defer_the_timeout():
    """A program that sleeps on 10 MB of unread input times out like any other."""
    done = await spawn(["sleep", "100"], stdin=bytes(10 * MB), timeout=0.2)
    assert isinstance(done.error, SpawnTimeoutError)


async def test_a_grandchild_that_holds_unread_input_does_not_hold_the_call():
    """The call returns when the program has exited, even if a grandchild still holds its stdin."""
    began = time.monotonic()
    done = await spawn(["sh", "-c", "sleep 100 & exit 0"], stdin=bytes(10 * MB))
    assert done.error is None
    assert time.monotonic() - began < 5


@pytest.mark.heavy
async def test_five_hundred_megabytes_are_counted_to_the_byte_while_the_loop_stays_alive():
    """500 MB arrive exactly, and other tasks run in between."""
    worst = last = seen = 0

    async def tick() -> None:
        nonlocal worst, last
        while True:
            await anyio.sleep(0)
            worst, last = max(worst, seen - last), seen

    def count(stream: str, chunk: bytes) -> None:
        nonlocal seen
        seen += len(chunk)

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(tick)
        done = await spawn(
            ["head", "-c", str(500 * MB), "/dev/zero"],
            timeout=100,
            output_limit=500 * MB,
            on_output=count,
            check=True,
        )
        tasks.cancel_scope.cancel()
    assert seen == done.stdout_total == len(done.stdout) == 500 * MB
    assert not done.stdout.strip(b"\0")
    assert worst < 20 * MB


async def test_both_streams_at_once():
    """50 MB on each of stdout and stderr, written in turn, do not deadlock."""
    script = "i=0; while [ $i -lt 50 ]; do head -c 1000000 /dev/zero; head -c 1000000 /dev/zero >&2; i=$((i+1)); done"
    done = await spawn(["sh", "-c", script], timeout=100, output_limit=50 * MB, check=True)
    assert (len(done.stdout), len(done.stderr)) == (50 * MB, 50 * MB)


async def test_stdin_is_a_pipe_that_an_event_loop_can_wait_for():
    """An asyncio program reads its stdin with connect_read_pipe, which refuses a regular file."""
    code = """
import asyncio, sys
async def main():
    reader = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    print(len(await reader.read()))
asyncio.run(main())
"""
    for size in (10, 10 * MB):
        done = await spawn([sys.executable, "-c", code], stdin=bytes(size), timeout=30, check=True)
        assert int(done.stdout) == size


async def test_stdin_none_shares_the_callers_own(tmp_path):
    """With stdin=None the program inherits the caller's stdin."""
    code = "import anyio, anyspawn; print(anyio.run(lambda: anyspawn.spawn(['cat'], stdin=None)).stdout)"
    done = subprocess.run(
        [sys.executable, "-c", code], input=b"mine", stdout=subprocess.PIPE, check=True, timeout=30
    )
    assert done.stdout == b"b'mine'\n"


HOST_WITHOUT_STREAMS = """
import os, sys
os.closerange(0, 3)
import anyio, anyspawn
async def main():
    done = await anyspawn.spawn(["sh", "-c", "cat; echo err >&2"], stdin=b"in")
    return done
done = anyio.run(main, backend=sys.argv[1])
with open(sys.argv[2], "w") as file:
    print(done.stdout, done.stderr, done.returncode, file=file)
"""


def test_a_host_without_standard_streams(tmp_path, anyio_backend):
    """A daemon that closed 0, 1 and 2 still gets the program's streams right."""
    result = tmp_path / "result"
    subprocess.run(
        [sys.executable, "-c", HOST_WITHOUT_STREAMS, anyio_backend[0], result],
        check=True,
        timeout=30,
    )
    assert result.read_text() == "b'in' b'err\\n' 0\n"
