"""`Direct`: the command itself, on this host, in a session of its own."""

from __future__ import annotations

from attrs import field, frozen

from anyspawn._model import Command, Launch
from anyspawn._sandbox import ArgvSandbox, config_flag, config_text

__all__ = ["Direct"]


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
    """

    name: str = field(default="direct", validator=config_text)
    inherit_env: bool = field(default=True, validator=config_flag)

    def launch(self, command: Command) -> Launch:
        """Return the command itself."""
        return Launch(
            argv=command.argv,
            env=command.env,
            inherit_env=self.inherit_env,
            cwd=command.cwd,
            stdin=command.stdin,
            mark=self.inherit_env,
        )
