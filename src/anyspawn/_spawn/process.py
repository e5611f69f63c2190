"""A child process: started on the event loop's own thread, waited for by pidfd, reaped by nobody
else.

The event loops' own ways are not taken, for what they were seen to do. asyncio starts a thread for
each child on Python 3.11, loses a child that it cannot register to watch, and hung when cancelled
meanwhile. uvloop leaves the host's inheritable descriptors open in the child, gives files without a
format to a shell, and takes three times as long. trio
starts programs in worker threads, of which none may be free, and which end after ten idle seconds:
a runner that asked the kernel to be ended with its parent (``PR_SET_PDEATHSIG``, which means the
thread) is then killed in the middle of its work.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping, Sequence

import anyio

from anyspawn._spawn.group import ProcessGroup

__all__ = ["Process"]


class Process:
    """A child that leads a session of its own.

    Raises:
        OSError: It could not be started.
    """

    def __init__(
        self,
        argv: Sequence[str],
        *,
        stdin: int | None,
        stdout: int,
        stderr: int,
        cwd: str | None,
        env: Mapping[bytes, bytes],
        pass_fds: Sequence[int],
    ) -> None:
        self._popen = subprocess.Popen(
            argv,
            stdin=stdin,
            stdout=stdout,
            stderr=stderr,
            cwd=cwd,
            env=env,
            pass_fds=pass_fds,
            start_new_session=True,
        )
        self.pid = self._popen.pid
        self.group: ProcessGroup | None = None
        self.returncode: int | None = None
        self._reaped = False

    def _reap(self) -> bool:
        if self._reaped:
            return True
        try:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
        except (
            ChildProcessError
        ):  # someone else of this process waits for any child; the status is lost
            self._reaped = True
        else:
            self._reaped = pid != 0
            self.returncode = os.waitstatus_to_exitcode(status) if pid else None
        if self._reaped:
            self._popen.returncode = 0  # so that Popen does not wait for it again
        return self._reaped

    async def wait(self) -> None:
        """Wait until the child has ended, and reap it."""
        pause = 0.0002
        while not self._reap():
            if self.group is not None and self.group.pidfd >= 0:
                await anyio.wait_readable(self.group.pidfd)
            else:
                await anyio.sleep(pause)
                pause = min(pause * 2, 0.05)

    @property
    def ended_by_itself(self) -> bool:
        """Whether the child has ended, and not by a signal."""
        return self._reap() and self.returncode is not None and self.returncode >= 0

    def kill(self) -> None:
        """End the child, and wait for that."""
        if not self._reap():
            self._popen.kill()
            self._popen.wait()

    def reap_later(self) -> None:
        """Let the child go on, and wait for it beside everything else."""
        import threading

        threading.Thread(target=self._popen.wait, name="anyspawn guard", daemon=True).start()
