"""The gate: decides about each connection that a program asks for, makes it, counts it and logs
it.
"""

from __future__ import annotations

import logging
import socket
from collections.abc import Sequence
from ipaddress import ip_address

import anyio
from anyio.abc import SocketStream

from anyspawn._egress._rules import Address, Host, Rule, may_have, refusal, unwrapped
from anyspawn._egress._settings import Egress
from anyspawn._egress._sockets import connect
from anyspawn._model import EgressCounts

__all__ = ["DeniedError", "Gate", "UnreachableError", "log"]

CONNECT_TIMEOUT = 10.0
"""Seconds for the look-up of a name, and for a connection to one of its addresses."""
MAX_ADDRESSES = 8
MAX_LOOKUPS = 8
MAX_RECORDS = 1000

log = logging.getLogger("anyspawn.egress")


class DeniedError(Exception):
    """The rules do not allow it."""


class UnreachableError(Exception):
    """The rules allow it, but the connection failed."""


class Gate:
    """Decides about the connections of one call's program.

    Args:
        egress: The hosts.
        call_id: The call, in the log.
    """

    def __init__(self, egress: Egress, call_id: str) -> None:
        self._allow = [Rule.parse(entry) for entry in egress.allow]
        self._private = [Rule.parse(entry) for entry in egress.private]
        self._resolve = egress.resolve or _resolve
        self._id = call_id
        self._lookups = anyio.CapacityLimiter(MAX_LOOKUPS)
        self._records = 0
        self.allowed = 0
        self.denied = 0
        self.failed = 0

    @property
    def counts(self) -> EgressCounts:
        """The decisions so far."""
        return EgressCounts(allowed=self.allowed, denied=self.denied, failed=self.failed)

    async def connect(self, host: Host, port: int) -> SocketStream:
        """Return a connection to a host.

        Raises:
            DeniedError: The rules do not allow it.
            UnreachableError: The connection failed.
        """
        where = f"[{host}]:{port}" if ":" in str(host) else f"{host}:{port}"
        why = refusal(self._allow, self._private, host, port)
        if why is not None:
            raise self.deny(where, why)
        addresses = await self._addresses(where, host, port)
        usable = [
            address
            for address in addresses
            if may_have(self._allow, self._private, host, port, address)
        ]
        if not usable:
            raise self.deny(
                where, f"it has no public address ({addresses[0]}), and is not named as private"
            )
        problem = "no answer in time"
        for address in usable:
            try:
                with anyio.fail_after(CONNECT_TIMEOUT / len(usable)):
                    stream = await connect(address, port)
            except (OSError, TimeoutError) as exc:
                problem = getattr(exc, "strerror", None) or problem
                continue
            self.allowed += 1
            self._record(logging.INFO, "allowed", where, str(address))
            return stream
        raise self._unreachable(where, problem)

    def deny(self, where: str, why: str) -> DeniedError:
        """Count and log a refusal; return the error to raise."""
        self.denied += 1
        self._record(logging.WARNING, "denied", where, why)
        return DeniedError(f"{where}: {why}")

    async def _addresses(self, where: str, host: Host, port: int) -> list[Address]:
        if not isinstance(host, str):
            return [host]
        found: Sequence[str] = ()
        problem = "it has no address"
        try:
            with anyio.fail_after(CONNECT_TIMEOUT):
                async with self._lookups:
                    found = await self._resolve(host, port)
        except TimeoutError:
            problem = "its name could not be looked up in time"
        except OSError as exc:
            problem = f"its name could not be looked up: {exc.strerror or exc}"
        addresses = [unwrapped(ip_address(text.partition("%")[0])) for text in found]
        if not addresses:
            raise self._unreachable(where, problem)
        return list(dict.fromkeys(addresses))[:MAX_ADDRESSES]

    def _unreachable(self, where: str, why: str) -> UnreachableError:
        self.failed += 1
        self._record(logging.INFO, "failed", where, why)
        return UnreachableError(f"{where}: {why}")

    def _record(self, level: int, what: str, where: str, why: str) -> None:
        """Log a decision. The number of records is bounded, because a program can ask without
        end.
        """
        self._records += 1
        if self._records <= MAX_RECORDS:
            log.log(level, "id=%s %s %s: %s", self._id, what, where, why)
        elif self._records == MAX_RECORDS + 1:
            log.warning("id=%s further connections are counted, not logged", self._id)


async def _resolve(name: str, port: int) -> list[str]:
    found = await anyio.getaddrinfo(name, port, type=socket.SOCK_STREAM)
    return [str(sockaddr[0]) for *_, sockaddr in found]
