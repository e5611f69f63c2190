"""`ArgvSandbox`: a sandbox that is another argv in front of the command. Everything but that argv
is inherited.
"""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Iterable, Iterator
from contextlib import (
    AbstractAsyncContextManager,
    AsyncExitStack,
    asynccontextmanager,
    contextmanager,
)
from functools import partial
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self
from weakref import WeakKeyDictionary

import anyio
import attrs
from attrs import Attribute, field, frozen

from anyspawn._env import check_text
from anyspawn._model import Command, Completed, Launch
from anyspawn._spawn.core import run, timed_out_waiting
from anyspawn.exceptions import ConfigError

if TYPE_CHECKING:
    from anyspawn._spawn.live import Process

__all__ = ["ArgvSandbox"]

_calls: dict[str, object] = {}
"""The calls that are in flight, by their command's id, which names containers and pods."""


def config_text(_: object, attribute: Attribute[Any], value: Any) -> None:
    """Check that a sandbox's field is a text that is not empty and cannot turn into an option."""
    try:
        check_text(value, attribute.name)
    except (TypeError, ValueError) as exc:
        raise ConfigError(str(exc)) from None
    if not value:
        raise ConfigError(f"{attribute.name} is empty")
    if value.startswith("-"):
        raise ConfigError(
            f"{attribute.name} must not start with '-', where it would be read as an option: {value!r}"
        )


def optional_text(instance: object, attribute: Attribute[Any], value: Any) -> None:
    """Check that a sandbox's field is ``None``, or a text as by `config_text`."""
    if value is not None:
        config_text(instance, attribute, value)


def config_texts(value: Any, name: str) -> tuple[str, ...]:
    """Return a sandbox's list of texts as a tuple, or raise an error that names the field."""
    if isinstance(value, (str, bytes)) or not isinstance(value, Iterable):
        raise ConfigError(f"{name} must be a list of str, not {type(value).__name__}")
    try:
        return tuple(
            check_text(os.fspath(item) if isinstance(item, os.PathLike) else item, name)
            for item in value
        )
    except (TypeError, ValueError) as exc:
        raise ConfigError(str(exc)) from None


def config_flag(_: object, attribute: Attribute[Any], value: Any) -> None:
    """Check that a sandbox's field is true or false."""
    if not isinstance(value, bool):
        raise ConfigError(f"{attribute.name} must be true or false, not {value!r}")


def host_path(path: str, folder: str) -> str:
    """Return a host path from a configuration file in ``folder`` as an absolute one: a field's
    ``host_path`` metadata.
    """
    return os.path.normpath(os.path.join(folder, os.path.expanduser(path)))


def _default_timeout(_: object, __: Attribute[Any], value: Any) -> None:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not value > 0:
        raise ConfigError(
            f"default_timeout must be a number of seconds above 0 (math.inf: none), not {value!r}"
        )


def _max_concurrent(_: object, __: Attribute[Any], value: Any) -> None:
    if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < 1):
        raise ConfigError(
            f"max_concurrent must be an int of 1 or more, or None for no limit, not {value!r}"
        )


@frozen(kw_only=True)
class ArgvSandbox(ABC):
    """The base of sandboxes that run a command by way of a local process.

    Implement the pure method `launch`; timeouts, output, cancellation and clean-up are inherited.

    Args:
        name: What the sandbox is called in messages. Default: its mode.
        default_timeout: Seconds for a command that gives no timeout. Default 10.
        max_concurrent: How many commands may run at once; more wait for their turn, on their own
            timeout. ``None``: no limit.
    """

    name: str = field(default="argv", validator=config_text)
    default_timeout: float = field(default=10.0, validator=_default_timeout)
    max_concurrent: int | None = field(default=None, validator=_max_concurrent)
    _limiters: WeakKeyDictionary[Any, anyio.CapacityLimiter] = field(
        init=False, factory=WeakKeyDictionary, repr=False, eq=False
    )

    @abstractmethod
    def launch(self, command: Command) -> Launch:
        """Return the local process for ``command``: a pure function, which touches neither
        environment nor disk.

        The command's bare environment names have been looked up before.
        """

    async def spawn(self, command: Command) -> Completed:
        """Run ``command`` to its end.

        Returns:
            The outcome; failures stand in its ``error``.

        Raises:
            ConfigError, TypeError, ValueError: The command cannot be launched in this sandbox;
                nothing was started.
        """
        with self._call_of(command) as call:
            return await self.run(self.launch(call), call)

    @asynccontextmanager
    async def open(self, command: Command) -> AsyncIterator[Process]:
        """Start ``command``, and give the live process; `anyspawn.open` says the rest."""
        alone = self._alone()
        with self._call_of(command) as call:
            async with alone.opened(alone.launch(call), call) as process:
                yield process

    def _alone(self) -> Self:
        """Return the sandbox whose launch is for one command alone, as a live process needs it."""
        return self

    @contextmanager
    def _call_of(self, command: Command) -> Iterator[Command]:
        """Give the command with its variables looked up, and an id that no other call has
        meanwhile.
        """
        env = command.env.look_up(os.environ)
        if env is not command.env:
            command = attrs.evolve(command, env=env)
        call = object()
        if (
            _calls.setdefault(command.id, call) is not call
        ):  # the same command is running: this is another call
            command = attrs.evolve(command, id=os.urandom(16).hex())
            _calls[command.id] = call
        try:
            yield command
        finally:
            del _calls[command.id]

    async def run(self, launch: Launch, command: Command) -> Completed:
        """See ``launch`` through for ``command``, with this sandbox's limits: the second half of
        `spawn`.
        """
        began = anyio.current_time()
        timeout = (
            command.timeout
            if command.timeout is not None and command.timeout > 0
            else self.default_timeout
        )
        if self.max_concurrent is None:
            return await self.attempt(launch, command, began=began, timeout=timeout)
        limiter = self._limiter(self.max_concurrent)
        place = object()
        with anyio.CancelScope(deadline=began + timeout) as scope:
            await limiter.acquire_on_behalf_of(place)
        if scope.cancelled_caught:
            return timed_out_waiting(launch, command, began=began, timeout=timeout)
        try:
            return await self.attempt(launch, command, began=began, timeout=timeout)
        finally:
            limiter.release_on_behalf_of(place)

    async def attempt(
        self, launch: Launch, command: Command, *, began: float, timeout: float
    ) -> Completed:
        """Start ``launch``, for which there is a place now. Where a first try may not be the last,
        this is overridden.

        Args:
            launch: The local process.
            command: What it stands for.
            began: When the call began, on the event loop's clock.
            timeout: Seconds from then on that the program has.
        """
        return await run(launch, command, mode=self.name, began=began, timeout=timeout)

    @asynccontextmanager
    async def opened(self, launch: Launch, command: Command) -> AsyncIterator[Process]:
        """Start ``launch`` for ``command``, with this sandbox's limits, and give the live process:
        the second half of `open`.
        """
        began = anyio.current_time()
        timeout = (
            command.timeout
            if command.timeout is not None and command.timeout > 0
            else self.default_timeout
        )
        async with AsyncExitStack() as stack:
            if self.max_concurrent is not None:
                limiter, place = self._limiter(self.max_concurrent), object()
                with anyio.CancelScope(deadline=began + timeout) as scope:
                    await limiter.acquire_on_behalf_of(place)
                if scope.cancelled_caught:
                    timed_out_waiting(launch, command, began=began, timeout=timeout).check()
                stack.callback(limiter.release_on_behalf_of, place)
            yield await stack.enter_async_context(
                self.opening(launch, command, began=began, timeout=timeout)
            )

    def opening(
        self, launch: Launch, command: Command, *, began: float, timeout: float
    ) -> AbstractAsyncContextManager[Process]:
        """Start ``launch``, for which there is a place now. Where a first try may not be the last,
        this is overridden.

        Args:
            launch: The local process.
            command: What it stands for.
            began: When the call began, on the event loop's clock.
            timeout: Seconds from then on that the program has to start.
        """
        from anyspawn._spawn.live import open_process

        examine = partial(self.judged, command)
        return open_process(
            launch, command, mode=self.name, began=began, timeout=timeout, examine=examine
        )

    async def judged(self, command: Command, completed: Completed) -> Completed:
        """Return an outcome with the right error. Where it takes a question to somebody to know
        that, this is overridden.

        Args:
            command: What was run.
            completed: How the local process came out.
        """
        return completed

    def _limiter(self, places: int) -> anyio.CapacityLimiter:
        loop = anyio.lowlevel.current_token().native_token
        if loop not in self._limiters:
            self._limiters[loop] = anyio.CapacityLimiter(places)
        return self._limiters[loop]

    async def aclose(self) -> None:  # noqa: B027  most sandboxes hold nothing
        """Give back what the sandbox holds. Nothing, unless a subclass says otherwise."""

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.aclose()
