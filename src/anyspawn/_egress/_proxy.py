"""The proxy between a program and the network: HTTP (CONNECT, and plain requests) and SOCKS 5, on
one port. The program counts as hostile. Each connection has its own task. The number of connections
and their memory are bounded, and the end of the call closes them.
"""

from __future__ import annotations

import errno
import socket
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager, suppress
from functools import partial
from http import HTTPStatus

import anyio
import h11
from anyio.abc import SocketStream

from anyspawn._egress import _socks
from anyspawn._egress._beside import beside
from anyspawn._egress._gate import DeniedError, Gate, UnreachableError, log
from anyspawn._egress._rules import Host, parse_authority, parse_host
from anyspawn._egress._sockets import accept

__all__ = ["serving"]

MAX_CONNECTIONS = 64
"""Connections served at once; more wait to be accepted."""
HEADER_TIMEOUT = 10.0
"""Seconds for a request's headers, from the accepted connection."""
MAX_HEADERS = 16 * 1024
CHUNK = 64 * 1024
_LINGER = 1.0

_LOST = (anyio.BrokenResourceError, anyio.ClosedResourceError, anyio.EndOfStream)
_HOP_BY_HOP = {
    b"connection",
    b"host",
    b"keep-alive",
    b"proxy-authenticate",
    b"proxy-authorization",
    b"proxy-connection",
    b"te",
    b"trailer",
    b"upgrade",
}
_Headers = list[tuple[bytes, bytes]]
_Event = h11.Event | type[h11.NEED_DATA] | type[h11.PAUSED]


@asynccontextmanager
async def serving(listener: socket.socket, gate: Gate) -> AsyncIterator[None]:
    """Take over a listening socket, and serve it as long as the block lasts."""
    with listener:
        listener.setblocking(False)  # noqa: FBT003  the standard library's own form
        async with beside(partial(_accept, listener, gate)):
            yield


async def _accept(listener: socket.socket, gate: Gate) -> None:
    places = anyio.Semaphore(MAX_CONNECTIONS)

    async def serve(client: SocketStream) -> None:
        try:
            async with _closing(client):
                await _serve(client, gate)
        except Exception:  # a bug here closes this connection, not the call
            log.exception("a connection of the proxy failed")
        finally:
            places.release()

    async with anyio.create_task_group() as tasks:
        while True:
            await places.acquire()
            try:
                client = await accept(listener)
            except OSError as exc:
                places.release()
                if exc.errno in {errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM}:
                    await anyio.sleep(0.1)  # until other connections close
                continue
            tasks.start_soon(serve, client)


async def _serve(client: SocketStream, gate: Gate) -> None:
    """Serve one connection. Its errors do not affect others."""
    with suppress(*_LOST, OSError, TimeoutError):
        with anyio.fail_after(HEADER_TIMEOUT):
            first = await client.receive(CHUNK)
        if first[0] == _socks.VERSION:
            await _serve_socks(client, first, gate)
        else:
            await _HttpConnection(client, gate).serve(first)


# --- SOCKS ----------------------------------------------------------------------------------------


async def _serve_socks(client: SocketStream, data: bytes, gate: Gate) -> None:
    try:
        with anyio.fail_after(HEADER_TIMEOUT):
            while (greeting := _socks.read_methods(data)) is None:
                data += await client.receive(CHUNK)
            possible, data = greeting
            await client.send(_socks.WITHOUT_AUTHENTICATION if possible else _socks.NO_METHOD)
            if not possible:
                return
            while (asked := _socks.read_request(data)) is None:
                data += await client.receive(CHUNK)
        request, data = asked
    except ValueError:
        return
    if request.command != _socks.CONNECT:
        await client.send(_socks.reply(_socks.NO_SUCH_COMMAND))
        return
    try:
        host = parse_host(request.host)
    except ValueError as exc:
        gate.deny(_shown(request.host), str(exc))
        await client.send(_socks.reply(_socks.NOT_ALLOWED))
        return
    try:
        server = await gate.connect(host, request.port)
    except DeniedError:
        await client.send(_socks.reply(_socks.NOT_ALLOWED))
    except UnreachableError:
        await client.send(_socks.reply(_socks.UNREACHABLE))
    else:
        async with _closing(server):
            await client.send(_socks.reply(_socks.OK))
            await _join(client, server, data)


@asynccontextmanager
async def _closing(stream: SocketStream) -> AsyncIterator[None]:
    """Always close a stream: after a cancellation in the middle, asyncio's would stay open until
    its peer has read everything.
    """
    try:
        yield
    finally:
        with anyio.CancelScope(shield=True):
            await stream.aclose()


async def _join(client: SocketStream, server: SocketStream, early: bytes) -> None:
    """Pass bytes on in both directions until both ends are closed, or one breaks."""

    async def pump(source: SocketStream, target: SocketStream, data: bytes) -> None:
        try:
            if data:
                await target.send(data)
            while True:
                await target.send(await source.receive(CHUNK))
        except anyio.EndOfStream:
            with suppress(*_LOST, OSError):
                await target.send_eof()
        except (*_LOST, OSError):
            tasks.cancel_scope.cancel()

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(pump, client, server, early)
        tasks.start_soon(pump, server, client, b"")


# --- HTTP -----------------------------------------------------------------------------------------


class _BadRequestError(Exception):
    """A request that cannot be served."""


class _HttpConnection:
    """A client that speaks HTTP, and its one request."""

    def __init__(self, client: SocketStream, gate: Gate) -> None:
        self._client = client
        self._gate = gate
        self._http = h11.Connection(h11.SERVER, max_incomplete_event_size=MAX_HEADERS)
        self._head = False

    async def serve(self, first: bytes) -> None:
        """Read the request and answer it."""
        self._http.receive_data(first)
        try:
            with anyio.fail_after(HEADER_TIMEOUT):
                request = await self._next_event()
            if not isinstance(request, h11.Request):
                return
            self._head = request.method == b"HEAD"
            if request.method == b"CONNECT":
                await self._tunnel(request)
                return
            await self._forward(request)
        except _BadRequestError as exc:
            await self._refuse(400, str(exc))
        except h11.RemoteProtocolError as exc:
            await self._refuse(exc.error_status_hint, str(exc))
        except DeniedError as exc:
            await self._refuse(403, str(exc))
        except UnreachableError as exc:
            await self._refuse(502, str(exc))
        # Closing a connection with unread data resets it, and the answer's last bytes can be lost.
        await self._client.send_eof()
        with anyio.move_on_after(_LINGER):
            while True:
                await self._client.receive(CHUNK)

    async def _next_event(self) -> _Event:
        return await _next_event(self._http, self._client)

    def _asked(self, request: h11.Request, authority: str, default: int | None) -> tuple[Host, int]:
        """Return the target of a request; its Host header must name the same host."""
        try:
            host, port = parse_authority(authority, default)
        except ValueError as exc:
            raise self._gate.deny(_shown(authority), str(exc)) from None
        for name, value in request.headers:
            if name != b"host" or not value:
                continue
            try:
                named = parse_authority(value.decode(), port)[0]
            except ValueError:
                named = ""
            if named != host:
                why = (
                    f"the Host header names another host: {_shown(value.decode(errors='replace'))}"
                )
                raise self._gate.deny(f"{host}:{port}", why)
        return host, port

    async def _tunnel(self, request: h11.Request) -> None:
        host, port = self._asked(request, request.target.decode(), None)
        with anyio.fail_after(HEADER_TIMEOUT):
            if not isinstance(await self._next_event(), h11.EndOfMessage):
                raise _BadRequestError("CONNECT has no body")
        server = await self._gate.connect(host, port)
        async with _closing(server):
            await self._send(h11.Response(status_code=200, headers=[]))
            await _join(self._client, server, self._http.trailing_data[0])

    async def _forward(self, request: h11.Request) -> None:
        """Pass on a request with an absolute URL, and its answer."""
        scheme, _, rest = request.target.decode().partition("://")
        if scheme.lower() != "http":
            raise _BadRequestError(
                "this is a proxy: ask for http://HOST/PATH, or CONNECT to HOST:PORT"
            )
        authority = rest[: min(rest.find(c) if c in rest else len(rest) for c in "/?#")]
        host, port = self._asked(request, authority, 80)
        path = rest[len(authority) :]
        asked = h11.Request(
            method=request.method,
            target=path if path.startswith("/") else f"/{path}",
            headers=[(b"Host", authority.encode()), *_handed_on(request.headers)],
        )
        server = await self._gate.connect(host, port)
        async with _closing(server):
            await self._exchange(asked, server)

    async def _exchange(self, request: h11.Request, server: SocketStream) -> None:
        http = h11.Connection(h11.CLIENT, max_incomplete_event_size=MAX_HEADERS)

        broken = False

        async def send_body() -> None:
            nonlocal broken
            event = None
            while not isinstance(event, h11.EndOfMessage):
                try:
                    event = await self._next_event()
                except (h11.RemoteProtocolError, *_LOST, OSError):
                    broken = True
                    scope.cancel()
                    return
                if not isinstance(event, (h11.Data, h11.EndOfMessage)):
                    return
                try:
                    end = isinstance(event, h11.EndOfMessage)
                    await server.send(http.send(h11.EndOfMessage() if end else event) or b"")
                except (h11.ProtocolError, *_LOST, OSError):
                    return  # a server can answer and close before it has read the whole body

        try:
            await server.send(http.send(request) or b"")
            async with beside(send_body) as scope:
                await self._hand_back(http, server)
            if broken:
                raise _BadRequestError("the body of the request is incomplete")
        except (h11.ProtocolError, *_LOST, OSError) as exc:
            if self._http.our_state is not h11.SEND_RESPONSE:
                raise anyio.BrokenResourceError from None  # cut the answer off there, too
            why = str(exc) or "the connection was lost"
            raise UnreachableError(f"the server did not answer in HTTP: {why}") from None

    async def _hand_back(self, http: h11.Connection, server: SocketStream) -> None:
        while True:
            event = await _next_event(http, server)
            if isinstance(event, h11.InformationalResponse):
                await self._send(
                    h11.InformationalResponse(
                        status_code=event.status_code, headers=_kept(event.headers)
                    )
                )
            elif isinstance(event, h11.Response):
                await self._send(
                    h11.Response(
                        status_code=event.status_code,
                        reason=event.reason,
                        headers=_handed_on(event.headers),
                    )
                )
            elif isinstance(event, h11.Data):
                await self._send(event)
            elif isinstance(event, h11.EndOfMessage):
                await self._send(h11.EndOfMessage())
                return
            else:
                raise h11.RemoteProtocolError("the connection was closed")

    async def _send(self, event: h11.Event) -> None:
        data = self._http.send(event)
        if data:
            await self._client.send(data)

    async def _refuse(self, status: int, why: str) -> None:
        """Send the reason for a refused request, unless an answer has begun."""
        if self._http.our_state not in {h11.IDLE, h11.SEND_RESPONSE}:
            return
        body = f"anyspawn: {why}\n".encode(errors="backslashreplace")
        headers = [
            ("Content-Type", "text/plain; charset=utf-8"),
            ("Content-Length", str(len(body))),
            ("Connection", "close"),
        ]
        reason = HTTPStatus(status).phrase.encode()
        await self._send(h11.Response(status_code=status, reason=reason, headers=headers))
        if not self._head:
            await self._send(h11.Data(data=body))
        await self._send(h11.EndOfMessage())


async def _next_event(http: h11.Connection, stream: SocketStream) -> _Event:
    while True:
        event = http.next_event()
        if event is not h11.NEED_DATA:
            return event
        try:
            http.receive_data(await stream.receive(CHUNK))
        except anyio.EndOfStream:
            http.receive_data(b"")


def _handed_on(headers: Iterable[tuple[bytes, bytes]]) -> _Headers:
    """Return the headers to pass on; the connection serves one request."""
    return [*_kept(headers), (b"Connection", b"close")]


def _kept(headers: Iterable[tuple[bytes, bytes]]) -> _Headers:
    """Return the headers that are not for a proxy. They give the length of the body in one way
    only.
    """
    dropped = set(_HOP_BY_HOP)
    for name, value in headers:
        if name == b"connection":
            dropped |= {option.strip().lower() for option in value.split(b",")}
    dropped -= {b"content-length", b"transfer-encoding"}
    if any(name == b"transfer-encoding" for name, _ in headers):
        dropped.add(b"content-length")
    return [(name, value) for name, value in headers if name not in dropped]


def _shown(text: str) -> str:
    """Return text from the program, made safe for the log."""
    return ascii(text[:100])
