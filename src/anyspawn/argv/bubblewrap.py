"""The bwrap command line. https://github.com/containers/bubblewrap documents the options."""

from __future__ import annotations

import os.path
import sys
from collections.abc import Iterator
from pathlib import PurePosixPath
from typing import TYPE_CHECKING

from anyspawn.supervisor import resident_script

if TYPE_CHECKING:
    from anyspawn._model import Command
    from anyspawn.sandboxes.bubblewrap import Bubblewrap

__all__ = ["ARGS_INDEX", "STATUS_INDEX", "bubblewrap_args_data", "bubblewrap_argv"]

SYSTEM = (
    "/usr",
    "/bin",
    "/sbin",
    "/lib",
    "/lib32",
    "/lib64",
    "/libx32",
    "/etc",
    "/opt",
    "/nix/store",
)
EMPTY = ("/home", "/root", "/run", "/tmp", "/var", "/var/tmp")
KERNEL = ("/proc", "/dev", "/sys")
SETTINGS = (
    "acpi",
    "asound",
    "dynamic_debug",
    "fs",
    "latency_stats",
    "mtrr",
    "pressure",
    "scsi",
    "sys",
)
"""What in /proc belongs to the kernel of the host and has files that its root may write.

The kernel asks there for root's number, not for a capability, so that a sandbox started by root
could set `kernel.core_pattern`, and with it run a program outside. bwrap itself looks after bus,
irq and sysrq-trigger.
"""

_HEAD = (
    "bwrap",
    "--unshare-all",
    "--die-with-parent",
    "--new-session",
    "--unshare-user",
    "--cap-drop",
    "ALL",
)
ARGS_INDEX = len(_HEAD) + 1
"""Where the number of the descriptor stands from which bwrap reads the environment's options."""
STATUS_INDEX = ARGS_INDEX + 2
"""Where the number of the descriptor stands to which bwrap reports the start and the end of the
program.
"""

_PLACEHOLDER = "0"


def bubblewrap_argv(config: Bubblewrap, command: Command) -> tuple[str, ...]:
    """Return the arguments of bwrap for ``command``.

    The two descriptor numbers are placeholders, filled in when the process starts. ``command.cwd``
    is the directory inside as outside; without one the program starts in ``/``.
    """
    argv = [*_HEAD, "--args", _PLACEHOLDER, "--json-status-fd", _PLACEHOLDER]
    if config.network is True:
        argv.append("--share-net")
    for path in SYSTEM:
        argv += ["--ro-bind-try", path, path]
    for path in EMPTY:
        argv += ["--tmpfs", path]
    binds = _binds(config, command)
    for option, path in binds:
        if path == "/":  # before /proc and /dev, which stay the sandbox's own
            argv += [option, path, path]
    argv += ["--proc", "/proc", "--dev", "/dev"]
    for name in SETTINGS:
        argv += ["--ro-bind-try", f"/proc/{name}", f"/proc/{name}"]
    for option, path in binds:
        if path != "/":
            argv += [option, path, path]
    argv += ["--chdir", command.cwd or "/"]
    resident = ("sh", "-c", resident_script(), "anyspawn") if config.resident else ()
    return (*argv, *config.extra_args, "--", *resident, *command.argv)


def _binds(config: Bubblewrap, command: Command) -> list[tuple[str, str]]:
    """Return bind options, outer folders first, so that the innermost one says how a file may be
    used.
    """
    explicit = dict.fromkeys(config.readonly, "--ro-bind") | dict.fromkeys(
        config.writable, "--bind"
    )
    binds = {
        path: "--ro-bind-try"
        for path in _implied(command)
        if path != "/" and not any(_within(path, outer) for outer in (*explicit, *SYSTEM, *KERNEL))
    }
    return [
        (option, path)
        for path, option in sorted((binds | explicit).items(), key=lambda bind: bind[0].count("/"))
    ]


def _implied(command: Command) -> Iterator[str]:
    for prefix in (sys.prefix, sys.base_prefix, sys.exec_prefix):
        yield plain(prefix)
    if command.cwd is not None:
        yield plain(command.cwd)
    program = plain(os.path.join(command.cwd or "/", command.argv[0]))
    if "/" in command.argv[0]:
        yield os.path.dirname(program)


def plain(path: str) -> str:
    """Return the normal form of a path; two leading slashes, which POSIX leaves open and Linux
    ignores, become one.
    """
    return os.path.normpath(path).replace("//", "/")


def _within(path: str, outer: str) -> bool:
    return PurePosixPath(path).is_relative_to(outer)


def bubblewrap_args_data(command: Command) -> bytes:
    """Return what bwrap reads from its ``--args`` descriptor: the environment, whose values no argv
    may show.

    bwrap's own environment is empty but for the mark: its first process inside the sandbox is there
    for all to read, in ``/proc/1/environ``, and ``LD_PRELOAD`` and its like must reach the program,
    not bwrap.
    """
    env = {
        "PATH": ":".join(
            [
                "/usr/local/sbin",
                "/usr/local/bin",
                "/usr/sbin",
                "/usr/bin",
                "/sbin",
                "/bin",
                f"{sys.prefix}/bin",
            ]
        ),
        "HOME": "/tmp",
        "LANG": "C.UTF-8",
        **command.env.known(),
    }
    return b"".join(
        b"--setenv\0" + os.fsencode(name) + b"\0" + os.fsencode(value) + b"\0"
        for name, value in env.items()
    )
