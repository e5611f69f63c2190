"""`SandboxConformance`: the promises of anyspawn as checks, for any sandbox."""

from __future__ import annotations

import signal
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any, ClassVar, Literal

import anyio
import pytest

import anyspawn
from anyspawn import (
    Cleanup,
    Completed,
    ConfigError,
    ExitError,
    NotStartedError,
    OutputLimitError,
    Process,
    Sandbox,
    SpawnError,
    SpawnTimeoutError,
    TransportError,
)
from anyspawn.testing import _machine
from anyspawn.testing._cases import NASTY, PLACEHOLDERS, TREES
from anyspawn.testing._kit import MARK, PATIENCE, Kit, exactly, moments, ways

__all__ = ["SandboxConformance"]

_BYTES = bytes(range(256)) * 4096
_FOREVER = "while :; do sleep 0.05; done"


class SandboxConformance(Kit):
    """Checks the promises of anyspawn for your sandbox.

    Derive from it in a test module, and override the fixture `sandbox`. pytest then runs each check
    under asyncio and, where it is installed, trio. The checks run POSIX ``sh`` and tools that
    busybox has.

    Attributes declare what the sandbox cannot do. The checks are not skipped then: they check that
    the sandbox reports it.

    Attributes:
        startup: Seconds within which a command has certainly started: the timeouts of the checks.
        overhead: Seconds that a call can take beyond ``timeout + grace + wait_delay``.
        live: `anyspawn.open_process` works. If not, it must raise `TypeError`.
        knows_start: The sandbox distinguishes a program that cannot start from one that exits with
            126 or 127. If not, both must be an `ExitError`.
        knows_signal: A program that was killed by signal N has the status ``-N``. If not, ``128 +
            N``.
        contains: No process escapes the clean-up, even one that drops its variables, its process
            group and its session.
        confirms: The sandbox sees that killed processes are gone. If not, ``cleanup`` must be
            ``UNCONFIRMED``.
        knows_left: ``cleanup`` is ``CONFIRMED`` if a program left processes, which were killed. If
            not, because the sandbox ends with the program, ``NOT_NEEDED``.
    """

    live: ClassVar[bool] = True
    knows_start: ClassVar[bool] = True
    knows_signal: ClassVar[bool] = True
    contains: ClassVar[bool] = True
    confirms: ClassVar[bool] = True
    knows_left: ClassVar[bool] = True

    # What the checks do.

    async def run(self, sandbox: Sandbox, *argv: str, **fields: Any) -> Completed:
        """Run a command that carries the mark; it must return a `Completed` in time."""
        env = fields.pop("env", {})
        if isinstance(env, dict):
            env = [f"{name}={value}" for name, value in env.items()]
        fields = {"timeout": PATIENCE, **fields, "env": [*env, f"{MARK}={self.mark}"]}
        command = anyspawn.Command(argv, **fields)
        began = anyio.current_time()
        done = await anyspawn.spawn(command, sandbox=sandbox)
        took = anyio.current_time() - began
        allowed = fields["timeout"] + command.grace + command.wait_delay + self.overhead
        assert took < allowed, f"the call took {took:.1f} s, and had {allowed:.1f} s"
        assert done.argv == argv
        assert done.error is not None or done.returncode == 0, done
        assert done.error is None or done.error.completed is done
        self.tells_the_truth(done)
        return done

    def tells_the_truth(self, done: Completed) -> None:
        """Check that whatever the outcome reports as gone, or as never started, does not exist."""
        if done.cleanup is not Cleanup.UNCONFIRMED:
            assert self.survivors(self.mark) == [], done

    def killed(self, done: Completed) -> None:
        """Check that the program was killed, and that ``cleanup`` reports it as far as the sandbox
        can see.
        """
        if self.confirms:
            assert done.cleanup is Cleanup.CONFIRMED, done
        else:
            assert done.cleanup is Cleanup.UNCONFIRMED, done

    def tree(self, name: str) -> str:
        """Return a script that starts a process tree which the sandbox must contain."""
        if name == "env -i" and not self.contains:
            return "env -i sleep 999 & sleep 999"
        return TREES[name]

    @asynccontextmanager
    async def opened(self, sandbox: Sandbox, *argv: str, **fields: Any) -> AsyncIterator[Process]:
        """Open a live process that carries the mark; nothing of it may be left after the block."""
        process = None
        try:
            async with anyspawn.open_process(
                argv, sandbox=sandbox, env={MARK: self.mark}, timeout=PATIENCE, **fields
            ) as process:
                with anyio.fail_after(PATIENCE):
                    yield process
        finally:
            if process is not None:
                assert process.completed is not None
                self.tells_the_truth(process.completed)

    def refuses(self, sandbox: Sandbox) -> bool:
        """Return whether the sandbox cannot run live processes; it must say so before anything
        starts.
        """
        if self.live:
            return False
        with pytest.raises(TypeError):
            anyspawn.open_process(["true"], sandbox=sandbox)
        return True

    # Streams.

    async def test_stdin_and_stdout_are_whole(self, sandbox: Sandbox) -> None:
        """A megabyte of all byte values comes back unchanged."""
        done = await self.run(sandbox, "cat", stdin=_BYTES)
        assert (done.error, done.stderr, done.returncode) == (None, b"", 0)
        assert done.stdout == _BYTES
        assert done.stdout_total == len(_BYTES)
        assert done.cleanup is Cleanup.NOT_NEEDED

    async def test_no_stdin_is_its_end(self, sandbox: Sandbox) -> None:
        """A program that reads gets end of file at once."""
        done = await self.run(sandbox, "sh", "-c", "cat; echo end")
        assert (done.error, done.stdout) == (None, b"end\n")

    async def test_stdout_and_stderr_are_apart_and_in_order(self, sandbox: Sandbox) -> None:
        """Both streams are complete and in order, and `on_output` gets the same bytes."""
        seen: dict[str, bytes] = {"stdout": b"", "stderr": b""}

        def note(stream: str, chunk: bytes) -> None:
            seen[stream] += chunk

        script = "i=0; while [ $i -lt 2000 ]; do echo o$i; echo e$i >&2; i=$((i+1)); done"
        done = await self.run(sandbox, "sh", "-c", script, on_output=note)
        assert done.error is None
        assert done.stdout == b"".join(b"o%d\n" % i for i in range(2000))
        assert done.stderr == b"".join(b"e%d\n" % i for i in range(2000))
        assert seen == {"stdout": done.stdout, "stderr": done.stderr}

    async def test_both_streams_are_one_where_that_is_asked_for(self, sandbox: Sandbox) -> None:
        """All output is in stdout in order, also if the program fails. A program that did not start
        has no output.
        """
        seen: list[tuple[str, bytes]] = []
        script = "i=0; while [ $i -lt 300 ]; do echo o$i; echo e$i >&2; i=$((i+1)); done; exit 3"
        argv = ("sh", "-c", script)
        lines = b"".join(b"o%d\ne%d\n" % (i, i) for i in range(300))
        for _ in range(2):  # a resident can know the program the second time
            seen.clear()
            done = await self.run(
                sandbox, *argv, merge_stderr=True, on_output=lambda *chunk: seen.append(chunk)
            )
            assert (done.returncode, done.stdout, done.stderr) == (3, lines, b"")
            assert {name for name, _ in seen} == {"stdout"}
            assert b"".join(chunk for _, chunk in seen) == lines
            assert str(done.error).endswith("e299")
        for program, kind, code in (
            ("no-such-program", "not_found", 127),
            ("/etc/passwd", "not_executable", 126),
        ):
            done = await self.run(sandbox, program, merge_stderr=True)
            if self.knows_start:
                self.is_not_started(done, kind, code)
        done = await self.run(sandbox, "pwd", cwd="/etc", merge_stderr=True)
        assert (done.error, done.stdout) == (None, b"/etc\n")

    @pytest.mark.parametrize("size", [10, 1_000_000])
    async def test_stdin_that_nobody_reads(self, sandbox: Sandbox, size: int) -> None:
        """Unread input does not delay the call, and changes neither status nor output."""
        done = await self.run(sandbox, "sh", "-c", "exec <&-; echo x; exit 3", stdin=bytes(size))
        assert isinstance(done.error, ExitError), done
        assert (done.returncode, done.stdout) == (3, b"x\n")

    async def test_more_output_than_the_limit_ends_the_work(self, sandbox: Sandbox) -> None:
        """The call is an `OutputLimitError` with the output up to the limit."""
        argv = self.script("sleep 999 & while :; do echo 0123456789; done")
        done = await self.run(sandbox, *argv, output_limit=1000)
        assert isinstance(done.error, OutputLimitError), done
        assert done.stdout == (b"0123456789\n" * 100)[:1000]
        self.killed(done)

    async def test_output_is_truncated_where_that_is_asked_for(self, sandbox: Sandbox) -> None:
        """The beginning and the end are kept, all bytes are counted, and the program exits by
        itself.
        """
        script = "echo begin; head -c 1000000 /dev/zero; echo; echo end"
        done = await self.run(sandbox, "sh", "-c", script, output_limit=100, overflow="truncate")
        assert (done.error, done.returncode, len(done.stdout)) == (None, 0, 100)
        assert done.stdout_total == 1_000_011
        assert done.stdout.startswith(b"begin\n")
        assert done.stdout.endswith(b"\nend\n")

    async def test_text_says_what_was_left_out(self, sandbox: Sandbox) -> None:
        """The text says how many bytes are missing and where, for each stream and for
        merged ones.
        """
        script = "seq 1000; seq 1000 >&2"
        seq = "".join(f"{n}\n" for n in range(1, 1001))
        mark = f"[... {len(seq) - 18} bytes left out ...]\n"
        cases: tuple[tuple[Literal["head", "tail", "truncate"], str], ...] = (
            ("head", seq[:18] + mark),
            ("tail", mark + seq[-18:]),
            ("truncate", f"{seq[:9]}\n{mark}{seq[-9:]}"),
        )
        for overflow, text in cases:
            done = await self.run(sandbox, "sh", "-c", script, output_limit=18, overflow=overflow)
            assert (done.error, done.text, done.stderr_text) == (None, text, text)
            assert (done.stdout_total, done.stderr_total) == (len(seq), len(seq))
        done = await self.run(
            sandbox, "sh", "-c", script, output_limit=18, overflow="tail", merge_stderr=True
        )
        mark = f"[... {2 * len(seq) - 18} bytes left out ...]\n"
        assert (done.error, done.text, done.stderr_text) == (None, mark + seq[-18:], "")

    async def test_an_exception_of_on_output(self, sandbox: Sandbox) -> None:
        """An exception of the callback kills the program, and reaches the caller unchanged."""

        class Mine(Exception):  # noqa: N818
            pass

        def refuse(*_: object) -> None:
            raise Mine

        with pytest.raises(Mine):
            await self.run(sandbox, *self.script("echo; sleep 999 & sleep 999"), on_output=refuse)
        assert self.survivors(self.mark) == [] or not self.confirms

    # Arguments, variables, folder.

    async def test_arguments_are_handed_over_as_they_are(self, sandbox: Sandbox) -> None:
        """Arguments arrive unchanged, even if they look like placeholders, options or code."""
        done = await self.run(sandbox, "sh", "-c", r'printf "%s\0" "$@"', "sh", *PLACEHOLDERS)
        assert done.error is None
        assert done.stdout.decode().split("\0")[:-1] == PLACEHOLDERS

    async def test_bytes_in_arguments(self, sandbox: Sandbox) -> None:
        """Bytes that are not text arrive unchanged, or the sandbox refuses them before anything
        starts.
        """
        script = 'printf "%s" "$1" | od -An -tx1'
        try:
            done = await self.run(sandbox, "sh", "-c", script, "sh", "\udcff\udc80")
        except ConfigError as error:
            assert "argv" in str(error)  # noqa: PT017  an error is allowed, but not required
        else:
            assert (done.error, done.stdout.split()) == (None, [b"ff", b"80"])

    async def test_variables_are_exact(self, sandbox: Sandbox) -> None:
        """Variables arrive unchanged, with any name and value, and have no effect on a shell or a
        runner in between.
        """
        done = await self.run(sandbox, "cat", "/proc/self/environ", env=NASTY)
        assert done.error is None, done
        entries = done.stdout.decode(errors="surrogateescape").split("\0")
        found = dict(entry.split("=", 1) for entry in entries if entry)
        assert {name: found.get(name) for name in NASTY} == NASTY

    async def test_variables_of_the_host(
        self, sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Bare names are looked up at call time; unset ones stay unset."""
        monkeypatch.setenv("CONFORMANCE_SET", "a b")
        monkeypatch.delenv("CONFORMANCE_UNSET", raising=False)
        script = 'echo "$CONFORMANCE_SET,${CONFORMANCE_UNSET-unset},$LITERAL"'
        env = ["CONFORMANCE_SET", "CONFORMANCE_UNSET", "LITERAL=x=y"]
        done = await self.run(sandbox, "sh", "-c", script, env=env)
        assert (done.error, done.stdout) == (None, b"a b,unset,x=y\n")

    async def test_no_secret_stands_in_an_argv(self, sandbox: Sandbox) -> None:
        """No argv on this host, outcome or repr contains a variable's value or stdin."""
        secret = f"s3cret-{self.mark}"
        script = "cat /proc/[0-9]*/cmdline >&2; sleep 0.2; wc -c; exit 3"
        with _machine.all_command_lines() as seen:
            done = await self.run(
                sandbox, "sh", "-c", script, env={"SECRET": secret}, stdin=secret.encode()
            )
        assert (done.returncode, done.stdout.strip()) == (3, b"%d" % len(secret))
        assert not [argv for argv in seen if any(secret.encode() in word for word in argv)]
        assert secret.encode() not in done.stderr
        assert not [word for word in done.runner_argv if secret in word]
        assert secret not in f"{done!r} {done} {done.error!r} {done.error}"

    async def test_the_working_directory(self, sandbox: Sandbox) -> None:
        """The program starts in the command's folder."""
        done = await self.run(sandbox, "pwd", cwd="/etc")
        assert (done.error, done.stdout) == (None, b"/etc\n")

    # Ends.

    async def test_statuses(self, sandbox: Sandbox) -> None:
        """The status is the program's own, even if it has a special meaning for a runner."""
        for status in (1, 2, 42, 125, 126, 127, 128, 137, 255):
            done = await self.run(sandbox, "sh", "-c", f"echo x; exit {status}")
            assert isinstance(done.error, ExitError), done
            assert (done.returncode, done.stdout) == (status, b"x\n")
            assert str(status) in str(done.error)
            assert done.cleanup is Cleanup.NOT_NEEDED, done

    async def test_a_signal(self, sandbox: Sandbox) -> None:
        """The status is that of a signal if the sandbox can tell."""
        done = await self.run(sandbox, "sh", "-c", "sh -c 'kill -9 $PPID'; sleep 1")
        assert isinstance(done.error, ExitError), done
        assert done.returncode == (-9 if self.knows_signal else 137), done

    @pytest.mark.parametrize("status", [0, 4])
    async def test_a_descendant_that_holds_stdout(self, sandbox: Sandbox, status: int) -> None:
        """The call waits at most for `wait_delay`, and the program's own status counts."""
        argv = self.script(f"echo x; sleep 999 & exit {status}")
        done = await self.run(sandbox, *argv, wait_delay=0.2)
        assert (done.returncode, done.stdout) == (status, b"x\n"), done
        assert isinstance(done.error, ExitError) if status else done.error is None
        assert done.duration < PATIENCE / 2

    async def test_what_a_program_leaves_behind(self, sandbox: Sandbox) -> None:
        """A process that the program left, with all streams closed, does not survive the call, and
        the outcome says so.
        """
        argv = self.script("sleep 999 <&- >&- 2>&- & exit 0")
        for _ in range(2):
            done = await self.run(sandbox, *argv)
            assert done.error is None, done
            said = Cleanup.CONFIRMED if self.knows_left else Cleanup.NOT_NEEDED
            assert done.cleanup is said, done

    @pytest.mark.parametrize("tree", TREES)
    async def test_no_tree_survives(self, sandbox: Sandbox, tree: str) -> None:
        """All processes are killed with the call, however they tried to escape."""
        argv = self.script(f"echo; {self.tree(tree)}")
        done = await self.run(sandbox, *argv, output_limit=0)
        assert isinstance(done.error, OutputLimitError), done
        self.killed(done)

    async def test_no_time(self, sandbox: Sandbox) -> None:
        """A timeout that expires before anything can start is like any other."""
        done = await self.run(sandbox, *self.script("sleep 999"), timeout=1e-6)
        assert isinstance(done.error, SpawnTimeoutError), done

    async def test_a_timeout(self, sandbox: Sandbox) -> None:
        """The call is a `SpawnTimeoutError` with the output so far."""
        argv = self.script("echo x; sleep 999 & sleep 999")
        done = await self.run(sandbox, *argv, timeout=self.startup)
        assert isinstance(done.error, SpawnTimeoutError), done
        assert isinstance(done.error, TimeoutError)
        assert done.stdout == b"x\n"
        assert done.duration >= self.startup
        self.killed(done)

    async def test_grace(self, sandbox: Sandbox) -> None:
        """SIGTERM comes first: a program that handles it exits by itself, and its last output is
        kept.
        """
        script = f"trap 'echo bye; exit 0' TERM; echo hi; {_FOREVER}"
        done = await self.run(sandbox, "sh", "-c", script, output_limit=2, grace=PATIENCE)
        assert isinstance(done.error, OutputLimitError), done
        assert done.stdout_total == len(b"hi\nbye\n"), done
        assert done.duration < PATIENCE

    async def test_grace_is_bounded(self, sandbox: Sandbox) -> None:
        """A program that ignores SIGTERM is killed after ``grace``."""
        argv = self.script(f"trap '' TERM INT HUP; echo hi; sleep 999 & {_FOREVER}")
        done = await self.run(sandbox, *argv, output_limit=2, grace=0.2)
        assert isinstance(done.error, OutputLimitError), done
        assert done.duration >= 0.2
        self.killed(done)

    async def test_many_at_once(self, sandbox: Sandbox) -> None:
        """Each call has its own output."""
        outputs: dict[int, bytes] = {}

        async def one(number: int) -> None:
            done = await anyspawn.spawn(
                ["cat"], sandbox=sandbox, stdin=b"%d" % number, timeout=PATIENCE, check=True
            )
            outputs[number] = done.stdout

        async with anyio.create_task_group() as tasks:
            for number in range(8):
                tasks.start_soon(one, number)
        assert outputs == {number: b"%d" % number for number in range(8)}

    # Errors.

    def is_not_started(self, done: Completed, kind: str, exit_code: int) -> None:
        """Check that the outcome says that the program never ran, as far as the sandbox
        can tell.
        """
        if self.knows_start:
            assert isinstance(done.error, NotStartedError), done
            assert (done.error.kind, done.error.exit_code) == (kind, exit_code)
            assert (done.returncode, done.stdout) == (None, b"")
        else:
            assert isinstance(done.error, ExitError), done
            assert done.returncode == exit_code

    async def test_a_program_that_is_missing(self, sandbox: Sandbox) -> None:
        """A missing program did not start; the error's ``kind`` says why."""
        for program in ("no-such-program", "/no/such/program"):
            self.is_not_started(await self.run(sandbox, program, stdin=b"x"), "not_found", 127)

    async def test_a_program_that_is_none(self, sandbox: Sandbox) -> None:
        """A file that cannot be executed did not start."""
        self.is_not_started(await self.run(sandbox, "/etc/passwd"), "not_executable", 126)

    async def test_what_no_program_can_be_given(self, sandbox: Sandbox) -> None:
        """A program does not start with an argument or a variable beyond the system's limit."""
        long = "x" * 140_000
        for done in (
            await self.run(sandbox, "true", long),
            await self.run(sandbox, "true", env={"LONG": long}),
        ):
            assert isinstance(done.error, NotStartedError if self.knows_start else SpawnError), done
            if isinstance(done.error, NotStartedError):
                assert (done.error.kind, done.error.exit_code) == ("too_long", 126)

    async def test_a_folder_that_is_missing(self, sandbox: Sandbox) -> None:
        """With a missing ``cwd``, the program did not start, and the error does not blame the
        program.
        """
        done = await self.run(sandbox, "true", cwd="/no/such/folder")
        assert isinstance(done.error, NotStartedError), done
        assert (done.error.kind, done.error.exit_code, done.returncode) == ("cwd", 126, None)

    async def test_a_path_without_programs(
        self, sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch, tmp_path: Any
    ) -> None:
        """A missing runner is a `TransportError`, before the program ran. Without a runner, the
        command succeeds or is not found.
        """
        monkeypatch.setenv("PATH", str(tmp_path))
        done = await self.run(sandbox, "sh", "-c", "echo x")
        match done.error:
            case None:
                assert done.stdout == b"x\n"
            case TransportError():
                assert (done.error.kind, done.error.started) == ("runner", False), done
            case NotStartedError():
                assert done.error.kind == "not_found", done
            case _:
                pytest.fail(f"neither runner nor program can be found: {done}")
        assert done.error is None or done.returncode is None

    # Cancellation.

    async def cancelled(self, call: Callable[[], Any]) -> None:
        """Cancel ``call`` at different moments, in each way that the event loop has."""
        for moment in moments(self.startup / 4):
            for cancel in ways():
                await cancel(call, moment)
                assert self.survivors(self.mark) == [] or not self.confirms

    async def test_cancelled_before_the_start(self, sandbox: Sandbox) -> None:
        """If the cancellation comes before the call, nothing is started."""
        seen: list[bytes] = []
        with anyio.CancelScope() as scope:
            scope.cancel()
            await self.run(
                sandbox, "sh", "-c", "echo x", on_output=lambda _, chunk: seen.append(chunk)
            )
        assert scope.cancelled_caught
        assert seen == []

    async def test_cancelled_at_any_moment(self, sandbox: Sandbox) -> None:
        """The program is gone when the caller gets the cancellation, by a cancel scope or by
        asyncio's `Task.cancel`.
        """
        argv = self.script("sleep 999 & sleep 999")
        await self.cancelled(lambda: self.run(sandbox, *argv))

    # Live processes.

    async def test_live_conversation(self, sandbox: Sandbox) -> None:
        """A live program answers while it runs, and exits at the end of its stdin."""
        if self.refuses(sandbox):
            return
        async with self.opened(sandbox, "cat") as process:
            for line in (b"one\n", b"\0\xff" * 1000):
                await process.stdin.send(line)
                assert await exactly(process.stdout, len(line)) == line
            assert process.returncode is None
            await process.stdin.aclose()
            with pytest.raises(anyio.EndOfStream):
                await process.stdout.receive()
            assert await process.wait() == 0
        assert process.completed is not None
        assert process.completed.error is None

    async def test_live_status_and_output(self, sandbox: Sandbox) -> None:
        """A program can exit long before the block is left: its output and status stay
        available.
        """
        if self.refuses(sandbox):
            return
        async with self.opened(sandbox, "sh", "-c", "echo o; echo e >&2; exit 7") as process:
            assert await process.wait() == 7
            assert await process.wait() == 7
            assert b"".join([chunk async for chunk in process.stdout]) == b"o\n"
            assert b"".join([chunk async for chunk in process.stderr]) == b"e\n"
            with pytest.raises(anyio.BrokenResourceError):
                await process.stdin.send(b"x" * 100_000)
        assert process.completed is not None
        assert isinstance(process.completed.error, ExitError)

    async def test_live_streams_are_one_where_that_is_asked_for(self, sandbox: Sandbox) -> None:
        """Everything is read from stdout, in order, and nothing from stderr."""
        if self.refuses(sandbox):
            return
        argv = ("sh", "-c", "echo a >&2; echo b; read x; echo $x >&2; echo c")
        async with self.opened(sandbox, *argv, merge_stderr=True) as process:
            assert await exactly(process.stdout, 4) == b"a\nb\n"
            await process.stdin.send(b"x\n")
            assert await process.wait() == 0
            assert b"".join([chunk async for chunk in process.stdout]) == b"x\nc\n"
            assert b"".join([chunk async for chunk in process.stderr]) == b""

    async def test_live_signal(self, sandbox: Sandbox) -> None:
        """A signal reaches the live program."""
        if self.refuses(sandbox):
            return
        script = f"trap 'echo got; exit 4' USR1; echo; {_FOREVER}"
        async with self.opened(sandbox, "sh", "-c", script) as process:
            await process.stdout.receive()
            await process.send_signal(signal.SIGUSR1)
            assert await exactly(process.stdout, 4) == b"got\n"
            assert await process.wait() == 4
            await process.send_signal(signal.SIGKILL)  # to a program that has already exited
            assert process.returncode == 4

    @pytest.mark.parametrize("tree", TREES)
    async def test_live_tree_ends_with_its_block(self, sandbox: Sandbox, tree: str) -> None:
        """At the end of the block all processes are killed, however they try to escape."""
        if self.refuses(sandbox):
            return
        argv = self.script(f"echo; {self.tree(tree)}")
        async with self.opened(sandbox, *argv) as process:
            await process.stdout.receive()
        assert process.completed is not None
        assert process.completed.error is None, process.completed
        self.killed(process.completed)

    async def test_live_exception(self, sandbox: Sandbox) -> None:
        """After an exception in the block, the program is killed, and the exception continues
        unchanged.
        """
        if self.refuses(sandbox):
            return
        argv = self.script("echo; sleep 999 & sleep 999")
        mine = ZeroDivisionError("mine")
        with pytest.raises(ZeroDivisionError) as caught:  # noqa: PT012  leaving the block is the point
            async with self.opened(sandbox, *argv) as process:
                await process.stdout.receive()
                raise mine
        assert caught.value is mine

    async def test_live_program_that_is_missing(self, sandbox: Sandbox) -> None:
        """If the program is missing, the block is not entered."""
        if self.refuses(sandbox):
            return
        if self.knows_start:
            with pytest.raises(NotStartedError):
                async with self.opened(sandbox, "no-such-program"):
                    pytest.fail("the block was entered")
        else:
            async with self.opened(sandbox, "no-such-program") as process:
                assert await process.wait() == 127

    async def test_live_cancelled_at_any_moment(self, sandbox: Sandbox) -> None:
        """If the opening or the block is cancelled, nothing is left."""
        if self.refuses(sandbox):
            return
        argv = self.script("sleep 999 & sleep 999")

        async def stay() -> None:
            async with self.opened(sandbox, *argv) as process:
                await process.wait()

        await self.cancelled(stay)
