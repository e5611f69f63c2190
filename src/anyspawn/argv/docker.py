"""The docker command lines, which podman also understands.
https://docs.docker.com/reference/cli/docker/ documents the options.
"""

from __future__ import annotations

import os.path
import posixpath
import re
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from anyspawn._egress import Egress, holder_id
from anyspawn._model import FdArg, Fill
from anyspawn.argv._text import check_text
from anyspawn.exceptions import ConfigError
from anyspawn.supervisor import resident_script, script

if TYPE_CHECKING:
    from anyspawn._env import Env
    from anyspawn._model import Command
    from anyspawn.sandboxes.docker_exec import DockerExec
    from anyspawn.sandboxes.docker_run import DockerRun

__all__ = [
    "container_name",
    "docker_exec_argv",
    "docker_run_argv",
    "entered",
    "env_args",
    "env_by_client",
    "env_fds",
    "named_podman",
    "remove_argv",
]

_OWNER = Fill("io.anyspawn.owner=?", "owner")
"""The label that names the owner of a container."""
_INSTEAD = "resident=1 passes on any"
_ENV_FILE = Fill("/dev/fd/?", "fd")
"""The path of the file of variables: a descriptor."""

_ENTER = r"""
[ -z "$1" ] || CDPATH= cd -- "$1" >/dev/null 2>&1 || { printf "%s nocwd 126\n" "$0" >&2; exit 126; }
unset OLDPWD
trap 'printf "%s unstarted $?\n" "$0" >&2' EXIT
[ -z "$2" ] || exec 2>&1
shift 2
exec "$@"
"""
"""Starts a command in a ``cwd``, which docker itself would create, or with merged outputs, which
docker itself would deliver out of order.
"""

_LINE = 32 * 1024
"""The longest variable for a line of the file, in characters: clients stop scanning a line at 64
KiB.
"""
_CLIENTS_OWN = (
    "DOCKER_",
    "BUILDKIT_",
    "BUILDX_",
    "CONTAINER_",
    "CONTAINERS_",
    "LD_",
    "GO",
    "SSL_",
    "XDG_",
    "SSH_",
    "ANYSPAWN_",
)
_CLIENTS_NAMES = {"PATH", "HOME", "TMPDIR", "TZ", "USER", "TERM", "NO_COLOR"}


def container_name(command: Command) -> str:
    """Return the name of the container that runs ``command``."""
    return f"anyspawn-{command.id}"


def named_podman(docker_path: str) -> bool:
    """Whether the client is podman, by its name; it differs from docker in a few details."""
    return os.path.basename(docker_path).startswith("podman")


def remove_argv(docker_path: str, *containers: str, podman: bool = False) -> tuple[str, ...]:
    """Return the arguments that remove containers at once, running or not."""
    podman = podman or named_podman(docker_path)
    at_once = ("--time=0",) if podman else ()  # podman would wait 10 seconds
    return (docker_path, "rm", "-f", "-v", *at_once, *containers)


def docker_run_argv(config: DockerRun, command: Command) -> tuple[str, ...]:
    """Return the arguments of ``docker run`` for ``command``.

    Placeholders, filled in when the process starts, stand for the owner's label, the number in the
    file of variables, and the names of a container that serves many commands.

    Raises:
        ConfigError: An argument or a variable cannot be passed on.
    """
    name, label = f"anyspawn-{command.id}", f"io.anyspawn.id={command.id}"
    if config.resident:
        name, label = Fill("anyspawn-?", "id"), Fill("io.anyspawn.id=?", "id")
    argv = [config.docker_path, "run", "--rm", "-i", "--name", name, "--label", label]
    argv += ["--label", _OWNER, "--pull=never", "--log-driver=none"]
    if config.security is not None:
        from anyspawn._security import security_options

        argv += security_options(config.security).args()
    argv += _limit_args(config)  # if an option appears twice, the last one counts
    if isinstance(config.network, Egress):
        argv.append(f"--network=container:anyspawn-{holder_id(command)}")
    elif config.network:
        argv.append(f"--network={config.network}")
    if config.workdir:
        argv.append(f"--workdir={config.workdir}")
    if user := command.user or config.user:
        argv.append(f"--user={user}")
    for mount in config.mounts:
        argv += ["-v", mount]
    if config.entrypoint is None:
        argv.append("--entrypoint=")
    begun: tuple[str, ...] = command.argv
    if config.resident:
        begun = ("sh", "-c", resident_script(alone=True), "anyspawn")
    else:
        check_text("argv", command.argv, _INSTEAD)
        check_text("cwd", (command.cwd or "",), _INSTEAD)
        argv += env_args(command.env)
        if command.cwd or command.merge_stderr:
            told = (command.cwd or "", "merge" if command.merge_stderr else "")
            begun = ("sh", "-c", _ENTER, f"anyspawn-{command.id}", *told, *command.argv)
    return (*argv, *config.extra_args, config.image, *begun)


def entered(argv: Sequence[str], said: str) -> tuple[str, int] | None:
    """Return why a command with its own ``cwd`` did not start.

    Args:
        argv: The arguments of ``docker run``.
        said: The container's stderr.

    Returns:
        ``nocwd`` or ``unstarted``, and the status of the container's shell. ``None``: the command
        started.
    """
    if _ENTER not in argv:
        return None
    name = argv[argv.index(_ENTER) + 1]
    found = re.search(rf"^{re.escape(name)} (nocwd|unstarted) (\d+)\n\Z", said, re.MULTILINE)
    return (found[1], int(found[2])) if found else None


def _limit_args(config: DockerRun) -> list[str]:
    limits = config.limits
    if limits is None:
        return []
    args = []
    if (memory := limits.bytes_of("memory")) is not None:
        args += [f"--memory={memory}", f"--memory-swap={memory}"]
    if limits.processes is not None:
        args.append(f"--pids-limit={limits.processes}")
    if limits.cpu is not None:
        args.append(f"--cpus={limits.cpu:g}")
    if limits.files is not None:
        args.append(f"--ulimit=nofile={limits.files}:{limits.files}")
    if (size := limits.bytes_of("file_size")) is not None:
        args.append(f"--ulimit=fsize={size}:{size}")
    if config.security is not None and (tmp := limits.bytes_of("tmp")) is not None:
        for entry in config.security.tmpfs:
            path, _, options = entry.partition(":")
            args.append(f"--tmpfs={path}:{','.join(filter(None, (options, f'size={tmp}')))}")
    return args


def docker_exec_argv(config: DockerExec, command: Command) -> tuple[str, ...]:
    """Return the arguments of ``docker exec`` for ``command``: with the supervisor unless it is
    off; with ``resident="auto"``, those of a call without a resident.

    The number in the file of variables is a placeholder, filled in when the process starts. With
    the supervisor the variables are on stdin instead, as is the working directory.

    Raises:
        ConfigError: Without the supervisor, a relative ``cwd`` needs an absolute ``workdir``, and
            streams cannot be merged.
    """
    argv = [config.docker_path, "exec", "-i"]
    cwd = config.workdir  # from which the supervisor enters the command's ``cwd``
    if config.supervisor == "off" and command.cwd:
        cwd = posixpath.join(config.workdir or "", command.cwd)
        if not cwd.startswith("/"):
            raise ConfigError(
                f"cwd: {command.cwd!r} is relative, which takes a workdir, or the supervisor; make "
                "it absolute"
            )
    if cwd:
        argv.append(f"--workdir={cwd}")
    if user := command.user or config.user:
        argv.append(f"--user={user}")
    if config.supervisor == "off":
        if command.merge_stderr:
            raise ConfigError(
                "merge_stderr: docker exec itself does not keep the order of the two streams; it "
                "needs the supervisor"
            )
        check_text("argv", command.argv, "the supervisor's residents pass on any")
        check_text("cwd", (cwd or "",), "the supervisor passes on any")
        argv += env_args(command.env)
        return (*argv, *config.extra_args, config.container, *command.argv)
    if config.resident not in (0, "auto"):
        begun: tuple[str, ...] = ("sh", "-c", resident_script(), "anyspawn")
        begun = (*begun, Fill("resident.?", "id"))
    else:
        check_text("argv", command.argv, _INSTEAD)
        begun = ("sh", "-c", script(), "anyspawn", *command.argv)
    return (*argv, *config.extra_args, config.container, *begun)


def env_args(env: Env) -> list[str]:
    """Return the arguments by which a client passes variables, without their values."""
    argv = (
        ["--env-file", _ENV_FILE]
        if any(_fits_file(value) for value in env.known().values())
        else []
    )
    for name in env_by_client(env):
        argv += ["-e", name]
    return argv


def _fits_file(value: str) -> bool:
    return len(value) < _LINE and value.isprintable() and not value.endswith((" ", "\t"))


def env_fds(argv: tuple[str, ...], env: Env) -> tuple[FdArg, ...]:
    """Return the descriptor for the file of variables, if ``argv`` names it; it has those that fit
    a line.
    """
    return tuple(
        FdArg(index=index, data="".join(_lines(env)).encode(), prefix="/dev/fd/")
        for index, arg in enumerate(argv)
        if isinstance(arg, Fill) and arg.what == "fd"
    )


def _lines(env: Env) -> Iterator[str]:
    for name, value in env.known().items():
        if _fits_file(value):
            if name.startswith("#") or name != name.strip() or any(c.isspace() for c in name):
                raise ConfigError(
                    f"env: {name!r} cannot be passed to a container; use letters, digits and _"
                )
            yield f"{name}={value}\n"


def env_by_client(env: Env) -> dict[str, str]:
    """Return the variables that docker must read from its own environment because they do not fit a
    line.

    Raises:
        ConfigError: One of them would change how docker itself behaves, or is not text.
    """
    found = {name: value for name, value in env.known().items() if not _fits_file(value)}
    for name, value in found.items():
        check_text(f"env: the value of {name}", (value,), "encode it, such as in base64")
        if (
            name in _CLIENTS_NAMES
            or name.startswith(_CLIENTS_OWN)
            or name.lower().endswith("_proxy")
        ):
            raise ConfigError(
                f"env: the value of {name} has a line break or other control character, or is very long, "
                "and docker would take the variable for itself; use another name"
            )
    return found
