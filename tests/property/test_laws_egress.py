"""The laws about the hosts that a program may reach, whatever it writes."""

from __future__ import annotations

import ipaddress
import socket

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from anyspawn import ConfigError, Egress
from anyspawn._egress._rules import (
    Rule,
    is_public,
    may_have,
    parse_authority,
    parse_host,
    refusal,
    unwrapped,
)
from anyspawn._egress._socks import read_methods, read_request

labels = st.from_regex(r"[a-z][a-z0-9]{0,8}(-[a-z0-9]{1,4})?", fullmatch=True)
names = st.lists(labels, min_size=1, max_size=4).map(".".join)
ports = st.integers(1, 65535)
addresses = st.ip_addresses()
addresses_4 = st.ip_addresses(v=4)


def cased(data, text):
    flips = data.draw(st.lists(st.booleans(), min_size=len(text), max_size=len(text)))
    return "".join(c.upper() if up else c for c, up in zip(text, flips, strict=True))


def refused(rule, host, port):
    return refusal([Rule.parse(rule)], [], host, port) is not None


@given(st.data(), names, ports)
def test_a_name_is_itself(data, name, port):
    """A rule without a wildcard allows its name in any spelling, and only its own port."""
    written = cased(data, name) + data.draw(st.sampled_from(["", "."]))
    assert not refused(f"{name}:{port}", parse_host(written), port)
    other = data.draw(ports.filter(lambda p: p != port))
    assert refused(f"{name}:{port}", parse_host(written), other)


@given(names, ports)
def test_without_a_port_the_webs_are_meant(name, port):
    """A rule without a port allows ports 80 and 443, and ``:*`` allows any port."""
    assert refused(name, name, port) == (port not in {80, 443})
    assert not refused(f"{name}:*", name, port)


@given(names, names)
def test_another_name_is_refused(rule, name):
    """Any other name is refused, even if it begins or ends with the rule's name."""
    assume(rule != name)
    for other in (name, f"{rule}.{name}", f"x{rule}", f"{rule}x"):
        if other != rule:
            assert refused(rule, parse_host(other), 443)


@given(names, names)
def test_a_wildcard_is_for_what_is_below(rule, name):
    """``*.NAME`` allows every name below NAME, at any depth, but neither NAME itself nor a name
    with the same ending.
    """
    wildcard = f"*.{rule}"
    assert not refused(wildcard, parse_host(f"{name}.{rule}"), 443)
    assert refused(wildcard, rule, 443)
    assert refused(wildcard, parse_host(f"x{rule}"), 443)
    assert refused(wildcard, parse_host(f"{rule}.{name}x"), 443)


@given(names, addresses, ports)
def test_no_name_allows_an_address(name, address, port):
    """Only a rule for the address itself allows an address; no name and no wildcard does."""
    host = parse_host(str(address)) if "%" not in str(address) else address
    for rule in (f"{name}:*", f"*.{name}:*", "*:*"):
        assert refused(rule, host, port)
    text = f"[{host}]" if ":" in str(host) else str(host)
    assert not refused(f"{text}:{port}", host, port)


@given(st.text(max_size=40) | st.text("0123456789abcdefx.:[]%*-@/\\", max_size=40))
def test_any_text_is_one_host_or_none(text):
    """Any text is parsed as a name in its canonical form or as an address, or it is refused. The
    system's resolver must never read such a name as an address.
    """
    try:
        host = parse_host(text)
    except ValueError:
        return
    assert parse_host(str(host)) == host
    if isinstance(host, str):
        assert host.isascii()
        assert not set(host) & set("%@/\\:*[] \0\r\n")
        with pytest.raises(OSError):  # noqa: PT011  inet_aton raises a plain OSError
            socket.inet_aton(host)


@given(addresses_4)
def test_odd_spellings_are_no_addresses(address):
    """Spellings that ``inet_aton`` accepts besides four decimal numbers are refused."""
    number = int(address)
    parts = [(number >> shift) & 255 for shift in (24, 16, 8, 0)]
    for text in (
        str(number),
        hex(number),
        ".".join(map(hex, parts)),
        ".".join(f"0{part:o}" if part else "00" for part in parts),
        f"{parts[0]}.{number & 0xFFFFFF}",
        f"{parts[0]}.{parts[1]}.{number & 0xFFFF}",
    ):
        with pytest.raises(ValueError):  # noqa: PT011  the message is the standard library's
            parse_host(text)


@given(addresses_4)
def test_an_address_in_another(address):
    """An IPv4 address inside an IPv6 one is judged as the IPv4 address, or is not public."""
    for prefix in ("::ffff:0:0", "64:ff9b::"):
        wrapped = ipaddress.IPv6Address(int(ipaddress.IPv6Address(prefix)) | int(address))
        assert unwrapped(wrapped) == address
        assert parse_host(str(wrapped)) == address
        assert is_public(wrapped) == is_public(address)
    for wrapped in (
        ipaddress.IPv6Address(int(address)),
        ipaddress.IPv6Address((0x2002 << 112) | (int(address) << 80)),
        ipaddress.IPv6Address((0x20010000 << 96) | int(address)),
    ):
        assert not is_public(wrapped)


@given(addresses)
def test_public_is_no_more_than_the_standard_library_says(address):
    """Every address that is public here is also public for the standard library."""
    if is_public(address):
        address = unwrapped(address)
        assert address.is_global
        assert not {address.is_multicast, address.is_reserved, address.is_loopback} - {False}


@pytest.mark.parametrize(
    "address",
    "8.8.8.8 1.1.1.1 151.101.0.223 2606:4700::6810:1 2a04:4e42::223 64:ff9b::808:808".split(),  # noqa: SIM905
)
def test_public_addresses(address):
    """Well-known hosts of the internet are public."""
    assert is_public(ipaddress.ip_address(address))


@given(names, ports, addresses)
def test_a_private_address_takes_more_than_a_name(name, port, address):
    """An allowed name may resolve to a public address. Another address needs a rule in `private`,
    or a rule for the address itself; a link-local one always needs the latter.
    """
    address = unwrapped(address)
    rule = [Rule.parse(f"{name}:*")]
    assert may_have(rule, [], name, port, address) == is_public(address)
    text = f"[{address}]" if ":" in str(address) else str(address)
    if "%" not in text:
        assert may_have([*rule, Rule.parse(f"{text}:{port}")], [], name, port, address)
    if address.is_link_local:
        assert not may_have([], rule, name, port, address)


@pytest.mark.parametrize(
    "address",
    "169.254.169.254 fe80::1 168.63.129.16 100.100.100.200 192.0.0.192 fd00:ec2::254".split(),  # noqa: SIM905
)
def test_metadata_takes_its_address(address):
    """No name reaches a metadata service, private or not; only a rule for its address does."""
    rule, found = [Rule.parse("a.test:*")], ipaddress.ip_address(address)
    assert not may_have(rule, rule, "a.test", 80, found)
    listed = Rule.parse(f"[{address}]" if ":" in address else address)
    assert may_have([*rule, listed], [], "a.test", 80, found)


@pytest.mark.parametrize(
    ("written", "name"),
    [
        ("Bücher.example", "xn--bcher-kva.example"),
        ("BÜCHER.EXAMPLE.", "xn--bcher-kva.example"),
        ("\uff50ypi\uff0eorg", "pypi.org"),
        ("pypi\u3002org", "pypi.org"),
        ("faß.example", "xn--fa-hia.example"),
    ],
)
def test_international_names(written, name):
    """Names beyond ASCII have one form, that of IDNA 2008 with its mapping."""
    assert parse_host(written) == name
    assert not refused(written, name, 443)


@pytest.mark.parametrize(
    "written", ["\uff11\uff12\uff17.0.0.1", "127\u30020\u30020\u30021", "\u246b7.0.0.1"]
)
def test_no_address_in_other_digits(written):
    """Digits of other scripts cannot spell an address unnoticed."""
    try:
        host = parse_host(written)
    except ValueError:
        return
    assert host == ipaddress.ip_address("127.0.0.1")
    assert not is_public(host)


@pytest.mark.parametrize(
    "entry",
    ["", "https://pypi.org", "pypi.org/simple", "pypi.org:", "pypi.org:0", "pypi.org:65536",
     "pypi.org:http", "a*.org", "*.*.org", "*.", "*.1.2.3.4", "1.2.3", "10.0.0.0/8", "-x.org",
     "a..b", "a b", "user@pypi.org", "[1.2.3.4]", "[::1", "fe80::1%eth0", "pypi.org:443:1"],
)  # fmt: skip
def test_entries_that_are_none(entry):
    """A wrong entry is refused when the Egress is made, and the error shows a right one."""
    with pytest.raises(ConfigError, match=r"^allow: .* is not a host such as pypi\.org"):
        Egress(allow=[entry])
    with pytest.raises(ConfigError, match=r"^private: "):
        Egress(allow=[], private=[entry])


@pytest.mark.parametrize("allow", ["pypi.org", 1, [1], None])
def test_what_is_no_list(allow):
    """A list of hosts must be a list of texts."""
    with pytest.raises(ConfigError, match=r"^allow"):
        Egress(allow=allow)


@given(st.binary(max_size=40), st.binary(max_size=8))
def test_socks_takes_any_bytes(data, more):
    """Any bytes are a message, the beginning of one, or a ValueError. More bytes never change a
    complete message.
    """
    for read in (read_methods, read_request):
        try:
            found = read(data)
        except ValueError:
            continue
        if found is not None:
            assert read(data + more) == (found[0], found[1] + more)


@given(st.text(max_size=30))
def test_any_authority(text):
    """Any text gives a host and a port, or a ValueError."""
    try:
        _, port = parse_authority(text, 80)
    except ValueError:
        return
    assert 0 < port < 65536
