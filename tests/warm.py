"""A Python that has loaded what calls need and forks for each: real processes, without the start of
an interpreter.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

__all__ = ["COMMAND_LINE", "Warm", "cli"]

SERVE = """
import importlib, json, os, socket, sys
calls = socket.socket(fileno=int(sys.argv[1]))
for name in sys.argv[2:]:
    importlib.import_module(name)
del name
while True:
    data, fds, *_ = socket.recv_fds(calls, 65536, 3)
    if not data:
        break
    while not data.endswith(b"\\n"):
        data += calls.recv(65536)
    if os.fork() == 0:
        calls.close()
        for number, fd in enumerate(fds):
            os.dup2(fd, number)
            os.close(fd)
        code, argv, cwd, environ = json.loads(data)
        os.environ.clear()
        os.environ.update(environ)
        os.chdir(cwd)
        sys.argv = argv
        del calls, data, fds, number, fd, argv, cwd, environ
        exec(compile(code, "<string>", "exec"), {"__name__": "__main__"})
        break
    for fd in fds:
        os.close(fd)
    calls.send(b"%d" % os.waitstatus_to_exitcode(os.wait()[1]))
"""


class Warm:
    """Runs Python code in forks of one interpreter, one after the other, while it is entered."""

    def __init__(self, *modules, options=()):
        self._argv = (sys.executable, *options, "-c", SERVE)
        self._modules = modules

    def __enter__(self):
        self._calls, theirs = socket.socketpair()
        with theirs:
            number = theirs.fileno()
            self._process = subprocess.Popen(
                [*self._argv, str(number), *self._modules],
                pass_fds=[number],
                stdin=subprocess.DEVNULL,
                start_new_session=True,
            )
        return self

    def __exit__(self, *exc_info):
        self._calls.close()
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(30)
        self._process.kill()
        self._process.wait()

    def run(self, code, argv=("-c",), *, stdin=None, cwd=".", env=None, timeout=60):
        """Return what `subprocess.run` returns with ``capture_output``. Without ``stdin``, it is
        /dev/null.
        """
        theirs_in, ours_in = os.pipe() if stdin is not None else (os.open(os.devnull, 0), None)
        ours_out, theirs_out = os.pipe()
        ours_err, theirs_err = os.pipe()
        theirs = (theirs_in, theirs_out, theirs_err)
        environ = dict(os.environ if env is None else env)
        call = (code, [os.fsdecode(word) for word in argv], str(cwd), environ)
        data = json.dumps(call).encode() + b"\n"
        self._calls.settimeout(timeout)
        self._calls.sendall(data[socket.send_fds(self._calls, [data], theirs) :])
        for fd in theirs:
            os.close(fd)
        with ThreadPoolExecutor(3) as pool:
            fed = pool.submit(feed, ours_in, stdin)
            stdout, stderr = pool.submit(drain, ours_out), pool.submit(drain, ours_err)
            try:
                status = int(self._calls.recv(100))
            except TimeoutError:
                os.killpg(self._process.pid, signal.SIGKILL)
                raise
            fed.result()
            return subprocess.CompletedProcess(argv, status, stdout.result(), stderr.result())


def feed(fd, data):
    if fd is not None:
        with suppress(BrokenPipeError), open(fd, "wb", buffering=0) as file:
            view = memoryview(data)
            while view:
                view = view[file.write(view) :]


def drain(fd):
    with open(fd, "rb") as file:
        return file.read()


COMMAND_LINE = Warm(
    "anyspawn.cli.app",
    *(f"anyspawn.cli.{name}" for name in ("check", "doctor", "hook", "init", "modes", "run")),
    *(f"anyspawn.cli.{name}" for name in ("schema", "tool")),
    "anyspawn.sandboxes.bubblewrap",
)
MAIN = "import sys\nfrom anyspawn.cli import main\nsys.exit(main())"


def cli(*args, **options):
    """Run the command line in a fork of `COMMAND_LINE`."""
    return COMMAND_LINE.run(MAIN, ("anyspawn", *args), **options)
