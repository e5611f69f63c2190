"""`anyspawn run` in a container passes stdin on as it arrives."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import pytest

from engines import processes_in
from machine import eventually

RUN = [sys.executable, "-m", "anyspawn", "run", "--mode", "docker_exec"]
BOUND = 60


@pytest.fixture
def start(busybox):
    def start(*argv, timeout="30s", **options):
        dashed = [] if "--" in argv else ["--"]
        where = ["--container", busybox, "--timeout", timeout]
        return subprocess.Popen([*RUN, *where, *dashed, *argv], stdout=subprocess.PIPE, **options)

    return start


def most_memory(pid):
    with open(f"/proc/{pid}/status") as file:
        return next(int(line.split()[1]) for line in file if line.startswith("VmHWM:"))


def test_an_endless_input(start, busybox):
    """A program can read part of an endless input and exit."""
    yes = subprocess.Popen(["yes"], stdout=subprocess.PIPE)
    with yes, start("head", "-n", "1", stdin=yes.stdout) as process:
        yes.stdout.close()
        assert process.communicate(timeout=BOUND) == (b"y\n", None)
        assert process.returncode == 0
    assert not eventually(lambda: processes_in(busybox))


@pytest.mark.parametrize("signum", [None, signal.SIGINT])
def test_an_endless_input_that_nobody_reads(start, busybox, signum):
    """Input that the program does not read uses no memory, and delays neither the timeout nor
    Ctrl-C.
    """
    script = "echo up; sleep 100"
    timeout = "3s" if signum is None else "60s"
    with (
        open("/dev/zero", "rb") as zero,
        start("sh", "-c", script, stdin=zero, stderr=subprocess.PIPE, timeout=timeout) as process,
    ):
        assert process.stdout.readline() == b"up\n"
        assert most_memory(process.pid) < 150 * 1024
        if signum is not None:
            process.send_signal(signum)
        said = process.communicate(timeout=BOUND)[1]
    assert process.returncode == (124 if signum is None else 128 + signum)
    assert (b"timed out after 3 s" in said) == (signum is None)
    assert not eventually(lambda: processes_in(busybox))


def test_a_slow_writer(start):
    """Each line reaches the program as soon as it is written."""
    script = "while read line; do echo got $line; done"
    with start("sh", "-c", script, stdin=subprocess.PIPE) as process:
        for line in (b"one\n", b"two\n"):
            process.stdin.write(line)
            process.stdin.flush()
            assert process.stdout.readline() == b"got " + line
        assert process.communicate(timeout=BOUND)[0] == b""
        assert process.returncode == 0


def test_all_of_it_arrives(start):
    """All input arrives, the status is the program's, and stdout and stderr stay separate."""
    data = os.urandom(2**20)
    script = "cat; echo end >&2; exit 3"
    with start("sh", "-c", script, stdin=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.communicate(data, timeout=BOUND) == (data, b"end\n")
        assert process.returncode == 3


def test_a_program_that_writes_at_once_and_without_end(start):
    """The program is killed when it exceeds the output limit."""
    argv = ["--output-limit", "10", "--", "yes"]
    with start(*argv, stdin=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        out, said = process.communicate(timeout=BOUND)
    assert (process.returncode, len(out)) == (125, 10)
    assert b"wrote more than 10 bytes to stdout" in said


def test_nobody_reads_the_output(start, busybox):
    """If nobody reads the output, the program is killed, as in a pipeline."""
    with start("yes", stdin=subprocess.PIPE) as process:
        assert process.stdout.readline() == b"y\n"
        process.stdout.close()
        assert process.wait(BOUND) == 141
        process.stdin.close()
    assert not eventually(lambda: processes_in(busybox))
