"""What is covered in folders that are bound: secrets, and what the host would run later."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Sequence
from fnmatch import fnmatch

from anyspawn.argv._files import cover

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
"""What cannot be read in a folder that is bound, unless it is bound itself."""
_EXAMPLES = (".env.dist", ".env.example", ".env.sample", ".env.template")

_SETTINGS = (
    ".config/pip/pip.conf",
    ".git/config",
    ".npmrc",
    ".pip/pip.conf",
    ".yarnrc.yml",
    "pip.conf",
)
"""The same, where a password or a token stands in it."""
_PASSWORD = re.compile(
    rb"://[^/\s@]*:[^/\s@]+@|extraheader|_auth|authtoken|password\s*[=:]", re.IGNORECASE
)

_RUN_LATER = (
    # by git
    ".git/config",
    ".git/hooks",
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
"""What cannot be written in a folder that is writable, unless it is writable itself: the host, or
a host of others, would run it later.
"""


def covers(
    readonly: Iterable[tuple[str, str]], writable: Iterable[tuple[str, str]]
) -> dict[str, Sequence[str]]:
    """Return bwrap's options for what is covered in folders, by their paths inside.

    Args:
        readonly, writable: The folders that are bound: on the host, and inside.
    """
    writable = list(writable)
    found: dict[str, Sequence[str]] = {}
    for host, inside in writable:
        for path in _there(host, _RUN_LATER):
            there = _inside(path, host, inside)
            found[there] = ("--ro-bind", path, there)
    for host, inside in (*readonly, *writable):
        for path in _secrets(host):
            there = _inside(path, host, inside)
            found[there] = (*cover(path)[:-1], there)
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
    """Give those of some paths below a folder that are there, and no links to somewhere else."""
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
    try:
        with open(path, "rb") as file:
            return bool(_PASSWORD.search(file.read(2**20)))
    except OSError:
        return False
