"""Files in a writable folder that the host would run later: git's hooks and settings, start-up
files of shells, tasks of editors and agents, CI.
"""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Iterable, Iterator
from contextlib import suppress

from attrs import frozen

from anyspawn.argv._files import is_within

__all__ = ["Later", "named", "run_later", "text_of", "with_hooks"]

_NAMES = (
    # by git and what is built on it
    ".gitconfig",
    ".gitmodules",
    ".husky",
    ".pre-commit-config.yaml",
    # by shells
    ".bash_login",
    ".bash_logout",
    ".bash_profile",
    ".bashrc",
    ".profile",
    ".zlogin",
    ".zprofile",
    ".zshenv",
    ".zshrc",
    # by editors and agents
    ".claude",
    ".cursor",
    ".devcontainer",
    ".idea",
    ".mcp.json",
    ".vscode",
    # by CI
    ".circleci",
    ".github/workflows",
    ".gitlab-ci.yml",
    "Jenkinsfile",
)
"""Beside git's own files, see `_of_git`."""
_DEPTH = 3
"""How many folders deep the search goes."""
_MOST = 5000
"""How many folders are searched, the outer ones first."""
_BARE = ({"HEAD", "objects", "refs"}, {"HEAD", "commondir"})
"""The files that make a folder a repository without a ``.git``."""
_KERNEL = ("/dev", "/proc", "/sys")

_HARMLESS = re.compile(
    r"core\.(repositoryformatversion|filemode|bare|logallrefupdates|ignorecase|symlinks"
    r"|precomposeunicode|autocrlf|eol)"
    r"|(remote|submodule)\.(url|pushurl|fetch|tagopt|prune|active)"
    r"|branch\.(remote|merge|rebase|description)"
    r"|user\.(name|email)|pull\.(rebase|ff)|lfs\.repositoryformatversion"
    r"|extensions\.(objectformat|partialclone|refstorage)"
)
"""The settings that git clone, init and branch write. Other settings can name programs."""
_SECTION = re.compile(r'\[\s*([\w.-]+)(?:\s+"(?:[^"\\]|\\.)*")?\s*\]')
_KEY = re.compile(r"[\w-]+(?=\s*(=|[#;]|$))")
_HOOKS_PATH = re.compile(r"hookspath\s*=(.*)", re.IGNORECASE)
_LONGEST = 256 * 1024


@frozen
class Later:
    """A path that the host would run later.

    Args:
        path: The path.
        identity: The identity of the file, and of the target if it is a link.
        armed: It has something to run. A new repository's folder of hooks has nothing.
        within: The folder in which its name is searched; empty if there is none.
    """

    path: str
    identity: tuple[int, ...]
    armed: bool = True
    within: str = ""


def _is_open(status: os.stat_result, uid: int, gids: Collection[int]) -> bool:
    """Whether a user can enter a folder, or can permit itself to. Root without capabilities cannot
    enter those of others.
    """
    if status.st_uid == uid:
        return True
    return bool(status.st_mode & (0o10 if status.st_gid in gids else 0o1))


def _is_open_folder(entry: os.DirEntry[str], uid: int, gids: Collection[int]) -> bool:
    try:
        is_folder = entry.is_dir(follow_symlinks=False)
        return is_folder and _is_open(entry.stat(follow_symlinks=False), uid, gids)
    except OSError:
        return False


def _is_in_reach(path: str, top: str, uid: int, gids: Collection[int]) -> bool:
    try:
        while is_within(path := os.path.dirname(path), top) and path != top:
            if not _is_open(os.stat(path), uid, gids):
                return False
    except OSError:
        return False
    return True


def with_hooks(folder: str) -> None:
    """Create a repository's folder of hooks, as git usually does: a missing folder cannot be made
    read-only.
    """
    if os.path.isdir(f"{folder}/.git") and not os.path.islink(f"{folder}/.git"):
        with suppress(OSError):
            os.mkdir(f"{folder}/.git/hooks")


def run_later(top: str, uid: int, gids: Collection[int]) -> Iterator[Later]:
    """Give the paths that the host would run later in a folder and below it, three folders deep.

    Args:
        top: The folder.
        uid, gids: The program's user and groups on the host. Folders that it cannot enter are
            skipped.
    """
    todo = [(top, 0)]
    for count, (folder, depth) in enumerate(todo):  # the list grows during the loop
        if count == _MOST:
            yield Later(top, ())  # a program can make more folders than a search can visit
            return
        try:
            with os.scandir(folder) as entries:
                names = {entry.name: _is_open_folder(entry, uid, gids) for entry in entries}
        except PermissionError:
            yield from _later(folder)  # a user that cannot list it can still enter it
            continue
        except OSError:  # it is a file, or gone
            continue
        for name in _NAMES:
            first, _, second = name.partition("/")
            if first in names:
                within = os.path.join(folder, first) if second else ""
                yield from _later(os.path.join(folder, name), within=within)
        if ".git" in names:
            for later in _of_repository(os.path.join(folder, ".git")):
                if _is_in_reach(later.path, top, uid, gids):
                    yield later
        elif any(names.keys() >= bare for bare in _BARE) and not folder.endswith("/.git"):
            yield from _of_git(folder)
        if depth < _DEPTH:
            for name, is_folder in names.items():
                path = os.path.join(folder, name)
                if is_folder and name != ".git" and name not in _NAMES and path not in _KERNEL:
                    todo.append((path, depth + 1))


def named(there: str, inside: str, binds: Iterable[str]) -> bool:
    """Whether a path in a folder is, or is in, another named one."""
    return any(is_within(there, bind) for bind in binds if bind != inside)


def _later(path: str, *, armed: bool = True, within: str = "") -> Iterator[Later]:
    with suppress(OSError):
        own = os.lstat(path)
        identity = [own.st_dev, own.st_ino]
        with suppress(OSError):
            target = os.stat(path)
            identity += [target.st_dev, target.st_ino]
        yield Later(path, tuple(identity), armed, within)


def _of_repository(git: str) -> Iterator[Later]:
    """Give the paths of a ``.git``, which is a folder or a file that names one."""
    if os.path.isdir(git):
        yield from _of_git(git, within="" if os.path.islink(git) else git)
        return
    yield from _later(git, armed=False)
    if text := text_of(git).removeprefix("gitdir:").strip():
        yield from _of_git(os.path.normpath(os.path.join(os.path.dirname(git), text)))


def _of_git(git: str, within: str = "", *, follow: bool = True) -> Iterator[Later]:
    """Give the paths in git's own folder."""
    for name in ("config", "config.worktree"):
        path = os.path.join(git, name)
        text = text_of(path)
        yield from _later(path, armed=not _harmless(text), within=within)
        if (found := _HOOKS_PATH.search(text)) and within:
            yield from _later(
                os.path.normpath(os.path.join(os.path.dirname(git), found[1].strip(' \t"')))
            )
    hooks = os.path.join(git, "hooks")
    try:
        armed = any(not name.endswith(".sample") for name in os.listdir(hooks))
    except OSError:
        armed = True
    yield from _later(hooks, armed=armed, within=within)
    elsewhere = os.path.join(git, "commondir")
    if (text := text_of(elsewhere).strip()) and follow:
        linked = os.path.basename(os.path.dirname(git)) == "worktrees"
        yield from _later(elsewhere, armed=not linked)
        yield from _of_git(os.path.normpath(os.path.join(git, text)), follow=False)


def _harmless(text: str) -> bool:
    """Whether a git configuration has only settings that cannot name a program."""
    section = ""
    for line in text.splitlines():
        rest = line.strip()
        if header := _SECTION.match(rest):
            section, rest = header[1].lower(), rest[header.end() :].strip()
        if not rest or rest[0] in "#;":
            continue
        key = _KEY.match(rest)
        if key is None or not _HARMLESS.fullmatch(f"{section}.{key[0].lower()}"):
            return False
    return True


def text_of(path: str) -> str:
    """Return a file's beginning; an unreadable file counts as an unknown setting."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY)
    except FileNotFoundError:
        return ""
    except OSError:
        return "?"
    try:
        data = os.read(fd, _LONGEST + 1)
    except OSError:  # it is a folder
        return "?"
    finally:
        os.close(fd)
    text = data.decode(errors="replace").replace("\0", "?")  # no path has one
    return text if len(data) <= _LONGEST else f"?\n{text}"
