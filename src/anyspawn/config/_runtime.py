"""`RuntimeConfig`: sandboxes, and the programs that run there, from a file."""

from __future__ import annotations

import os
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any, Self, TypeVar

import anyio
import attrs
from attrs import field, frozen

from anyspawn._model import Sandbox
from anyspawn._registry import Registry, default_registry, nearest
from anyspawn._spawn.tasks import PerLoop
from anyspawn._telemetry import warn
from anyspawn.config._fields import build, class_in, placed
from anyspawn.config._hook import HookConfig
from anyspawn.config._problems import ConfigProblem, InvalidConfigError, Path, dotted, listed
from anyspawn.config._program import ProgramConfig
from anyspawn.config._variables import Expanded, expand
from anyspawn.config._yaml import Document
from anyspawn.hooks import ExecHook, HookRunner
from anyspawn.hooks._runner import Served
from anyspawn.tools import ExecEval, ExecSelector, ExecTool
from anyspawn.tools._exec import ExecProgram

__all__ = [
    "API_VERSION",
    "KIND",
    "SECTIONS",
    "OpenConfig",
    "RuntimeConfig",
    "load_config",
    "parse_config",
]

API_VERSION = "promptkit.altairalabs.ai/v1alpha1"
KIND = "RuntimeConfig"
TOP = ("apiVersion", "kind", "metadata", "spec")
SECTIONS = ("sandboxes", "hooks", "tools", "evals", "selectors")
_CLOSING = 30.0
_DRAINING = 10.0
_MOST_BYTES = 4 * 2**20 + 3
"""Bytes read of a file: more than the largest document has in any encoding."""


def _near(word: str) -> str:
    """Return a regular expression of the words one typing error, or a missing plural, away from a
    word.

    It is an expression because the JSON Schema uses it too.
    """
    letters = [f"[{letter}{letter.upper()}]" for letter in word]
    slips = {"".join(letters[:-1]), "".join(letters[: len(word.removesuffix("es"))])}
    for at in range(len(word)):
        before, after = "".join(letters[:at]), "".join(letters[at + 1 :])
        slips |= {before + after, f"{before}.{after}", f"{before}.{letters[at]}{after}"}
        if after:
            swapped = letters[at + 1] + letters[at] + "".join(letters[at + 2 :])
            slips.add(before + swapped)
    return f"(?!{word}$)(?:{'|'.join(sorted(slips))})"


NEAR_MISSES = "|".join(_near(section) for section in SECTIONS)
"""Keys of ``spec`` that must be misspellings of known ones."""
OF_PROGRAM = f"command|args|runtime|sandbox|{_near('command')}"
"""Keys that only tools with a program have."""
NOT_PROGRAMS = (
    "name",
    "namespace",
    "description",
    "input_schema",
    "output_schema",
    "mode",
    "labels",
)
"""Keys of a tool that do not concern the program, and are ignored."""

_P = TypeVar("_P", bound=ExecProgram)
_S = TypeVar("_S", bound=ProgramConfig)
_T = TypeVar("_T")


class OpenConfig(HookRunner):
    """An open configuration: a `HookRunner` of its hooks, and its other programs.

    Attributes:
        hooks: The runner itself: ``hooks.run(phase, payload)``, ``hooks["name"]``.
        tools: By name; ``await tools["search"](args)``.
        evals: By name.
        selectors: By name.
    """

    def __init__(self, config: RuntimeConfig) -> None:
        super().__init__(config.hooks.values())
        self.tools = config.tools
        self.evals = config.evals
        self.selectors = config.selectors

    @property
    def hooks(self) -> Self:  # type: ignore[override]  # both are what one iterates over for hooks
        """The hooks."""
        return self

    @property
    def _programs(self) -> list[ExecProgram]:
        return [*self.tools.values(), *self.evals.values(), *self.selectors.values()]

    @property
    def _served(self) -> list[Served]:
        programs = [program for program in self._programs if program.runtime == "server"]
        return [*super()._served, *programs]

    async def drain_programs(self) -> None:
        """Wait for the running calls of tools, evaluators and selectors."""
        for program in self._programs:
            await program.drained()


@frozen(kw_only=True)
class RuntimeConfig:
    """The sandboxes, hooks and other programs that a configuration file describes, checked and
    ready.

    Args:
        metadata: The file's ``metadata``.
        sandboxes: By name.
        hooks: By name, in the file's order. If several hooks deny, the first one counts.
        tools: The tools that are programs, by name.
        evals: By name, the type of the evaluation.
        selectors: By name.
        tool_selector: The selector of tools that ``spec.tool_selector`` names, if any.
        skills_selector: The selector of skills that ``spec.skills.selector`` names, if any.
        warnings: Settings that are valid but probably not intended, each with its line and column.
            They are logged, too.
    """

    metadata: Mapping[str, Any]
    sandboxes: Mapping[str, Sandbox]
    hooks: Mapping[str, ExecHook]
    tools: Mapping[str, ExecTool] = field(factory=dict[str, ExecTool])
    evals: Mapping[str, ExecEval] = field(factory=dict[str, ExecEval])
    selectors: Mapping[str, ExecSelector] = field(factory=dict[str, ExecSelector])
    tool_selector: str | None = None
    skills_selector: str | None = None
    warnings: tuple[ConfigProblem, ...] = field(default=(), repr=False, eq=False)
    _users: PerLoop[list[object]] = field(
        init=False, factory=lambda: PerLoop(list), repr=False, eq=False
    )

    @asynccontextmanager
    async def open(self) -> AsyncIterator[OpenConfig]:
        """Give all hooks and other programs, ready to be called. At the end of the block, wait for
        hooks that observe and for running calls, and close the sandboxes.

        It can be opened several times at once, and closed in any order, from any task. The last
        block closes servers and sandboxes.
        """
        user, users = object(), self._users.get()
        users.append(user)
        try:
            async with OpenConfig(self) as opened:
                yield opened
                if len(users) == 1:
                    with anyio.move_on_after(_DRAINING):
                        await opened.drain_programs()
        finally:
            users.remove(user)
            if not users:
                await self._close()

    async def _close(self) -> None:
        if self.sandboxes:
            with anyio.move_on_after(_CLOSING, shield=True) as scope:
                async with anyio.create_task_group() as tasks:
                    for name, sandbox in self.sandboxes.items():
                        if hasattr(sandbox, "aclose"):
                            tasks.start_soon(_close, name, sandbox.aclose)
            if scope.cancelled_caught:
                warn(
                    "anyspawn.config",
                    "closing the sandboxes took more than %g s, and was given up",
                    _CLOSING,
                )


async def _close(name: str, close: Callable[[], Awaitable[None]]) -> None:
    try:
        await close()
    except Exception as exc:  # close the others all the same; the body's exception matters more
        warn(
            "anyspawn.config",
            "sandbox %r could not be closed: %s: %s",
            name,
            type(exc).__name__,
            exc,
        )


def load_config(
    path: str | os.PathLike[str],
    *,
    registry: Registry = default_registry,
    environ: Mapping[str, str] | None = None,
) -> RuntimeConfig:
    """Read a configuration file.

    Args:
        path: The file.
        registry: The modes that it can use. Default: the shared registry.
        environ: The values of its ``${NAME}`` references. Default: the environment.

    Raises:
        InvalidConfigError: It has problems: all of them, each with its line and column.
        OSError: The file cannot be read.
    """
    name = os.fspath(path)
    with open(name, "rb") as file:
        data = file.read(_MOST_BYTES)
    folder = os.path.dirname(os.path.abspath(name))
    return parse_config(data, folder=folder, source=name, registry=registry, environ=environ)


def parse_config(
    text: str | bytes,
    *,
    folder: str | os.PathLike[str] | None = None,
    source: str = "<config>",
    registry: Registry = default_registry,
    environ: Mapping[str, str] | None = None,
) -> RuntimeConfig:
    """Read a configuration.

    Args:
        text: The configuration; bytes are UTF-8.
        folder: The folder in which relative paths start. Default: the working directory.
        source: Its name in problems.
        registry, environ: As for `load_config`.

    Raises:
        InvalidConfigError: It has problems: all of them, each with its line and column.
    """
    if isinstance(text, bytes):
        try:
            text = text.decode("utf-8-sig")
        except UnicodeDecodeError as exc:
            line = exc.object.count(b"\n", 0, exc.start) + 1
            column = exc.start - (exc.object.rfind(b"\n", 0, exc.start) + 1) + 1
            what = f"byte 0x{exc.object[exc.start]:02x} is not UTF-8; save the file as UTF-8"
            raise InvalidConfigError([ConfigProblem("", what, line, column)], source) from None
    document = Document(text)
    reader = _Reader(
        document,
        os.path.abspath(os.fspath(folder or ".")),
        registry,
        os.environ if environ is None else environ,
    )
    config = None if document.problems and document.value is None else reader.config()
    if document.problems or config is None:
        raise InvalidConfigError(document.problems, source)
    return config


class _Reader:
    """Turns a document's values into a RuntimeConfig, and adds their problems to the document."""

    def __init__(
        self, document: Document, folder: str, registry: Registry, environ: Mapping[str, str]
    ) -> None:
        self._document = document
        self._problem = document.problem
        self._folder = folder
        self._registry = registry
        self._environ = environ

    def config(self) -> RuntimeConfig | None:
        top = self._mapping(self._document.value, (), TOP)
        if top is None:
            return None
        for key, wanted in (("apiVersion", API_VERSION), ("kind", KIND)):
            if key not in top:
                self._problem((key,), f"is missing; it must be {wanted}")
            elif top[key] != wanted:
                self._problem((key,), f"must be {wanted}, not {top[key]!r}")
        metadata = self._mapping(top.get("metadata", {}), ("metadata",)) or {}
        spec = self._mapping(top.get("spec", {}), ("spec",)) or {}
        for key in spec:
            if re.fullmatch(NEAR_MISSES, key):
                self._problem(("spec", key), f"unknown key{nearest(key, list(SECTIONS))}")
        sandboxes = {
            name: self._sandbox(name, entry, ("spec", "sandboxes", name))
            for name, entry in self._section(spec, "sandboxes").items()
        }
        hooks = {
            name: self._hook(name, entry, sandboxes, ("spec", "hooks", name))
            for name, entry in self._section(spec, "hooks").items()
        }
        tools = {
            name: entry
            for name, entry in self._entries(spec, "tools").items()
            if isinstance(entry, dict) and any(re.fullmatch(OF_PROGRAM, key) for key in entry)
        }
        for entry in tools.values():
            for key in NOT_PROGRAMS:
                entry.pop(key, None)
        selectors = self._entries(spec, "selectors")
        return RuntimeConfig(
            metadata=metadata,
            sandboxes={name: sandbox for name, sandbox in sandboxes.items() if sandbox is not None},
            hooks={name: hook for name, hook in hooks.items() if hook is not None},
            tools=self._programs(ExecTool, "tools", tools, sandboxes),
            evals=self._programs(ExecEval, "evals", self._entries(spec, "evals"), sandboxes),
            selectors=self._programs(ExecSelector, "selectors", selectors, sandboxes),
            tool_selector=self._selector(spec, ("spec", "tool_selector")),
            skills_selector=self._selector(spec, ("spec", "skills", "selector")),
            warnings=tuple(self._document.notes),
        )

    def _selector(self, spec: dict[str, Any], path: Path) -> str | None:
        """Return the selector that a key names."""
        named: Any = spec
        for part in path[1:]:
            named = named.get(part) if isinstance(named, dict) else None
        if not named:
            return None
        known = spec.get("selectors")
        names = list(known) if isinstance(known, dict) else []
        if not isinstance(named, str):
            self._problem(path, "must be a text: the name of a selector in spec.selectors")
        elif named not in names:
            self._problem(
                path,
                f"no selector is called {named!r}{nearest(named, names)} "
                f"(declared: {listed(names)})",
            )
        else:
            return named
        return None

    def _mapping(
        self, value: Any, path: Path, known: tuple[str, ...] | None = None
    ) -> dict[str, Any] | None:
        if value is None and path:  # a key with nothing after it
            return {}
        if not isinstance(value, dict):
            self._problem(
                path,
                "must be a mapping"
                if path
                else "the document must be a mapping with apiVersion, kind and spec",
            )
            return None
        for key in value:
            if known is not None and key not in known:
                self._problem(
                    (*path, key),
                    f"unknown key{nearest(key, list(known))} (known: {', '.join(known)})",
                )
        return value

    def _section(self, spec: dict[str, Any], name: str) -> dict[str, Any]:
        entries = self._entries(spec, name)
        return dict(expand(entries, ("spec", name), self._environ, self._problem))

    def _entries(self, spec: dict[str, Any], name: str) -> dict[str, Any]:
        """Return a section of the file, unchecked."""
        path = ("spec", name)
        section = dict(self._mapping(spec.get(name, {}), path) or {})
        if "" in section:
            self._problem((*path, ""), "the name is empty")
            del section[""]
        return section

    def _sandbox(self, name: str, entry: Any, path: Path) -> Sandbox | None:
        found = self._mapping(entry, path)
        if found is None:
            return None
        settings = dict(found)
        mode = settings.pop("mode", None)
        if not isinstance(mode, str):
            known = ", ".join(self._registry.modes())
            self._problem(
                (*path, "mode"),
                f"is missing (known: {known})"
                if mode is None
                else f"must be a text (known: {known})",
            )
            return None
        try:
            factory = self._registry.lookup(mode)
        except ValueError as exc:
            known = listed(self._registry.modes())
            hidden = f"the variable's value is not a mode (known: {known})"  # it may be a secret
            self._problem((*path, "mode"), hidden if isinstance(mode, Expanded) else str(exc))
            return None
        cls = getattr(factory, "sandbox", None)
        if cls is not None:
            return build(
                cls, self._absolute(cls, settings), path, self._problem, given={"name": name}
            )
        try:
            made: object = factory(name, settings)
        except Exception as exc:  # a third-party factory can raise anything
            self._problem(
                path, str(exc) if isinstance(exc, ValueError) else f"{type(exc).__name__}: {exc}"
            )
            return None
        if not isinstance(made, Sandbox):
            self._problem(path, f"its factory gave {type(made).__name__}, which is not a sandbox")
            return None
        return made

    def _absolute(self, cls: type[Any], settings: dict[str, Any]) -> dict[str, Any]:
        """Return settings whose host paths start from the file's folder."""
        attrs.resolve_types(cls)
        settings = dict(settings)
        for attribute in attrs.fields(cls):
            resolve, value = attribute.metadata.get("host_path"), settings.get(attribute.name)
            inner = class_in(attribute.type)
            if inner is not None and isinstance(value, dict):
                settings[attribute.name] = self._absolute(inner, value)
            elif resolve is not None and isinstance(value, list):
                settings[attribute.name] = [self._resolved(resolve, v) for v in value]
            elif resolve is not None and isinstance(value, str):
                settings[attribute.name] = resolve(value, self._folder)
        return settings

    def _resolved(self, resolve: Callable[[str, str], str], value: Any) -> Any:
        """Return a path, or the paths that are a mapping's keys, from the file's folder."""
        if isinstance(value, dict):
            return {
                resolve(key, self._folder) if isinstance(key, str) else key: inside
                for key, inside in value.items()
            }
        return resolve(value, self._folder) if isinstance(value, str) else value

    def _hook(
        self, name: str, entry: Any, sandboxes: Mapping[str, Sandbox | None], path: Path
    ) -> ExecHook | None:
        def make(settings: HookConfig, sandbox: Sandbox | None) -> ExecHook:
            return settings.make(name, sandbox, self._folder)

        return self._bound(HookConfig, entry, sandboxes, path, make)

    def _programs(
        self,
        kind: type[_P],
        section: str,
        entries: dict[str, Any],
        sandboxes: Mapping[str, Sandbox | None],
    ) -> dict[str, _P]:
        """Return the programs of a section."""
        found: dict[str, _P] = {}
        read = expand(entries, ("spec", section), self._environ, self._problem)
        for name, entry in dict(read).items():

            def make(settings: ProgramConfig, sandbox: Sandbox | None, name: str = name) -> _P:
                return kind(**settings.common(name, sandbox, self._folder))

            program = self._bound(ProgramConfig, entry, sandboxes, ("spec", section, name), make)
            if program is not None:
                found[name] = program
        return found

    def _bound(
        self,
        cls: type[_S],
        entry: Any,
        sandboxes: Mapping[str, Sandbox | None],
        path: Path,
        make: Callable[[_S, Sandbox | None], _T],
    ) -> _T | None:
        """Return the program that an entry binds.

        Args:
            cls: The class of its settings.
            entry: The entry of the file.
            sandboxes: The sandboxes by name; ``None`` for one that is not valid.
            path: The path of the entry.
            make: Makes the program from its settings and its sandbox.
        """
        settings = build(cls, entry, path, self._problem)
        named = entry.get("sandbox") if isinstance(entry, dict) else None
        if isinstance(entry, dict) and "sandbox" in entry and named is None:
            self._problem(
                (*path, "sandbox"),
                "is empty; name a sandbox, or leave the key out to run on this host",
            )
            return None
        if isinstance(named, str) and named not in sandboxes:
            hint = (
                "" if isinstance(named, Expanded) else f"{named!r}{nearest(named, list(sandboxes))}"
            )
            known = listed(sandboxes)
            self._problem(
                (*path, "sandbox"), f"no sandbox is called {hint or 'so'} (declared: {known})"
            )
            return None
        sandbox = sandboxes[named] if isinstance(named, str) else None
        if (
            named is not None and sandbox is None
        ):  # its problem is reported already; it must never run on this host
            return None
        if settings is None:
            return None
        for note in settings.notes(sandbox, self._folder):
            warn("anyspawn.config", "%s: %s", dotted(path), note)
            self._document.note(path, note)
        try:
            return make(settings, sandbox)
        except (TypeError, ValueError) as exc:
            where, message = placed(exc, cls, ())
            self._problem((*path, *where), message)
            return None
