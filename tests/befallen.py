"""Host processes that tests kill, stop or signal."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path

from machine import MARK, kill_all
from uses import left_by

__all__ = ["BACKENDS", "hosts", "outlast_a_stop"]

TESTS = Path(__file__).parent
BACKENDS = ("asyncio", "trio")


class Host(subprocess.Popen):
    """A `faulty_host` with its own mark."""

    def __init__(self, mode, backend, *what, within=()):
        self.name = f"{mode} on {backend}"
        self.mark = f"{os.environ[MARK]}-{mode}-{backend}".replace(" ", "-")
        environ = {
            **os.environ,
            MARK: self.mark,
            "FAULTS_MARK": self.mark,
            "PYTHONPATH": f"{TESTS}:{TESTS.parent}",
        }
        argv = [*within, sys.executable, "-W", "ignore", str(TESTS / "faulty_host.py")]
        pipe = subprocess.PIPE
        super().__init__(
            [*argv, backend, mode, *what], env=environ, stdin=pipe, stdout=pipe, text=True, cwd="/"
        )

    def hears(self, *lines):
        for line in lines:
            assert self.stdout.readline() == f"{line}\n", self.name

    def looks(self, use):
        """Check that the host's report about a use is true."""
        line = self.stdout.readline()
        left = left_by(self.mark)
        cleanup, used = line.split()[:2]
        assert used == use, (self.name, line)
        assert cleanup == "UNCONFIRMED" or not left, (self.name, line, left)
        kill_all(left)


@contextmanager
def hosts(*what, where, within=lambda number: ()):
    """Start a host for each mode and event loop in ``where``, all at once."""
    started = []
    try:
        for number, (mode, backend) in enumerate(where):
            started.append(Host(mode, backend, *what, within=within(number)))
        yield started
    finally:
        for host in started:
            host.kill()
            host.communicate()


def outlast_a_stop(where):
    """Stop hosts for longer than the timeout of their program, which exits in time meanwhile."""
    with hosts("outlast", where=where) as started:
        for host in started:
            host.hears("ready")
            host.send_signal(signal.SIGSTOP)
        time.sleep(9)  # longer than the program's timeout
        for host in started:
            host.send_signal(signal.SIGCONT)
        for host in started:
            host.hears("3 ExitError NOT_NEEDED")
