"""The confinement of a container: settings, and the docker options for them."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from typing import Any

from attrs import Attribute, field, frozen

from anyspawn._fields import parse_size
from anyspawn._limits import count_or_none
from anyspawn._sandbox import config_flag, config_texts, host_path
from anyspawn.exceptions import ConfigError

__all__ = ["SecurityConfig", "SecurityOptions", "parse_memory", "security_options"]

_LEAST_MEMORY = 6 * 2**20


def parse_memory(text: str | int) -> int:
    """Return the size that ``text`` means, in bytes: ``512MB``, ``1.5GiB``, ``4g``, or bytes. All
    units are powers of 1024.

    docker reads them in the same way.

    Raises:
        ConfigError: The text is not a size, or is below docker's minimum, 6 MiB.
    """
    if isinstance(text, bool) or not isinstance(text, (str, int)):
        raise ConfigError(
            f"memory must be a text such as 512MB or 1.5GiB, or bytes, not {type(text).__name__}"
        )
    try:
        size = parse_size(str(text))
    except ValueError as exc:
        raise ConfigError(f"memory: {exc}") from None
    if size < _LEAST_MEMORY:
        raise ConfigError(f"memory: {text!r} is less than the 6 MiB that docker asks for at least")
    return size


def _cap_drop_texts(value: Iterable[str]) -> tuple[str, ...]:
    return config_texts(value, "cap_drop")


def _cap_add_texts(value: Iterable[str]) -> tuple[str, ...]:
    return config_texts(value, "cap_add")


def _tmpfs_texts(value: Iterable[str]) -> tuple[str, ...]:
    return config_texts(value, "tmpfs")


def _capabilities(_: object, attribute: Attribute[Any], value: tuple[str, ...]) -> None:
    for name in value:
        if not re.fullmatch("[A-Za-z_]+", name):
            raise ConfigError(
                f"{attribute.name}: {name!r} is not a capability; write ALL, or names such as NET_BIND_SERVICE"
            )


def _memory(_: object, __: object, value: Any) -> None:
    if value is not None:
        parse_memory(value)


def _cpus(_: object, __: object, value: Any) -> None:
    if value is not None and (
        isinstance(value, bool) or not isinstance(value, (int, float)) or not 0.01 <= value <= 4096
    ):
        raise ConfigError(
            f"cpus must be a number from 0.01 up, or None for no limit, not {value!r}"
        )


def _user(_: object, __: object, value: Any) -> None:
    if value is not None and (
        not isinstance(value, str) or not re.fullmatch(r"[\w.][\w.-]*(:[\w.][\w.-]*)?", value)
    ):
        raise ConfigError(
            f"user must be of the form USER or USER:GROUP, by name or number, or None for the image's, not {value!r}"
        )


def _tmpfs(_: object, __: object, value: tuple[str, ...]) -> None:
    for entry in value:
        if not entry.startswith("/"):
            raise ConfigError(
                f"tmpfs: {entry!r} must be an absolute path, with options after a colon if any: /tmp:size=64m"
            )


def _seccomp(_: object, __: object, value: Any) -> None:
    if value is None or value == "unconfined":
        return
    if not isinstance(value, (str, os.PathLike)):
        raise ConfigError(
            f"seccomp must be the path of a profile, 'unconfined', or None for docker's own, not {type(value).__name__}"
        )
    import json

    try:
        with open(value, "rb") as file:
            profile = json.load(file)
    except OSError as exc:
        raise ConfigError(
            f"seccomp: the profile {os.fspath(value)!r} cannot be read: {exc.strerror}"
        ) from None
    except (ValueError, RecursionError) as exc:
        raise ConfigError(
            f"seccomp: the profile {os.fspath(value)!r} is not valid JSON: {exc}"
        ) from None
    if not isinstance(profile, dict) or not isinstance(profile.get("defaultAction"), str):
        raise ConfigError(
            f"seccomp: the profile {os.fspath(value)!r} has no defaultAction, so it is not a seccomp profile"
        )


def _profile_path(path: str, folder: str) -> str:
    return path if path == "unconfined" else host_path(path, folder)


def _path(value: Any) -> Any:
    return (
        os.path.abspath(value)
        if isinstance(value, (str, os.PathLike)) and value != "unconfined"
        else value
    )


@frozen(kw_only=True)
class SecurityConfig:
    """The confinement of a container. The defaults are as strict as ordinary programs allow.

    Args:
        cap_drop: Capabilities to take away. Default: all.
        cap_add: Capabilities to give after that. Default: none.
        no_new_privileges: Set-user-ID programs give no privileges. Default true.
        seccomp: The path of a seccomp profile, which must be valid; ``unconfined``: none. Default:
            docker's.
        read_only: The root file system is read-only. Default true.
        tmpfs: Folders in memory, with options after a colon. Default: ``/tmp``.
        memory: How much memory, swap included: ``512MB``, ``1.5GiB``, ``4g`` or bytes; ``None``: no
            limit. Default 512 MiB.
        cpus: How many processors; a fraction is possible. Default: no limit.
        pids_limit: How many processes and threads. Default 256; ``None``: docker's default.
        user: The user inside, as ``USER`` or ``USER:GROUP``. Default ``65534:65534`` (nobody);
            ``None``: the image's.
        init: Run an init as the first process, which reaps zombies and forwards signals. Default
            true.
    """

    cap_drop: tuple[str, ...] = field(
        default=("ALL",), converter=_cap_drop_texts, validator=_capabilities
    )
    cap_add: tuple[str, ...] = field(default=(), converter=_cap_add_texts, validator=_capabilities)
    no_new_privileges: bool = field(default=True, validator=config_flag)
    seccomp: str | None = field(
        default=None, converter=_path, validator=_seccomp, metadata={"host_path": _profile_path}
    )
    read_only: bool = field(default=True, validator=config_flag)
    tmpfs: tuple[str, ...] = field(default=("/tmp",), converter=_tmpfs_texts, validator=_tmpfs)
    memory: str | int | None = field(default="512MiB", validator=_memory)
    cpus: float | None = field(default=None, validator=_cpus)
    pids_limit: int | None = field(default=256, validator=count_or_none)
    user: str | None = field(default="65534:65534", validator=_user)
    init: bool = field(default=True, validator=config_flag)


@frozen(kw_only=True)
class SecurityOptions:
    """A `SecurityConfig` in docker's own terms.

    Args:
        cap_drop: ``HostConfig.CapDrop``.
        cap_add: ``HostConfig.CapAdd``.
        security_opt: ``HostConfig.SecurityOpt``.
        readonly_rootfs: ``HostConfig.ReadonlyRootfs``.
        tmpfs: ``HostConfig.Tmpfs``: options by path.
        memory: ``HostConfig.Memory`` and ``MemorySwap``, in bytes; 0 for no limit.
        nano_cpus: ``HostConfig.NanoCpus``; 0 for no limit.
        pids_limit: ``HostConfig.PidsLimit``; 0 for docker's default.
        user: ``Config.User``.
        init: ``HostConfig.Init``.
    """

    cap_drop: tuple[str, ...] = ()
    cap_add: tuple[str, ...] = ()
    security_opt: tuple[str, ...] = ()
    readonly_rootfs: bool = False
    tmpfs: dict[str, str] = field(factory=dict, hash=False)
    memory: int = 0
    nano_cpus: int = 0
    pids_limit: int = 0
    user: str = ""
    init: bool = False

    def args(self) -> list[str]:
        """Return the same as arguments of ``docker create`` and ``docker run``."""
        args = [f"--cap-drop={name}" for name in self.cap_drop] + [
            f"--cap-add={name}" for name in self.cap_add
        ]
        args += [f"--security-opt={option}" for option in self.security_opt]
        args += ["--read-only"] if self.readonly_rootfs else []
        args += [
            f"--tmpfs={path}{':' if options else ''}{options}"
            for path, options in self.tmpfs.items()
        ]
        args += [f"--memory={self.memory}", f"--memory-swap={self.memory}"] if self.memory else []
        args += [f"--cpus={self.nano_cpus / 1e9:g}"] if self.nano_cpus else []
        args += [f"--pids-limit={self.pids_limit}"] if self.pids_limit else []
        args += [f"--user={self.user}"] if self.user else []
        args += ["--init"] if self.init else []
        return args


def security_options(config: SecurityConfig) -> SecurityOptions:
    """Return the docker options of a `SecurityConfig`."""
    options = ["no-new-privileges=true"] if config.no_new_privileges else []
    if config.seccomp is not None:
        options.append(f"seccomp={config.seccomp}")
    return SecurityOptions(
        cap_drop=config.cap_drop,
        cap_add=config.cap_add,
        security_opt=tuple(options),
        readonly_rootfs=config.read_only,
        tmpfs={path: rest for path, _, rest in (entry.partition(":") for entry in config.tmpfs)},
        memory=parse_memory(config.memory) if config.memory is not None else 0,
        nano_cpus=round((config.cpus or 0) * 1e9),
        pids_limit=config.pids_limit or 0,
        user=config.user or "",
        init=config.init,
    )
