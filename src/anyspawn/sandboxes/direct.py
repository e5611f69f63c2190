"""`Direct`: the command itself, on this host, in a session of its own."""

from __future__ import annotations

import sys
from typing import Any

from attrs import Attribute, field, frozen

from anyspawn._limits import Limits, limits_or_none
from anyspawn._model import Command, Launch
from anyspawn._sandbox import ArgvSandbox, config_flag, config_text
from anyspawn.exceptions import ConfigError

__all__ = ["Direct"]


def _limits(instance: object, attribute: Attribute[Any], value: Any) -> None:
    limits_or_none(instance, attribute, value)
    if value is not None and not sys.platform.startswith("linux"):
        raise ConfigError("limits: this system cannot set them for another process; leave it out")


@frozen(kw_only=True)
class Direct(ArgvSandbox):
    """Run commands on this host, as this user, without confinement.

    The command leads its own session and process group; the whole group is ended with it, also what
    a program that ended by itself left behind in it. A descendant that made a session of its own is
    found by the variable ``ANYSPAWN_ID`` when the work is ended early or still holds an output
    stream (Linux; not with ``inherit_env=False``, where the program has the variables of ``env``
    and no other). One that does neither is beyond this sandbox: use `Bubblewrap`.

    Args:
        inherit_env: Merge a command's ``env`` over the host's variables (default), or let it be all
            there is.
        limits: How much of the host a command may use, from just after its start on. ``tmp`` means
            nothing here, and ``processes`` something where a control group can be made. Linux
            alone. Default: as much as this process.
    """

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
