"""`Box`: a sandbox that stays between calls."""

from __future__ import annotations

import errno
import math
import os
import posixpath
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from functools import partial
from typing import IO, Any, Literal

import anyio
import anyio.to_thread
from anyio.abc import ByteStream

from anyspawn._box import files
from anyspawn._box.connect import Relayed, connect_here, relay
from anyspawn._box.left import Left
from anyspawn._box.places import Place, place_of
from anyspawn._box.python import PythonSession
from anyspawn._call import _to_sandbox, open_process
from anyspawn._env import Env, check_text
from anyspawn._held import Held
from anyspawn._model import (
    Command,
    Completed,
    LeavingCommand,
    Overflow,
    Sandbox,
    StrPath,
    Timeout,
)
from anyspawn._spawn.live import Process
from anyspawn._spawn.tasks import see_through
from anyspawn.exceptions import ConfigError, ExitError, OutputLimitError, SpawnError

__all__ = ["Box", "attach_box", "open_box", "start_box"]

_CHUNK = 256 * 1024
_TIDY = 5.0


async def _nothing() -> None:
    """Do nothing: the block of `open_box` closes the box."""


class Box:
    """A sandbox that stays between calls: the next call sees the files of the last one. `open_box`
    and `start_box` make one.

    Paths are inside the box, absolute or relative to ``workdir``. In a box of `Direct` they must be
    in its folder; a link that leads out of it is a PermissionError. Calls and file operations can
    run at the same time. If the box itself is lost, for example because somebody removed its
    container, every call fails with a `TransportError`, and the files are gone.

    File operations raise FileNotFoundError, PermissionError, IsADirectoryError or
    NotADirectoryError, and a `SpawnError` for any other failure. They need a shell and its usual
    tools in the box; whole trees also need ``tar``.

    Attributes:
        id: The mode, the name of the container or pod (or a unique word), and what else
            `attach_box` needs to reach the box from another process.
        workdir: The absolute path in which calls start, and to which relative paths are relative.
    """

    def __init__(self, place: Place, workdir: str) -> None:
        self.id = place.id_in(workdir)
        self.workdir = workdir
        self._place = place
        self._streams: set[Relayed] = set()
        self._left = Left()
        self._close: Callable[[], Awaitable[None]] = _nothing

    async def spawn(
        self,
        argv: Sequence[StrPath],
        *,
        stdin: bytes | bytearray | memoryview = b"",
        env: Mapping[str, str] | Iterable[str] = (),
        cwd: StrPath | None = None,
        user: str | None = None,
        timeout: Timeout = "default",
        wait_delay: float = 0.5,
        grace: float = 0.0,
        output_limit: int = 16 * 2**20,
        overflow: Overflow = "error",
        merge_stderr: bool = False,
        on_output: (
            Callable[[Literal["stdout", "stderr"], bytes], Awaitable[None] | None] | None
        ) = None,
        leave: Literal["nothing", "detached"] = "nothing",
        check: bool = False,
    ) -> Completed:
        """Run a program in the box to its end. Its files stay; anyspawn kills the processes that it
        leaves.

        Args:
            cwd: A path inside, relative to ``workdir``, which is the default.
            user: Who runs it, by name or number, in a container. With `Direct` it needs root, and
                the user must have access to the box's folder. Default: the sandbox's.
            leave: ``"detached"``: if the program exits by itself, the processes that it leaves,
                such as a server, run on until the box ends. ``cleanup`` is then ``LEFT``; the call
                does not wait for them, and drops what they write later. If the call times out, is
                cancelled or writes too much, anyspawn still kills everything that it started.
                Default: anyspawn kills what the program leaves, and ``cleanup`` is then
                ``CONFIRMED``.
            argv, stdin, env, timeout, wait_delay, grace: As for `anyspawn.spawn`.
            output_limit, overflow, merge_stderr, on_output, check: As for `anyspawn.spawn`.

        Returns:
            The outcome. Unless ``check`` is set, a failure is in its ``error``.

        Raises:
            TypeError, ValueError, ConfigError: An argument is wrong; nothing was started.
            PermissionError: ``cwd`` is outside of a box of `Direct`; nothing was started.
            SpawnError: With ``check``, the failure.
        """
        sandbox: Any = self._place.sandbox
        make: Callable[..., Command] = Command
        if leave == "detached":
            if getattr(sandbox, "supervisor", "") == "off":
                raise ConfigError(
                    "leave: 'detached' needs a supervisor; leave supervisor at 'auto'"
                )
            sandbox, make = sandbox.alone(), partial(LeavingCommand, keep=self._left.keep)
        elif leave != "nothing":
            raise ValueError(f"leave must be 'nothing' or 'detached', not {leave!r}")
        command = make(
            argv,
            stdin=stdin,
            env=self._env(env),
            cwd=self._path(cwd),
            user=user,
            timeout=timeout,
            wait_delay=wait_delay,
            grace=grace,
            output_limit=output_limit,
            overflow=overflow,
            merge_stderr=merge_stderr,
            on_output=on_output,
        )
        completed: Completed = await sandbox.spawn(command)
        return completed.check() if check else completed

    def open_process(
        self,
        argv: Sequence[StrPath],
        *,
        env: Mapping[str, str] | Iterable[str] = (),
        cwd: StrPath | None = None,
        user: str | None = None,
        timeout: Timeout = "default",
        grace: float = 0.0,
        merge_stderr: bool = False,
        tty: bool = False,
    ) -> AbstractAsyncContextManager[Process]:
        """Start a long-running program in the box, and talk to it.

        Args and errors: as for `anyspawn.open_process`; ``cwd`` and ``user`` as for `spawn`.
        """
        command = Command(
            argv,
            env=self._env(env),
            cwd=self._path(cwd),
            user=user,
            timeout=timeout,
            grace=grace,
            merge_stderr=merge_stderr,
        )
        return open_process(command, sandbox=self._place.sandbox, tty=tty)

    @asynccontextmanager
    async def python(
        self,
        program: StrPath = "python3",
        *,
        env: Mapping[str, str] | Iterable[str] = (),
        cwd: StrPath | None = None,
        user: str | None = None,
    ) -> AsyncIterator[PythonSession]:
        """Start a Python interpreter that runs code piece by piece, for as long as the block.

        Args:
            program: The interpreter inside, Python 3.8 or later, as a name or a path.
            env, cwd, user: As for `spawn`.

        Raises:
            TypeError, ValueError, ConfigError: An argument is wrong; nothing was started.
            NotStartedError: The box does not have this interpreter.
            SpawnTimeoutError: It was not ready within the sandbox's ``default_timeout``.
            TransportError: The box itself is lost.
        """
        name = os.fspath(program)

        def opening(argv: Sequence[str]) -> AbstractAsyncContextManager[Process]:
            return self.open_process(argv, env=env, cwd=cwd, user=user)

        session = PythonSession(opening, name, self._place.sandbox.default_timeout)
        await session._start()  # noqa: SLF001  one thing, in two files
        try:
            yield session
        finally:
            await session.aclose()

    async def connect(self, port: int) -> ByteStream:
        """Connect to a TCP port on the box's loopback interface, 127.0.0.1 or ::1. The port need
        not be published.

        A small relay runs in the box while the stream is open, and counts as a call. It needs
        python3, perl or BusyBox's nc in the box. `Direct` has the host's loopback interface and
        needs no relay.

        Args:
            port: 1 to 65535.

        Returns:
            An `anyio.abc.ByteStream`: `receive`, `send`, `send_eof` and `aclose`. The end of the
            box closes it, except with `Direct`. With BusyBox's nc the connection closes as soon as
            the other side stops sending.

        Raises:
            TypeError, ValueError: ``port`` is out of range; nothing was started.
            ConnectionRefusedError: Nothing listens there.
            TimeoutError: It took longer than the sandbox's ``default_timeout``.
            NotStartedError: None of the tools is in the box.
            TransportError: The box has ended.
        """
        if isinstance(port, bool) or not isinstance(port, int):
            raise TypeError(f"port must be an int, not {type(port).__name__}")
        if not 1 <= port <= 65535:
            raise ValueError(f"port must be 1 to 65535, not {port}")
        sandbox = self._place.sandbox
        with anyio.fail_after(sandbox.default_timeout):
            if self._place.root is not None:
                return await connect_here(port)
            opening = sandbox.open_process(Command(relay(port)))
            stream = Relayed(await Held(opening, "connect").start(), port, self._streams)
            try:
                await stream.opened()
            except BaseException:
                await stream.aclose()
                raise
        return stream

    async def write_file(
        self, path: StrPath, data: bytes | bytearray | memoryview | str | os.PathLike[str]
    ) -> None:
        """Write a file, and create its folders. The write is atomic: a reader sees the old file or
        the new one.

        Args:
            path: The file. An existing one keeps its permissions.
            data: Its content; text is UTF-8. An ``os.PathLike`` (not a str) names a file of the
                host, which is copied.
        """
        if isinstance(data, os.PathLike):
            await self._copy_in(os.fspath(data), path)
            return
        content = data.encode() if isinstance(data, str) else bytes(data)
        inside = self._path(path, what="path")
        async with self._writing(inside) as word:
            args = (inside, word, str(len(content)), "")
            await self._ask(files.WRITE, path, *args, stdin=content)

    async def read_file(self, path: StrPath, *, limit: int = 16 * 2**20) -> bytes:
        """Return the content of a file.

        Args:
            path: The file.
            limit: The largest size in bytes. Default 16 MiB.

        Raises:
            OutputLimitError: It has more.
        """
        done = await self._ask(files.READ, path, self._path(path, what="path"), output_limit=limit)
        return done.stdout

    async def list_dir(self, path: StrPath = ".") -> list[str]:
        """Return the names in a folder, hidden ones too, sorted."""
        done = await self._ask(files.LIST, path, self._path(path, what="path"))
        return sorted(os.fsdecode(name) for name in done.stdout.split(b"\0")[:-1])

    async def remove(self, path: StrPath) -> None:
        """Remove a file, a link, or a folder with everything in it.

        Raises:
            ValueError: It is ``workdir``, or contains it.
        """
        inside = self._path(path, what="path", follow=False)
        if posixpath.join(self.workdir, "").startswith(posixpath.join(inside, "")):
            what = "is" if inside == self.workdir else "contains"
            raise ValueError(
                f"path: {inside!r} {what} the box's workdir, which must stay; remove the files in "
                "it one by one"
            )
        await self._ask(files.REMOVE, path, inside)

    async def upload(self, source: StrPath, path: StrPath) -> None:
        """Copy a file or a folder of the host into the box.

        Args:
            source: The file or folder. Links in a folder are copied as links.
            path: The path of the copy, not of its parent folder. A folder is merged into an
                existing one, without a time limit.
        """
        local = os.fspath(source)
        if not await anyio.Path(local).is_dir():
            await self._copy_in(local, path)
            return
        inside = self._path(path, what="path")
        with tempfile.TemporaryFile() as packed:
            await anyio.to_thread.run_sync(files.pack, local, packed)
            await self._unpack(packed, path, inside)

    async def download(self, path: StrPath, target: StrPath, *, limit: int = 2**30) -> None:
        """Copy a file or a folder of the box to the host.

        Args:
            path: The file or folder.
            target: The path of the copy; its folders are created. An existing file is replaced.
            limit: The largest size in bytes, packed. Default 1 GiB.

        Raises:
            OutputLimitError: It is larger.
            PermissionError: It contains a link that leads out of it, or a device. Nothing is
                written.
            FileExistsError: A folder is to be copied, and ``target`` exists.
        """
        with tempfile.TemporaryFile() as packed:
            await self._pack(packed, path, limit)
            await anyio.to_thread.run_sync(files.unpack, packed, os.fspath(target))

    async def save(self, path: StrPath, *, limit: int = 2**30) -> None:
        """Write the box's ``workdir`` to a file of the host, as a tar for ``restore`` of another
        box. The write is atomic.

        Args:
            path: The file.
            limit: The largest size in bytes. Default 1 GiB.

        Raises:
            OutputLimitError: It has more.
        """
        parent = os.path.dirname(os.fspath(path)) or "."
        with tempfile.TemporaryDirectory(dir=parent, prefix=".anyspawn-") as folder:
            whole = os.path.join(folder, "box.tar")
            with _opened(whole, "xb") as packed:
                await self._pack(packed, ".", limit)
            os.replace(whole, path)

    async def aclose(self) -> None:
        """End the box that `start_box` made, with everything in it. Any task can call it, more than
        once. A box of a ``with`` block ends with the block.

        Raises:
            PlantedError: The box has ended. Something in it left a file in a folder of ``writable``
                that the host would run later.
        """
        await self._close()

    def __repr__(self) -> str:
        return f"<anyspawn.Box {self._place.sandbox.name} {self.id} workdir={self.workdir!r}>"

    # --- how --------------------------------------------------------------------------------------

    def _env(self, env: Mapping[str, str] | Iterable[str]) -> Env:
        given = Env(env)
        return Env({**self._place.env, **given}) if self._place.env else given

    def _path(self, path: StrPath | None, *, what: str = "cwd", follow: bool = True) -> str:
        text = "." if path is None else check_text(os.fspath(path), what)
        if not text:
            raise ValueError(f"{what} is empty; '.' is the workdir")
        inside = posixpath.normpath(posixpath.join(self.workdir, text))
        root = self._place.root
        if root is not None:
            folder, name = os.path.split(inside)
            real = os.path.realpath(inside) if follow else f"{os.path.realpath(folder)}/{name}"
            if inside != root and not real.startswith(root + "/") and real != root:
                raise PermissionError(errno.EACCES, f"{what} leads out of the box", text)
        return inside

    async def _ask(self, script: str, path: StrPath, *args: str, **fields: Any) -> Completed:
        command = Command(["sh", "-c", script, "sh", *args], **fields)
        done = await self._place.sandbox.spawn(command)
        files.raise_for(done, os.fspath(path))
        return done

    async def _feed(
        self, script: str, path: StrPath, stream: IO[bytes], size: int, *args: str
    ) -> None:
        """Run a script with ``size`` bytes of a host file as its stdin."""
        command = Command(["sh", "-c", script, "sh", *args])
        async with self._place.sandbox.open_process(command) as process:
            with suppress(anyio.BrokenResourceError, anyio.ClosedResourceError):  # it has ended
                while chunk := await anyio.to_thread.run_sync(stream.read, min(_CHUNK, size)):
                    size -= len(chunk)
                    await process.stdin.send(chunk)
                await process.stdin.aclose()
            code = await process.wait()
            said = b"".join([chunk async for chunk in process.stderr])
        error = ExitError(f"sh exited with status {code}") if code else None
        files.raise_for(
            Completed(argv=command.argv, returncode=code, stderr=said, error=error),
            os.fspath(path),
        )

    async def _copy_in(self, local: str, path: StrPath) -> None:
        inside = self._path(path, what="path")
        with _opened(local, "rb") as stream:
            stat = os.fstat(stream.fileno())
            async with self._writing(inside) as word:
                args = (inside, word, str(stat.st_size), f"{stat.st_mode & 0o777:o}")
                await self._feed(files.WRITE, path, stream, stat.st_size, *args)

    @asynccontextmanager
    async def _writing(self, inside: str) -> AsyncIterator[str]:
        """Give a unique word for the name of a write's temporary file; afterwards the file is gone,
        even if the write was killed.
        """
        word = os.urandom(8).hex()
        try:
            yield word
        except BaseException as exc:
            killed = isinstance(exc, SpawnError) or not isinstance(exc, Exception)
            if killed:  # else the script has removed it
                command = Command(["sh", "-c", files.UNWRITE, "sh", inside, word], timeout=_TIDY)
                await see_through(partial(self._place.sandbox.spawn, command), 2 * _TIDY)
            raise

    async def _unpack(self, packed: IO[bytes], path: StrPath, inside: str) -> None:
        size = packed.seek(0, os.SEEK_END)
        packed.seek(0)
        await self._feed(files.UNPACK, path, packed, size, inside)

    async def _pack(self, packed: IO[bytes], path: StrPath, limit: int) -> None:
        taken = 0

        async def take(name: str, chunk: bytes) -> None:
            nonlocal taken
            if name == "stdout":
                taken += len(chunk)
                if taken > limit:
                    raise OutputLimitError(f"{os.fspath(path)!r} takes more than {limit} bytes")
                await anyio.to_thread.run_sync(packed.write, chunk)

        await self._ask(
            files.PACK,
            path,
            self._path(path, what="path"),
            on_output=take,
            output_limit=4096,
            overflow="tail",
            timeout=None,
        )
        packed.seek(0)


def _opened(path: StrPath, mode: str) -> IO[bytes]:
    opened: IO[bytes] = open(path, mode)  # noqa: SIM115  the caller closes it
    return opened


@asynccontextmanager
async def open_box(
    sandbox: Sandbox | str | None = None,
    *,
    workdir: StrPath | None = None,
    restore: StrPath | None = None,
) -> AsyncIterator[Box]:
    """Open a box: a sandbox that stays, with its files, for as long as the block.

    With `Bubblewrap` the box is one set of namespaces, with `DockerRun` and `KubectlRun` a new
    container or pod. anyspawn removes all of it when the block is left, also if this process is
    killed. With `DockerExec` and `KubectlExec` the box is in an existing container or pod:
    processes end with the block, and files stay. With `Direct` it is a folder, which confines
    nothing.

    Args:
        sandbox: Where: a sandbox, or the name of a mode. Its limits apply to the whole box, except
            those for one process. Default: `Direct`.
        workdir: The folder inside in which calls start; it is created if it is missing. With
            `Direct`, a folder of the host, which stays; left out, a temporary one, which is
            removed. Default: the sandbox's.
        restore: A file that `Box.save` wrote; anyspawn unpacks it into ``workdir`` first.

    Raises:
        TypeError, ValueError, ConfigError: An argument is wrong, or the sandbox cannot hold a box;
            nothing was started.
        SpawnError: The box could not be made; nothing is left of it.
        OSError: ``restore`` cannot be read, or ``workdir`` cannot be made.
        PlantedError: At the end of the block, when the box has ended: something in it left a file
            in a folder of ``writable`` that the host would run later. If another exception ends the
            block, that one propagates, with a note.
    """
    given = None
    if workdir is not None:
        given = check_text(os.fspath(workdir), "workdir")
        if not given.startswith("/"):
            raise ConfigError(f"workdir: {given!r} is not an absolute path")
    place_sandbox = _to_sandbox(sandbox)
    async with place_of(place_sandbox, given) as place, _box_in(place) as box:
        if restore is not None:
            with _opened(restore, "rb") as packed:
                await box._unpack(packed, ".", box.workdir)  # noqa: SLF001  in this file
        yield box


@asynccontextmanager
async def _box_in(place: Place) -> AsyncIterator[Box]:
    wanted = place.workdir or "."
    done = await place.sandbox.spawn(Command(["sh", "-c", files.WORKDIR, "sh", wanted]))
    files.raise_for(done, wanted)
    box = Box(place, os.fsdecode(done.stdout).removesuffix("\n"))
    try:
        yield box
    finally:
        for stream in tuple(box._streams):  # noqa: SLF001  in this file
            await see_through(stream.aclose, math.inf)
        if box._left.stop():  # noqa: SLF001  in this file
            await see_through(box._left.end, math.inf)  # noqa: SLF001


async def start_box(
    sandbox: Sandbox | str | None = None,
    *,
    workdir: StrPath | None = None,
    restore: StrPath | None = None,
) -> Box:
    """Open a box like `open_box`, where no block can hold it.

    Args, errors: as for `open_box`.
    """
    return await Held(open_box(sandbox, workdir=workdir, restore=restore), "box").start()


@asynccontextmanager
async def attach_box(
    box_id: str, sandbox: Sandbox | None = None, *, ends: bool = False
) -> AsyncIterator[Box]:
    """Use a box that another process of yours has opened, by the same daemon or cluster, for as
    long as the block: the same files, processes and loopback interface.

    The process that opened the box owns it: the box ends when its opener closes it or dies, even if
    others are attached. Their calls then fail with a `TransportError` that says so. At the end of
    the block, or if this process is killed, its own calls end, with the processes that they left by
    ``leave="detached"``. Calls of other processes continue, and the files stay.

    Args:
        box_id: The `Box.id`, of a box of `DockerRun`, `DockerExec`, `KubectlRun` or `KubectlExec`.
            Accept it only from your own processes: it decides in which container calls run, and as
            which user.
        sandbox: The sandbox that the box was opened with. Its client, ``kubeconfig``,
            ``default_timeout`` and ``max_concurrent`` apply, to this block only. Default: a sandbox
            of that mode with its defaults.
        ends: Whether the box ends with this block, for its opener too. Default: it stays.

    Raises:
        TypeError, ConfigError: An argument is wrong, or such a box cannot be attached to; nothing
            was started.
        TransportError: The box has ended, or cannot be reached; or, at the end of the block, it
            could not be ended.
    """
    from anyspawn._box.engines import attached

    async with attached(box_id, sandbox, ends=ends) as place, _box_in(place) as box:
        yield box
