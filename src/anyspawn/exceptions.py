"""The error tree: one class for each way in which a call can end badly.

Bad arguments are `TypeError`, `ValueError` or `ConfigError`, raised before anything starts. What
happens to a call that was started, or could not be, is a `SpawnError`: it stands in
``Completed.error`` and is raised by ``Completed.check()``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from anyspawn import _foreign

if TYPE_CHECKING:
    from anyspawn._model import Completed

__all__ = [
    "AnyspawnError",
    "ConfigError",
    "ExitError",
    "NotStartedError",
    "OutputLimitError",
    "SpawnError",
    "SpawnTimeoutError",
    "TransportError",
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

    Attributes:
        completed: The whole outcome (output read so far, return code, clean-up). ``None`` only
            until a `Completed` adopts the error.
    """

    completed: Completed | None = None


class ExitError(SpawnError):
    """The program ran and ended with a non-zero status or by a signal."""


class SpawnTimeoutError(SpawnError, TimeoutError):
    """The program had not ended when its timeout ran out, and was ended; or it had not begun yet.
    Also a `TimeoutError`.
    """


class OutputLimitError(SpawnError):
    """The program wrote more than ``output_limit`` bytes to a stream, and was ended."""


class NotStartedError(SpawnError):
    """The program itself never ran: it or its folder is missing, it cannot be executed, its
    arguments are too long.

    Attributes:
        reason: What stood in the way, and what to do about it.
    """

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class TransportError(SpawnError):
    """Something between the caller and the program broke: a runner, a daemon, a connection, the
    host itself.

    Attributes:
        started: Whether the program ran: ``True``, ``False``, or ``None`` where that cannot be
            known. Only ``False`` makes it safe to try again a command that must not run twice.
    """

    def __init__(self, message: str, *, started: bool | None = None) -> None:
        super().__init__(message)
        self.started = started
