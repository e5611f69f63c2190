"""SOCKS 5 (RFC 1928): bytes in, messages out.

Only the method "no authentication" and the command CONNECT.
"""

from __future__ import annotations

import ipaddress

from attrs import frozen

__all__ = [
    "CONNECT",
    "NOT_ALLOWED",
    "NO_METHOD",
    "NO_SUCH_COMMAND",
    "OK",
    "UNREACHABLE",
    "VERSION",
    "WITHOUT_AUTHENTICATION",
    "SocksRequest",
    "read_methods",
    "read_request",
    "reply",
]

VERSION = 5
WITHOUT_AUTHENTICATION = b"\x05\x00"
NO_METHOD = b"\x05\xff"
CONNECT = 1

OK = 0
NOT_ALLOWED = 2
UNREACHABLE = 4
NO_SUCH_COMMAND = 7

_IPV4, _NAME, _IPV6 = 1, 3, 4


@frozen
class SocksRequest:
    """What a client asks for."""

    command: int
    host: str
    port: int


def read_methods(data: bytes) -> tuple[bool, bytes] | None:
    """Return whether the client offers no authentication, and the bytes that follow; ``None`` if
    the message is incomplete.

    Raises:
        ValueError: It is not a greeting.
    """
    if data[:1] != bytes([VERSION]):
        raise ValueError("not SOCKS 5")
    if len(data) < 2 or len(data) < 2 + data[1]:
        return None
    return 0 in data[2 : 2 + data[1]], data[2 + data[1] :]


def read_request(data: bytes) -> tuple[SocksRequest, bytes] | None:
    """Return the request, and the bytes that follow; ``None`` if the message is incomplete.

    Raises:
        ValueError: It is not a request.
    """
    if data[:1] not in {b"", bytes([VERSION])} or data[2:3] not in {b"", b"\0"}:
        raise ValueError("not SOCKS 5")
    if len(data) < 5:
        return None
    kind, begin = data[3], 4
    if kind == _NAME:
        begin, size = 5, data[4]
    elif kind in {_IPV4, _IPV6}:
        size = 4 if kind == _IPV4 else 16
    else:
        raise ValueError("an unknown kind of address")
    end = begin + size
    if len(data) < end + 2:
        return None
    raw = data[begin:end]
    host = raw.decode(errors="surrogateescape") if kind == _NAME else str(ipaddress.ip_address(raw))
    return SocksRequest(data[1], host, int.from_bytes(data[end : end + 2])), data[end + 2 :]


def reply(code: int) -> bytes:
    """Return an answer, without an address of this host."""
    return bytes([VERSION, code, 0, _IPV4, 0, 0, 0, 0, 0, 0])
