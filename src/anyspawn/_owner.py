"""Who made a container or a pod: this host, this process, and when it started; and whether that one
is dead.
"""

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
    """Return what tells this boot of this host, and this pid namespace, from all others."""
    boot = _read("/proc/sys/kernel/random/boot_id").strip() or os.uname().nodename
    return f"{boot}.{proc.namespace() or 0}"


@cache
def machine_id() -> str:
    """Return what tells this host from all others, whatever its boot; empty where nothing does."""
    machine = _read("/etc/machine-id").strip()
    if not machine:
        return ""
    name = f"{machine} {os.uname().nodename}"  # an image may bring its machine id along
    return hashlib.blake2b(name.encode(), digest_size=8).hexdigest()


def start_time(pid: int) -> str:
    """Return when a process started, in the kernel's ticks since boot; empty where there is
    none.
    """
    return "".join(_read(f"/proc/{pid}/stat").rpartition(")")[2].split()[19:20])


def owner() -> str:
    """Return who we are, for a container's label: this boot, our pid, when we started, and on which
    host.
    """
    return f"{host_id()}/{os.getpid()}/{start_time(os.getpid()) or 0}/{machine_id()}"


def owner_label(owner: str) -> str:
    """Return what stands for an owner in a pod's label, which holds but 63 letters, digits and
    dashes.
    """
    return hashlib.blake2b(owner.encode(), digest_size=16).hexdigest()


def is_dead(owner: str, *, all_boots: bool = False) -> bool:
    """Whether the process that ``owner`` names is provably gone: this host knew it, and does not
    know it any more.

    Args:
        owner: What `owner` has returned once.
        all_boots: This host may have known it in an earlier boot.
    """
    boot, pid, started, machine, *_ = *owner.split("/"), "", "", "", ""
    if not _is_number(pid) or not _is_number(started):
        return False
    if boot != host_id():
        earlier = boot.partition(".")[0] != host_id().partition(".")[0]
        return all_boots and earlier and machine != "" and machine == machine_id()
    if not start_time(os.getpid()):  # without /proc nobody can be seen to be dead
        return False
    now = start_time(int(pid))
    return now != started if now else not _exists(int(pid))


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) < _LONGEST_NUMBER


def _exists(pid: int) -> bool:
    """Whether a process is there, also where /proc hides those of other users."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except (PermissionError, OverflowError):
        pass
    return True
