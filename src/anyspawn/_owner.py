"""The owner of a container or a pod: host, process and start time; and whether it is dead."""

from __future__ import annotations

import hashlib
import os
from functools import cache

from anyspawn._spawn import proc

__all__ = ["is_dead", "owner", "owner_label"]


_LONGEST_NUMBER = 20


def _read(path: str) -> str:
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read()
    except OSError:
        return ""


@cache
def host_id() -> str:
    """Return an id of this boot of this host, and of this pid namespace."""
    boot = _read("/proc/sys/kernel/random/boot_id").strip() or os.uname().nodename
    return f"{boot}.{proc.namespace() or 0}"


@cache
def machine_id() -> str:
    """Return an id of this host that survives a reboot; empty if there is none."""
    machine = _read("/etc/machine-id").strip()
    if not machine:
        return ""
    name = f"{machine} {os.uname().nodename}"  # hosts made from one image can share a machine id
    return hashlib.blake2b(name.encode(), digest_size=8).hexdigest()


def start_time(pid: int) -> str:
    """Return when a process started, in the kernel's ticks since boot; empty if it does not
    exist.
    """
    return "".join(_read(f"/proc/{pid}/stat").rpartition(")")[2].split()[19:20])


def owner() -> str:
    """Return the owner for a container's label: this boot, this pid, its start time, and this
    host.
    """
    return f"{host_id()}/{os.getpid()}/{start_time(os.getpid()) or 0}/{machine_id()}"


def owner_label(owner: str) -> str:
    """Return a short form of an owner for a pod's label, which takes only 63 letters, digits and
    dashes.
    """
    return hashlib.blake2b(owner.encode(), digest_size=16).hexdigest()


def is_dead(owner: str, *, all_boots: bool = False) -> bool:
    """Whether the process that ``owner`` names is certainly dead: it ran on this host, and is gone.

    Args:
        owner: An earlier result of `owner`.
        all_boots: Also accept an earlier boot of this host.
    """
    boot, pid, started, machine, *_ = *owner.split("/"), "", "", "", ""
    if not _is_number(pid) or not _is_number(started):
        return False
    if boot != host_id():
        earlier = boot.partition(".")[0] != host_id().partition(".")[0]
        return all_boots and earlier and machine != "" and machine == machine_id()
    if not start_time(os.getpid()):  # without /proc nothing proves that a process is dead
        return False
    now = start_time(int(pid))
    return now != started if now else not _exists(int(pid))


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) < _LONGEST_NUMBER


def _exists(pid: int) -> bool:
    """Whether a process exists, even if /proc hides those of other users."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except (PermissionError, OverflowError):
        pass
    return True
