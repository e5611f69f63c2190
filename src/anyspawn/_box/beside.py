"""A box in `Bubblewrap`: a sandbox that stays, and calls in it, which can run at the same time.

Its first program, the holder, starts a supervisor for each call. A client on the host, a few lines
of sh, requests it through a named pipe, and passes the call's streams through three more. The pipes
are in a folder of the host that is read-only inside, so that a program cannot replace one with
another file or a link. No process enters the sandbox's namespaces from outside: all programs there
have the holder's system call filter, limits and dropped rights.
"""

from __future__ import annotations

import os
import shlex
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

import anyio
import attrs
from attrs import field, frozen

from anyspawn._model import Command, Completed, Fill, Launch
from anyspawn._spawn.live import Process
from anyspawn.exceptions import SpawnError, TransportError
from anyspawn.sandboxes._supervised import SupervisedSandbox, explain_report, known_by, supervised
from anyspawn.sandboxes.bubblewrap import Bubblewrap, _not_started
from anyspawn.supervisor import SWEEP, Report, resident_script, script

__all__ = ["HOLDER", "InBubblewrap", "kept", "let_go", "let_go_when_over"]

_INSIDE = "/dev/shm/.anyspawn"
_POKE = 0.05

# Its children become orphans, which the sandbox's first process reaps.
HOLDER = f"""
exec 3<>{_INSIDE}/call </dev/null
while read -r call <&3; do
  c={_INSIDE}/$call
  (. "$c.run" <"$c.in" >"$c.out" 2>"$c.err" 3<&- &)
done
"""
_OVER = "the box has ended"
_CLIENT = """
[ -d "$0" ] || { echo "the box has ended" >&2; exit 125; }
c=$0/$$ owner=$1
shift
umask 077
rm -f "$c".*
mkfifo "$c.in" "$c.out" "$c.err" && { printf exec; printf ' %s' "$@"; echo; } >"$c.run" || exit 125
[ -z "$owner" ] || chown "$owner" "$c".* || exit 125
exec 3<&0
cat <"$c.out" 3<&- & out=$!
cat <"$c.err" >&2 3<&- & err=$!
cat <&3 >"$c.in" 3<&- & in=$!
exec 3<&-
echo "$$" 1<>"$0/call"
wait "$out"
wait "$err"
kill "$in" 2>/dev/null
wait "$in" 2>/dev/null
rm -f "$c".*
"""


def kept(sandbox: Bubblewrap, pipes: str) -> Bubblewrap:
    """Return the sandbox for the holder, with a folder of named pipes. It derives from the given
    sandbox's class, which may itself derive from `Bubblewrap`.
    """
    kind: Any = type(sandbox)

    class Kept(kind):  # type: ignore[misc]
        def _launch(self, command: Command, covered: Mapping[str, Sequence[str]]) -> Launch:
            launch: Launch = super()._launch(command, covered)
            before = len(launch.argv) - len(command.argv) - 1  # the "--"
            argv = (
                *launch.argv[:before],
                *("--ro-bind", pipes, _INSIDE),
                *launch.argv[before:],
            )
            # The guard removes the pipes when this process ends, for whatever reason.
            guard = ("sh", "-c", 'read -r _; rm -rf "$0"', pipes)
            return attrs.evolve(launch, argv=argv, guard=guard)

    fields = {one.alias: getattr(sandbox, one.name) for one in attrs.fields(kind) if one.init}
    made: Bubblewrap = Kept(**fields)
    return made


@frozen(kw_only=True)
class InBubblewrap(SupervisedSandbox):
    """Runs commands in a sandbox that a holder keeps."""

    pipes: str = field()
    workdir: str = field()
    owner: str = field(default="")

    @property
    def _target(self) -> str:
        return "the box"

    def launch(self, command: Command) -> Launch:
        """Return the client of ``command``, or that of a resident."""
        stays = self.resident not in (0, "auto")
        begun = ("sh", "-c", script(), "anyspawn", *command.argv)
        if stays:
            begun = ("sh", "-c", resident_script(), "anyspawn", Fill("resident.?", "id"))
        sweep = ("sh", "-c", SWEEP, "anyspawn", *known_by(command, stays=stays))
        return supervised(
            command,
            explain=_explain,
            cwd=command.cwd or self.workdir,
            stays=stays,
            argv=self._client(*begun),
            runner="sh",
            remote=True,
            stop=self._client(*sweep, "TERM"),
            end=self._client(*sweep, "KILL"),
            gone=self._client(*sweep),
            gone_words=(_OVER,),  # the folder is removed after the sandbox has ended
        )

    def _client(self, *argv: str) -> tuple[str, ...]:
        quoted = (arg if isinstance(arg, Fill) else shlex.quote(arg) for arg in argv)
        return ("sh", "-c", _CLIENT, self.pipes, self.owner, *quoted)


async def let_go_when_over(holder: Process, pipes: str) -> None:
    """Wait until the holder exits; then release the clients that wait for it at a pipe, until the
    folder is gone.
    """
    with suppress(SpawnError, anyio.ClosedResourceError):
        await holder.wait()
    with suppress(FileNotFoundError):
        while True:
            let_go(pipes)
            await anyio.sleep(_POKE)


def let_go(pipes: str) -> None:
    """Remove the pipes, so that no client waits for the other end of one."""
    for name in os.listdir(pipes):
        path = os.path.join(pipes, name)
        if name.endswith((".in", ".out", ".err")):
            with suppress(OSError):
                # A waiting client gets this end before the name is gone, or then finds no pipe.
                fd = os.open(path, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
                try:
                    os.unlink(path)
                finally:
                    os.close(fd)


def _explain(completed: Completed, report: Report) -> SpawnError | None:
    return explain_report(completed, report, _lost, _not_started)


def _lost(stderr: str, _: int | None, *, started: bool | None) -> SpawnError:
    said = f": {stderr.strip()[-200:]}" if stderr.strip() else ""
    return TransportError(
        f"the box is gone: its sandbox has ended{said}", started=started, kind="target"
    )
