"""Faults of a host that tests inject, because a real host does not produce them on demand."""

from __future__ import annotations

import errno
import os
import resource
import shutil
import signal
import sys

__all__ = ["FAULTS", "FullTable"]


class FullTable:
    """Leaves only some descriptors free."""

    def __init__(self, free):
        self._free = free
        self._held = []

    def __enter__(self):
        self._limit = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (256, self._limit[1]))
        try:
            while True:
                self._held.append(os.open("/dev/null", os.O_RDONLY))
        except OSError as exc:
            assert exc.errno == errno.EMFILE
        for _ in range(self._free):
            os.close(self._held.pop())
        return self

    def __exit__(self, *exc_info):
        for fd in self._held:
            os.close(fd)
        resource.setrlimit(resource.RLIMIT_NOFILE, self._limit)


def no_pidfd(monkeypatch, tmp_path, number=errno.ENOSYS):
    """pidfd_open is missing, as on macOS and on old kernels."""
    real = os.pidfd_open

    def choose(pid, flags=0):
        if "anyspawn" in sys._getframe(1).f_code.co_filename:
            raise OSError(number, os.strerror(number))
        return real(pid, flags)

    monkeypatch.setattr(os, "pidfd_open", choose)


def pidfd_refused(monkeypatch, tmp_path):
    """pidfd_open is refused, as by a seccomp filter."""
    no_pidfd(monkeypatch, tmp_path, errno.EPERM)


def no_group_signal(monkeypatch, tmp_path):
    """Groups cannot be signalled by pidfd, as on Linux before 6.9."""
    real = signal.pidfd_send_signal

    def refuse_group(fd, number, info=None, flags=0):
        if flags:
            raise OSError(errno.EINVAL, "Invalid argument")
        return real(fd, number, info, flags)

    monkeypatch.setattr(signal, "pidfd_send_signal", refuse_group)


def cwd_deleted(monkeypatch, tmp_path):
    folder = tmp_path / "gone"
    folder.mkdir()
    monkeypatch.chdir(folder)
    shutil.rmtree(folder)


FAULTS = {
    "no pidfd": no_pidfd,
    "pidfd refused": pidfd_refused,
    "no group signal": no_group_signal,
    "cwd deleted": cwd_deleted,
}
"""Each function injects its fault with pytest's monkeypatch."""
