"""`Direct`: the command itself, on this host, in a session of its own."""

from __future__ import annotations

import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, ClassVar

from attrs import Attribute, evolve, field, frozen

from anyspawn._limits import Limits, limits_or_none
from anyspawn._model import Command, Launch
from anyspawn._sandbox import ArgvSandbox, config_flag, config_text
from anyspawn.exceptions import ConfigError
from anyspawn.sandboxes._users import as_root, ids_of

__all__ = ["Direct"]


def _limits(instance: object, attribute: Attribute[Any], value: Any) -> None:
    limits_or_none(instance, attribute, value)
    if value is not None and not sys.platform.startswith("linux"):
        raise ConfigError("limits: this system cannot limit another process; leave it out")


@frozen(kw_only=True)
class Direct(ArgvSandbox):
    """Run commands on this host, as this user, without confinement.

    The command leads its own session and process group. anyspawn kills the whole group at the end
    of the call, also if the program exited by itself. It finds descendants that made their own
    session by the variable ``ANYSPAWN_ID``, if it stops the program or a descendant still holds an
    output stream. That needs Linux, and does not work with ``inherit_env=False``, where the program
    has only the variables of ``env``. This sandbox cannot find any other descendant; `Bubblewrap`
    leaves none.

    If this process runs as root, a command's ``user`` can be any user. The command then has the
    rights of that user and that group alone. Its variables stay unchanged.

    Args:
        inherit_env: Merge a command's ``env`` over the host's variables (default), or pass ``env``
            alone.
        limits: How much of the host a command may use, from just after its start. ``tmp`` has no
            effect here; ``processes`` needs a control group. Linux only. Default: as much as this
            process.
    """

    takes_user: ClassVar[bool] = True
    name: str = field(default="direct", validator=config_text)
    inherit_env: bool = field(default=True, validator=config_flag)
    limits: Limits | None = field(default=None, validator=_limits)

    def launch(self, command: Command) -> Launch:
        """Return the command itself."""
        return Launch(
            argv=command.argv,
            env=command.env,
            inherit_env=self.inherit_env,
            cwd=command.cwd,
            stdin=command.stdin,
            mark=self.inherit_env,
            limits=self.limits,
        )

    @asynccontextmanager
    async def place(self, command: Command, deadline: float) -> AsyncIterator[Launch]:
        """Give the launch, with the numbers of the command's user."""
        launch = self.launch(command)
        if command.user is not None:
            ids = ids_of(command.user)
            if ids != (os.geteuid(), os.getegid()):
                as_root(command.user, self.name)
                launch = evolve(launch, user=ids)
        yield launch
