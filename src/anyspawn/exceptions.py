"""The error tree: one class for each way in which a call can end badly.

Bad arguments are `TypeError`, `ValueError` or `ConfigError`, raised before anything starts. What
happens to a call that was started, or could not be, is a `SpawnError`: it stands in
``Completed.error`` and is raised by ``Completed.check()``.
"""

from __future__ import annotations

import typing
from typing import TYPE_CHECKING

from anyspawn import _foreign

if TYPE_CHECKING:
    from anyspawn._model import Completed

__all__ = [
    "AnyspawnError",
    "ConfigError",
    "ExitError",
    "NotStartedError",
    "NotStartedKind",
    "OutputLimitError",
    "PlantedError",
    "SpawnError",
    "SpawnTimeoutError",
    "TransportError",
    "TransportKind",
]


class AnyspawnError(Exception):
    """The base of every error that anyspawn defines.

    ``str()`` of one has no control characters, whoever said what it quotes; ``args`` has them.
    """

    def __str__(self) -> str:
        return _foreign.plain(super().__str__())


class ConfigError(AnyspawnError, ValueError):
    """A sandbox, registry or configuration value is wrong; the message names the field and says
    what is expected.
    """


class SpawnError(AnyspawnError):
    """A call did not succeed; the subclass says in which way.

    ``str()`` of one that ran ends with the last lines of its stderr. The values of the command's
    variables, and of the host's secret ones, are hidden in them.

    Attributes:
        completed: The whole outcome (output read so far, return code, clean-up). ``None`` only
            until a `Completed` adopts the error.
        stderr_tail: The last lines of stderr, as ``str()`` shows them; empty where there are none.
    """

    completed: Completed | None = None
    stderr_tail: str = ""

    @property
    def message(self) -> str:
        """What went wrong, without the program's own words."""
        return super().__str__()

    def __str__(self) -> str:
        if not self.stderr_tail:
            return self.message
        return f"{self.message}; stderr:{_foreign.plain(self.stderr_tail)}"


class ExitError(SpawnError):
    """The program ran, and exited with a non-zero status or was killed by a signal."""


class PlantedError(SpawnError):
    """The program ran, exited, and left something new in a writable folder of `Bubblewrap` that the
    host would run later: a hook of git, a start-up file of a shell, a task of an editor.

    It is there still. ``completed.returncode`` is the program's status.

    Attributes:
        paths: Where it is, on the host.
    """

    def __init__(self, message: str, *, paths: tuple[str, ...] = ()) -> None:
        super().__init__(message)
        self.paths = paths


class SpawnTimeoutError(SpawnError, TimeoutError):
    """The program timed out and was killed, or had not begun in time. Also a `TimeoutError`."""


class OutputLimitError(SpawnError):
    """The program wrote more than ``output_limit`` bytes to a stream, and was killed."""


NotStartedKind = typing.Literal[
    "not_found", "not_executable", "cwd", "user", "too_long", "resources", "other"
]
"""What kept a program from being started."""

TransportKind = typing.Literal[
    "runner", "unreachable", "image", "target", "shell", "connection", "resources", "other"
]
"""What broke: the runner (missing, or not usable), the way to its daemon or API server, the image,
the container or pod, the shell that the supervisor needs, the connection while the program ran, the
host's own resources.
"""


class NotStartedError(SpawnError):
    """The program itself never ran.

    It or its folder is missing, it cannot be executed, its arguments are too long.

    Attributes:
        reason: What stood in the way, and what to do about it.
        kind: The same as a word that code can rely on.
    """

    def __init__(self, reason: str, *, kind: NotStartedKind = "other") -> None:
        super().__init__(reason)
        self.reason = reason
        self.kind: NotStartedKind = kind

    @property
    def exit_code(self) -> int:
        """The status that a shell would give: 127 for what was not found, else 126."""
        return 127 if self.kind == "not_found" else 126


class TransportError(SpawnError):
    """Something between the caller and the program broke: a runner, a daemon, a connection, the
    host itself.

    Attributes:
        started: Whether the program ran: ``True``, ``False``, or ``None`` where that cannot be
            known. Only ``False`` makes it safe to try a command again that must not run twice.
        kind: What broke, as a word that code can rely on.
    """

    def __init__(
        self, message: str, *, started: bool | None = None, kind: TransportKind = "other"
    ) -> None:
        super().__init__(message)
        self.started = started
        self.kind: TransportKind = kind
