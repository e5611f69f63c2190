"""Finds files in a writable folder that a program left and the host would run later."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager

import attrs

from anyspawn._model import Completed
from anyspawn._telemetry import warn
from anyspawn.argv._later import named, run_later, with_hooks
from anyspawn.exceptions import ExitError, PlantedError

__all__ = ["Planted"]


class Planted:
    """Finds the new files of one call.

    Args:
        writable: The folders that the program can write to: host path and inside path.
        shown: All paths inside that the sandbox's fields name.
        uid, gids: The program's user and groups on the host.

    Attributes:
        before: The files that were there before the program, by folder.
    """

    def __init__(
        self,
        writable: Sequence[tuple[str, str]],
        shown: Sequence[str],
        uid: int,
        gids: Collection[int],
    ) -> None:
        for host, _ in writable:
            with_hooks(host)
        self.before = {host: tuple(run_later(host, uid, gids)) for host, _ in writable}
        self._known = {
            (later.path, later.identity) for found in self.before.values() for later in found
        }
        self._writable = writable
        self._who = (uid, gids)
        self._shown = shown

    def _found(self) -> Iterator[str]:
        for host, inside in self._writable:
            for later in run_later(host, *self._who):
                there = os.path.join(inside, os.path.relpath(later.path, host))
                known = (later.path, later.identity) in self._known
                if later.armed and not known and not named(there, inside, self._shown):
                    yield later.path

    def _new(self) -> list[str]:
        return sorted(set(self._found()))

    @contextmanager
    def logged(self) -> Iterator[None]:
        """Log the new files at the end of the block, even without an outcome."""
        try:
            yield
        finally:
            if new := self._new():
                warn("anyspawn.bubblewrap", "%s", _words(new))

    def judged(self, completed: Completed) -> Completed:
        """Return the outcome with an error that names the new files."""
        new = self._new()
        if not new:
            return completed
        error = completed.error
        if error is not None and not isinstance(error, ExitError):
            error.args = (f"{error.message}; {_words(new)}",)
            return completed
        first = error.message if error is not None else f"{completed.argv[0]!r} exited"
        told = PlantedError(f"{first}; {_words(new)}", paths=tuple(new))
        told.stderr_tail = error.stderr_tail if error is not None else ""
        return attrs.evolve(completed, error=told)


def _words(paths: list[str]) -> str:
    shown = ", ".join(paths[:5]) + (", ..." if len(paths) > 5 else "")
    return (
        f"new in a writable folder, and run by the host later: {shown}; look at it before you use "
        "the folder, or name it in writable to allow it"
    )
