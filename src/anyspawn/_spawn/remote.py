"""Work that is not a descendant of its local process: how to end it, and how to see that it is
gone.
"""

from __future__ import annotations

import math
import signal
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

import anyio

from anyspawn._model import Completed, Launch
from anyspawn._spawn.connection import BOUNDS
from anyspawn._spawn.tasks import PerLoop, uninterrupted
from anyspawn.exceptions import TransportError

if TYPE_CHECKING:
    from anyspawn._spawn.call import Work

__all__ = ["Patience", "end", "is_gone", "is_in_doubt", "may_come", "patience"]

_RUNNER_FAILED = 125


class Patience:
    """How long a clean-up may take, and each of its steps that a daemon or a supervisor carries
    out.

    Clean-ups of remote work that run at the same time on the same loop add to each other's time.

    Args:
        seconds: All of the clean-up, if it is the only one.

    Attributes:
        scope: The clean-up's.
    """

    def __init__(self, seconds: float) -> None:
        self.scope = anyio.CancelScope(deadline=anyio.current_time() + seconds)
        self._scopes = [self.scope]
        self._more = 0.0

    @property
    def for_a_step(self) -> float:
        """The seconds for a step that begins now."""
        return BOUNDS.remote + self._more

    def add(self, seconds: float) -> None:
        """Give the clean-up and its current step more time."""
        self._more += seconds
        for scope in self._scopes:
            scope.deadline += seconds

    @contextmanager
    def step(self) -> Iterator[None]:
        """Bound a step."""
        scope = anyio.CancelScope(deadline=anyio.current_time() + self.for_a_step)
        self._scopes.append(scope)
        try:
            with scope:
                yield
        finally:
            self._scopes.remove(scope)


_under_way: PerLoop[set[Patience]] = PerLoop(set)


@contextmanager
def patience(launch: Launch, seconds: float) -> Iterator[Patience]:
    """Bound a clean-up."""
    own = Patience(seconds)
    others = _under_way.get() if launch.remote else set[Patience]()
    own.add(BOUNDS.each * len(others))
    for other in others:
        other.add(BOUNDS.each)
    others.add(own)
    try:
        with own.scope:
            yield own
    finally:
        others.discard(own)


async def end(work: Work, grace: float, patience: Patience) -> None:
    """End the local process and its remote work: first with SIGTERM, then by force."""
    connection, child = work.connection, work.connection.child
    if grace > 0:
        await _ask_to_end(work, grace)
    if not child.exited and work.talk is not None:
        connection.hang_up()
        if work.ready:
            with patience.step():
                await work.until_exit(math.inf)
    elif not child.exited and connection.launch.end:
        await _remove(work, patience)
    if not child.exited:
        connection.signal_group(signal.SIGKILL)


async def _ask_to_end(work: Work, grace: float) -> None:
    connection = work.connection
    if connection.launch.stop:
        await _ask_remote(work, grace)
    elif not connection.launch.remote:
        if connection.leader is not None:
            connection.leader.signal_group(signal.SIGTERM)
        elif not connection.signal_group(signal.SIGTERM):
            return
        await work.until_exit(grace)


async def _ask_remote(work: Work, grace: float) -> None:
    """Send the signal with a separate command; the grace begins when that command has exited."""
    launch = work.connection.launch
    scope = anyio.CancelScope(deadline=anyio.current_time() + BOUNDS.remote + grace)

    async def ask() -> None:
        await work.keep_raised(work.beside, launch.stop, max(grace, BOUNDS.remote))
        scope.deadline = min(scope.deadline, anyio.current_time() + grace)

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(uninterrupted(ask))
        with scope:
            await work.until_exit(math.inf)
        tasks.cancel_scope.cancel()


async def _remove(work: Work, patience: Patience) -> None:
    """End remote work before its client: a client that is killed may leave a request with the
    daemon.
    """
    child = work.connection.child

    async def remove() -> None:
        while not child.exited:
            await work.keep_raised(_end_remote, work, patience)
            if not child.exited:
                await anyio.sleep(0.05)

    with patience.step():
        async with anyio.create_task_group() as tasks:
            # as a task beside: docker waits until its client has taken all output
            tasks.start_soon(uninterrupted(remove))
            await work.until_exit(math.inf)


async def _end_remote(work: Work, patience: Patience) -> None:
    done = await work.beside(work.connection.launch.end, patience.for_a_step)
    if done.error is None and done.stdout.strip():  # it existed
        work.removed = True


def is_in_doubt(work: Work) -> bool:
    """Whether remote work may be left although the local process exited by itself."""
    launch, code = work.connection.launch, work.connection.child.returncode
    if not launch.remote:
        return False
    if work.talk is not None:
        return work.talk.report.ready and not work.talk.report.left_nothing
    if launch.explain is None or code is None or code < 0:
        return code != 0
    stdout, stderr = (output.capture.value() for output in work.connection.outputs)
    said = Completed(
        argv=work.command.argv,
        runner_argv=launch.argv,
        returncode=code,
        stdout=stdout,
        stderr=stderr,
    )
    error = launch.explain(said, b"") if code else None
    if code == _RUNNER_FAILED and launch.end:
        return not (isinstance(error, TransportError) and error.started is False)
    return isinstance(error, TransportError) and error.started is not False


def may_come(work: Work) -> bool:
    """Whether the container or pod that a client asked for may still appear: the client was killed
    before it could report it.
    """
    killed = (work.connection.child.returncode or 0) < 0
    return killed and work.talk is None and bool(work.connection.launch.end) and not work.removed


async def is_gone(work: Work, patience: Patience) -> bool:
    """Check that nothing is left of remote work; return whether that is certain."""
    launch, report = work.connection.launch, work.talk.report if work.talk is not None else None
    if not launch.remote or (report is not None and (report.left_nothing or not report.ready)):
        return True
    if not launch.gone or (report is not None and report.elusive):
        return False
    pause = 0.02
    while True:
        found = await work.beside(launch.gone, patience.for_a_step)
        if found.error is None and not found.stdout.strip() and not may_come(work):
            return True
        said = found.stderr
        if found.error is not None and any(words.encode() in said for words in launch.gone_words):
            return True
        if launch.end:
            with suppress(Exception):
                await _end_remote(work, patience)
        await anyio.sleep(pause)
        pause = min(pause * 2, 0.5)
