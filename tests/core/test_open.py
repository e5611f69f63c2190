"""A live process: its streams and its exit; nothing survives its block."""

from __future__ import annotations

import asyncio
import os
import resource
import signal
import subprocess
import sys
import time
from contextlib import nullcontext
from types import SimpleNamespace

import anyio
import attrs
import pytest

import anyspawn
from anyspawn import (
    ArgvSandbox,
    Cleanup,
    Command,
    Completed,
    Direct,
    Launch,
    NotStartedError,
    SpawnTimeoutError,
    TransportError,
)
from anyspawn._spawn.live import _TalkWriter
from machine import MARK, alive, children, eventually, open_fds, processes_with

pytestmark = pytest.mark.anyio

COUNT = "import sys; sys.stdout.write(str(len(sys.stdin.buffer.read())))"


async def read_all(stream):
    return b"".join([chunk async for chunk in stream])


async def read_exactly(stream, size):
    data = b""
    while len(data) < size:
        data += await stream.receive(size - len(data))
    return data


async def test_both_outputs_variables_and_folder(tmp_path):
    """stdout and stderr are separate streams; env and cwd work as with spawn."""
    argv = ["sh", "-c", 'pwd; echo "$A" >&2']
    async with anyspawn.open_process(argv, env={"A": "x y"}, cwd=str(tmp_path)) as process:
        assert await read_all(process.stdout) == f"{tmp_path}\n".encode()
        assert await read_all(process.stderr) == b"x y\n"


async def test_a_lot_in_both_directions():
    """50 MB pass through cat unchanged while both sides are written and read at once."""
    data = os.urandom(1_000_000) * 50

    async def write():
        await process.stdin.send(data)
        await process.stdin.aclose()

    async with anyspawn.open_process(["cat"]) as process, anyio.create_task_group() as tasks:
        tasks.start_soon(write)
        assert await read_all(process.stdout) == data


async def test_what_is_not_read_makes_the_program_wait():
    """Only a small part of ten megabytes is read ahead; the program waits, and continues when the
    caller reads.
    """
    async with anyspawn.open_process(
        ["sh", "-c", "head -c 10000000 /dev/zero; echo done >&2"]
    ) as process:
        with anyio.move_on_after(0.3) as scope:
            await process.stderr.receive()
        assert scope.cancelled_caught
        assert process._live._work.connection.stdout.capture.total < 3_000_000
        assert len(await read_exactly(process.stdout, 10_000_000)) == 10_000_000
        assert await process.stderr.receive() == b"done\n"


async def test_a_stream_that_nobody_reads_does_not_hold_the_other():
    """stdout flows although stderr is full and nobody reads it."""
    script = "head -c 150000 /dev/zero >&2 & while read -r line; do echo $line; done"
    async with anyspawn.open_process(["sh", "-c", script]) as process:
        for _ in range(10):
            await process.stdin.send(b"line\n")
            assert await read_exactly(process.stdout, 5) == b"line\n"


async def test_a_stream_that_is_closed_holds_nothing():
    """Output that arrives on a closed stream is discarded, so that the program does not wait."""
    async with anyspawn.open_process(
        ["sh", "-c", "head -c 10000000 /dev/zero; echo done >&2"]
    ) as process:
        await process.stdout.aclose()
        assert await process.stderr.receive() == b"done\n"
        with pytest.raises(anyio.ClosedResourceError):
            await process.stdout.receive()


async def test_a_program_that_does_not_read_makes_the_writer_wait():
    """A writer waits when the pipe is full, and can be cancelled there."""
    async with anyspawn.open_process(["sleep", "100"]) as process:
        with anyio.move_on_after(0.2) as scope:
            await process.stdin.send(bytes(5_000_000))
        assert scope.cancelled_caught


async def test_writing_to_a_program_that_ended():
    """Writing raises BrokenResourceError: after the exit, to a writer that waits during the exit,
    and even if a descendant holds the program's stdin.
    """
    async with anyspawn.open_process(["true"]) as process:
        await process.wait()
        with pytest.raises(anyio.BrokenResourceError):
            await process.stdin.send(b"x")
    async with anyspawn.open_process(
        ["sh", "-c", "exec <&0; sleep 100 <&0 & head -c 100000; exit 3"]
    ) as process:
        with pytest.raises(anyio.BrokenResourceError):
            await process.stdin.send(bytes(5_000_000))
        assert await process.wait() == 3


async def test_writing_to_a_program_that_closed_its_stdin():
    """Writing raises BrokenResourceError although the program still runs."""
    async with anyspawn.open_process(["sh", "-c", "exec <&-; echo; sleep 100"]) as process:
        await process.stdout.receive()
        with pytest.raises(anyio.BrokenResourceError):
            await process.stdin.send(b"x")
        assert process.returncode is None


async def test_streams_that_were_closed():
    """A stream that the caller closed raises ClosedResourceError, a broken one BrokenResourceError.
    Closing twice does nothing.
    """
    async with anyspawn.open_process(["cat"]) as process:
        await process.stdin.aclose()
        await process.stdin.aclose()
        await process.wait()
    async with anyspawn.open_process(["sleep", "100"]) as process:
        await process.stdin.aclose()
        with pytest.raises(anyio.ClosedResourceError):
            await process.stdin.send(b"x")
        with pytest.raises(ValueError, match="max_bytes"):
            await process.stdout.receive(0)
    for use in (process.stdin.send(b"x"), process.stdout.receive(), process.stderr.receive()):
        with pytest.raises((anyio.ClosedResourceError, anyio.BrokenResourceError)):
            await use


async def test_a_reader_that_waits_when_the_block_is_left():
    """The reader gets a ClosedResourceError."""
    seen = []

    async def read(stream):
        try:
            await stream.receive()
        except anyio.ClosedResourceError as exc:
            seen.append(exc)

    async with (
        anyio.create_task_group() as tasks,
        anyspawn.open_process(["sleep", "100"]) as process,
    ):
        tasks.start_soon(read, process.stdout)
        tasks.start_soon(read, process.stderr)
        await anyio.wait_all_tasks_blocked()
    assert len(seen) == 2


@pytest.mark.parametrize(
    ("script", "code"),
    [("exit 0", 0), ("exit 42", 42), ("kill -9 $$", -9), ("exec >&- 2>&-; exit 7", 7)],
)
async def test_the_status(script, code):
    """The status is the same as with spawn. It arrives even if nobody reads, and the earlier output
    can still be read.
    """
    async with anyspawn.open_process(["sh", "-c", f"echo out; {script}"]) as process:
        assert await process.wait() == code
        assert process.returncode == code
        assert await read_all(process.stdout) == b"out\n"
    assert process.completed.returncode == code
    assert await process.wait() == code


async def test_output_outlives_the_program():
    """A descendant's output can be read after the program itself has exited. The descendant is
    killed when the block is left.
    """
    script = "(read -r line; echo late; sleep 100) <&0 & exit 0"
    async with anyspawn.open_process(
        ["sh", "-c", f"exec 3<&0; {script.replace('<&0', '<&3')}"]
    ) as process:
        assert await process.wait() == 0
    assert process.completed.output_incomplete
    assert process.completed.cleanup is Cleanup.CONFIRMED


@pytest.mark.parametrize(
    ("argv", "cwd", "words"),
    [
        (["/no/such/program"], None, "/no/such/program"),
        (["no-such-program"], None, "PATH"),
        (["/etc/passwd"], None, "execut"),
        (["true"], "/no/such/folder", "/no/such/folder"),
    ],
)
async def test_what_cannot_be_started(argv, cwd, words):
    """The block is not entered: entering raises a NotStartedError with an outcome."""
    entered = False
    with pytest.raises(NotStartedError, match=words) as caught:
        async with anyspawn.open_process(argv, cwd=cwd):
            entered = True
    assert not entered
    assert caught.value.completed.returncode is None


class Cloud:
    name = "cloud"

    async def spawn(self, command):
        return Completed(argv=command.argv)


@pytest.mark.parametrize(
    ("args", "options", "error", "words"),
    [
        (["ls -l"], {}, TypeError, "argv must be a sequence"),
        ([[]], {}, ValueError, "argv is empty"),
        ([["true"]], {"sandbox": Cloud()}, TypeError, "Cloud can only run a program to its end"),
        ([["true"]], {"timeout": "x"}, TypeError, "timeout"),
        ([Command(["true"], stdin=b"x")], {}, TypeError, "stdin of the Command is for spawn"),
        ([Command(["true"])], {"grace": 1}, TypeError, "grace was given beside a Command"),
    ],
)
def test_wrong_arguments(args, options, error, words):
    """The call refuses wrong arguments before anything starts."""
    if args == ["ls -l"]:
        args = args[0:1]
    with pytest.raises(error, match=words):
        anyspawn.open_process(*args, **options)


async def test_a_whole_command():
    """The variables, timeout and grace of a Command apply."""
    async with anyspawn.open_process(
        Command(["sh", "-c", "echo $A"], env=["A=1"], timeout=5)
    ) as process:
        assert await process.stdout.receive() == b"1\n"


class Nice(ArgvSandbox):
    def launch(self, command):
        return Launch(
            argv=("nice", "-n", "5", *command.argv), env=command.env, cwd=command.cwd, runner="nice"
        )


async def test_a_sandbox_of_ones_own():
    """An ArgvSandbox subclass supports live processes through its launch alone. If its runner is
    missing, that is a TransportError.
    """
    async with anyspawn.open_process(["nice"], sandbox=Nice()) as process:
        assert await process.stdout.receive() == b"%d\n" % min(os.nice(0) + 5, 19)

    class Missing(Nice):
        def launch(self, command):
            return Launch(
                argv=("no-such-runner", *command.argv),
                runner="no-such-runner",
                install="install it",
            )

    with pytest.raises(TransportError, match="install it"):
        async with anyspawn.open_process(["true"], sandbox=Missing()):
            raise AssertionError


async def test_grace():
    """A program that still runs when the block is left gets SIGTERM first, and its own exit status
    counts.
    """
    script = "trap 'echo bye >&2; exit 5' TERM; echo; while :; do sleep 0.01; done"
    async with anyspawn.open_process(["sh", "-c", script], grace=30) as process:
        await process.stdout.receive()
    assert process.returncode == 5
    assert process.completed.stderr.endswith(b"bye\n")
    began = time.monotonic()
    async with anyspawn.open_process(
        ["sh", "-c", "trap '' TERM; echo; sleep 100 & sleep 100"], grace=0.1
    ) as process:
        await process.stdout.receive()
    assert process.returncode == -9
    assert time.monotonic() - began < 20


async def test_signals():
    """Signals reach the program and the processes in its group. After the exit, send_signal does
    nothing.
    """
    script = "trap 'echo got; exit 4' INT; sleep 100 & echo; wait; exit 9"
    async with anyspawn.open_process(["sh", "-c", script]) as process:
        await process.stdout.receive()
        await process.send_signal(signal.SIGINT)
        assert await process.stdout.receive() == b"got\n"
        assert await process.wait() == 4
        await process.send_signal(signal.SIGKILL)
        assert process.returncode == 4


async def test_cancelled_at_every_moment():
    """A cancellation strikes at many moments of the start and the block. When it arrives, every
    process is gone.
    """
    for step in range(40):
        with anyio.move_on_after(step / 5_000) as scope:
            async with anyspawn.open_process(["sh", "-c", "sleep 100 & sleep 100"]) as process:
                await process.wait()
        assert scope.cancelled_caught
        assert processes_with(os.environ[MARK]) == []
        assert children() == []


async def test_cancelled_before_the_start(tmp_path):
    with anyio.CancelScope() as scope:
        scope.cancel()
        async with anyspawn.open_process(["touch", str(tmp_path / "made")]):
            pass
    assert scope.cancelled_caught
    assert list(tmp_path.iterdir()) == []


async def test_a_hundred_at_once():
    """A hundred live processes each answer their own caller, and give back all their
    descriptors.
    """
    before = len(open_fds())

    async def one(number):
        async with anyspawn.open_process(["cat"]) as process:
            await process.stdin.send(b"%d" % number)
            assert await process.stdout.receive() == b"%d" % number

    async with anyio.create_task_group() as tasks:
        for number in range(100):
            tasks.start_soon(one, number)
    assert not eventually(lambda: len(open_fds()) > before)


async def test_a_place_is_held_as_long_as_the_block():
    """Under max_concurrent a live process holds its place until its block ends. Waiting for a place
    counts towards the timeout of the start.
    """
    sandbox = Direct(max_concurrent=1)
    async with anyspawn.open_process(["sleep", "100"], sandbox=sandbox):
        with pytest.raises(SpawnTimeoutError, match="no slot was free"):
            async with anyspawn.open_process(["true"], sandbox=sandbox, timeout=0.1):
                raise AssertionError
        assert isinstance(
            (await anyspawn.spawn(["true"], sandbox=sandbox, timeout=0.1)).error, SpawnTimeoutError
        )
    async with anyspawn.open_process(["true"], sandbox=sandbox) as process:
        assert await process.wait() == 0


async def test_no_descriptor_free():
    """With 0 to 11 free descriptors a live process starts, or the error names descriptors; nothing
    leaks.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    for free in range(12):
        highest = max(int(fd) for fd in open_fds())
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (highest + 1 + free, hard))
            try:
                async with anyspawn.open_process(["true"]) as process:
                    await process.wait()
            except (NotStartedError, TransportError) as exc:
                assert "descriptor" in str(exc) or "Too many open files" in str(exc)
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert processes_with(os.environ[MARK]) == []


def run_asyncio(main, anyio_backend):
    if anyio_backend[0] == "trio":
        return
    if anyio_backend[1]:
        import uvloop

        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(main())
    else:
        asyncio.run(main())


async def hold(ready=None):
    async with anyspawn.open_process(
        ["sh", "-c", "trap '' TERM; echo; sleep 100 & sleep 100"], grace=0.1
    ) as process:
        await process.stdout.receive()
        if ready is not None:
            ready.set()
        await process.wait()


def test_native_wait_for_at_every_moment(anyio_backend):
    """asyncio.wait_for raises its TimeoutError only when the program is dead, wherever the time
    runs out.
    """

    async def main():
        for step in range(30):
            with pytest.raises(asyncio.TimeoutError):
                await asyncio.wait_for(hold(), step / 4_000)
            assert processes_with(os.environ[MARK]) == []

    run_asyncio(main, anyio_backend)


def test_native_cancel_again_and_again(anyio_backend):
    """Four cancel() in a row do not interrupt the clean-up: the program is dead before
    CancelledError is raised.
    """

    async def main():
        for delay in (0, 0.001, 0.005, 0.05):
            task = asyncio.create_task(hold())
            await asyncio.sleep(delay)
            for _ in range(4):
                task.cancel()
                await asyncio.sleep(0.001)
            with pytest.raises(asyncio.CancelledError):
                await task
            assert processes_with(os.environ[MARK]) == []

    run_asyncio(main, anyio_backend)


def test_native_cancel_of_every_task(anyio_backend):
    """If every task of the loop is cancelled, the library's own included, no process survives
    either.
    """

    async def main():
        ready = asyncio.Event()
        task = asyncio.create_task(hold(ready))
        await ready.wait()
        for other in asyncio.all_tasks() - {asyncio.current_task()}:
            other.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert processes_with(os.environ[MARK]) == []

    run_asyncio(main, anyio_backend)


LOOP_GOES_AWAY = """
import asyncio, sys, anyio, anyspawn
async def work(ready):
    async with anyspawn.open_process(["sh", "-c", "echo; sleep 100 & sleep 100"]) as process:
        await process.stdout.receive()
        ready.set()
        await process.wait()
async def main():
    ready = anyio.Event()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(work, ready)
        await ready.wait()
        raise SystemExit(7)
async def native():
    ready = asyncio.Event()
    task = asyncio.create_task(work(ready))
    await ready.wait()
    raise SystemExit(7)
if sys.argv[1] == "native":
    asyncio.run(native())
else:
    anyio.run(main, backend=sys.argv[1])
"""


@pytest.mark.parametrize("how", ["asyncio", "trio", "native"])
def test_the_loop_ends_with_a_program_alive(how):
    """A host that leaves its event loop by an exception leaves no program behind, and anyspawn
    prints nothing.
    """
    host = subprocess.run(
        [sys.executable, "-c", LOOP_GOES_AWAY, how], capture_output=True, text=True, timeout=30
    )
    assert host.returncode in (1, 7)
    assert not [
        line for line in host.stderr.splitlines() if "anyspawn" in line and "File" not in line
    ]
    assert "Warning" not in host.stderr
    assert "ignored" not in host.stderr
    assert processes_with(os.environ[MARK]) == []


LOOP_IS_CLOSED = """
import asyncio, anyspawn
async def work(ready):
    async with anyspawn.open_process(["sh", "-c", "echo; sleep 100 & sleep 100"]) as process:
        await process.stdout.receive()
        ready.set()
        await process.wait()
loop = asyncio.new_event_loop()
ready = asyncio.Event()
task = loop.create_task(work(ready))
loop.run_until_complete(ready.wait())
loop.close()
del task, loop
"""


def test_the_loop_is_closed_under_a_block():
    """If a loop is closed and its task dropped without a cancellation, the program is
    killed too.
    """
    host = subprocess.run(
        [sys.executable, "-c", LOOP_IS_CLOSED], capture_output=True, text=True, timeout=30
    )
    assert host.returncode == 0
    assert not eventually(lambda: processes_with(os.environ[MARK]))


INTERRUPTED = """
import sys, anyio, anyspawn
async def main():
    async with anyspawn.open_process(["sh", "-c", "echo $$; sleep 100 & sleep 100"]) as process:
        print((await process.stdout.receive()).decode().strip(), flush=True)
        await process.wait()
anyio.run(main, backend=sys.argv[1])
"""


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_an_interrupt_from_the_keyboard(backend):
    """Ctrl-C kills the program first; then the host ends with a KeyboardInterrupt, as without
    anyspawn.
    """
    with subprocess.Popen(
        [sys.executable, "-c", INTERRUPTED, backend],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as host:
        pid = int(host.stdout.readline())
        host.send_signal(signal.SIGINT)
        _, errors = host.communicate(timeout=30)
    assert host.returncode == -signal.SIGINT, errors
    assert errors.splitlines()[-1] == "KeyboardInterrupt"
    assert not alive(pid)


PIPE_ENDS = """
import signal, sys, anyio, anyspawn
signal.signal(signal.SIGPIPE, signal.SIG_DFL)
async def main():
    async with anyspawn.open_process(["sh", "-c", "exec <&-; echo; sleep 100"]) as process:
        await process.stdout.receive()
        try:
            await process.stdin.send(b"x")
        except anyio.BrokenResourceError:
            print("survived")
anyio.run(main, backend=sys.argv[1])
"""


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_a_host_that_a_broken_pipe_would_end(backend):
    """Command line tools often leave SIGPIPE at its default, which kills them. Writing to a program
    that does not read must not kill such a host.
    """
    host = subprocess.run(
        [sys.executable, "-c", PIPE_ENDS, backend], stdout=subprocess.PIPE, text=True, timeout=30
    )
    assert (host.returncode, host.stdout) == (0, "survived\n")


async def test_the_outcome_keeps_the_beginning_and_the_end():
    """The outcome keeps 64 KiB of a stream, however much was read, so that errors can quote it."""
    script = "printf begin; head -c 10000000 /dev/zero; printf end"
    async with anyspawn.open_process(["sh", "-c", script]) as process:
        assert len(await read_all(process.stdout)) == 10_000_008
        await process.wait()
    assert process.completed.stdout_total == 10_000_008
    assert len(process.completed.stdout) == 64 * 1024
    assert process.completed.stdout.startswith(b"begin\0")
    assert process.completed.stdout.endswith(b"\0end")


def test_a_repr_shows_no_secret():
    """The repr contains neither variables nor data."""

    async def main():
        async with anyspawn.open_process(["cat"], env={"TOKEN": "s3cret"}) as process:
            await process.stdin.send(b"s3cret")
            assert "s3cret" not in repr(process)
            assert "running" in repr(process)

    anyio.run(main)


async def test_two_blocks_of_one_command():
    """The same Command can be open twice; each live process has its own id."""
    command = Command(["cat"])
    async with anyspawn.open_process(command) as one, anyspawn.open_process(command) as two:
        assert one._live._command.id != two._live._command.id
        assert attrs.evolve(command) == command


@pytest.mark.parametrize("broken", [False, True])
async def test_the_word_of_what_was_taken_after_that_of_the_end(broken):
    """The two messages come from different processes of the supervisor, in any order. Input that
    was taken counts as sent even if the message about the exit arrives first.
    """
    call = SimpleNamespace(over=False, say=lambda line: None)
    writer = _TalkWriter(call)
    async with anyio.create_task_group() as tasks:

        async def end():
            await anyio.wait_all_tasks_blocked()
            call.over = True
            writer.shut()
            await anyio.wait_all_tasks_blocked()
            writer.taken(broken=broken)

        tasks.start_soon(end)
        with pytest.raises(anyio.BrokenResourceError) if broken else nullcontext():
            await writer.send(b"x")
    with pytest.raises(anyio.BrokenResourceError):
        await writer.send(b"y")
