"""Enforces a program's `Limits`: with a control group of its own, and with resource limits.

https://docs.kernel.org/admin-guide/cgroup-v2.html and cgroup-v1/ describe the files. A control
group is created below one that this process can write to. Without such a group, there are only the
kernel's resource limits for each process.
"""

from __future__ import annotations

import atexit
import math
import os
from collections.abc import Collection
from contextlib import suppress
from types import ModuleType

from attrs import frozen

from anyspawn._limits import Limits
from anyspawn._spawn import proc
from anyspawn.exceptions import TransportError

resource: ModuleType | None
try:
    import resource
except ImportError:  # Windows
    resource = None

__all__ = ["Bound", "by_prlimit", "homes", "unbound"]

_PREFIX = "anyspawn."
_PERIOD = 100_000
"""Microseconds over which processor time is counted, the kernel's default."""
_NEEDED = ("memory", "pids", "cpu")

_left: set[str] = set()
"""Control groups that could not be removed yet, because they still had processes."""
_Wanted = tuple[tuple[str, float], ...]
_spare: list[tuple[_Wanted, dict[str, str]]] = []
"""Empty control groups, for the next program with the same limits: creating one takes a
millisecond.
"""
_MOST_SPARE = 16
_LITTLE = 64
"""How much of a reused group's limit may be charged already: memory for files that were read, and
processes that are dead but not reaped.
"""


@frozen
class Home:
    """A control group in which this process can create others.

    Args:
        path: Its folder.
        unified: It is of version 2.
    """

    path: str
    unified: bool


_known: dict[int, dict[str, Home]] = {}


def homes() -> dict[str, Home]:
    """Return where a control group can be created, for each available controller."""
    own = os.getpid()
    if own not in _known:
        _known.clear()  # after a fork, look again
        _left.clear()
        _spare.clear()
        atexit.register(_remove_spare, own)
        _known[own] = _homes()
        for home in set(_known[own].values()):
            _clear(home.path)
    return _known[own]


def _homes() -> dict[str, Home]:
    found: dict[str, Home] = {}
    try:
        with open("/proc/self/cgroup", encoding="utf-8") as file:
            lines = file.read().splitlines()
        mounts = _mounts()
    except OSError:
        return {}
    for line in lines:
        _, controllers, path = line.split(":", 2)
        for controller in controllers.split(",") if controllers else ("",):
            if controller not in ("", *_NEEDED) or controller not in mounts:
                continue
            root, place = mounts[controller]
            inside = os.path.relpath(path, root)
            if inside.startswith(".."):
                continue
            own = os.path.normpath(os.path.join(place, inside))
            if controller:
                if _writable(own):
                    found[controller] = Home(own, unified=False)
            else:
                found = {**_unified(own, place), **found}
    return found


def _mounts() -> dict[str, tuple[str, str]]:
    """Return the root and the mount point of each hierarchy, by controller; "" is version 2."""
    found: dict[str, tuple[str, str]] = {}
    with open("/proc/self/mountinfo", encoding="utf-8") as file:
        for line in file:
            fields, _, rest = line.partition(" - ")
            kind, _, options = rest.split()[:3]
            root, place = fields.split()[3:5]
            if kind == "cgroup2":
                found.setdefault("", (root, place))
            elif kind == "cgroup":
                for option in options.split(","):
                    found.setdefault(option, (root, place))
    return found


def _unified(own: str, place: str) -> dict[str, Home]:
    """Return the nearest group of version 2, from this process's own upwards, that delegates
    controllers.
    """
    path = own
    while path.startswith(place):
        try:
            with open(f"{path}/cgroup.subtree_control", encoding="utf-8") as file:
                handed_on = [name for name in file.read().split() if name in _NEEDED]
        except OSError:
            return {}
        if handed_on and _writable(path) and os.access(f"{path}/cgroup.procs", os.W_OK):
            return {name: Home(path, unified=True) for name in handed_on}
        path = os.path.dirname(path)
    return {}


def _writable(path: str) -> bool:
    return os.access(path, os.W_OK | os.X_OK) and not os.statvfs(path).f_flag & os.ST_RDONLY


class Bound:
    """The limits of one program.

    Args:
        limits: The limits.
        pid: The program's first process, which has started no other yet.
        alone: The program has its own users, as in a namespace, so their processes are only its
            own.

    Raises:
        OSError: The program has exited, or an existing file cannot be written.
    """

    def __init__(self, limits: Limits, pid: int, *, alone: bool) -> None:
        self._limits = limits
        self._groups: dict[str, str] = {}
        self._whole = False
        try:
            self._group(pid)
            self._resources(pid, alone=alone)
        except BaseException:
            self.lift()
            raise
        self._whole = all(name in self._groups for name, _ in _wanted(limits) if name in homes())

    def _group(self, pid: int) -> None:
        places = homes()
        while groups := _take_spare(_wanted(self._limits)):
            self._groups = groups
            with suppress(FileNotFoundError):  # somebody has removed the empty group
                self._begin(pid)
                return
        self._groups = {}
        self._make(places)
        self._begin(pid)

    def _begin(self, pid: int) -> None:
        for path in dict.fromkeys(self._groups.values()):
            _write(f"{path}/cgroup.procs", str(pid))

    def _make(self, places: dict[str, Home]) -> None:
        name = f"{_PREFIX}{proc.namespace()}-{os.getpid()}-{os.urandom(6).hex()}"
        for controller, value in _wanted(self._limits):
            if controller not in places:
                continue
            home = places[controller]
            path = f"{home.path}/{name}"
            if path not in self._groups.values():
                try:
                    os.mkdir(path)
                except OSError:  # another program's rules; use the other hierarchies
                    continue
            self._groups[controller] = path
            for file, text in _settings(controller, value, unified=home.unified):
                with suppress(FileNotFoundError):  # a kernel without swap accounting
                    _write(f"{path}/{file}", text)

    def _resources(self, pid: int, *, alone: bool) -> None:
        if resource is None or not hasattr(resource, "prlimit"):
            return
        if os.stat(f"/proc/{pid}").st_uid != os.geteuid():
            return  # `by_prlimit` has set them: that takes less than to set another user's
        limits = self._limits
        for name, most in _values(limits, self._groups, alone=alone).items():
            which = getattr(resource, f"RLIMIT_{name.upper()}")
            _, hard = resource.prlimit(pid, which)
            least = most if hard == resource.RLIM_INFINITY else min(most, hard)
            resource.prlimit(pid, which, (least, least))
        if "cpu" not in self._groups and limits.cpu is not None:
            own = sorted(os.sched_getaffinity(pid))
            first = pid % len(own)  # the processes were not all in the same groups
            os.sched_setaffinity(pid, (own[first:] + own[:first])[: math.ceil(limits.cpu)])

    def reached(self) -> str:
        """Describe the limits that were reached, as far as a control group has counted."""
        said = []
        if (path := self._groups.get("memory")) and _count(path, _OOM, "oom_kill"):
            said.append(f"it ran out of memory (limits.memory: {self._limits.memory})")
        if (path := self._groups.get("pids")) and _count(path, ("pids.events",), "max"):
            said.append(f"it was refused processes (limits.processes: {self._limits.processes})")
        return " and ".join(said)

    def lift(self) -> str:
        """Keep the control group for another program, if it is complete and has reached no limit.
        Otherwise remove it, now or when it is empty. Return what `reached` returns.
        """
        reached = self.reached()
        old = self._groups
        if old and self._whole and not reached:
            _spare.append((_wanted(self._limits), old))
            old = _spare.pop(0)[1] if len(_spare) > _MOST_SPARE else {}
        self._groups = {}
        _left.update(old.values())
        _remove(_left)
        return reached


def _wanted(limits: Limits) -> _Wanted:
    wanted = {
        "memory": limits.bytes_of("memory"),
        "pids": limits.processes,
        "cpu": limits.cpu,
    }
    return tuple((name, value) for name, value in wanted.items() if value is not None)


def _take_spare(wanted: _Wanted) -> dict[str, str]:
    """Return a kept group with these limits that is like a new one, if there is one."""
    for spare in tuple(_spare):
        if spare[0] == wanted and _is_as_new(*spare):
            with suppress(ValueError):  # another thread has taken it
                _spare.remove(spare)
                return spare[1]
    return {}


def _remove_spare(pid: int) -> None:
    if os.getpid() == pid:
        _remove({path for _, groups in _spare for path in groups.values()} | _left)


def _remove(paths: set[str]) -> None:
    for path in tuple(paths):
        with suppress(OSError):
            os.rmdir(path)
        if not os.path.isdir(path):
            paths.discard(path)


def _is_as_new(wanted: _Wanted, groups: dict[str, str]) -> bool:
    little = {name: value // _LITTLE for name, value in wanted}
    memory = _holds(groups.get("memory"), "memory.current", "memory.usage_in_bytes")
    return (
        memory <= little.get("memory", 0)
        and _holds(groups.get("pids"), "pids.current") <= little.get("pids", 0)
        and not _lists(next(iter(groups.values())))  # they have the same processes
    )


def _lists(path: str) -> bool:
    try:
        with open(f"{path}/cgroup.procs", "rb", buffering=0) as file:
            return bool(file.read(1))
    except OSError:
        return True


def _holds(path: str | None, *files: str) -> float:
    """Return how much is charged to a control group; a process counts until it is reaped."""
    for name in files if path is not None else ():
        with suppress(OSError), open(f"{path}/{name}", "rb", buffering=0) as file:
            return int(file.read())
    return 0 if path is None else math.inf


def _values(limits: Limits, groups: Collection[str], *, alone: bool) -> dict[str, int]:
    """Return the resource limits to set, besides the available control groups."""
    values = {"nofile": limits.files, "fsize": limits.bytes_of("file_size"), "core": 0}
    if "memory" not in groups:
        values["data"] = limits.bytes_of("memory")
    if alone and "pids" not in groups:
        values["nproc"] = limits.processes
    return {name: most for name, most in values.items() if most is not None}


def by_prlimit(limits: Limits) -> tuple[str, ...]:
    """Return the beginning of an argv that sets the resource limits of the program after it."""
    values = _values(limits, homes(), alone=True)
    return ("prlimit", *(f"--{name}={most}" for name, most in values.items()), "--")


def unbound(program: str, exc: OSError) -> TransportError:
    """Return the error of a program that was not started because its limits could not be set."""
    message = f"{program!r} was not started, because its limits could not be set: {exc}"
    return TransportError(message, started=False, kind="resources")


_OOM = ("memory.events", "memory.oom_control")


def _settings(controller: str, value: float, *, unified: bool) -> list[tuple[str, str]]:
    if controller == "pids":
        return [("pids.max", str(value))]
    if controller == "memory":
        if unified:
            return [("memory.max", str(value)), ("memory.swap.max", "0"), ("memory.oom.group", "1")]
        return [("memory.limit_in_bytes", str(value)), ("memory.memsw.limit_in_bytes", str(value))]
    quota = max(1000, round(value * _PERIOD))
    if unified:
        return [("cpu.max", f"{quota} {_PERIOD}")]
    return [("cpu.cfs_period_us", str(_PERIOD)), ("cpu.cfs_quota_us", str(quota))]


def _write(path: str, text: str) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(fd, text.encode())
    finally:
        os.close(fd)


def _count(path: str, files: tuple[str, ...], name: str) -> int:
    for file in files:
        with suppress(OSError), open(f"{path}/{file}", encoding="utf-8") as lines:
            for line in lines:
                if line.startswith(f"{name} "):
                    return int(line.split()[1])
    return 0


def _clear(home: str) -> None:
    """Remove groups of processes that were killed."""
    with suppress(OSError):
        for name in os.listdir(home):
            if name.startswith(_PREFIX):
                space, owner, *_ = *name.removeprefix(_PREFIX).split("-"), ""
                if proc.has_exited(space, owner):
                    with suppress(OSError):
                        os.rmdir(f"{home}/{name}")
