"""The folder that bubblewrap sandboxes see as /etc: created once per process, so that it costs a
call one mount.
"""

from __future__ import annotations

import atexit
import os
import shutil
import tempfile
from contextlib import suppress
from glob import glob
from threading import Lock

from anyspawn._spawn import proc
from anyspawn.argv._files import ETC, ETC_BOUND, ETC_LINKS, ETC_ONLINE, for_all

__all__ = ["etc_folder"]

_PREFIX = "anyspawn.etc."
_HOSTS = "127.0.0.1 localhost\n::1 localhost\n"

_lock = Lock()
_made: dict[tuple[int, int, int], str] = {}
"""The folder, by process (a fork needs another one), user and group."""


def etc_folder(uid: int, gid: int) -> str:
    """Return this process's folder for a user. It is removed when the process exits; if that fails,
    by the next process that makes one.
    """
    key = (os.getpid(), uid, gid)
    with _lock:
        folder = _made.get(key)
        if folder is None or not os.path.isdir(folder):  # a cleaner of /tmp can have removed it
            _remove_those_of_the_dead()
            folder = _made[key] = _make(uid, gid)
            atexit.register(_remove, folder, os.getpid())
        return folder


def _make(uid: int, gid: int) -> str:
    folder = tempfile.mkdtemp(prefix=f"{_PREFIX}{proc.namespace()}-{os.getpid()}-")
    for name in ETC:
        for source in glob(f"/etc/{name}"):
            if for_all(source):
                _copy(source, folder + source.removeprefix("/etc"))
    for name in (*ETC_BOUND, *ETC_ONLINE):  # a bind mount needs a target
        place = f"{folder}/{name}"
        if os.path.isdir(f"/etc/{name}"):
            os.makedirs(place)
        elif os.path.exists(f"/etc/{name}"):
            _write(place, _HOSTS if name == "hosts" else "")
    for name, target in ETC_LINKS.items():
        os.symlink(target, f"{folder}/{name}")
    user, group = "user" if uid else "root", "user" if gid else "root"
    _write(
        f"{folder}/passwd",
        f"{user}:x:{uid}:{gid}::/tmp:/bin/sh\nnobody:x:65534:65534::/:/bin/false\n",
    )
    _write(f"{folder}/group", f"{group}:x:{gid}:\nnogroup:x:65534:\n")
    for path, _, _ in os.walk(folder):
        os.chmod(path, 0o755)  # noqa: S103  the sandbox can run as another user
    return folder


def _copy(source: str, target: str) -> None:
    os.makedirs(os.path.dirname(target), exist_ok=True)
    with suppress(OSError):  # it is gone or not readable; programs can do without it
        if os.path.isdir(source):
            shutil.copytree(source, target, symlinks=True, ignore=_not_for_all)
        else:
            shutil.copyfile(source, target)
            os.chmod(target, 0o644)


def _not_for_all(folder: str, names: list[str]) -> list[str]:
    paths = {name: os.path.join(folder, name) for name in names}
    return [name for name, path in paths.items() if not (os.path.islink(path) or for_all(path))]


def _write(path: str, text: str) -> None:
    with open(path, "wb") as file:  # a codec's import fails if the cwd was deleted (3.13.0)
        file.write(text.encode())
    os.chmod(path, 0o644)


def _remove(folder: str, process: int) -> None:
    if os.getpid() == process:
        shutil.rmtree(folder, ignore_errors=True)


def _remove_those_of_the_dead() -> None:
    for folder in glob(f"{tempfile.gettempdir()}/{_PREFIX}*"):
        space, pid, *_ = *os.path.basename(folder).removeprefix(_PREFIX).split("-"), ""
        with suppress(OSError):
            if os.lstat(folder).st_uid == os.getuid() and proc.has_exited(space, pid):
                shutil.rmtree(folder, ignore_errors=True)
