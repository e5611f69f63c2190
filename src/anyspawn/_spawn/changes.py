"""Changes of the containers that residents run in, as a runner reports them.

A resident stays in the container in which it started. It must not serve a call if another container
has that container's name now, or the container is paused.
"""

from __future__ import annotations

import json
import os
import signal
from functools import partial

import anyio

from anyspawn._model import Launch
from anyspawn._spawn.connection import BOUNDS, Connection, open_connection
from anyspawn._spawn.streams import Feed
from anyspawn._spawn.tasks import see_through, start_in_background
from anyspawn.exceptions import SpawnError

__all__ = ["Changes"]

_FOLLOW = '"$@" </dev/null 2>/dev/null & exec >&- 2>&-; read -r _; kill $!'
"""Runs a client that does not read stdin, and kills it when this script's stdin is closed."""


class Changes:
    """A client that prints a line of JSON for each event, as docker's does.

    Args:
        connection: It.

    Attributes:
        cancelled: The cancellation that came while it was started, if there was one.
        blind: It has not reported a resident yet.
        done: Nothing of it is left.
    """

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self.cancelled = connection.cancelled
        self.blind = True
        self.done = anyio.Event()
        self._line = b""
        self._news = anyio.Event()
        self._places: dict[str, str] = {}

    @classmethod
    async def open(cls, argv: tuple[str, ...]) -> Changes | None:
        """Start the client; return ``None`` if it cannot be started."""
        launch = Launch(argv=("sh", "-c", _FOLLOW, "anyspawn", *argv))
        try:
            stdin = partial(Feed, hold=True)
            connection = await open_connection(launch, os.urandom(16).hex(), stdin)
        except SpawnError:
            return None
        changes = cls(connection)
        start_in_background(changes._follow, name="anyspawn changes", if_cancelled=connection.close)
        return changes

    @property
    def alive(self) -> bool:
        """Whether it still reports events."""
        return self._connection.stdout.open

    def expect(self, resident_id: str) -> None:
        """Record the container of a resident when its start is reported. Its last argument is
        ``resident.`` and its id.
        """
        self._places[resident_id] = ""

    def forget(self, resident_id: str) -> None:
        """Forget a resident."""
        self._places.pop(resident_id, None)

    async def unchanged(self, resident_id: str, seconds: float) -> bool:
        """Return whether a resident's start was reported, and no change of its container since.

        Args:
            resident_id: The resident.
            seconds: How long to wait for the report of its start, which comes late.
        """
        self._look()
        if self._places.get(resident_id) == "":
            with anyio.move_on_after(seconds):
                while self.alive and self._places.get(resident_id) == "":
                    await self._news.wait()
        return self.alive and bool(self._places.get(resident_id))

    def end(self) -> None:
        """Kill it; `done` is set when it is gone."""
        self._connection.signal_group(signal.SIGKILL)

    async def _follow(self) -> None:
        try:
            while self.alive:
                await anyio.wait_readable(self._connection.stdout.fd)
                self._look()
            await self._gone()
        except GeneratorExit:  # the event loop was closed: nothing can be awaited any more
            raise
        except BaseException:  # it ends
            await see_through(self._gone, BOUNDS.cleanup)
            raise
        finally:
            self._connection.close()
            self._news.set()
            self.done.set()

    async def _gone(self) -> None:
        self._connection.signal_group(signal.SIGKILL)
        await self._connection.child.wait()
        self._connection.settled = True

    def _look(self) -> None:
        """Read the reported events; if they are not read soon, the daemon drops some."""
        for data in self._connection.stdout.read_rest():
            *lines, self._line = (self._line + data).split(b"\n")
            for line in lines:
                self._note(line)
        news, self._news = self._news, anyio.Event()
        news.set()

    def _note(self, line: bytes) -> None:
        try:
            event = json.loads(line)
            action, place = str(event["Action"]), str(event["Actor"]["ID"])
        except (ValueError, LookupError, TypeError):
            return
        if action.startswith("exec_start: "):
            resident_id = action.rpartition("resident.")[2].strip()
            if resident_id in self._places:
                self._places[resident_id], self.blind = place, False
        else:
            for resident_id in [key for key, value in self._places.items() if value == place]:
                del self._places[resident_id]
