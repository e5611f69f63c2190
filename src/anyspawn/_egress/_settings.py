"""`Egress`: the hosts that a sandboxed program can reach. A value; the first call loads the
proxy.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Any

from attrs import Attribute, field, frozen

from anyspawn._model import Command
from anyspawn._sandbox import config_texts
from anyspawn.exceptions import ConfigError

__all__ = ["PORT", "Egress", "Resolve", "holder_id"]

PORT = 3128
"""The proxy's port, on the sandbox's loopback interface."""

_OWN_HOSTS = ("localhost", "127.0.0.1", "::1")
_NODE = {"NODE_USE_ENV_PROXY": "1"}
"""Node 24 and later use the proxy variables only if this one is set."""

Resolve = Callable[[str, int], Awaitable[Sequence[str]]]


def holder_id(command: Command) -> str:
    """Return the id of the container in whose network a command's container starts.

    It must not begin with the other container's name: docker's filter of events matches the
    beginning of a name.
    """
    return f"ee{command.id}"


def _allow_texts(value: Iterable[str]) -> tuple[str, ...]:
    return config_texts(value, "allow")


def _private_texts(value: Iterable[str]) -> tuple[str, ...]:
    return config_texts(value, "private")


def _hosts(_: object, attribute: Attribute[Any], value: tuple[str, ...]) -> None:
    from anyspawn._egress._rules import Rule

    for entry in value:
        try:
            Rule.parse(entry)
        except ValueError as exc:
            hint = "; leave out the scheme and the path" if "/" in entry else ""
            raise ConfigError(
                f"{attribute.name}: {entry!r} is not a host such as pypi.org, *.example.org:443 "
                f"or 10.0.0.5:8080: {exc}{hint}"
            ) from None


def _resolve(_: object, __: object, value: Any) -> None:
    if value is not None and not callable(value):
        raise ConfigError(
            f"resolve must be an async function of a name and a port, not {type(value).__name__}"
        )


@frozen(kw_only=True)
class Egress:
    """The hosts that a sandboxed program can reach, by name. It has no other network access.

    A host is written ``pypi.org``, ``*.example.org`` (each name below example.org, at any depth,
    but not example.org itself), ``*`` (each name), or as an address. ``:443`` after it allows only
    that port, ``:*`` any port. Without a port, 80 and 443 are allowed.

    The program uses a proxy on the host's side, to which ``HTTP_PROXY``, ``HTTPS_PROXY`` and
    ``ALL_PROXY`` point. The proxy resolves names, and connects to the address that it has checked.
    It refuses a name without a public address unless the name is also in ``private``.

    Needs the ``egress`` extra.

    Args:
        allow: The hosts.
        private: Hosts, in the same form, that can also have a private or loopback address. A
            link-local address, or one of a cloud's metadata service, must itself be listed.
            Default: none.
        resolve: An async function that returns the addresses of a name, given the name and the
            port. Default: the system's resolver. Not for configuration files.

    Raises:
        ConfigError: An entry is not a host, or the extra is not installed.
    """

    allow: tuple[str, ...] = field(converter=_allow_texts, validator=_hosts)
    private: tuple[str, ...] = field(default=(), converter=_private_texts, validator=_hosts)
    resolve: Resolve | None = field(
        default=None, validator=_resolve, repr=False, metadata={"config": False}
    )

    def __attrs_post_init__(self) -> None:
        from importlib.util import find_spec

        if find_spec("h11") is None or find_spec("idna") is None:
            raise ConfigError("allow needs the egress extra: pip install 'anyspawn[egress]'")

    def env(self) -> dict[str, str]:
        """Return the variables that point a program to the proxy.

        ``ALL_PROXY`` names it as an HTTP proxy too: some clients refuse to start with a SOCKS proxy
        unless an extra is installed.
        """
        from anyspawn._egress._rules import Rule, parse_host

        rules = [Rule.parse(entry) for entry in (*self.allow, *self.private)]
        own = [name for name in _OWN_HOSTS if not any(r.names(parse_host(name)) for r in rules)]
        proxy = f"http://127.0.0.1:{PORT}"
        env = {"HTTP_PROXY": proxy, "HTTPS_PROXY": proxy, "ALL_PROXY": proxy}
        env |= {"NO_PROXY": ",".join(own)}
        return env | {name.lower(): value for name, value in env.items()} | _NODE
