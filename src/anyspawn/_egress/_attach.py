"""From a sandbox's network to the proxy.

The proxy's port inside a sandbox is a listening socket, opened in the sandbox's network namespace
and held here, outside. So no part of the proxy runs inside: the sandbox needs no program for it,
and cannot tamper with one.
"""

from __future__ import annotations

import json
import os
import socket
import sys
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager

import anyio
import attrs
from attrs import field, frozen

from anyspawn._bounds import Bound, unbound
from anyspawn._egress import _enter
from anyspawn._egress._beside import beside
from anyspawn._egress._gate import Gate
from anyspawn._egress._proxy import serving
from anyspawn._egress._settings import PORT, Egress, holder_id
from anyspawn._model import Command, Completed, FdArg, Launch
from anyspawn._sandbox import ArgvSandbox
from anyspawn._spawn.outcome import with_reached
from anyspawn.exceptions import TransportError

__all__ = ["Way", "into_bubblewrap", "into_container", "listener_in"]

_ENTER = [sys.executable, "-I", "-S", _enter.__file__]
_ENTER_TIMEOUT = 10.0


@frozen
class Way:
    """A call's access to the proxy.

    Args:
        launch: The call's launch; its program starts when the proxy is ready.
    """

    launch: Launch
    _gate: Gate
    _bounds: list[Bound] = field(factory=list)

    def counted(self, completed: Completed) -> Completed:
        """Return the outcome with the counts of connections, and with the limits that were
        reached.
        """
        error = completed.error
        for bound in self._bounds:
            error = with_reached(error, bound.reached())
        return attrs.evolve(completed, egress=self._gate.counts, error=error)


@asynccontextmanager
async def into_bubblewrap(egress: Egress, launch: Launch, command: Command) -> AsyncIterator[Way]:
    """Give the proxy to a bwrap process that the block will start.

    bwrap reports the process that it made, and executes the program when anyspawn lets it go on.

    Raises:
        TransportError: There can be no way out; the program was not started.
    """
    failed: list[TransportError] = []
    limits, bounds = launch.limits, list[Bound]()
    launch = attrs.evolve(launch, limits=None)
    with _pipe() as (told, tells), _pipe() as (waits, go):
        options = {"--info-fd": tells, "--block-fd": waits}
        gate = Gate(egress, command.id)

        async def prepare() -> None:
            pid = await _child_pid(told)
            try:
                listener = await listener_in(pid)
            except TransportError as exc:
                if _has_network(pid):  # otherwise bwrap has failed and reports why
                    failed.append(exc)
                    scope.cancel()
                return
            async with serving(listener, gate):
                try:
                    if limits is not None:
                        bounds.append(Bound(limits, pid, alone=True))
                except OSError as exc:
                    if _has_network(pid):
                        failed.append(unbound("bwrap", exc))
                        scope.cancel()
                    return
                os.write(go, b".")
                await anyio.sleep_forever()

        try:
            async with beside(prepare) as scope:
                yield Way(_with_fds(launch, options), gate, bounds)
        finally:
            for bound in bounds:
                bound.lift()
    if failed:
        raise failed[0]


def _has_network(pid: int) -> bool:
    return os.path.exists(f"/proc/{pid}/ns/net")


@asynccontextmanager
async def into_container(
    egress: Egress, launch: Launch, command: Command, holder: ArgvSandbox, docker: str
) -> AsyncIterator[Way]:
    """Give the proxy to a container that the block will start.

    A container without a network, the holder, keeps the network namespace in which the command's
    container then starts.

    Args:
        egress: The hosts.
        launch: The call's launch.
        command: The command.
        holder: Runs ``sh`` in a container without a network.
        docker: The client.

    Raises:
        SpawnError: There can be no way out; the program was not started.
    """
    hold = Command(
        ["-c", "read -r _", "anyspawn", command.id],
        id=holder_id(command),
        timeout=command.timeout,
    )
    async with holder.open_process(hold):
        pid = await _container_pid(docker, f"anyspawn-{hold.id}", command.id)
        listener = await listener_in(pid)
        gate = Gate(egress, command.id)
        async with serving(listener, gate):
            yield Way(launch, gate)


async def _container_pid(docker: str, container: str, word: str) -> int:
    """Return the pid of a container's first process, checked by a word in its argv."""
    from anyspawn._call import spawn

    argv = [docker, "container", "inspect", "--format", "{{.State.Pid}}", container]
    done = await spawn(argv, timeout=_ENTER_TIMEOUT)
    pid = int(done.stdout) if done.error is None else 0
    if not pid:
        raise TransportError(
            "an Egress needs a second container of the same image, to run sh, and that container "
            "has ended: the image may have no sh",
            started=False,
        )
    if word not in _argv_of(pid):
        raise TransportError(
            "an Egress needs docker's daemon on this machine, in the same pid namespace: "
            f"process {pid}, as it calls the container's, is not here",
            started=False,
        )
    return pid


def _argv_of(pid: int) -> list[str]:
    try:
        with open(f"/proc/{pid}/cmdline", "rb") as file:
            return file.read().decode(errors="replace").split("\0")
    except OSError:
        return []


@contextmanager
def _pipe() -> Iterator[tuple[int, int]]:
    ends = os.pipe()
    try:
        yield ends
    finally:
        for end in ends:
            os.close(end)


def _with_fds(launch: Launch, options: Mapping[str, int]) -> Launch:
    """Return the launch with options before all others whose values are open descriptors."""
    added = [item for name in options for item in (name, "0")]
    moved = [attrs.evolve(arg, index=arg.index + len(added)) for arg in launch.fd_args]
    ours = [FdArg(index=2 + 2 * n, fd=fd) for n, fd in enumerate(options.values())]
    argv = (launch.argv[0], *added, *launch.argv[1:])
    return attrs.evolve(launch, argv=argv, fd_args=(*moved, *ours))


async def _child_pid(told: int) -> int:
    """Return the sandbox's first process, from bwrap's JSON report."""
    said = b""
    while True:
        await anyio.wait_readable(told)
        said += os.read(told, 4096)
        try:
            return int(json.loads(said)["child-pid"])
        except ValueError:
            continue


@frozen(kw_only=True)
class _Entering(ArgvSandbox):
    """Runs the program that opens a socket in a namespace, with the descriptor by which it sends
    the socket.
    """

    name: str = "egress"
    channel: int

    def launch(self, command: Command) -> Launch:
        argv = (*command.argv, "0")
        return Launch(argv=argv, fd_args=(FdArg(index=len(command.argv), fd=self.channel),))


async def listener_in(pid: int) -> socket.socket:
    """Return a socket that listens on the proxy's port in the network of a process.

    Raises:
        TransportError: It could not be opened.
    """
    ours, theirs = socket.socketpair()
    with ours:
        with theirs:
            command = Command([*_ENTER, str(pid), str(PORT)], timeout=_ENTER_TIMEOUT)
            done = await _Entering(channel=theirs.fileno()).spawn(command)
        if done.error is not None:
            why = done.stderr.decode(errors="replace").strip() or done.error
            raise TransportError(
                "the sandbox's network could not be entered to open the proxy's port, which takes "
                f"root or a sandbox of this user's own: {why}",
                started=False,
            )
        flags = socket.MSG_CMSG_CLOEXEC | socket.MSG_DONTWAIT
        _, fds, _, _ = socket.recv_fds(ours, 1, 1, flags)
        return socket.socket(fileno=fds[0])
