"""From a sandbox's network to the proxy.

The proxy's port inside a sandbox is a listening socket that was opened in the sandbox's network
namespace and is held here, outside of it. So nothing of the proxy runs inside: there is no program
there that has to exist, and none that could be tampered with.
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
from attrs import define, field, frozen

from anyspawn._egress import _enter
from anyspawn._egress._beside import beside
from anyspawn._egress._gate import Gate
from anyspawn._egress._proxy import serving
from anyspawn._egress._rules import Rule
from anyspawn._egress._settings import Egress
from anyspawn._model import Command, Completed, FdArg, Launch
from anyspawn._sandbox import ArgvSandbox
from anyspawn.exceptions import TransportError

__all__ = ["Way", "into_bubblewrap", "listener_in", "proxy_env"]

PORT = 3128
"""The proxy's port, on the sandbox's own loopback interface."""

_ENTER_TIMEOUT = 10.0
_OWN_HOSTS = ("localhost", "127.0.0.1", "::1")


def proxy_env(egress: Egress) -> Mapping[str, str]:
    """Return the variables that point programs to the proxy.

    ``ALL_PROXY`` names it as one of HTTP as well: clients that know SOCKS only with an extra refuse
    to start otherwise.
    """
    from anyspawn._egress._rules import parse_host

    rules = [Rule.parse(entry) for entry in (*egress.allow, *egress.private)]
    own = [host for host in _OWN_HOSTS if not any(rule.names(parse_host(host)) for rule in rules)]
    proxy = f"http://127.0.0.1:{PORT}"
    env = {"HTTP_PROXY": proxy, "HTTPS_PROXY": proxy, "ALL_PROXY": proxy, "NO_PROXY": ",".join(own)}
    return env | {name.lower(): value for name, value in env.items()}


@define
class Way:
    """A call's way out.

    Args:
        launch: The call's launch, which waits for the way.
        ready: Set when the way is there.
    """

    launch: Launch
    ready: anyio.Event = field(factory=anyio.Event)
    _gate: Gate = field(kw_only=True)

    def counted(self, completed: Completed) -> Completed:
        """Return an outcome with the connections that the program asked for."""
        return attrs.evolve(completed, egress=self._gate.counts)


@asynccontextmanager
async def into_bubblewrap(egress: Egress, launch: Launch, command: Command) -> AsyncIterator[Way]:
    """Give a bwrap process, yet to be started in the block, a way out.

    bwrap says which process it made, and executes the program when it is told to.

    Raises:
        TransportError: There can be no way out; the program was not started.
    """
    failed: list[TransportError] = []
    with _pipe() as (told, tells), _pipe() as (waits, go):
        options = {"--info-fd": tells, "--block-fd": waits}
        way = Way(_with_fds(launch, options), gate=Gate(egress, command.id))

        async def prepare() -> None:
            pid = await _child_pid(told)
            try:
                listener = await listener_in(pid)
            except TransportError as exc:
                if os.path.exists(f"/proc/{pid}/ns/net"):  # else bwrap has failed, and says why
                    failed.append(exc)
                    scope.cancel()
                return
            async with serving(listener, way._gate):
                os.write(go, b".")
                way.ready.set()
                await anyio.sleep_forever()

        async with beside(prepare) as scope:
            yield way
    if failed:
        raise failed[0]


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
    """Return the sandbox's first process, as bwrap says it in a JSON object."""
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
    """Runs what opens a socket in a namespace, and hands on the descriptor to send it by."""

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
            argv = [sys.executable, "-I", "-S", _enter.__file__, str(pid), str(PORT)]
            done = await _Entering(channel=theirs.fileno()).spawn(
                Command(argv, timeout=_ENTER_TIMEOUT)
            )
        if done.error is not None:
            why = done.stderr.decode(errors="replace").strip() or done.error
            raise TransportError(
                f"the sandbox's network could not be entered to open the proxy's port: {why}",
                started=False,
            )
        ours.setblocking(False)
        _, fds, _, _ = socket.recv_fds(ours, 1, 1, socket.MSG_CMSG_CLOEXEC)
        return socket.socket(fileno=fds[0])
