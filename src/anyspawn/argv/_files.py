"""Which of the host's files stand in a bubblewrap sandbox: the lists, each with its reasons."""

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
"""The system's programs and libraries. Those that are links into /usr are links inside, too."""

ETC = (
    # the dynamic linker's cache
    "ld.so.cache",
    "ld-musl-*.path",
    # whom TLS trusts, and which ciphers it uses
    "crypto-policies",
    "pki/tls/cert.pem",
    "pki/tls/openssl.cnf",
    "ssl/cert.pem",
    "ssl/openssl.cnf",
    # how names of hosts, users, ports and protocols are looked up
    "nsswitch.conf",
    "protocols",
    "services",
    # the time zone
    "localtime",
    "timezone",
    # what interpreters, shells and libraries do not work without, or work otherwise
    "bash.bashrc",
    "fonts",
    "java-*",
    "mime.types",
)
"""What of /etc is there: what programs need, and everybody may read. Beside it there are the one
user and group, and ``localhost``; none of the host's own.
"""
ETC_BOUND = (
    # what a program's name stands for, where there are several: awk, java, editor
    "alternatives",
    # whom TLS trusts
    "ca-certificates/extracted",
    "pki/ca-trust/extracted",
    "pki/tls/certs",
    "ssl/certs",
)
"""The same, but not copied once in a process."""
ETC_ONLINE = ("hosts", "resolv.conf")
"""What is there of it with the host's network: how to look names up."""
ETC_LINKS = {"os-release": "../usr/lib/os-release", "mtab": "/proc/self/mounts"}
_ETC_FOLDER = Fill("?", "etc")
"""Stands for the folder that is /etc inside, until a process starts."""

_PRIVATE = (
    "/usr/lib/dbus-1.0/dbus-daemon-launch-helper",
    "/usr/lib/openssh/ssh-keysign",
    "/usr/lib/polkit-1/rules.d",
    "/usr/libexec/dbus-1/dbus-daemon-launch-helper",
    "/usr/libexec/openssh/ssh-keysign",
    "/usr/share/polkit-1/rules.d",
)
"""What some distributions keep in /usr that only root or a group may read. It is covered where root
starts the sandbox, who could read it inside as well.
"""

_KERNEL_COVERED = "/proc/cmdline"
"""Covered whoever starts the sandbox: the kernel's command line may hold secrets."""
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
"""What in /proc belongs to the kernel of the host and may have files that its root may write.

The kernel asks there for root's number, not for a capability, so that a sandbox started by root
could set `kernel.core_pattern`, and with it run a program outside. bwrap itself looks after bus,
irq and sysrq-trigger.
"""


@cache
def system(*, online: bool) -> tuple[str, ...]:
    """Return bwrap's options for the system's files, which are looked for once in a process.

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
    """Return bwrap's options for what there is in a new /proc beside the processes."""
    root = os.getuid() == 0
    options: list[str] = []
    for name in _KERNEL_SETTINGS:
        if _has_writable(f"/proc/{name}", 0o222 if root else 0o002):
            options += ["--ro-bind-try", f"/proc/{name}", f"/proc/{name}"]
    return (*options, *cover(_KERNEL_COVERED))


def _has_writable(path: str, mode: int) -> bool:
    """Return whether there is a file, at or below a path, that has one of these permissions."""
    if os.path.isfile(path):
        return bool(os.stat(path).st_mode & mode)
    for folder, _, names in os.walk(path):
        for name in names:
            with suppress(OSError):  # it may be gone by now
                if os.lstat(os.path.join(folder, name)).st_mode & mode:
                    return True
    return False


def cover(path: str) -> tuple[str, ...]:
    """Return options that put an empty folder, or a file that cannot be read, in a path's place."""
    if os.path.isdir(path):
        return ("--perms", "0555", "--tmpfs", path)
    return ("--ro-bind", "/dev/null", path)  # a device, and those are none on what is bound


def for_all(path: str) -> bool:
    """Return whether every user may read a file, or what is in a folder."""
    try:
        status = os.stat(path)
    except OSError:
        return False
    needed = stat.S_IROTH | (stat.S_IXOTH if stat.S_ISDIR(status.st_mode) else 0)
    return status.st_mode & needed == needed


def is_within(path: str, outer: str) -> bool:
    """Whether a path is another one, or lies in it."""
    return PurePosixPath(path).is_relative_to(outer)
