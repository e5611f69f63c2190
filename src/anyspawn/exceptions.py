"""The error tree: one class for each way in which a call can fail.

Bad arguments are `TypeError`, `ValueError` or `ConfigError`, raised before anything starts. The
failure of a call is a `SpawnError`: ``Completed.error`` holds it, and ``Completed.check()`` raises
it.
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

    ``str()`` of an error escapes control characters in quoted text; ``args`` keeps them.
    """

    def __str__(self) -> str:
        return _foreign.plain(super().__str__())


class ConfigError(AnyspawnError, ValueError):
    """A sandbox, registry or configuration value is wrong. The message names the field and the
    expected value.
    """


class SpawnError(AnyspawnError):
    """A call failed; the subclass says how.

    If the program ran, ``str()`` ends with the last lines of its stderr, in which the values of the
    command's variables and of the host's secret variables are hidden.

    Attributes:
        completed: The whole outcome (output read so far, return code, clean-up). ``None`` only
            until a `Completed` adopts the error.
        stderr_tail: The last lines of stderr, as ``str()`` shows them; empty if there are none.
    """

    completed: Completed | None = None
    stderr_tail: str = ""

    @property
    def message(self) -> str:
        """What went wrong, without the program's stderr."""
        return super().__str__()

    def __str__(self) -> str:
        if not self.stderr_tail:
            return self.message
        return f"{self.message}; stderr:{_foreign.plain(self.stderr_tail)}"


class ExitError(SpawnError):
    """The program ran, and exited with a non-zero status or was killed by a signal."""


class PlantedError(SpawnError):
    """The program exited, and left a new file in a writable folder of `Bubblewrap` that the host
    would run later: a git hook, a shell's start-up file, or an editor's task. A box raises it when
    it has ended, if a program in it did so.

    The file is still there. ``completed.returncode`` is the program's status; a box's error has no
    ``completed``.

    Attributes:
        paths: The new files, on the host.
    """

    def __init__(self, message: str, *, paths: tuple[str, ...] = ()) -> None:
        super().__init__(message)
        self.paths = paths


class SpawnTimeoutError(SpawnError, TimeoutError):
    """The program timed out and was killed, or did not start in time. Also a `TimeoutError`."""


class OutputLimitError(SpawnError):
    """The program wrote more than ``output_limit`` bytes to a stream, and was killed."""


NotStartedKind = typing.Literal[
    "not_found", "not_executable", "cwd", "user", "too_long", "resources", "other"
]
"""Why a program could not start."""

TransportKind = typing.Literal[
    "runner", "unreachable", "image", "target", "shell", "connection", "resources", "other"
]
"""What failed: the runner (missing or not usable), the connection to its daemon or API server, the
image, the container or pod, the shell that the supervisor needs, the connection while the program
ran, or the host's own resources.
"""


class NotStartedError(SpawnError):
    """The program itself never ran.

    The program or its folder is missing, it cannot be executed, or its arguments are too long.

    Attributes:
        reason: Why it could not start, and what to do about it.
        kind: The same as a stable word for code.
    """

    def __init__(self, reason: str, *, kind: NotStartedKind = "other") -> None:
        super().__init__(reason)
        self.reason = reason
        self.kind: NotStartedKind = kind

    @property
    def exit_code(self) -> int:
        """The status that a shell would give: 127 if the program was not found, else 126."""
        return 127 if self.kind == "not_found" else 126


class TransportError(SpawnError):
    """Something between the caller and the program failed: a runner, a daemon, a connection, or the
    host itself.

    Attributes:
        started: Whether the program ran: ``True``, ``False``, or ``None`` if that is unknown. Only
            after ``False`` is it safe to retry a command that must not run twice.
        kind: What failed, as a stable word for code.
    """

    def __init__(
        self, message: str, *, started: bool | None = None, kind: TransportKind = "other"
    ) -> None:
        super().__init__(message)
        self.started = started
        self.kind: TransportKind = kind
