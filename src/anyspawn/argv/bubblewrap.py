"""The bwrap command line. https://github.com/containers/bubblewrap documents the options."""

from __future__ import annotations

import os.path
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING

from anyspawn._egress import Egress
from anyspawn.argv._files import SYSTEM, is_within, kernel, system
from anyspawn.supervisor import resident_script

if TYPE_CHECKING:
    from anyspawn._model import Command
    from anyspawn.sandboxes.bubblewrap import Bubblewrap

__all__ = [
    "ARGS_INDEX",
    "SECCOMP_INDEX",
    "STATUS_INDEX",
    "bubblewrap_args_data",
    "bubblewrap_argv",
    "cwd_inside",
    "is_within",
    "pairs",
    "plain",
]

EMPTY = ("/home", "/root", "/run", "/var/tmp")
_NOT_BOUND = ("/proc", "/dev", "/sys")

_HEAD = (
    "bwrap",
    "--unshare-all",
    "--die-with-parent",
    "--new-session",
    "--unshare-user",
    "--disable-userns",
    "--cap-drop",
    "ALL",
)
ARGS_INDEX = len(_HEAD) + 1
"""The position of the descriptor from which bwrap reads the environment's options."""
STATUS_INDEX = ARGS_INDEX + 2
"""The position of the descriptor to which bwrap reports the start and the exit of the program."""
SECCOMP_INDEX = STATUS_INDEX + 2
"""The position of the descriptor from which bwrap reads the first system call filter; each further
one is two places later. With limits, the descriptor for which bwrap waits before it starts the
program comes after them.
"""

_PLACEHOLDER = "0"
_NO_COVERS: Mapping[str, Sequence[str]] = MappingProxyType({})
_HOME = "/tmp"
_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def bubblewrap_argv(
    config: Bubblewrap,
    command: Command,
    covers: Mapping[str, Sequence[str]] = _NO_COVERS,
    filters: int = 0,
) -> tuple[str, ...]:
    """Return the arguments of bwrap for ``command``.

    The numbers of descriptors and the folder for /etc are placeholders, filled in when the process
    starts.

    Args:
        config: The sandbox.
        command: The command.
        covers: Options that cover paths in bound folders. Paths that are bound by themselves are
            not covered.
        filters: How many system call filters bwrap reads from descriptors.
    """
    argv = [*_HEAD, "--args", _PLACEHOLDER, "--json-status-fd", _PLACEHOLDER]
    argv += ("--add-seccomp-fd", _PLACEHOLDER) * filters
    tmp: tuple[str, ...] = ()
    if config.limits is not None:
        if not isinstance(config.network, Egress):  # an Egress makes bwrap wait anyway
            argv += ["--block-fd", _PLACEHOLDER]
        if (most := config.limits.bytes_of("tmp")) is not None:
            tmp = ("--size", str(most), "--tmpfs")
            argv += [*tmp, "/"]
    online = config.network is True
    if online:
        argv.append("--share-net")
    argv += system(online=online)
    argv += ["--perms", "1777", "--dir", _HOME]
    for path in (*EMPTY, *((config.workdir,) if config.workdir else ())):
        argv += ["--dir", path]
    binds = {**covers, **_binds(config, command)}
    if "/" in binds:  # before /proc and /dev, which the sandbox keeps
        argv += binds.pop("/")
    argv += ["--proc", "/proc", "--dev", "/dev"]
    if tmp:
        argv += [*tmp, "/dev/shm", "--remount-ro", "/dev"]
    argv += kernel()
    for inside in sorted(binds, key=lambda path: path.count("/")):
        argv += binds[inside]
    start = config.workdir or _HOME  # a resident enters the command's cwd itself
    argv += ["--chdir", start if config.resident else cwd_inside(config, command)]
    begun = (
        ("sh", "-c", resident_script(alone=True), "anyspawn") if config.resident else command.argv
    )
    return (*argv, *config.extra_args, "--", *begun)


def cwd_inside(config: Bubblewrap, command: Command) -> str:
    """Return the path inside in which ``command`` starts; its ``cwd`` is relative to
    ``workdir``.
    """
    return plain(os.path.join(config.workdir or _HOME, command.cwd or ""))


def _binds(config: Bubblewrap, command: Command) -> dict[str, Sequence[str]]:
    """Return the options for each bound path inside. Outer paths must come first: the innermost
    bind decides about a file.
    """
    binds = {inside: ("--ro-bind", host, inside) for host, inside in pairs(config.readonly)}
    writable = list(pairs(config.writable))
    for host, inside in writable:
        # A path in another bound folder can still be missing.
        missing = any(
            inside != other and is_within(inside, other) and is_within(host, outer)
            for outer, other in writable
        )
        binds[inside] = ("--bind-try" if missing else "--bind", host, inside)
    if config.bind_program:
        for path in _of_program(config, command):
            if path != "/" and not any(
                is_within(path, outer) for outer in (*binds, *SYSTEM, *_NOT_BOUND)
            ):
                binds[path] = ("--ro-bind-try", path, path)
    return dict(binds)


def _of_program(config: Bubblewrap, command: Command) -> Iterator[str]:
    """Give the paths that ``bind_program`` binds."""
    for prefix in (sys.prefix, sys.base_prefix, sys.exec_prefix):
        yield plain(prefix)
    if "/" in command.argv[0]:
        yield plain(os.path.join(cwd_inside(config, command), command.argv[0]))


def pairs(binds: Iterable[str | Mapping[str, str]]) -> Iterator[tuple[str, str]]:
    """Give the host path and the inside path of each bind."""
    for bind in binds:
        if isinstance(bind, str):
            yield bind, bind
        else:
            yield from bind.items()


def plain(path: str) -> str:
    """Return the normal form of a path; two leading slashes, which POSIX leaves open and Linux
    ignores, become one.
    """
    return os.path.normpath(path).replace("//", "/")


def bubblewrap_args_data(config: Bubblewrap, command: Command) -> bytes:
    """Return the options that bwrap reads from its ``--args`` descriptor: the environment, whose
    values must not be in an argv.

    bwrap's own environment has only the mark: every program inside can read it in
    ``/proc/1/environ``, and variables such as ``LD_PRELOAD`` must reach the program, not bwrap.
    """
    env = {
        "PATH": _search_path(config),
        "HOME": _HOME,
        "LANG": "C.UTF-8",
        **command.env.known(),
    }
    return b"".join(
        b"--setenv\0" + os.fsencode(name) + b"\0" + os.fsencode(value) + b"\0"
        for name, value in env.items()
    )


def _search_path(config: Bubblewrap) -> str:
    """Return the program's ``PATH``. As on the host, an active virtual environment is first, if the
    program can see it.
    """
    own = f"{plain(sys.prefix)}/bin"
    binds = pairs((*config.readonly, *config.writable))
    seen = (host == inside and is_within(own, inside) for host, inside in binds)
    if not (config.bind_program or any(seen)):
        return _PATH
    return f"{_PATH}:{own}" if sys.prefix == sys.base_prefix else f"{own}:{_PATH}"
