"""`ArgvSandbox`: the base of sandboxes that put another argv in front of the command."""

from __future__ import annotations

import math
import os
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Iterable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from types import TracebackType
from typing import TYPE_CHECKING, Any, ClassVar, Self

import anyio
import attrs
from attrs import Attribute, field, frozen

from anyspawn._env import check_text
from anyspawn._model import Command, Completed, Launch
from anyspawn._spawn.call import never_started, no_place, run
from anyspawn._spawn.tasks import PerLoop, place_within
from anyspawn.exceptions import ConfigError, SpawnError

if TYPE_CHECKING:
    from anyspawn._spawn.live import Process

__all__ = ["ArgvSandbox"]

_calls: dict[str, object] = {}
"""The running calls, by their command's id, which names containers and pods."""
_MOST_ATTEMPTS = 5


def config_text(_: object, attribute: Attribute[Any], value: Any) -> None:
    """Check that a sandbox's field is a text that is not empty and cannot be read as an option."""
    try:
        check_text(value, attribute.name)
    except (TypeError, ValueError) as exc:
        raise ConfigError(str(exc)) from None
    if not value:
        raise ConfigError(f"{attribute.name} is empty")
    if value.startswith("-"):
        raise ConfigError(
            f"{attribute.name} must not start with '-', because it would be read as an option: {value!r}"
        )


def optional_text(instance: object, attribute: Attribute[Any], value: Any) -> None:
    """Check that a sandbox's field is ``None``, or a text that `config_text` accepts."""
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
    """Return a host path from a configuration file in ``folder`` as an absolute one; for a field's
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
    """The base of sandboxes that run a command with a local process.

    Implement the pure method `launch`; timeouts, output, cancellation and clean-up are inherited. A
    copy by `attrs.evolve` counts its own slots (``max_concurrent``).

    Args:
        name: The sandbox's name in messages. Default: its mode.
        default_timeout: Seconds for a command that gives no timeout. Default 10.
        max_concurrent: How many commands can run at once. Further commands wait for a slot, within
            their own timeout. ``None`` (default): no limit. Each event loop has its own count, so
            that a stopped or busy loop does not block others.

    Attributes:
        takes_user: `launch` supports a command's ``user``. If not, a command with a user is a
            `ConfigError`.
    """

    takes_user: ClassVar[bool] = False

    name: str = field(default="argv", validator=config_text)
    default_timeout: float = field(default=10.0, validator=_default_timeout)
    max_concurrent: int | None = field(default=None, validator=_max_concurrent)
    _limiter: PerLoop[anyio.CapacityLimiter] = field(
        init=False, factory=lambda: PerLoop(anyio.CapacityLimiter), repr=False, eq=False
    )

    @abstractmethod
    def launch(self, command: Command) -> Launch:
        """Return the local process for ``command``: a pure function, which touches neither
        environment nor disk.

        The command's bare environment names have been looked up before.
        """

    @asynccontextmanager
    async def place(self, command: Command, deadline: float) -> AsyncIterator[Launch]:
        """Give the launch of ``command``, and clean up after the call.

        Override it for work around a call: find a pod, or make one. It is called again if
        ``Launch.examine`` asks for another attempt.

        Args:
            command: The command, which already counts among ``max_concurrent``.
            deadline: When the program times out, on the event loop's clock.

        Raises:
            SpawnError: The command cannot run; nothing was started.
        """
        yield self.launch(command)

    async def carry(
        self, launch: Launch, command: Command, *, began: float, timeout: float
    ) -> Completed:
        """Run a launch to its end. Sandboxes with residents override it.

        Args:
            launch: The local process.
            command: The command that it runs.
            began: When the call began, on the event loop's clock.
            timeout: Seconds from then until the program times out.
        """
        return await run(launch, command, mode=self.name, began=began, timeout=timeout)

    async def spawn(self, command: Command) -> Completed:
        """Run ``command`` to its end.

        Returns:
            The outcome; a failure is in its ``error``.

        Raises:
            ConfigError, TypeError, ValueError: The command cannot be launched in this sandbox;
                nothing was started.
        """
        with self._call_of(command) as call:
            began = anyio.current_time()
            timeout = self._timeout_of(call)
            if self.max_concurrent is None:
                return await self._attempts(call, began, timeout)
            async with place_within(
                self._limiter.get(self.max_concurrent), began + timeout
            ) as free:
                waited = anyio.current_time() - began
                if free:
                    completed = await self._attempts(call, began, timeout)
                else:
                    completed = never_started(call, no_place(call, timeout), began)
        return attrs.evolve(completed, waited=waited)

    async def _attempts(self, command: Command, began: float, timeout: float) -> Completed:
        completed: Completed | None = None
        for _ in range(_MOST_ATTEMPTS):
            try:
                async with self.place(command, began + timeout) as launch:
                    completed = await self.carry(launch, command, began=began, timeout=timeout)
                    if launch.examine is None:
                        return completed
                    asked = anyio.current_time()
                    examined = await launch.examine(completed)
            except SpawnError as exc:
                # The outcome of the first attempt says more than an error about the second.
                return completed or never_started(command, exc, began)
            if examined is not None:
                return examined
            began += anyio.current_time() - asked  # the repair does not count as the program's time
        assert completed is not None
        return completed

    @asynccontextmanager
    async def open_process(self, command: Command) -> AsyncIterator[Process]:
        """Start ``command``, and give the live process, as `anyspawn.open_process` does."""
        from anyspawn._spawn.live import open_live

        alone = self.alone()
        with self._call_of(command) as call:
            began = anyio.current_time()
            timeout = self._timeout_of(call)
            async with AsyncExitStack() as stack:
                if self.max_concurrent is not None:
                    limiter = self._limiter.get(self.max_concurrent)
                    if not await stack.enter_async_context(place_within(limiter, began + timeout)):
                        never_started(call, no_place(call, timeout), began).check()
                for attempt in range(_MOST_ATTEMPTS):
                    held = await stack.enter_async_context(AsyncExitStack())
                    launch = await held.enter_async_context(alone.place(call, began + timeout))
                    live = open_live(launch, call, mode=self.name, began=began, timeout=timeout)
                    try:
                        process = await held.enter_async_context(live)
                        break
                    except SpawnError as exc:
                        examined = exc.completed
                        if launch.examine is not None and examined is not None:
                            examined = await launch.examine(examined)
                        if examined is not None or attempt == _MOST_ATTEMPTS - 1:
                            raise (examined and examined.error) or exc from None
                        await held.aclose()
                yield process

    def alone(self) -> Self:
        """Return the sandbox without residents, as a live process needs it."""
        return self

    def _timeout_of(self, command: Command) -> float:
        timeout = self.default_timeout if command.timeout == "default" else command.timeout
        return math.inf if timeout is None else float(timeout)

    @contextmanager
    def _call_of(self, command: Command) -> Iterator[Command]:
        """Give the command with its variables looked up, and an id that no other running call has.

        Raises:
            ConfigError: The sandbox cannot run the command.
        """
        if command.user is not None and not self.takes_user:
            raise ConfigError(
                f"user: {self.name} runs all commands as the same user; leave it out, or use a "
                "sandbox that can choose, such as DockerExec"
            )
        env = command.env.look_up(os.environ)
        if env is not command.env:
            command = attrs.evolve(command, env=env)
        call = object()
        if _calls.setdefault(command.id, call) is not call:
            # The same command already runs: this call needs its own id.
            command = attrs.evolve(command, id=os.urandom(16).hex())
            _calls[command.id] = call
        try:
            yield command
        finally:
            del _calls[command.id]

    async def aclose(self) -> None:  # noqa: B027  most sandboxes hold nothing
        """Release what the sandbox holds: by default, nothing."""

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        await self.aclose()
