"""Hosts in processes of their own, for tests to do things to."""

from __future__ import annotations

import os
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

from machine import MARK, kill_all
from uses import left_by

__all__ = ["BACKENDS", "hosts"]

TESTS = Path(__file__).parent
BACKENDS = ("asyncio", "trio")


class Host(subprocess.Popen):
    """`faulty_host`, with a mark of its own."""

    def __init__(self, mode, backend, *what, within=()):
        self.name = f"{mode} on {backend}"
        self.mark = f"{os.environ[MARK]}-{mode}-{backend}".replace(" ", "-")
        environ = {
            **os.environ,
            MARK: self.mark,
            "FAULTS_MARK": self.mark,
            "PYTHONPATH": f"{TESTS}:{TESTS.parent}",
            "PYTHONDONTWRITEBYTECODE": "1",
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
        """What it says of a use is true."""
        line = self.stdout.readline()
        left = left_by(self.mark)
        cleanup, used = line.split()[:2]
        assert used == use, (self.name, line)
        assert cleanup == "UNCONFIRMED" or not left, (self.name, line, left)
        kill_all(left)


@contextmanager
def hosts(*what, where, within=lambda number: ()):
    """Start a host for each mode and event loop of ``where``, all at once."""
    started = []
    try:
        for number, (mode, backend) in enumerate(where):
            started.append(Host(mode, backend, *what, within=within(number)))
        yield started
    finally:
        for host in started:
            host.kill()
            host.communicate()
