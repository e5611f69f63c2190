"""Users of this host, by name or number, for commands that run as another user."""

from __future__ import annotations

import os

from anyspawn.exceptions import ConfigError, NotStartedError

__all__ = ["as_root", "ids_of"]


def ids_of(user: str) -> tuple[int, int]:
    """Return the numbers of a user and its group: a name or a number, with or without a group.

    Raises:
        NotStartedError: The user or group does not exist.
        ConfigError: This system cannot start a command as another user.
    """
    try:
        import grp
        import pwd
    except ImportError:  # Windows
        raise ConfigError("user: this system cannot run commands as another user") from None
    name, _, group = user.partition(":")
    try:
        known = pwd.getpwuid(int(name)) if name.isdigit() else pwd.getpwnam(name)
    except KeyError:
        if not name.isdigit():
            raise _unknown("user", name) from None
        known = None
    uid = int(name) if known is None else known.pw_uid
    if not group:
        return uid, uid if known is None else known.pw_gid
    try:
        return uid, int(group) if group.isdigit() else grp.getgrnam(group).gr_gid
    except KeyError:
        raise _unknown("group", group) from None


def as_root(user: str, mode: str) -> None:
    """Check that this process can start programs as another user.

    Raises:
        ConfigError: It cannot.
    """
    if os.geteuid() != 0:
        raise ConfigError(
            f"user: only root can start a command as {user!r} in {mode}; leave it out"
        )


def _unknown(what: str, name: str) -> NotStartedError:
    return NotStartedError(f"user: there is no {what} {name!r}; use a number", kind="user")
