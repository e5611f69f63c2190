"""Covers for bound folders: secrets, and files that the host would run later."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from fnmatch import fnmatch

from anyspawn.argv._files import cover, is_within
from anyspawn.argv._later import Later, named, text_of

__all__ = ["covers"]

_SECRETS = (
    # variables of projects
    ".env",
    ".env.*",
    ".envrc",
    # passwords and tokens
    ".git-credentials",
    ".htpasswd",
    ".my.cnf",
    ".netrc",
    ".pgpass",
    ".pypirc",
    ".vault-token",
    ".cargo/credentials",
    ".cargo/credentials.toml",
    ".config/gh",
    ".config/hub",
    ".docker/config.json",
    ".gem/credentials",
    ".m2/settings.xml",
    ".terraform.d/credentials.tfrc.json",
    # keys
    ".gnupg",
    ".local/share/keyrings",
    ".password-store",
    ".ssh",
    "id_dsa",
    "id_ecdsa",
    "id_ed25519",
    "id_rsa",
    # clouds
    ".aws",
    ".azure",
    ".boto",
    ".config/gcloud",
    ".config/rclone",
    ".kube",
    ".s3cfg",
    # agents, and what was typed
    ".claude.json",
    ".claude/.credentials.json",
    ".codex/auth.json",
    ".bash_history",
    ".python_history",
    ".zsh_history",
)
"""Files in a bound folder that are hidden, unless they are bound themselves."""
_EXAMPLES = (".env.dist", ".env.example", ".env.sample", ".env.template")

_SETTINGS = (
    ".config/pip/pip.conf",
    ".git/config",
    ".npmrc",
    ".pip/pip.conf",
    ".yarnrc.yml",
    "pip.conf",
)
"""The same, if they contain a password or a token."""
_PASSWORD = re.compile(
    r"://[^/\s@:]*:[^/\s@]+@|extraheader|_auth|authtoken|password\s*[=:]", re.IGNORECASE
)


def covers(
    readonly: Iterable[tuple[str, str]],
    writable: Iterable[tuple[str, str]],
    run_later: Mapping[str, Sequence[Later]],
) -> dict[str, Sequence[str]]:
    """Return bwrap's options that cover paths in bound folders, by the paths inside.

    Args:
        readonly, writable: The bound folders: host path and inside path.
        run_later: The files that the host would run later, by writable folder.

    Folders around a covered path are mounted on themselves, so that a program cannot rename and
    replace them.
    """
    readonly, writable = list(readonly), list(writable)
    shown = [inside for _, inside in (*readonly, *writable)]
    found: dict[str, Sequence[str]] = {}

    def hold(path: str, host: str, inside: str) -> None:
        there = _inside(path, host, inside)
        if not named(there, inside, shown):
            found.setdefault(there, ("--bind-try", path, there))

    for host, inside in (*readonly, *writable):
        for path in _secrets(host):
            there = _inside(path, host, inside)
            found[there] = (*cover(path)[:-1], there)
            while (host, inside) in writable and (path := os.path.dirname(path)) != host:
                hold(path, host, inside)
    for host, inside in writable:
        real = os.path.realpath(host)
        for later in run_later.get(host, ()):
            path = os.path.realpath(later.path)
            there = _inside(path, real, inside)
            if path == real or not is_within(path, real) or named(there, inside, shown):
                continue
            if not os.path.exists(path):  # a link to nothing
                continue
            found.setdefault(there, ("--ro-bind-try", path, there))
            if later.within:
                hold(later.within, host, inside)
    return found


def _inside(path: str, host: str, inside: str) -> str:
    return os.path.join(inside, os.path.relpath(path, host))


def _secrets(folder: str) -> Iterator[str]:
    for path in _there(folder, _SECRETS):
        if os.path.basename(path) not in _EXAMPLES:
            yield path
    for path in _there(folder, _SETTINGS):
        if _tells(path):
            yield path


def _there(folder: str, names: Sequence[str]) -> Iterator[str]:
    """Give the paths below a folder that exist and are not links to another place."""
    try:
        entries = set(os.listdir(folder))
    except OSError:  # it is a file, or cannot be read
        return
    for name in names:
        first = name.partition("/")[0]
        for entry in (e for e in entries if fnmatch(e, first)) if "*" in first else (first,):
            if entry in entries:
                path = os.path.join(folder, entry, *name.split("/")[1:])
                if os.path.exists(path) and os.path.realpath(path) == os.path.join(
                    os.path.realpath(folder), os.path.relpath(path, folder)
                ):
                    yield path


def _tells(path: str) -> bool:
    return bool(_PASSWORD.search(text_of(path)))
