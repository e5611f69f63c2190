"""The host's files that a bubblewrap sandbox shows: the lists, each with its reasons."""

from __future__ import annotations

import os
import stat
from contextlib import suppress
from functools import cache
from pathlib import PurePosixPath

from anyspawn._model import Fill

__all__ = [
    "ETC",
    "ETC_BOUND",
    "ETC_LINKS",
    "ETC_ONLINE",
    "SYSTEM",
    "cover",
    "for_all",
    "is_within",
    "kernel",
    "system",
]

SYSTEM = ("/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32", "/nix/store")
"""The system's programs and libraries. Links into /usr stay links inside."""

ETC = (
    # the dynamic linker's cache
    "ld.so.cache",
    "ld-musl-*.path",
    # TLS: trusted certificates and ciphers
    "crypto-policies",
    "pki/tls/cert.pem",
    "pki/tls/openssl.cnf",
    "ssl/cert.pem",
    "ssl/openssl.cnf",
    # look-up of hosts, users, ports and protocols
    "nsswitch.conf",
    "protocols",
    "services",
    # the time zone
    "localtime",
    "timezone",
    # files without which interpreters, shells and libraries fail or behave differently
    "bash.bashrc",
    "fonts",
    "java-*",
    "mime.types",
)
"""The shown part of /etc: files that programs need and every user can read. anyspawn writes the
files of users, groups and hosts itself: one user and group, and ``localhost``.
"""
ETC_BOUND = (
    # the alternatives of a program's name: awk, java, editor
    "alternatives",
    # whom TLS trusts
    "ca-certificates/extracted",
    "pki/ca-trust/extracted",
    "pki/tls/certs",
    "ssl/certs",
)
"""The same, but bound instead of copied."""
ETC_ONLINE = ("hosts", "resolv.conf")
"""Shown only with the host's network: the settings for name look-up."""
ETC_LINKS = {"os-release": "../usr/lib/os-release", "mtab": "/proc/self/mounts"}
_ETC_FOLDER = Fill("?", "etc")
"""The placeholder for the folder that is /etc inside."""

_PRIVATE = (
    "/usr/lib/dbus-1.0/dbus-daemon-launch-helper",
    "/usr/lib/openssh/ssh-keysign",
    "/usr/lib/polkit-1/rules.d",
    "/usr/libexec/dbus-1/dbus-daemon-launch-helper",
    "/usr/libexec/openssh/ssh-keysign",
    "/usr/share/polkit-1/rules.d",
)
"""Files in /usr that, in some distributions, only root or a group can read. They are covered if
root starts the sandbox, because root could read them inside too.
"""

_KERNEL_COVERED = "/proc/cmdline"
"""Covered for every user: the kernel's command line can hold secrets."""
_KERNEL_SETTINGS = (
    "acpi",
    "asound",
    "dynamic_debug",
    "fs",
    "latency_stats",
    "pressure",
    "scsi",
    "sys",
)
"""Paths in /proc that belong to the host's kernel and can have files that the host's root can
write.

The kernel checks there for root's number, not for a capability: a sandbox started by root could set
`kernel.core_pattern`, and so run a program outside. bwrap itself protects bus, irq and
sysrq-trigger.
"""


@cache
def system(*, online: bool) -> tuple[str, ...]:
    """Return bwrap's options for the system's files, which are searched once in a process.

    Args:
        online: With the host's network.
    """
    options: list[str] = []
    for path in SYSTEM:
        if os.path.islink(path):
            options += ["--symlink", os.readlink(path), path]
        elif os.path.isdir(path):
            options += ["--ro-bind-try", path, path]
    options += ["--ro-bind", _ETC_FOLDER, "/etc"]
    for name in (*ETC_BOUND, *(ETC_ONLINE if online else ())):
        if for_all(path := f"/etc/{name}"):
            options += ["--ro-bind-try", path, path]
    if os.getuid() == 0:
        for path in _PRIVATE:
            if os.path.lexists(path) and not for_all(path):
                options += cover(path)
    return tuple(options)


@cache
def kernel() -> tuple[str, ...]:
    """Return bwrap's options for the files of a new /proc other than processes."""
    root = os.getuid() == 0
    options: list[str] = []
    for name in _KERNEL_SETTINGS:
        if _has_writable(f"/proc/{name}", 0o222 if root else 0o002):
            options += ["--ro-bind-try", f"/proc/{name}", f"/proc/{name}"]
    return (*options, *cover(_KERNEL_COVERED))


def _has_writable(path: str, mode: int) -> bool:
    """Return whether a file at or below a path has one of these permissions."""
    if os.path.isfile(path):
        return bool(os.stat(path).st_mode & mode)
    for folder, _, names in os.walk(path):
        for name in names:
            with suppress(OSError):  # it may be gone by now
                if os.lstat(os.path.join(folder, name)).st_mode & mode:
                    return True
    return False


def cover(path: str) -> tuple[str, ...]:
    """Return options that replace a path by an empty folder, or by an unreadable file."""
    if os.path.isdir(path):
        return ("--perms", "0555", "--tmpfs", path)
    return ("--ro-bind", "/dev/null", path)  # a device, which cannot be opened on a bind mount


def for_all(path: str) -> bool:
    """Return whether every user can read a file, or the files in a folder."""
    try:
        status = os.stat(path)
    except OSError:
        return False
    needed = stat.S_IROTH | (stat.S_IXOTH if stat.S_ISDIR(status.st_mode) else 0)
    return status.st_mode & needed == needed


def is_within(path: str, outer: str) -> bool:
    """Whether a path is another one, or lies in it."""
    return PurePosixPath(path).is_relative_to(outer)
