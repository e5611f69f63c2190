# ruff: noqa: INP001  a script, no package
"""Compile the system call filters of `Bubblewrap`, with libseccomp's Python bindings.

Run after a change of this file: ``/usr/bin/python3 tools/compile_filters.py``, with Debian's
``python3-seccomp``. A test compares the outcome with the files that are checked in.
"""

from __future__ import annotations

import errno
import sys
from pathlib import Path

from seccomp import ALLOW, ERRNO, MASKED_EQ, Arch, Arg, Attr, SyscallFilter

FOLDER = Path(__file__).parents[1] / "src/anyspawn/_seccomp"
ARCHITECTURES = {"x86_64": Arch.X86_64, "aarch64": Arch.AARCH64}

FORBIDDEN = {
    "keyrings, which no namespace divides": "add_key keyctl request_key",
    "other processes' memory and descriptors": (
        "ptrace process_vm_readv process_vm_writev kcmp pidfd_getfd"
    ),
    "large parts of the kernel, often attacked": (
        "bpf perf_event_open userfaultfd fanotify_init lookup_dcookie"
    ),
    "mounts and namespaces": (
        "mount umount umount2 pivot_root chroot setns fsopen fsconfig fsmount fspick move_mount "
        "open_tree mount_setattr open_by_handle_at name_to_handle_at"
    ),
    "the machine": (
        "acct quotactl quotactl_fd reboot swapon swapoff kexec_load kexec_file_load init_module "
        "finit_module delete_module create_module query_module get_kernel_syms ioperm iopl syslog "
        "vhangup nfsservctl settimeofday clock_settime _sysctl sysfs ustat "
        "uselib vm86 vm86old modify_ldt stime"
    ),
    "memory policies of the machine": "get_mempolicy set_mempolicy mbind move_pages migrate_pages",
}
ABSENT = "io_uring_setup io_uring_enter io_uring_register"
"""What programs try and do without: they are told that this kernel does not have it."""

NAMESPACES = {
    "time": 0x80,
    "mount": 0x20000,
    "cgroup": 0x2000000,
    "uts": 0x4000000,
    "ipc": 0x8000000,
    "user": 0x10000000,
    "pid": 0x20000000,
    "net": 0x40000000,
}
TIOCSTI, TIOCLINUX = 0x5412, 0x541C
UNIX, INET, INET6, NETLINK = 1, 2, 10, 16
FAMILIES = 46
"""As many as there are."""
PERSONALITY_BITS = (0x40000, 0x100000, 0x400000)
"""No random addresses, a page at 0, and memory that runs because it can be read."""
ASKS = 0x80000000
"""A bit of the argument by which the personality is only asked for."""
LOW = 0xFFFFFFFF
"""The kernel reads 32 bits of an int; a filter sees what the program left in the other half."""


def _empty(machine: str) -> SyscallFilter:
    made = SyscallFilter(ALLOW)
    made.set_attr(Attr.ACT_BADARCH, ERRNO(errno.ENOSYS))  # i386 and x32 on x86_64, 32-bit arm
    if not made.exist_arch(ARCHITECTURES[machine]):
        made.add_arch(ARCHITECTURES[machine])
        made.remove_arch(Arch())
    return made


def default(machine: str) -> SyscallFilter:
    """Return the filter that every sandbox has."""
    made = _empty(machine)
    forbidden = ERRNO(errno.EPERM)
    for names in FORBIDDEN.values():
        for name in names.split():
            made.add_rule(forbidden, name)
    for name in ABSENT.split():
        made.add_rule(ERRNO(errno.ENOSYS), name)
    # Its flags are in memory, out of a filter's sight; libraries fall back to clone.
    made.add_rule(ERRNO(errno.ENOSYS), "clone3")
    for kind, flag in NAMESPACES.items():
        made.add_rule(forbidden, "unshare", Arg(0, MASKED_EQ, flag, flag))
        if kind != "time":  # clone has the signal that tells of the end in that byte
            made.add_rule(forbidden, "clone", Arg(0, MASKED_EQ, flag, flag))
    for request in (TIOCSTI, TIOCLINUX):
        made.add_rule(forbidden, "ioctl", Arg(1, MASKED_EQ, LOW, request))
    for family in range(FAMILIES):
        if family not in (UNIX, INET, INET6, NETLINK):
            unknown = ERRNO(errno.EAFNOSUPPORT)
            made.add_rule(unknown, "socket", Arg(0, MASKED_EQ, LOW, family))
    for bit in PERSONALITY_BITS:
        made.add_rule(forbidden, "personality", Arg(0, MASKED_EQ, ASKS | bit, bit))
    return made


def no_unix(machine: str) -> SyscallFilter:
    """Return the filter that is added where a socket of the host may be in sight: none is made but
    in pairs.
    """
    made = _empty(machine)
    made.add_rule(ERRNO(errno.EPERM), "socket", Arg(0, MASKED_EQ, LOW, UNIX))
    return made


def main(folder: Path) -> None:
    """Write all filters into a folder."""
    for machine in ARCHITECTURES:
        for name, make in {"default": default, "no_unix": no_unix}.items():
            with (folder / f"{name}.{machine}.bpf").open("wb") as file:
                make(machine).export_bpf(file)


if __name__ == "__main__":
    main(Path(sys.argv[1]) if sys.argv[1:] else FOLDER)
