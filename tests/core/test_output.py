"""The limits of output, and the callback that receives it."""

from __future__ import annotations

import os
import subprocess
import sys
import time

import anyio
import pytest

from anyspawn import OutputLimitError, SpawnTimeoutError, spawn

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize("stream", ["stdout", "stderr"])
async def test_more_than_the_limit_is_an_error_that_ends_the_program(stream):
    """A program that writes endlessly is killed. The output up to the limit is kept, and the error
    names the stream.
    """
    done = await spawn(["sh", "-c", "yes" if stream == "stdout" else "yes >&2"], output_limit=1000)
    assert isinstance(done.error, OutputLimitError)
    assert stream in str(done.error)
    assert getattr(done, stream) == b"y\n" * 500
    assert getattr(done, f"{stream}_total") > 1000


async def test_exactly_the_limit_is_no_error():
    done = await spawn(["head", "-c", "1000", "/dev/zero"], output_limit=1000, check=True)
    assert len(done.stdout) == 1000


@pytest.mark.parametrize(
    ("limit", "head", "tail"), [(0, 0, 0), (1, 1, 0), (10, 5, 5), (11, 6, 5), (200_000, 0, 0)]
)
async def test_truncation_keeps_head_and_tail(limit, head, tail):
    """The first and the last half of the limit are kept, the total is counted, and the program runs
    to its end.
    """
    whole = b"".join(b"%d\n" % number for number in range(20_000))
    done = await spawn(["seq", "0", "19999"], output_limit=limit, overflow="truncate", check=True)
    assert done.stdout_total == len(whole)
    expected = whole if limit >= len(whole) else whole[:head] + (whole[-tail:] if tail else b"")
    assert done.stdout == expected


async def test_truncation_of_many_tiny_writes():
    """Bytes written one by one are joined correctly at both ends."""
    code = "import os\nfor i in range(30000): os.write(1, b'%05d' % i)"
    done = await spawn(
        [sys.executable, "-c", code], output_limit=100, overflow="truncate", timeout=60, check=True
    )
    assert done.stdout == b"".join(b"%05d" % i for i in [*range(10), *range(29_990, 30_000)])


@pytest.mark.parametrize("limit", [0, 1, 10, 108_889, 108_890, 200_000])
@pytest.mark.parametrize("stream", ["stdout", "stderr"])
@pytest.mark.parametrize("overflow", ["head", "tail"])
async def test_the_beginning_or_the_end_alone_is_kept(overflow, stream, limit):
    """The beginning or the end is kept, up to the limit, and the program runs to its end."""
    whole = b"".join(b"%d\n" % number for number in range(20_000))
    script = "seq 0 19999" if stream == "stdout" else "seq 0 19999 >&2"
    done = await spawn(["sh", "-c", script], output_limit=limit, overflow=overflow, check=True)
    assert getattr(done, f"{stream}_total") == len(whole)
    kept = whole[:limit] if overflow == "head" else whole[max(0, len(whole) - limit) :]
    assert getattr(done, stream) == kept


@pytest.mark.parametrize("sandbox", ["direct", "bubblewrap"])
@pytest.mark.parametrize(
    ("overflow", "limit", "text"),
    [
        ("head", 10, "0\n1\n2\n3\n4\n[... 280 bytes left out ...]\n"),
        ("tail", 11, "[... 279 bytes left out ...]\n6\n97\n98\n99\n"),
        ("truncate", 10, "0\n1\n2\n[... 280 bytes left out ...]\n8\n99\n"),
        ("truncate", 0, "[... 290 bytes left out ...]\n"),
    ],
)
async def test_text_says_what_was_left_out(overflow, limit, text, sandbox):
    """In text, a line of its own marks where bytes are missing, and how many. The bytes contain no
    mark.
    """
    argv = ["sh", "-c", "seq 0 99; seq 0 99 >&2"]
    done = await spawn(argv, output_limit=limit, overflow=overflow, sandbox=sandbox, check=True)
    assert (done.text, done.stderr_text) == (text, text)
    assert b"left out" not in done.stdout + done.stderr


async def test_text_of_output_that_fits_has_no_mark():
    done = await spawn(["seq", "3"], output_limit=6, overflow="tail", check=True)
    assert done.text == "1\n2\n3\n"


MEASURE = """
import sys
import anyio, anyspawn
def peak():  # in MiB; not ru_maxrss, which begins with that of the parent
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) for line in file if line.startswith("VmHWM:")) // 1024
async def main():
    await anyspawn.spawn(["true"])
    with open("/proc/self/clear_refs", "w") as file:
        file.write("5")  # the peak begins anew, at what is resident now
    before = peak()
    argv = ["head", "-c", str(200 * 2**20), "/dev/zero"]
    done = await anyspawn.spawn(argv, timeout=50, output_limit=64 * 2**20, overflow=sys.argv[1])
    print(len(done.stdout), done.stdout_total > 2 * len(done.stdout), peak() - before)
anyio.run(main, backend=sys.argv[2], backend_options={"use_uvloop": True} if sys.argv[3:] else {})
"""


@pytest.mark.parametrize("overflow", ["error", "truncate"])
def test_memory_is_the_limit_and_a_constant(anyio_backend, overflow):
    """A program that writes three times the limit (64 MiB here) costs about the limit in memory,
    not twice as much.
    """
    backend, options = anyio_backend
    argv = [sys.executable, "-c", MEASURE, overflow, backend, *options]
    done = subprocess.run(argv, stdout=subprocess.PIPE, check=True, timeout=60)
    kept, more, grown = done.stdout.split()
    assert (int(kept), more) == (64 * 2**20, b"True" if overflow == "truncate" else b"False")
    assert 64 - 16 < int(grown) < 64 + 16


@pytest.mark.parametrize("kind", ["sync", "async"])
async def test_the_callback_gets_every_chunk_in_order(kind):
    """The callback receives every byte of each stream, beyond the output limit too."""
    seen = {"stdout": b"", "stderr": b""}

    def note(stream, chunk):
        seen[stream] += chunk

    async def note_later(stream, chunk):
        await anyio.sleep(0)
        seen[stream] += chunk

    script = "i=0; while [ $i -lt 300 ]; do echo out $i; echo err $i >&2; i=$((i+1)); done"
    done = await spawn(
        ["sh", "-c", script],
        output_limit=50,
        overflow="truncate",
        on_output=note if kind == "sync" else note_later,
        check=True,
    )
    assert seen["stdout"] == b"".join(b"out %d\n" % i for i in range(300))
    assert seen["stderr"] == b"".join(b"err %d\n" % i for i in range(300))
    assert done.stdout_total == len(seen["stdout"])


class OfTheCaller(Exception):
    """An exception that only the caller knows."""


@pytest.mark.parametrize("kind", ["sync", "async"])
async def test_an_exception_of_the_callback_reaches_the_caller_as_it_is(kind):
    """The same object arrives, not wrapped in a group, and the program is gone."""
    mine = OfTheCaller()

    def fail(stream, chunk):
        raise mine

    async def fail_later(stream, chunk):
        await anyio.sleep(0)
        raise mine

    with pytest.raises(OfTheCaller) as caught:
        await spawn(
            ["sh", "-c", "echo x; sleep 100"], on_output=fail if kind == "sync" else fail_later
        )
    assert caught.value is mine


async def test_an_exception_of_the_callback_during_the_clean_up_reaches_the_caller_too():
    """The callback also receives the output that the program writes during its grace."""
    mine = OfTheCaller()

    def fail(stream, chunk):
        if b"late" in chunk:
            raise mine

    script = "trap 'echo late; exit 0' TERM; echo early; while :; do sleep 0.01; done"
    with pytest.raises(OfTheCaller) as caught:
        await spawn(["sh", "-c", script], output_limit=5, grace=10, on_output=fail)
    assert caught.value is mine


async def test_a_callback_that_never_returns_does_not_outlive_the_timeout():
    """The timeout covers the callback, and the clean-up is confirmed."""

    async def hang(stream, chunk):
        await anyio.sleep_forever()

    began = time.monotonic()
    done = await spawn(["yes"], timeout=0.3, on_output=hang)
    assert isinstance(done.error, SpawnTimeoutError)
    assert done.cleanup.name == "CONFIRMED"
    assert time.monotonic() - began < 5


async def test_a_slow_callback_holds_the_program_and_loses_nothing(tmp_path):
    """wait_delay does not run while the callback is busy: descendants keep their full time to close
    the stream.
    """
    got, fifo = [], tmp_path / "fifo"
    os.mkfifo(fifo)
    go_on = os.open(fifo, os.O_RDWR)

    async def slow(stream, chunk):
        await anyio.sleep(0.4)
        got.append(chunk)
        os.write(go_on, b"\n")

    script = f"(for i in 1 2 3; do echo $i; read -r _; done <{fifo}) & exit 0"
    try:
        done = await spawn(
            ["sh", "-c", script], timeout=30, wait_delay=0.8, on_output=slow, check=True
        )
    finally:
        os.close(go_on)
    assert got == [b"1\n", b"2\n", b"3\n"]
    assert done.stdout == b"1\n2\n3\n"
