"""The rules: which hosts and ports a sandboxed program can reach. Pure: no name look-up, clock or
loop.

A host is either a name in its normal form, or an address. Ambiguous texts, which the system's
resolver reads as another address (``127.1``, ``0x7f000001``, ``2130706433``), are refused.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Sequence
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network

from attrs import frozen

__all__ = ["Address", "Host", "Rule", "may_have", "parse_authority", "parse_host", "refusal"]

Address = IPv4Address | IPv6Address
Host = str | Address

WEB = (80, 443)
"""The ports of a rule without ports."""

_LABEL = re.compile(r"(?!-)[a-z0-9_-]{1,63}(?<!-)")
_NUMBER = re.compile(r"[0-9]+|0x[0-9a-f]*")

# The registries of special-purpose addresses, as of this writing, and not the standard library's
# `is_global`: its answers differ between versions of Python.
_SPECIAL_4 = [
    IPv4Network(network)
    for network in (
        "0.0.0.0/8",
        "10.0.0.0/8",
        "100.64.0.0/10",
        "127.0.0.0/8",
        "168.63.129.16/32",  # public by its number, but the virtual machine's host in Azure
        "169.254.0.0/16",
        "172.16.0.0/12",
        "192.0.0.0/24",
        "192.0.2.0/24",
        "192.88.99.0/24",
        "192.168.0.0/16",
        "198.18.0.0/15",
        "198.51.100.0/24",
        "203.0.113.0/24",
        "224.0.0.0/4",
        "240.0.0.0/4",
    )
]
_GLOBAL_6 = IPv6Network("2000::/3")
_SPECIAL_6 = [
    IPv6Network(network) for network in ("2001::/23", "2001:db8::/32", "2002::/16", "3fff::/20")
]
_TRANSLATED = IPv6Network("64:ff9b::/96")
_METADATA = frozenset(
    map(
        ipaddress.ip_address,
        ("168.63.129.16", "100.100.100.200", "192.0.0.192", "fd00:ec2::254", "fd20:ce::254"),
    )
)
"""Of Azure, Alibaba, Oracle, AWS and Google; those that are link-local are refused as such."""


@frozen
class Rule:
    """An entry of a list of hosts.

    Args:
        host: A name, or an address; ``None`` for any name.
        below: The rule means all names below ``host``, but not ``host`` itself.
        ports: The ports; ``None`` for any.
    """

    host: Host | None
    below: bool
    ports: tuple[int, ...] | None

    @classmethod
    def parse(cls, text: str) -> Rule:
        """Return the rule of an entry.

        Raises:
            ValueError: The entry is not valid; the message describes the valid forms.
        """
        name, port = split_port(text)
        ports: tuple[int, ...] | None = WEB
        if port == "*":
            ports = None
        elif port is not None:
            ports = (parse_port(port),)
        if name == "*":
            return cls(host=None, below=True, ports=ports)
        below = name.startswith("*.")
        host = parse_host(name.removeprefix("*."))
        if below and not isinstance(host, str):
            raise ValueError("a wildcard stands before a name, not before an address")
        return cls(host=host, below=below, ports=ports)

    def matches(self, host: Host, port: int) -> bool:
        """Whether the rule names this host and port."""
        return (self.ports is None or port in self.ports) and self.names(host)

    def names(self, host: Host) -> bool:
        """Whether the rule names this host, with any port."""
        if self.host is None:
            return isinstance(host, str)
        if self.below:
            return isinstance(host, str) and host.endswith(f".{self.host}")
        return host == self.host


def split_port(text: str) -> tuple[str, str | None]:
    """Split ``HOST``, ``HOST:PORT``, an IPv6 address, or one in brackets with a port."""
    if text.startswith("["):
        inside, closed, rest = text[1:].partition("]")
        if not closed or ":" not in inside or (rest and not rest.startswith(":")):
            raise ValueError("brackets go around an IPv6 address: [2001:db8::1]:443")
        return inside, rest[1:] if rest else None
    if text.count(":") > 1:
        return text, None
    host, colon, port = text.partition(":")
    return host, port if colon else None


def parse_port(text: str) -> int:
    """Return a port's number, from its decimal digits."""
    if not re.fullmatch("[0-9]{1,5}", text) or not 0 < int(text) < 65536:
        raise ValueError("a port is a number from 1 to 65535")
    return int(text)


def parse_authority(text: str, default: int | None = None) -> tuple[Host, int]:
    """Return the host and the port of ``HOST:PORT``, as a request names them.

    Raises:
        ValueError: The host is not valid, or the port is missing and has no default.
    """
    name, port = split_port(text)
    number = default if port is None else parse_port(port)
    if number is None:
        raise ValueError("there is no port")
    return parse_host(name), number


def parse_host(text: str) -> Host:
    """Return a name in its normal form (ASCII, lower case, no final dot), or an address.

    An IPv6 address that wraps an IPv4 address becomes that IPv4 address.

    Raises:
        ValueError: It is neither, or is ambiguous.
    """
    if ":" in text:
        if "%" in text:
            raise ValueError("an address with a zone means another host on each machine")
        return unwrapped(IPv6Address(text))
    name = text if text.isascii() else _to_ascii(text)
    name = name.lower().removesuffix(".")
    labels = name.split(".")
    if _NUMBER.fullmatch(labels[-1]):
        return IPv4Address(name)  # only four decimal numbers
    if len(name) > 253 or not all(map(_LABEL.fullmatch, labels)):
        raise ValueError("a host is a name such as pypi.org, or an address")
    return name


def _to_ascii(text: str) -> str:
    import idna

    try:
        return idna.encode(text, uts46=True).decode()
    except UnicodeError as exc:
        raise ValueError(f"the name cannot be written in ASCII: {exc}") from None


def unwrapped(address: Address) -> Address:
    """Return the IPv4 address that an IPv6 address wraps, if any."""
    if isinstance(address, IPv6Address):
        if address.ipv4_mapped is not None:
            return address.ipv4_mapped
        if address in _TRANSLATED:
            return IPv4Address(int(address) & 0xFFFFFFFF)
    return address


def is_public(address: Address) -> bool:
    """Whether an address is one of the public internet's hosts."""
    address = unwrapped(address)
    if isinstance(address, IPv4Address):
        return not any(address in network for network in _SPECIAL_4)
    return address in _GLOBAL_6 and not any(address in network for network in _SPECIAL_6)


def refusal(allow: Sequence[Rule], private: Sequence[Rule], host: Host, port: int) -> str | None:
    """Return why a program cannot connect to this host and port, or ``None``."""
    if any(rule.matches(host, port) for rule in (*allow, *private)):
        return None
    if any(rule.names(host) for rule in (*allow, *private)):
        return "the port is not allowed"
    return "the host is not allowed"


def may_have(
    allow: Sequence[Rule], private: Sequence[Rule], host: Host, port: int, address: Address
) -> bool:
    """Whether an allowed host can have this address.

    A public address: always. Any other address: if a rule names it, or if the host's name is in
    ``private``. A link-local address, or one of a cloud's metadata service: only if a rule names
    it.
    """
    address = unwrapped(address)
    if is_public(address):
        return True
    if any(rule.matches(address, port) for rule in (*allow, *private)):
        return True
    if address.is_link_local or address.is_multicast or address in _METADATA:
        return False
    return any(rule.matches(host, port) for rule in private)
