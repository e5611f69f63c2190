"""`anyspawn.sync`: one event loop in a background thread, and calls that wait for it."""

from __future__ import annotations

import atexit
import os
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator
from contextlib import (
    AbstractAsyncContextManager,
    AbstractContextManager,
    asynccontextmanager,
    contextmanager,
    suppress,
)
from functools import wraps
from types import TracebackType
from typing import Generic, ParamSpec, Self, TypeVar

import anyio
import anyio.from_thread
from anyio.abc import ByteReceiveStream, ByteSendStream, ByteStream

import anyspawn
from anyspawn import hooks
from anyspawn._held import Held
from anyspawn._model import Sandbox, StrPath

__all__ = [
    "Box",
    "HookRunner",
    "Process",
    "PythonSession",
    "ReceiveStream",
    "SendStream",
    "Stream",
    "attach_box",
    "open_box",
    "run_hooks",
    "spawn",
]

P = ParamSpec("P")
T = TypeVar("T")
U = TypeVar("U")


class _Call(Generic[T]):
    """One call that another thread waits for.

    Args:
        step: The function to await.
    """

    def __init__(self, step: Callable[[], Awaitable[T]]) -> None:
        self.over = threading.Event()
        self.given_up = False
        self.scope: anyio.CancelScope | None = None
        self._step = step
        self._results: list[T] = []
        self._raised: BaseException | None = None

    async def run(self) -> None:
        """Run it in its own task, until it ends."""
        try:
            with anyio.CancelScope() as self.scope:
                # A thread that gives up sets this before it reads the scope.
                if not self.given_up:
                    self._results.append(await self._step())
        except (anyio.get_cancelled_exc_class(), GeneratorExit):  # the loop is ended
            raise
        except BaseException as exc:  # it must not reach the loop, which it would stop
            self._raised = exc
        finally:
            self.over.set()

    def result(self) -> T:
        """Return its result, once it is over."""
        if self._raised is not None:
            try:
                raise self._raised
            finally:
                self._raised = None  # break the reference cycle
        if not self._results:
            raise RuntimeError("the event loop of anyspawn.sync ended before the call did")
        return self._results[0]


class _Loop:
    """The event loop, in a background thread that starts on demand.

    Attributes:
        portal: The portal to it, while it runs.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._context: AbstractContextManager[anyio.from_thread.BlockingPortal] | None = None
        self.portal: anyio.from_thread.BlockingPortal | None = None
        self._thread: int | None = None
        self._lost: list[object] = []

    def wait(self, step: Callable[[], Awaitable[T]]) -> T:
        """Await something in the loop; return or raise its result.

        If the thread is interrupted, cancel it, and raise the interrupt after it has ended.
        """
        if threading.get_ident() == self._thread:
            raise RuntimeError(
                "anyspawn.sync was called from one of its own callbacks, and would wait for itself; "
                "make the callback async, and await anyspawn's own functions in it"
            )
        portal = self._started()
        call, begun = _Call(step), False
        try:
            future = portal.start_task_soon(call.run)
            begun = True
            future.add_done_callback(lambda _: call.over.set())
            call.over.wait()
        except BaseException:
            call.given_up = True
            if begun or call.scope is not None:
                if call.scope is not None:
                    with suppress(RuntimeError):  # the loop has ended
                        portal.start_task_soon(call.scope.cancel)
                call.over.wait()
            raise
        return call.result()

    def _started(self) -> anyio.from_thread.BlockingPortal:
        with self._lock:
            if self.portal is None:
                self._context = anyio.from_thread.start_blocking_portal(name="anyspawn sync")
                self.portal = self._context.__enter__()
                self._thread = self.portal.call(threading.get_ident)
            return self.portal

    def stop(self) -> None:
        """Stop the loop, and everything that it owns."""
        with self._lock:
            context, portal = self._context, self.portal
            self._context = self.portal = self._thread = None
        if context is not None and portal is not None:
            with suppress(RuntimeError):  # it has ended
                portal.call(portal.stop, True)  # noqa: FBT003  its parameter has no other way
            context.__exit__(None, None, None)

    def forget(self) -> None:
        """Drop the loop: this process is a fork, without the loop's thread."""
        self._lost += [self._context, self.portal]  # closing them would affect the parent's
        self._lock = threading.Lock()
        self._context = self.portal = self._thread = None


_loop = _Loop()
atexit.register(_loop.stop)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_loop.forget)


def _blocking(function: Callable[P, Awaitable[T]]) -> Callable[P, T]:
    """Return a blocking version of an async function."""

    @wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> T:
        return _loop.wait(lambda: function(*args, **kwargs))

    return call


spawn = _blocking(anyspawn.spawn)
run_hooks = _blocking(hooks.run_hooks)


class _Owned:
    """An object of one event loop: it ends with the loop, and a forked process cannot use it."""

    def __init__(self) -> None:
        self._portal = _loop.portal

    @property
    def _there(self) -> bool:
        return self._portal is None or self._portal is _loop.portal

    def _of_ours(self, function: Callable[P, Awaitable[T]]) -> Callable[P, T]:
        blocking = _blocking(function)

        @wraps(function)
        def call(*args: P.args, **kwargs: P.kwargs) -> T:
            if not self._there:
                raise RuntimeError(
                    "this ended with its event loop, or belongs to the parent of this forked process; "
                    "open another one"
                )
            return blocking(*args, **kwargs)

        return call


class _Closing(_Owned):
    """An object that its block closes.

    Args:
        closing: Closes it.
    """

    def __init__(self, closing: Callable[[], Awaitable[None]]) -> None:
        super().__init__()
        self._closing = closing

    def close(self) -> None:
        """Close it, like ``aclose``. It can be called more than once."""
        if self._there:
            _loop.wait(self._closing)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class SendStream(_Closing):
    """An `anyio.abc.ByteSendStream` whose methods block: the ``stdin`` of a `Process`.

    Attributes:
        send: As its method.
    """

    def __init__(self, stream: ByteSendStream) -> None:
        super().__init__(stream.aclose)
        self.send = self._of_ours(stream.send)


class ReceiveStream(_Closing):
    """An `anyio.abc.ByteReceiveStream` whose methods block: ``stdout`` and ``stderr`` of a
    `Process`. Iterate over it to read chunk by chunk until the end.

    Attributes:
        receive: As its method: at the end it raises `anyio.EndOfStream`.
    """

    def __init__(self, stream: ByteReceiveStream) -> None:
        super().__init__(stream.aclose)
        self.receive = self._of_ours(stream.receive)

    def __iter__(self) -> Iterator[bytes]:
        with suppress(anyio.EndOfStream):
            while True:
                yield self.receive()


class Stream(ReceiveStream):
    """An `anyio.abc.ByteStream` whose methods block: `Box.connect` gives it. Its block closes it.

    Attributes:
        send, send_eof: As its methods.
    """

    def __init__(self, stream: ByteStream) -> None:
        super().__init__(stream)
        self.send = self._of_ours(stream.send)
        self.send_eof = self._of_ours(stream.send_eof)


class Process(_Closing):
    """An `anyspawn.Process` whose methods block; `Box.open_process` gives it.

    Attributes:
        stdin: A `SendStream`; its ``close`` is the program's end of file.
        stdout, stderr: Each a `ReceiveStream`.
        wait, send_signal, resize: As the methods of the `anyspawn.Process`.
    """

    def __init__(self, process: anyspawn.Process) -> None:
        super().__init__(process.aclose)
        self.stdin = SendStream(process.stdin)
        self.stdout, self.stderr = ReceiveStream(process.stdout), ReceiveStream(process.stderr)
        self.wait = self._of_ours(process.wait)
        self.send_signal = self._of_ours(process.send_signal)
        self.resize = self._of_ours(process.resize)
        self._process = process

    @property
    def returncode(self) -> int | None:
        """As of the `anyspawn.Process`."""
        return self._process.returncode

    @property
    def completed(self) -> anyspawn.Completed | None:
        """As of the `anyspawn.Process`."""
        return self._process.completed


class PythonSession(_Closing):
    """An `anyspawn.PythonSession` whose methods block; `Box.python` gives it.

    Attributes:
        run: As its method.
    """

    def __init__(self, session: anyspawn.PythonSession) -> None:
        super().__init__(session.aclose)
        self.run = self._of_ours(session.run)
        self._session = session

    @property
    def version(self) -> str:
        """As of the `anyspawn.PythonSession`."""
        return self._session.version


class _Opened(Generic[T]):
    """An object that a task of the event loop holds open."""

    def __init__(self, what: T) -> None:
        self.what = what
        self._close: Callable[[], Awaitable[None]]

    async def aclose(self) -> None:
        await self._close()


class Box(_Owned):
    """An `anyspawn.Box` whose methods block; `open_box` gives it.

    Attributes:
        id, workdir: As of the `anyspawn.Box`.
        spawn, write_file, read_file, list_dir, remove, upload, download, save: As its methods.
        open_process, python: As its methods: ``with`` them. They give a `Process`, and a
            `PythonSession`.
    """

    def __init__(self, box: anyspawn.Box) -> None:
        super().__init__()
        self.id = box.id
        self.workdir = box.workdir
        self.spawn = self._of_ours(box.spawn)
        self.write_file = self._of_ours(box.write_file)
        self.read_file = self._of_ours(box.read_file)
        self.list_dir = self._of_ours(box.list_dir)
        self.remove = self._of_ours(box.remove)
        self.upload = self._of_ours(box.upload)
        self.download = self._of_ours(box.download)
        self.save = self._of_ours(box.save)
        self.open_process = self._block_of(box.open_process, Process)
        self.python = self._block_of(box.python, PythonSession)
        self._box = box

    def connect(self, port: int) -> Stream:
        """As the method of the `anyspawn.Box`; ``with`` closes the stream."""
        return Stream(self._of_ours(self._box.connect)(port))

    def _block_of(
        self, opener: Callable[P, AbstractAsyncContextManager[T]], face: Callable[[T], U]
    ) -> Callable[P, AbstractContextManager[U]]:
        """Return a context manager that opens something for the length of its block."""

        @contextmanager
        @wraps(opener)
        def block(*args: P.args, **kwargs: P.kwargs) -> Iterator[U]:
            opening = opener(*args, **kwargs)

            @asynccontextmanager
            async def opened() -> AsyncIterator[_Opened[T]]:
                async with opening as what:
                    yield _Opened(what)

            async def start() -> _Opened[T]:
                return await Held(opened(), opener.__name__).start()

            held = self._of_ours(start)()
            try:
                yield face(held.what)
            finally:
                if self._there:
                    _loop.wait(held.aclose)

        return block

    @contextmanager
    def _block(self) -> Iterator[Box]:
        """Give it, and close it; an error while closing does not hide the exception that ended the
        block.
        """
        try:
            yield self
        except BaseException as exc:
            try:
                self._close()
            except anyspawn.SpawnError as other:
                exc.add_note(other.message)
            raise
        self._close()

    def _close(self) -> None:
        if self._there:
            _loop.wait(self._box.aclose)

    def __repr__(self) -> str:
        return repr(self._box).replace("anyspawn.Box", "anyspawn.sync.Box", 1)


@contextmanager
def open_box(
    sandbox: Sandbox | str | None = None,
    *,
    workdir: StrPath | None = None,
    restore: StrPath | None = None,
) -> Iterator[Box]:
    """Open a box for as long as the block, as `anyspawn.open_box` does.

    Args, errors: as for `anyspawn.open_box`.
    """
    box = Box(_loop.wait(lambda: anyspawn.start_box(sandbox, workdir=workdir, restore=restore)))
    with box._block():  # noqa: SLF001  in this file
        yield box


@contextmanager
def attach_box(box_id: str, sandbox: Sandbox | None = None, *, ends: bool = False) -> Iterator[Box]:
    """Use a box that another process has opened for as long as the block, as `anyspawn.attach_box`
    does.

    Args, errors: as for `anyspawn.attach_box`.
    """

    async def start() -> anyspawn.Box:
        return await Held(anyspawn.attach_box(box_id, sandbox, ends=ends), "box").start()

    box = Box(_loop.wait(start))
    with box._block():  # noqa: SLF001  in this file
        yield box


class HookRunner(_Owned):
    """An `anyspawn.hooks.HookRunner` whose methods block: a context manager.

    Args:
        runner: The runner, or hooks for one with its defaults.

    Attributes:
        run: As its method.
    """

    def __init__(self, runner: hooks.HookRunner | Iterable[hooks.ExecHook]) -> None:
        self._portal = None
        self._runner = runner if isinstance(runner, hooks.HookRunner) else hooks.HookRunner(runner)
        self.run = self._of_ours(self._runner.run)

    def __enter__(self) -> Self:
        _loop.wait(self._runner.__aenter__)
        self._portal = _loop.portal
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._there:
            _loop.wait(lambda: self._runner.__aexit__(exc_type, exc, traceback))
