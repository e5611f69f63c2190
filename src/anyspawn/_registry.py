"""Sandboxes by mode name: built-in ones, ones that the program registers, and ones of installed
plugins.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import attrs

from anyspawn._model import Sandbox
from anyspawn._sandbox import ArgvSandbox
from anyspawn._telemetry import warn
from anyspawn.exceptions import ConfigError
from anyspawn.sandboxes.direct import Direct

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

__all__ = [
    "Registry",
    "SandboxFactory",
    "default_registry",
    "lookup_sandbox",
    "register_sandbox",
    "replace_sandbox",
]

_MOST_NAMES = 100
_LONGEST_WORD = 100

LATER = {
    "bubblewrap": ("anyspawn.sandboxes.bubblewrap", "Bubblewrap"),
    "docker_exec": ("anyspawn.sandboxes.docker_exec", "DockerExec"),
    "docker_run": ("anyspawn.sandboxes.docker_run", "DockerRun"),
    "kubectl_exec": ("anyspawn.sandboxes.kubectl_exec", "KubectlExec"),
    "kubectl_run": ("anyspawn.sandboxes.kubectl_run", "KubectlRun"),
}
"""The modules and classes of the modes that are imported when they are first used."""

SandboxFactory = Callable[[str, Mapping[str, Any]], Sandbox]
"""Makes a sandbox from its name and its settings in a configuration file."""


def nearest(word: str, known: list[str]) -> str:
    """Return "; did you mean ...?" for a misspelt word, or nothing."""
    import difflib

    spelled = {name.casefold(): name for name in known[:_MOST_NAMES]}
    close = difflib.get_close_matches(word[:_LONGEST_WORD].casefold(), spelled, n=1)
    return f"; did you mean {spelled[close[0]]!r}?" if close else ""


def factory_for(sandbox: type[ArgvSandbox]) -> SandboxFactory:
    """Return a factory that takes the class's fields as settings, and refuses any others.

    The class is the factory's attribute ``sandbox``.
    """
    known = [
        attribute.name
        for attribute in attrs.fields(sandbox)
        if attribute.init and attribute.name != "name" and not attribute.name.startswith("_")
    ]

    def make(name: str, config: Mapping[str, Any]) -> Sandbox:
        for key in config:
            if key not in known:
                raise ConfigError(
                    f"{name}: unknown key {key!r}{nearest(str(key), known)} (known: {', '.join(known)})"
                )
        for attribute in attrs.fields(sandbox):
            if (
                attribute.init
                and attribute.default is attrs.NOTHING
                and attribute.name not in config
            ):
                raise ConfigError(f"{name}: {attribute.name} is missing")
        return sandbox(name=name, **config)

    make.__doc__ = sandbox.__doc__
    vars(make)["sandbox"] = sandbox
    return make


class _Later:
    """The factory of a built-in mode, whose module is imported when it is first used."""

    def __init__(self, mode: str) -> None:
        self._module, self._name = LATER[mode]

    @property
    def sandbox(self) -> type[ArgvSandbox]:
        from importlib import import_module

        found: type[ArgvSandbox] = getattr(import_module(self._module), self._name)
        return found

    def __call__(self, name: str, config: Mapping[str, Any]) -> Sandbox:
        return factory_for(self.sandbox)(name, config)

    @property
    def __doc__(self) -> str | None:  # type: ignore[override]  # made when it is asked for
        return self.sandbox.__doc__


class Registry:
    """Factories by mode.

    Args:
        group: The entry point group of the plugins, which are searched for an unknown mode.
            Default: none.
        parent: Another registry whose modes are known here too, also those that are added to it
            later. Modes registered here are not known there. Default: none.
    """

    def __init__(self, group: str | None = None, *, parent: Registry | None = None) -> None:
        self._factories: dict[str, SandboxFactory] = {}
        self._group = group
        self._parent = parent
        self._plugins: dict[str, EntryPoint] | None = None

    def register(self, mode: str, factory: SandboxFactory) -> None:
        """Add a mode.

        Raises:
            ConfigError: The mode is empty or known already (see `replace`), or the factory cannot
                be called.
        """
        self._check(mode, factory)
        if mode in self._factories or (self._parent and self._parent.knows(mode)):
            raise ConfigError(
                f"mode {mode!r} is registered already; use replace to change its factory"
            )
        self._factories[mode] = factory

    def replace(self, mode: str, factory: SandboxFactory) -> None:
        """Add a mode, or change its factory."""
        self._check(mode, factory)
        self._factories[mode] = factory

    def lookup(self, mode: str) -> SandboxFactory:
        """Return the mode's factory.

        Raises:
            ConfigError: The mode is unknown, or its plugin cannot be loaded.
        """
        if mode in self._factories:
            return self._factories[mode]
        plugin = self._find_plugins().get(mode)
        if plugin is None and self._parent is not None and self._parent.knows(mode):
            return self._parent.lookup(mode)
        if plugin is None:
            known = self.modes()
            raise ConfigError(
                f"unknown mode {mode!r}{nearest(mode, list(known))} (known: {', '.join(known)})"
            )
        try:
            factory = plugin.load()
            self._check(mode, factory)
        except Exception as exc:
            message = f"mode {mode!r} is a plugin ({plugin.value}) that failed to load: {type(exc).__name__}: {exc}"
            warn("anyspawn.registry", message)
            raise ConfigError(message) from exc
        self._factories[mode] = factory
        return self._factories[mode]

    def modes(self) -> tuple[str, ...]:
        """Return all known modes, sorted; this includes plugins, without loading them."""
        above = self._parent.modes() if self._parent is not None else ()
        return tuple(sorted({*self._factories, *self._find_plugins(), *above}))

    def knows(self, mode: str) -> bool:
        """Whether the mode is registered, or a plugin has it."""
        above = self._parent is not None and self._parent.knows(mode)
        return mode in self._factories or mode in self._find_plugins() or above

    def _find_plugins(self) -> dict[str, EntryPoint]:
        if self._plugins is None:
            from importlib.metadata import entry_points

            self._plugins = {}
            for plugin in entry_points(group=self._group) if self._group else ():
                if plugin.name in self._factories or plugin.name in self._plugins:
                    warn(
                        "anyspawn.registry",
                        f"plugin {plugin.value} is ignored: mode {plugin.name!r} is taken",
                    )
                else:
                    self._plugins[plugin.name] = plugin
        return self._plugins

    def _check(self, mode: str, factory: SandboxFactory) -> None:
        if not isinstance(mode, str) or not mode:
            raise ConfigError(f"mode must be a str that is not empty, not {mode!r}")
        if not callable(factory):
            raise ConfigError(
                f"mode {mode!r}: the factory must be callable as factory(name, config), not {factory!r}"
            )


default_registry = Registry("anyspawn.sandboxes")
default_registry.register("direct", factory_for(Direct))
for _mode in LATER:
    default_registry.register(_mode, _Later(_mode))

register_sandbox = default_registry.register
replace_sandbox = default_registry.replace
lookup_sandbox = default_registry.lookup
