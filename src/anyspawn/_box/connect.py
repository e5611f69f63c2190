"""A stream to a port inside a box: a small relay runs there, and talks to the port.

The relay is a program of the box like any other, so it ends with the box, and no port is published.
A shell uses the first tool that it finds. The relays in Python and Perl write frames, four bytes of
length and the data. The first frame is empty and means that the connection is made. A later empty
frame means that the other side stopped sending; with a supervisor, the end of stdout would come too
late. BusyBox's nc writes plain data, after a first byte that announces it.
"""

from __future__ import annotations

import errno
from contextlib import suppress

import anyio
from anyio.abc import ByteStream

from anyspawn._spawn.live import Process
from anyspawn.exceptions import NotStartedError, SpawnError, TransportError

__all__ = ["Relayed", "connect_here", "relay"]

_REFUSED, _NO_TOOL = 61, 69
_RAW = b"\xff"
"""The byte before plain data. A frame begins with a 0 byte, because no frame is that long."""

_PYTHON = """
import os, socket, sys, threading
to = None
for host in ("127.0.0.1", "::1"):
    try:
        to = to or socket.create_connection((host, int(sys.argv[1])))
    except OSError:
        pass
if not to:
    os._exit(61)
to.settimeout(None)
def write(data):
    data = memoryview(len(data).to_bytes(4, "big") + data)
    while data:
        data = data[os.write(1, data):]
def send():
    try:
        while True:
            data = os.read(0, 65536)
            if not data:
                return to.shutdown(socket.SHUT_WR)
            to.sendall(data)
    except OSError:
        os._exit(1)
write(b"")
sending = threading.Thread(target=send)
sending.start()
try:
    while True:
        data = to.recv(65536)
        write(data)
        if not data:
            break
except OSError:
    os._exit(1)
sending.join()
"""
_PERL = """
use Socket qw(:DEFAULT inet_pton pack_sockaddr_in6 SHUT_WR);
$SIG{PIPE} = "IGNORE";
my $up;
for (["127.0.0.1", AF_INET], ["::1", AF_INET6]) {
  my $at = inet_pton($_->[1], $_->[0]) or next;
  socket(S, $_->[1], SOCK_STREAM, 0) or next;
  $at = $_->[1] == AF_INET ? pack_sockaddr_in($ARGV[0], $at) : pack_sockaddr_in6($ARGV[0], $at);
  connect(S, $at) and $up = 1 and last;
}
$up or exit 61;
sub put {
  my ($to, $data) = @_;
  while (length $data) { my $n = syswrite($to, $data) or return; substr($data, 0, $n) = ""; }
  return 1;
}
sub frame { put(\\*STDOUT, pack("N", length $_[0]) . $_[0]) or exit 1; }
frame("");
my $child = fork() // exit 1;
if (!$child) {
  close STDOUT;
  my $n;
  while ($n = sysread(STDIN, my $data, 65536)) { put(\\*S, $data) or kill("KILL", getppid), exit 1; }
  exit !shutdown(S, SHUT_WR);
}
close STDIN;
my $n;
while ($n = sysread(S, my $data, 65536)) { frame($data); }
defined $n or exit 1;
frame("");
waitpid($child, 0);
"""
# nc does not report that it has connected, so look up in /proc whether the port has a listener.
_RELAY = """
port=$1
if python3 -I -S -c 'import socket, threading' 2>/dev/null; then exec python3 -I -S -c "$2" "$port"; fi
if perl -MSocket=inet_pton -e 1 2>/dev/null; then exec perl -e "$3" "$port"; fi
case $(nc --help 2>&1) in *BusyBox*) ;; *) exit 69 ;; esac
hex=$(printf %04X "$port") host=
while read -r _ at _ state _; do
  case $at,$state in
  0100007F:$hex,0A | 00000000:$hex,0A | *FFFF00000100007F:$hex,0A) host=127.0.0.1; break ;;
  00000000000000000000000000000000:$hex,0A) host=127.0.0.1; break ;;
  00000000000000000000000001000000:$hex,0A) host=::1 ;;
  esac
done <<E
$(cat /proc/net/tcp /proc/net/tcp6 2>/dev/null)
E
[ "$host" ] || exit 61
printf '\\377'
exec nc "$host" "$port"
"""


def _refused(port: int) -> ConnectionRefusedError:
    return ConnectionRefusedError(
        errno.ECONNREFUSED, f"nothing listens on port {port} of the box's loopback interface"
    )


async def connect_here(port: int) -> ByteStream:
    """Connect to a port of this host's loopback interface."""
    for host in ("127.0.0.1", "::1"):
        with suppress(OSError):
            return await anyio.connect_tcp(host, port)
    raise _refused(port)


def relay(port: int) -> list[str]:
    """Return the argv of a relay between its standard streams and a port."""
    return ["sh", "-c", _RELAY, "sh", str(port), _PYTHON, _PERL]


class Relayed(ByteStream):
    """A connection through a relay.

    Args:
        process: The relay.
        port: The port to connect to.
        among: The open streams of the box.
    """

    def __init__(self, process: Process, port: int, among: set[Relayed]) -> None:
        self._process = process
        self._port = port
        self._among = among
        among.add(self)
        self._raw = self._ended = self._closed = False
        self._head = b""
        self._left = 0

    async def opened(self) -> None:
        """Wait until the connection is made.

        Raises:
            ConnectionRefusedError: Nothing listens on the port.
            NotStartedError: None of the tools is in the box.
            TransportError: It failed otherwise.
        """
        await self._process.stderr.aclose()
        try:
            first = await self._process.stdout.receive(1)
            self._raw = first == _RAW
            if not self._raw:
                self._head = first
                await self._next_frame()
        except (anyio.EndOfStream, anyio.BrokenResourceError):
            raise self._why(await self._process.wait()) from None

    def _why(self, code: int) -> Exception:
        """Return the error of a connection that failed."""
        if code == _REFUSED:
            return _refused(self._port)
        if code == _NO_TOOL:
            return NotStartedError(
                "connect needs python3, perl or BusyBox's nc in the box; install one of them there",
                kind="not_found",
            )
        return TransportError(
            f"the box's relay to port {self._port} exited with status {code}", started=True
        )

    async def _next_frame(self) -> None:
        while len(self._head) < 4:
            self._head += await self._process.stdout.receive(4 - len(self._head))
        self._left, self._head = int.from_bytes(self._head, "big"), b""

    async def receive(self, max_bytes: int = 65536) -> bytes:
        """Return 1 to ``max_bytes`` bytes that the other side sent.

        Raises:
            anyio.EndOfStream: The other side stopped sending.
            anyio.BrokenResourceError: The connection was lost, or the box has ended.
            anyio.ClosedResourceError: The stream was closed.
        """
        if self._ended:
            await anyio.lowlevel.checkpoint()
            raise anyio.ClosedResourceError if self._closed else anyio.EndOfStream
        try:
            if self._raw:
                return await self._process.stdout.receive(max_bytes)
            if not self._left:
                await self._next_frame()
            if self._left:
                data = await self._process.stdout.receive(min(max_bytes, self._left))
                self._left -= len(data)
                return data
        except anyio.EndOfStream:
            if not self._raw or await self._status() != 0:
                raise anyio.BrokenResourceError from None
        self._ended = True
        raise anyio.EndOfStream

    async def _status(self) -> int | None:
        try:
            return await self._process.wait()
        except (SpawnError, anyio.ClosedResourceError):
            return None

    async def send(self, item: bytes) -> None:
        """Send all of ``item``.

        Raises:
            anyio.BrokenResourceError: The other side stopped receiving, or the box has ended.
            anyio.ClosedResourceError: The stream was closed, or its sending side.
        """
        await self._process.stdin.send(item)

    async def send_eof(self) -> None:
        """Tell the other side that no more data comes; it can still send."""
        await self._process.stdin.aclose()

    async def aclose(self) -> None:
        """Close the connection, and kill its relay in the box."""
        self._closed = True
        self._among.discard(self)
        await self._process.aclose()
