"""`BoxConformance`: the promises of a box as checks, for any sandbox that can hold one."""

from __future__ import annotations

import functools
import io
import itertools
import os
import random
import select
import signal
import tarfile
import tempfile
import warnings
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any, ClassVar

import anyio
import pytest

import anyspawn
from anyspawn import (
    Box,
    Cleanup,
    Completed,
    ConfigError,
    ExitError,
    NotStartedError,
    OutputLimitError,
    Sandbox,
    SpawnError,
    SpawnTimeoutError,
    TransportError,
)
from anyspawn.testing import _machine
from anyspawn.testing._cases import NAMES, NASTY, TREES
from anyspawn.testing._kit import MARK, PATIENCE, Kit, exactly, moments, run_in_thread, ways

__all__ = ["BoxConformance"]

_BYTES = bytes(range(256)) * 400
_LARGE = 2**20
_TOOL = "#!/bin/sh\necho tool\n"
# Echoes its input with Python or BusyBox's nc, and prints its port.
_ECHO = """
import os, socket
server = socket.create_server(("127.0.0.1", 0))
os.write(1, b"%d\\n" % server.getsockname()[1])
while True:
    peer = server.accept()[0]
    while data := peer.recv(65536):
        peer.sendall(data)
    peer.close()
"""
_SERVE = """
if python3 -I -S -c 'import socket' 2>/dev/null; then exec python3 -I -S -c "$2"; fi
echo "$1"
exec nc -ll -p "$1" -e cat
"""
# Folders that are usually read-only even for root.
_READ_ONLY = "for d in /sys /usr /proc/sys; do [ -w $d ] || [ ! -d $d ] || { echo $d; exit; }; done"


class BoxConformance(Kit):
    """Checks the promises of a box in your sandbox.

    Derive from it in a test module, and override the fixture `sandbox`. pytest then runs each check
    under asyncio and, where it is installed, trio. The checks run POSIX ``sh`` and tools that
    busybox has; ports also need python3, or BusyBox's nc. The sandbox's ``default_timeout`` must be
    long enough for a file of some MiB.

    Attributes declare what the sandbox cannot do. The checks are not skipped then: they check that
    the box reports it.

    Attributes:
        startup: Seconds within which a box is certainly open, and a command certainly runs.
        overhead: Seconds that a call can take beyond ``timeout + grace + wait_delay``.
        confines: The box has its own paths and processes. If not, as in a folder of `Direct`, paths
            that lead out of it must raise a PermissionError, and its processes can survive a
            SIGKILL of the host process.
        own: The sandbox is made for the box and ends with it. If not, as in a container that runs
            already, files must stay.
    """

    confines: ClassVar[bool] = True
    own: ClassVar[bool] = True

    kept: str
    """Like `mark`, for programs that survive their call."""
    folder: Path
    """The parent of a check's temporary folders."""

    def remains(self) -> list[Any]:
        """Return what closed boxes have left behind.

        Default: folders of this host. Override it if boxes are containers or pods.
        """
        return [*self.folder.glob("anyspawn-box-*"), *self.folder.glob(".anyspawn-*")]

    def left(self) -> list[Any]:
        """Return the leftovers of a check."""
        return [*super().left(), *self.survivors(self.kept), *self.remains()]

    @pytest.fixture(autouse=True)
    def _own_folder(
        self, _leaks_nothing: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        """Give the check its own temporary folders and a second mark."""
        self.folder = tmp_path
        monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
        self.kept = str(random.randrange(10**8, 10**9))  # noqa: S311  a name, not a secret

    # What the checks do.

    @asynccontextmanager
    async def box(self, sandbox: Sandbox, **fields: Any) -> AsyncIterator[Box]:
        """Open a box with an empty working directory of its own."""
        async with self.opening(sandbox, **fields) as box:
            try:
                yield box
            finally:
                if not self.own:
                    with anyio.CancelScope(shield=True):
                        await self.tidy(box)

    def opening(self, sandbox: Sandbox, **fields: Any) -> Any:
        """Return the context manager of a box. In a place that stays, it leaves its
        folder there.
        """
        return anyspawn.open_box(sandbox, workdir=self.workdir, **fields)

    @property
    def workdir(self) -> str | None:
        """Where the calls of a box start. If the sandbox does not confine, the box chooses the
        folder.
        """
        return f"/tmp/box-{int(self.mark):x}" if self.confines else None

    async def tidy(self, box: Box) -> None:
        """Remove the box's folder if it stays."""
        await box.spawn(["rm", "-rf", box.workdir], cwd="/", timeout=PATIENCE)

    async def run(self, box: Box, *argv: str, **fields: Any) -> Completed:
        """Run a command that carries the mark; it must return a `Completed` in time."""
        mark = self.kept if fields.get("leave") == "detached" else self.mark
        fields = {"timeout": PATIENCE, **fields}
        env = {MARK: mark, **fields.pop("env", {})}
        began = anyio.current_time()
        done = await box.spawn(argv, env=env, **fields)
        took = anyio.current_time() - began
        allowed = fields["timeout"] + fields.get("grace", 0) + 0.5 + self.overhead
        assert took < allowed, f"the call took {took:.1f} s, and had {allowed:.1f} s"
        assert done.argv == argv
        assert done.error is not None or done.returncode == 0, done
        if done.cleanup is not Cleanup.UNCONFIRMED:
            assert self.survivors(self.mark) == [], done
        return done

    async def says(self, box: Box, script: str, **fields: Any) -> str:
        """Return the output of a shell script, which must succeed."""
        done = await self.run(box, *self.script(script), **fields)
        return done.check().text

    def leaving(self, script: str) -> list[str]:
        """Return a shell script whose long sleeps carry the mark of programs that may stay."""
        return ["sh", "-c", script.replace("999", self.kept)]

    async def fails(self, error: Any, call: Callable[..., Awaitable[object]], *args: Any) -> None:
        """Check that a call raises an error of that kind."""
        with pytest.raises(error):
            await call(*args)

    # Files.

    async def test_files(self, sandbox: Sandbox) -> None:
        """Written files can be read by calls and by programs, with any content and any name.
        Missing folders are created, and removed files are gone.
        """
        async with self.box(sandbox) as box:
            assert await box.list_dir() == []
            await box.write_file("a/b/c", _BYTES)
            assert await box.read_file("a/b/c") == _BYTES
            assert await box.read_file(f"{box.workdir}/a/./b/../b/c") == _BYTES
            await box.write_file("a/b/c", "text ü")
            assert await self.says(box, "cat a/b/c") == "text ü"
            await box.write_file("empty", b"")
            assert await box.read_file("empty") == b""
            await box.write_file("program", _TOOL)
            await self.says(box, "chmod 751 program; ln -s program link; ln -s a folder")
            await box.write_file("link", _TOOL.replace("tool", "new"))
            said = await self.says(box, "./program; ls -l program link")
            assert said.startswith("new\n"), said
            assert "-rwxr-x--x" in said, said
            assert "link -> program" in said, said
            for name in NAMES:
                await box.write_file(f"names/{name}", name)
            assert await box.list_dir("names") == sorted(NAMES)
            assert [await box.read_file(f"names/{name}") for name in NAMES] == [
                name.encode() for name in NAMES
            ]
            await box.remove(f"names/{NAMES[0]}")
            assert NAMES[0] not in await box.list_dir("names")
            await box.remove("folder")  # the link, not its target
            assert await box.read_file("a/b/c") == "text ü".encode()
            for name in ("a", "names", "link", "empty"):
                await box.remove(name)
            assert await box.list_dir() == ["program"]

    async def test_what_goes_wrong_with_files(self, sandbox: Sandbox, tmp_path: Path) -> None:
        """Each mistake raises the error that Python has for it, or that of a limit, and changes
        nothing.
        """
        async with self.box(sandbox) as box:
            await box.write_file("file", b"12345")
            await self.says(box, "ln -s no-such dangling")
            no = tmp_path / "no"
            for error, call, *args in (
                (FileNotFoundError, box.read_file, "no"),
                (FileNotFoundError, box.read_file, "no/where"),
                (FileNotFoundError, box.read_file, "dangling"),
                (FileNotFoundError, box.list_dir, "no"),
                (FileNotFoundError, box.remove, "no"),
                (FileNotFoundError, box.download, "no", no),
                (FileNotFoundError, box.upload, no, "no"),
                (FileNotFoundError, box.write_file, "no", no),
                (IsADirectoryError, box.read_file, "."),
                (IsADirectoryError, box.write_file, ".", b""),
                (NotADirectoryError, box.read_file, "file/x"),
                (NotADirectoryError, box.write_file, "file/x", b""),
                (NotADirectoryError, box.list_dir, "file"),
                (OutputLimitError, functools.partial(box.read_file, limit=4), "file"),
                (OutputLimitError, functools.partial(box.download, limit=100), "file", no),
                (OutputLimitError, functools.partial(box.save, limit=100), no),
                (ValueError, box.remove, "."),
                ((ValueError, PermissionError), box.remove, ".."),
                (ValueError, box.read_file, ""),
                (ValueError, box.read_file, "a\0b"),
            ):
                await self.fails(error, call, *args)
            read_only = (await self.says(box, _READ_ONLY)).strip()
            if read_only:
                await self.fails(PermissionError, box.write_file, f"{read_only}/x", b"")
            if (await self.says(box, "id -u")).strip() != "0":
                await self.says(box, "chmod 0 file")
                await self.fails(PermissionError, box.read_file, "file")
                await self.says(box, "chmod 600 file")
            assert await box.read_file("file", limit=5) == b"12345"
            assert await box.list_dir() == ["dangling", "file"]
            assert not no.exists()

    async def test_a_file_is_whole(self, sandbox: Sandbox) -> None:
        """A reader sees the old or the new file, also if the write is cancelled at any moment, and
        nothing else is left in the folder.
        """
        old, new = b"o" * _LARGE, b"n" * _LARGE
        async with self.box(sandbox) as box:
            await box.write_file("d/file", old)
            over = anyio.Event()

            async def read() -> None:
                while not over.is_set():
                    assert await box.read_file("d/file") in (old, new)

            async with anyio.create_task_group() as tasks:
                tasks.start_soon(read)
                for content in (new, old):
                    await box.write_file("d/file", content)
                over.set()

            async def write() -> None:
                await box.write_file("d/file", new)
                await anyio.sleep_forever()

            await self.cancelled(write, fraction=0.25)
            assert await box.read_file("d/file") in (old, new)
            assert await box.list_dir("d") == ["file"]

    async def test_trees(self, sandbox: Sandbox, tmp_path: Path) -> None:
        """Trees go in and come out unchanged with their links and permissions; so does
        a saved box.
        """
        source, out = tmp_path / "source", tmp_path / "out"
        (source / "deep/er").mkdir(parents=True)
        (source / "deep/er/x").write_bytes(_BYTES)
        (source / "deep/tool").write_text(_TOOL)
        (source / "deep/tool").chmod(0o755)
        (source / "link").symlink_to("deep/tool")
        async with self.box(sandbox) as box:
            await box.upload(source, "up/here")
            assert await self.says(box, "./link", cwd="up/here") == "tool\n"
            await box.upload(source / "deep/tool", "up/tool")
            await box.write_file("up/copy", source / "deep/er/x")
            assert await box.read_file("up/copy") == _BYTES
            await box.download("up", out)
            self.is_the_tree(out / "here")
            assert (out / "copy").read_bytes() == _BYTES
            await box.download("up/tool", out / "alone/tool")
            assert (out / "alone/tool").read_text() == _TOOL
            assert os.access(out / "alone/tool", os.X_OK)
            await self.fails(FileExistsError, box.download, "up/here", out)
            await self.fails(
                OutputLimitError, functools.partial(box.download, limit=1000), "up", tmp_path / "no"
            )
            saved = tmp_path / "box.tar"
            await box.save(saved)
            await self.fails(OutputLimitError, functools.partial(box.save, limit=1000), saved)
        async with self.box(sandbox, restore=saved) as box:
            assert await box.list_dir() == ["up"]
            await box.download("up/here", tmp_path / "again")
        self.is_the_tree(tmp_path / "again")
        assert not (tmp_path / "no").exists()

    def is_the_tree(self, found: Path) -> None:
        """The uploaded tree is complete."""
        assert (found / "deep/er/x").read_bytes() == _BYTES
        assert os.access(found / "deep/tool", os.X_OK)
        assert os.readlink(found / "link") == "deep/tool"

    async def test_no_path_leads_out(self, sandbox: Sandbox, tmp_path: Path) -> None:
        """No link or device leads out of a downloaded tree, and no name or link in a tar out of an
        uploaded one. In a folder, no file call leads out either.
        """
        bad, out, inside = tmp_path / "bad.tar", tmp_path / "out", f"x-{self.mark}"
        with tarfile.open(bad, "w") as tar:
            _add(tar, "good", b"good")
            _add(tar, f"../{inside}", b"bad")
            _add(tar, f"/tmp/{inside}", b"bad")
            for name, target in (("up", ".."), ("root", "/tmp")):
                _add(tar, name, target, tarfile.SYMTYPE)
                _add(tar, f"{name}/{inside}", b"bad")
        with suppress(SpawnError):  # refusing it is fine too
            async with self.opening(sandbox, restore=bad) as box:
                assert not await self.outside(box, inside)
        async with self.box(sandbox) as box:  # sees the same folders except for the box's own
            assert not await self.outside(box, inside)
            (tmp_path / "secret").write_text("secret")
            for make in ("ln -s /etc/passwd", "ln -s ../../../secret", "ln -s /", "mkfifo"):
                await self.says(box, f"mkdir up; echo 1 >up/good; {make} up/bad")
                await self.fails((PermissionError, SpawnError), box.download, "up", out)
                assert not out.exists(), make
                await box.remove("up")
            if self.confines:
                return
            await self.says(box, f"ln -s {tmp_path} up; ln -s {tmp_path}/secret file; mkdir sub")
            secret = str(tmp_path / "secret")
            for path in (
                "../secret",
                "sub/../../secret",
                "/etc/passwd",
                "file",
                "up/secret",
                secret,
            ):
                for call, *args in (
                    (box.read_file, path),
                    (box.list_dir, path),
                    (box.write_file, path, b"x"),
                    (box.write_file, path, bad),
                    (box.upload, bad, path),
                    (box.download, path, out),
                    (functools.partial(box.spawn, cwd=path), ["true"]),
                ):
                    await self.fails(PermissionError, call, *args)
            await self.fails(PermissionError, box.remove, "up/secret")
            await box.remove("up")
            await box.remove("file")
            assert await box.list_dir() == ["sub"]
        assert (tmp_path / "secret").read_text() == "secret"

    async def outside(self, box: Box, name: str) -> bool:
        """Return whether such a file exists beside the box's folder or in /tmp."""
        done = await box.spawn(["ls", "..", "/tmp"], timeout=PATIENCE)
        assert done.returncode == 0, done
        return name in done.text.split()

    # Calls.

    async def test_calls(self, sandbox: Sandbox) -> None:
        """Each call has its own streams, variables, folder and status. The error for a call that
        cannot start says why, and does not blame the program for a missing folder.
        """
        async with self.box(sandbox) as box:
            done = await self.run(box, "sh", "-c", "cat; pwd; exit 3", stdin=_BYTES)
            assert isinstance(done.error, ExitError), done
            assert (done.returncode, done.cleanup) == (3, Cleanup.NOT_NEEDED)
            assert done.stdout == _BYTES + f"{box.workdir}\n".encode()
            done = await self.run(box, "cat", "/proc/self/environ", env=NASTY)
            entries = done.check().stdout.decode(errors="surrogateescape").split("\0")
            assert {f"{name}={value}" for name, value in NASTY.items()} <= set(entries)
            both = "for i in 1 2 3; do echo $i; echo e$i >&2; done"
            assert await self.says(box, both, merge_stderr=True) == "1\ne1\n2\ne2\n3\ne3\n"
            await box.write_file("sub/deep/x", b"")
            for cwd in ("sub/deep", "./sub/../sub/deep", f"{box.workdir}/sub/deep"):
                assert await self.says(box, "pwd; ls", cwd=cwd) == f"{box.workdir}/sub/deep\nx\n"
            for argv, cwd, kind in (
                (["true"], "no", "cwd"),
                (["true"], "sub/deep/x", "cwd"),
                (["no-such-program"], ".", "not_found"),
                (["./sub"], ".", "not_executable"),
            ):
                error = (await self.run(box, *argv, cwd=cwd)).error
                assert isinstance(error, NotStartedError), error
                assert error.kind == kind, error
            with suppress(ConfigError):  # raised by a sandbox that cannot choose a user
                error = (await self.run(box, "true", user="no-such-user")).error
                assert isinstance(error, NotStartedError), error
                assert error.kind == "user", error
            await self.fails(TypeError, box.spawn, "true")
            await self.fails(ValueError, functools.partial(box.spawn, cwd="a\0b"), ["true"])
            wrong: Any = "some"
            await self.fails(ValueError, functools.partial(box.spawn, leave=wrong), ["true"])
            assert await box.list_dir() == ["sub"]

    async def test_what_calls_share(self, sandbox: Sandbox) -> None:
        """Calls share files, /tmp, processes and the loopback interface. They can run at once,
        beside file calls and live programs.
        """
        async with self.box(sandbox) as box:
            shared = f"/tmp/shared-{self.mark}"
            await self.says(box, f"echo 1 >{shared}")
            assert await self.says(box, f"cat {shared}; rm {shared}") == "1\n"
            async with self.live(box, *self.script("echo $$; exec sleep 999")) as process:
                pid = (await process.stdout.receive()).decode().strip()
                done = await box.spawn(["sh", "-c", f"kill -9 {pid}"], timeout=PATIENCE)
                assert done.error is None, done
                await process.wait()
            async with self.live(box, "cat") as process:

                async def one(number: int) -> None:
                    await box.spawn(["sh", "-c", f"cat >n{number}"], stdin=b"%d" % number)
                    assert await box.read_file(f"n{number}") == b"%d" % number
                    await box.write_file(f"f{number}", b"%d" % number)
                    assert (await box.spawn(["cat", f"f{number}"])).stdout == b"%d" % number

                async with anyio.create_task_group() as tasks:
                    for number in range(4):
                        tasks.start_soon(one, number)
                    await process.stdin.send(b"in")
                    assert await exactly(process.stdout, 2) == b"in"
                assert sorted(await box.list_dir()) == [f"{c}{n}" for c in "fn" for n in range(4)]
            port = str(random.randrange(20_000, 32_000))  # noqa: S311  a number, not a secret
            async with self.live(box, "sh", "-c", _SERVE, "sh", port, _ECHO) as server:
                listening = int(await server.stdout.receive())
                await self.talks(box, listening)
            await self.fails(ConnectionRefusedError, box.connect, listening)

    async def talks(self, box: Box, port: int) -> None:
        """A stream to a port carries any bytes in both directions, until its end."""
        with anyio.fail_after(PATIENCE):
            while True:
                with suppress(ConnectionRefusedError):  # until the server listens
                    stream = await box.connect(port)
                    break
        got = b""
        async with stream, anyio.create_task_group() as tasks:

            async def send() -> None:
                await stream.send(_BYTES)
                await stream.send_eof()

            tasks.start_soon(send)
            got = await exactly(stream, len(_BYTES))
            with pytest.raises(anyio.EndOfStream):
                await stream.receive()
        assert got == _BYTES

    @asynccontextmanager
    async def live(self, box: Box, *argv: str, **fields: Any) -> AsyncIterator[anyspawn.Process]:
        """Open a live process that carries the mark; nothing of it may be left after the block."""
        async with box.open_process(
            argv, env={MARK: self.mark}, timeout=PATIENCE, **fields
        ) as process:
            with anyio.fail_after(PATIENCE):
                yield process
        assert process.completed is not None
        if process.completed.cleanup is not Cleanup.UNCONFIRMED:
            assert self.survivors(self.mark) == [], process.completed

    async def test_live_programs(self, sandbox: Sandbox) -> None:
        """Live programs start in their folder, talk, and are killed with all their processes when
        their block is left; the box continues.
        """
        async with self.box(sandbox) as box:
            await box.write_file("sub/x", b"")
            async with self.live(box, "sh", "-c", "pwd; cat; exit 7", cwd="sub") as process:
                where = f"{box.workdir}/sub\n".encode()
                assert await exactly(process.stdout, len(where)) == where
                await process.stdin.send(_BYTES)
                assert await exactly(process.stdout, len(_BYTES)) == _BYTES
                await process.stdin.aclose()
                assert await process.wait() == 7
            async with self.live(box, *self.script("echo; setsid sleep 999 & sleep 999")) as left:
                await left.stdout.receive()
            assert left.completed is not None
            assert left.completed.cleanup is Cleanup.CONFIRMED, left.completed
            for argv, cwd, kind in ((["no-such"], ".", "not_found"), (["true"], "no", "cwd")):
                with pytest.raises(NotStartedError) as caught:
                    async with self.live(box, *argv, cwd=cwd):
                        pytest.fail("the block was entered")
                assert caught.value.kind == kind
            assert await box.list_dir() == ["sub"]

    async def test_calls_that_are_killed(self, sandbox: Sandbox) -> None:
        """A call that times out, writes too much or is cancelled leaves no process, and its outcome
        says so. Its files stay, and the box continues.
        """
        async with self.box(sandbox) as box:
            argv = self.script("touch here; echo x; setsid sleep 999 & sleep 999")
            late = await self.run(box, *argv, timeout=self.startup)
            assert isinstance(late.error, SpawnTimeoutError), late
            assert (late.stdout, late.cleanup) == (b"x\n", Cleanup.CONFIRMED), late
            for name, tree in TREES.items():
                if name != "env -i":  # a process without its mark is only sure to end with the box
                    done = await self.run(box, *self.script(f"echo; {tree}"), output_limit=0)
                    assert isinstance(done.error, OutputLimitError), done
                    assert done.cleanup is Cleanup.CONFIRMED, (name, done)
            assert await box.read_file("here") == b""
            await self.cancelled(lambda: self.run(box, *argv), fraction=0.25)
            assert await self.says(box, "ls") == "here\n"

    async def cancelled(self, call: Callable[[], Any], fraction: float) -> None:
        """Cancel ``call`` at moments from its first step up to a fraction of `startup`, in turn in
        each way that the loop has.
        """
        turns = itertools.cycle(ways())
        for moment in moments(self.startup * fraction, factor=3, steps=8):
            await next(turns)(call, moment)
            assert self.survivors(self.mark) == []

    async def test_what_calls_leave_running(self, sandbox: Sandbox) -> None:
        """Processes that a call leaves are killed, and the outcome says so, unless the call lets
        them stay. A call that is killed takes all of its processes with it.
        """
        async with self.box(sandbox) as box:
            quiet = "sleep 999 >/dev/null 2>&1 & echo up"
            done = await self.run(box, *self.script(quiet))
            assert (done.error, done.text) == (None, "up\n"), done
            assert done.cleanup is Cleanup.CONFIRMED, done
            noisy = (
                "(while :; do echo noise; echo >ticks; sleep 0.05; done) & sleep 999 & "
                "echo up; exit 3"
            )
            left = await self.run(box, *self.leaving(noisy), leave="detached")
            assert (left.returncode, left.cleanup) == (3, Cleanup.LEFT), left
            for leave in ("nothing", "detached"):
                done = await self.run(box, "true", leave=leave)
                assert done.cleanup is Cleanup.NOT_NEEDED, done
            tree = "echo; setsid sleep 999 & sleep 999"
            done = await self.run(box, *self.script(tree), leave="detached", output_limit=0)
            assert isinstance(done.error, OutputLimitError), done
            assert done.cleanup is Cleanup.CONFIRMED, done
            assert self.survivors(self.mark) == []
            assert self.survivors(self.kept)
            await box.remove("ticks")
            with anyio.fail_after(PATIENCE):
                while await box.list_dir() != ["ticks"]:
                    pass
        assert self.survivors(self.kept) == []

    # Ends.

    @pytest.mark.parametrize("how", ["left", "raised", "closed"])
    async def test_the_end_of_a_box(self, sandbox: Sandbox, how: str) -> None:
        """When the block is left, raises, or another task closes the box, nothing survives. Files
        stay only if the place does.
        """
        mine = ZeroDivisionError("mine")
        trees = [tree for name, tree in TREES.items() if self.holds(name)]
        argv = self.leaving("\n".join(f"({tree}) >/dev/null 2>&1 &" for tree in trees))

        async def fill(box: Box) -> None:
            await box.write_file("kept", b"1")
            left = await self.run(box, *argv, leave="detached")
            assert left.cleanup is Cleanup.LEFT, left

        if how == "closed":
            box = await anyspawn.start_box(sandbox, workdir=self.workdir)
            await fill(box)
            begun, ended = anyio.Event(), []

            async def call() -> None:
                argv = self.script("echo; sleep 999")
                ended.append(await box.spawn(argv, on_output=lambda *_: begun.set(), timeout=None))

            async with anyio.create_task_group() as tasks:
                if self.own and self.confines:
                    tasks.start_soon(call)
                    await begun.wait()
                tasks.start_soon(box.aclose)
                tasks.start_soon(box.aclose)
            await box.aclose()
            for done in ended:
                assert isinstance(done.error, TransportError), done
                assert done.cleanup is Cleanup.CONFIRMED, done
        elif how == "raised":
            with pytest.raises(ZeroDivisionError) as caught:  # noqa: PT012  leaving the block is the point
                async with self.opening(sandbox) as box:
                    await fill(box)
                    raise mine
            assert caught.value is mine
        else:
            async with self.opening(sandbox) as box:
                await fill(box)
        assert self.survivors(self.kept) == []
        if self.own:
            assert self.remains() == []
            if self.confines:
                with pytest.raises(TransportError):
                    await box.read_file("kept")
            return
        async with self.box(sandbox) as box:
            assert await box.read_file("kept") == b"1"

    def holds(self, tree: str) -> bool:
        """Whether the end of a box also ends such a tree."""
        return tree != "env -i" or (self.own and self.confines)

    async def test_a_box_that_is_cancelled(self, sandbox: Sandbox) -> None:
        """If the opening or the use of a box is cancelled, nothing of it is left."""

        async def use() -> None:
            async with self.opening(sandbox) as box:
                await box.write_file("x", b"")
                await box.spawn(self.script("setsid sleep 999 & sleep 999"), timeout=None)

        turns = itertools.cycle(ways())
        for moment in moments(2 * self.startup, factor=6, steps=12):
            await next(turns)(use, moment)
            assert self.survivors(self.mark) == []
            assert self.remains() == []
        if not self.own:
            async with self.box(sandbox):
                pass

    def test_the_host_is_killed(self, sandbox: Sandbox, anyio_backend: Any) -> None:
        """The host is killed during a call, with a live program and a process that may stay. All of
        them end, and so does the place if it is the box's own.
        """
        backend, options = (anyio_backend, {}) if isinstance(anyio_backend, str) else anyio_backend

        async def use(ready: int) -> None:
            async with self.opening(sandbox) as box, anyio.create_task_group() as tasks:
                await box.write_file("x", b"")
                quiet = "setsid sleep 999 >/dev/null 2>&1 &"
                await box.spawn(self.script(quiet), leave="detached", check=True)
                argv = self.script("echo; setsid sleep 999 & sleep 999")
                seen = anyio.Event()
                tasks.start_soon(
                    functools.partial(
                        box.spawn, argv, timeout=None, on_output=lambda *_: seen.set()
                    )
                )
                async with box.open_process(argv, timeout=None) as process:
                    await process.stdout.receive()
                    await seen.wait()
                    os.write(ready, b"1")
                    await anyio.sleep_forever()

        ready, says = os.pipe()
        try:
            with warnings.catch_warnings():
                # It warns about other threads, which all wait here.
                warnings.simplefilter("ignore", DeprecationWarning)
                host = os.fork()
            if not host:
                try:
                    run_in_thread(functools.partial(use, says), backend, options)
                finally:
                    os._exit(1)
            os.close(says)
            says = -1
            try:
                heard = select.select([ready], [], [], PATIENCE)[0] and os.read(ready, 1)
            finally:
                os.kill(host, signal.SIGKILL)
                os.waitpid(host, 0)
            assert heard == b"1", "the host has failed"
        finally:
            for fd in (ready, says):
                if fd >= 0:
                    os.close(fd)
        if not self.confines:  # without a sandbox nothing kills the host's programs
            _machine.gone(self._kill_survivors, PATIENCE)
        assert _machine.gone(self.left, PATIENCE), self.left()
        if not self.own:

            async def tidy() -> None:
                async with self.box(sandbox):
                    pass

            run_in_thread(tidy, backend, options)

    def _kill_survivors(self) -> list[Any]:
        """Kill the running programs, and return them: one of them may just start another."""
        found = self.survivors(self.mark)
        for pid in found:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        return found


def _add(
    tar: tarfile.TarFile, name: str, content: bytes | str, kind: bytes = tarfile.REGTYPE
) -> None:
    member = tarfile.TarInfo(name)
    member.type = kind
    if isinstance(content, str):
        member.linkname = content
        tar.addfile(member)
    else:
        member.size = len(content)
        tar.addfile(member, io.BytesIO(content))
