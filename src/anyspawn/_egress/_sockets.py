"""Connections that are not leaked when the task that makes them is cancelled."""

from __future__ import annotations

import errno
import os
import socket
from ipaddress import IPv4Address, IPv6Address

import anyio
from anyio.abc import SocketStream

__all__ = ["accept", "connect"]

_UNDER_WAY = {0, errno.EINPROGRESS}


async def accept(listener: socket.socket) -> SocketStream:
    """Return the next connection to a listening socket that does not block."""
    while True:
        await anyio.wait_readable(listener)
        try:
            sock, _ = listener.accept()
        except BlockingIOError:
            continue
        return await _stream(sock)


async def connect(address: IPv4Address | IPv6Address, port: int) -> SocketStream:
    """Return a connection to an address, without a name look-up.

    Raises:
        OSError: It could not be made.
    """
    sock = socket.socket(socket.AF_INET if address.version == 4 else socket.AF_INET6)
    try:
        sock.setblocking(False)  # noqa: FBT003  the standard library's own form
        code = sock.connect_ex((str(address), port))
        if code in _UNDER_WAY:
            await anyio.wait_writable(sock)
            code = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if code:
            raise OSError(code, os.strerror(code))
    except BaseException:
        sock.close()
        raise
    return await _stream(sock)


async def _stream(sock: socket.socket) -> SocketStream:
    made: list[SocketStream] = []
    try:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        with anyio.CancelScope(shield=True):
            made.append(await SocketStream.from_socket(sock))
    except BaseException:
        sock.close()
        raise
    return made[0]
