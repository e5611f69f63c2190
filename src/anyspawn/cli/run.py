"""``anyspawn run``: one program, as a shell would run it, but with a timeout and a clean-up."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import stat
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Any

import anyio
import attrs
import click

from anyspawn import (
    ArgvSandbox,
    Command,
    Completed,
    ConfigError,
    Sandbox,
    default_registry,
    lookup_sandbox,
)
from anyspawn._fields import parse_size
from anyspawn.cli.outcome import OWN_FAILURE, exit_status, reason, to_json
from anyspawn.cli.streams import Reader, StreamError, Writer, fill_closed_streams
from anyspawn.cli.units import parse_duration

__all__ = ["run"]

_DOCKER = ("docker_run", "docker_exec")
_KUBECTL = ("kubectl_exec", "kubectl_run")
_MODES = {
    "readonly": ("bubblewrap",),
    "writable": ("bubblewrap",),
    "network": ("bubblewrap", "docker_run"),
    "allow_host": ("bubblewrap", "docker_run"),
    "image": ("docker_run", "kubectl_run"),
    "mounts": ("docker_run",),
    "pull": ("docker_run",),
    "container": ("docker_exec", "kubectl_exec"),
    "pod": ("kubectl_exec",),
    "selector": ("kubectl_exec",),
    "namespace": _KUBECTL,
    "kubeconfig": _KUBECTL,
    "context": _KUBECTL,
    "user": _DOCKER,
    "docker_path": _DOCKER,
    "extra_args": ("bubblewrap", *_DOCKER, "kubectl_exec"),
    "kubectl_path": _KUBECTL,
}
"""The modes that know a sandbox's setting."""
_SECTIONS = (("bubblewrap",), _DOCKER, _KUBECTL)
"""The modes whose options are grouped in the help."""
_SEVERAL = "Options for several modes"
_STOP = [
    getattr(signal, name)
    for name in ("SIGINT", "SIGTERM", "SIGHUP", "SIGQUIT")
    if hasattr(signal, name)
]
_OWN_STDIN = ("docker_exec", *_KUBECTL)
"""The modes in which the program cannot inherit stdin, so anyspawn passes it on."""
_LIVE_LIMIT = (
    64 * 1024
)  # kept besides the live output: sandboxes read their runner's last messages there
_JSON_LIMIT = 16 * 2**20
_LAST_WORD = 1.0
_SMALL = 2**20
_CLOSING = 5.0


def _unit(
    parse: Callable[[str], float],
) -> Callable[[click.Context, click.Parameter, str | None], float | None]:
    def convert(context: click.Context, option: click.Parameter, value: str | None) -> float | None:
        try:
            return None if value is None else parse(value)
        except ValueError as exc:
            raise click.BadParameter(str(exc), context, option) from None

    return convert


class _ByMode(click.Command):
    """A command whose help groups the options by mode."""

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        rows: dict[str, list[tuple[str, str]]] = {}
        for option in self.get_params(ctx):
            record = option.get_help_record(ctx)
            if isinstance(option, click.Option) and record is not None:
                rows.setdefault(_section(_setting(option)), []).append(record)
        several = rows.pop(_SEVERAL)
        for title, records in (*rows.items(), (_SEVERAL, several)):
            with formatter.section(title):
                formatter.write_dl(records)


def _setting(option: click.Parameter) -> str:
    return (option.name or "").rstrip("_")


def _section(setting: str) -> str:
    modes = _MODES.get(setting)
    if modes is None:
        return "Options"
    among = [family for family in _SECTIONS if set(modes) <= set(family)]
    return f"Options for {' and '.join(among[0])}" if among else _SEVERAL


def _modes(_: click.Context, __: click.Parameter, incomplete: str) -> list[str]:
    return [mode for mode in default_registry.modes() if mode.startswith(incomplete)]


@click.command(
    cls=_ByMode,
    context_settings={"allow_interspersed_args": False},
    options_metavar="[OPTIONS] --",
)
@click.option(
    "--mode",
    default="direct",
    show_default=True,
    shell_complete=_modes,
    help='Where to run; "anyspawn modes" lists them.',
)
@click.option(
    "--timeout",
    metavar="DURATION",
    callback=_unit(parse_duration),
    default="10s",
    show_default=True,
    help="How long the program may take: 500ms, 5s, 2m, 1h, a number of seconds, or inf for no limit.",
)
@click.option(
    "--env",
    multiple=True,
    metavar="NAME[=VALUE]",
    help="A variable for the program; NAME alone passes your own value on, and keeps it out of this command line, "
    "which other users can read. Can be repeated.",
)
@click.option("--cwd", metavar="DIR", help="Where the program starts.  [default: here]")
@click.option(
    "--output-limit",
    metavar="SIZE",
    callback=_unit(parse_size),
    help="Kill the program if it writes more than this to stdout or stderr: 10MiB, 10k (powers of 1024), a number of bytes.  "
    "[default: no limit; with --json 16MiB]",
)
@click.option(
    "--json",
    "as_json",
    is_flag=True,
    help="Print one JSON object at the end instead of the live output.",
)
@click.option(
    "--readonly",
    multiple=True,
    metavar="PATH",
    help="Let the program read PATH. Repeatable.",
)
@click.option(
    "--writable",
    multiple=True,
    metavar="PATH",
    help="Let it write to PATH too. Repeatable.",
)
@click.option(
    "--network",
    is_flag=False,
    flag_value="",
    metavar="[NAME]",
    help="bubblewrap: share the host's network. docker_run: join the network NAME; none for no network.",
)
@click.option(
    "--allow-host",
    multiple=True,
    metavar="HOST[:PORT]",
    help="bubblewrap, docker_run: allow HOST, through a proxy, and no other host. Repeatable.",
)
@click.option("--image", metavar="IMAGE", help="docker_run, kubectl_run: the image to run it in.")
@click.option(
    "--mount",
    "mounts",
    multiple=True,
    metavar="SRC:DST[:ro]",
    help="docker_run: a volume. Repeatable.",
)
@click.option("--pull", is_flag=True, help="docker_run: pull the image if it is missing.")
@click.option(
    "--container",
    metavar="NAME",
    help="docker_exec: the running container; kubectl_exec: the one in the pod.",
)
@click.option(
    "--pod", metavar="POD", help="kubectl_exec: the running pod, or deployment/NAME and the like."
)
@click.option(
    "--selector",
    metavar="LABELS",
    help="kubectl_exec: one of the Ready pods with these labels, such as app=hooks.",
)
@click.option(
    "--namespace",
    metavar="NAME",
    help="The namespace.  [default: the context's]",
)
@click.option(
    "--kubeconfig",
    metavar="FILE",
    help="The kubeconfig.  [default: kubectl's own]",
)
@click.option(
    "--context", "context_", metavar="NAME", help="Its context.  [default: the kubeconfig's]"
)
@click.option("--user", metavar="USER", help="The user inside.")
@click.option(
    "--extra-arg",
    "extra_args",
    multiple=True,
    metavar="ARG",
    help="One more argument for bwrap, docker or kubectl, such as --extra-arg=--network=none. Repeatable.",
)
@click.option(
    "--docker-path",
    metavar="PROGRAM",
    help="The client.  [default: docker]",
)
@click.option(
    "--kubectl-path",
    metavar="PROGRAM",
    help="The client.  [default: kubectl]",
)
@click.argument(
    "argv", nargs=-1, required=True, type=click.UNPROCESSED, metavar="PROGRAM [ARGS]..."
)
@click.pass_context
def run(
    context: click.Context,
    /,
    mode: str,
    timeout: float,
    env: tuple[str, ...],
    cwd: str | None,
    output_limit: int | None,
    as_json: bool,
    argv: tuple[str, ...],
    **options: Any,
) -> int:
    """Run PROGRAM to its end, and kill what it leaves behind.

    The program reads this command's standard input. Its output appears as it is written. It does
    not see a terminal. Ctrl-C, SIGTERM, SIGHUP and SIGQUIT kill the program and everything that it
    started.

    \b Examples:
      anyspawn run -- sort -u < names.txt
      anyspawn run --timeout 2m --env API_TOKEN -- ./hook.py < request.json
      anyspawn run --mode bubblewrap --readonly ~/data -- python3 -c 'print(1)'
      anyspawn run --mode docker_run --image python:3-slim -- python3 -c 'print(1)'
      anyspawn run --mode docker_exec --container hooks -- ./hook.py < request.json
      anyspawn run --mode kubectl_exec --pod deployment/hooks -- ./hook.py < request.json
      anyspawn run --json --output-limit 1MiB -- make test | jq .error

    \b Exit status: the program's own, or
      124  it timed out
      125  not its failure: the sandbox failed, an option is wrong, or --output-limit was exceeded
      126  it was found, but cannot be executed
      127  it was not found
      128+N  it was killed by signal N; 130 after Ctrl-C, 141 when nobody reads the output any more

    If the status is not the program's own, or the clean-up could not be confirmed, a line on stderr
    that begins with "anyspawn: " says why, except for 141. A program may itself exit with any of
    these: "error" of --json distinguishes them. The JSON object has returncode (null if there is
    none, -N for signal N), stdout and stderr (stdout_base64 and stderr_base64 if they are not
    UTF-8), stdout_total, stderr_total, output_incomplete, duration (seconds), error (null, or kind
    and message) and cleanup, and with --allow-host egress (allowed, denied and failed connections).
    After a signal to this command, or a wrong option, no object is printed.
    """  # noqa: D301  click is told by that very character to leave lines as they are
    settings = _settings(context, mode, options)
    fill_closed_streams()
    if hasattr(signal, "SIGCHLD"):  # a parent can make it ignored, and then no exit status is known
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    streams = {"stdout": Writer("stdout", 1), "stderr": Writer("stderr", 2)}
    try:
        command = Command(
            argv,
            stdin=_small_stdin() if mode in _OWN_STDIN else None,
            env=env,
            cwd=cwd,
            timeout=timeout,
            output_limit=output_limit
            if output_limit is not None
            else _JSON_LIMIT
            if as_json
            else _LIVE_LIMIT,
            overflow="error" if as_json or output_limit is not None else "truncate",
            on_output=None if as_json else _live(streams, output_limit),
        )
        sandbox = lookup_sandbox(mode)(mode, settings)
        hand_on = mode in _OWN_STDIN or os.isatty(0)
        run_it = partial(_run, sandbox, command, streams, as_json=as_json, hand_on=hand_on)
        return anyio.run(run_it)
    except (ConfigError, ValueError) as exc:
        raise click.UsageError(_in_options(str(exc), context), context) from exc


def _options(context: click.Context) -> dict[str, str]:
    """Return the options by the settings that they set."""
    return {_setting(option): option.opts[0] for option in context.command.params}


def _in_options(message: str, context: click.Context) -> str:
    """Return a message that begins with a field's name, or with two, with the options' names."""
    options = _options(context)
    names = "|".join(sorted(options, key=len, reverse=True))
    head = re.match(rf"(\w+: )?(?:{names})( or (?:{names}))?\b", message)
    if head is None:
        return message
    begin = len(head[1] or "")
    named = re.sub(rf"\b(?:{names})\b", lambda name: options[name[0]], message[begin : head.end()])
    return message[:begin] + named + message[head.end() :]


def _settings(context: click.Context, mode: str, options: dict[str, Any]) -> dict[str, Any]:
    """Return the sandbox's settings, or raise an error for an option that its mode does not
    know.
    """
    given = {name.rstrip("_"): value for name, value in options.items()}
    network = given.pop("network")
    settings = {name: value for name, value in given.items() if value}
    if network is not None:
        settings["network"] = network
    for name in settings:
        if mode not in _MODES[name]:
            raise click.UsageError(
                f"{_options(context)[name]} is for --mode {' and '.join(_MODES[name])}; "
                f"{mode!r} does not know it",
                context,
            )
    for name in ("readonly", "writable"):
        if name in settings:
            settings[name] = _absolute(settings[name])
    if "network" in settings:
        if "allow_host" in settings:
            raise click.UsageError("--allow-host and --network exclude each other", context)
        if mode == "bubblewrap":
            if network:
                hint = f"--network takes no name in bubblewrap, not {network!r}; write -- before the program"
                raise click.UsageError(hint, context)
            settings["network"] = True
        elif not network:
            raise click.UsageError(
                f"--network takes a network's name in {mode}, such as --network=none", context
            )
    if "allow_host" in settings:
        from anyspawn import Egress

        try:
            settings["network"] = Egress(allow=settings.pop("allow_host"))
        except ConfigError as exc:
            raise click.UsageError(f"--allow-host: {exc}", context) from exc
    if "kubeconfig" in settings:
        settings["kubeconfig"] = os.path.abspath(settings["kubeconfig"])
    if mode in ("docker_exec", "kubectl_exec"):
        settings["shared"] = "trusted"  # the user of the command has chosen the container
    if "pull" in settings:
        settings["pull"] = "missing"
    return settings


def _small_stdin() -> bytes | None:
    """Return all of this command's stdin, if it is a small file or empty; otherwise it must be
    streamed.
    """
    status = os.fstat(0)
    if stat.S_ISREG(status.st_mode):
        left = status.st_size - os.lseek(0, 0, os.SEEK_CUR)
        if left <= _SMALL:
            with open(0, "rb", closefd=False) as file:
                return file.read(_SMALL)
    nothing = os.stat(os.devnull).st_rdev
    return b"" if stat.S_ISCHR(status.st_mode) and status.st_rdev == nothing else None


def _absolute(paths: tuple[str, ...]) -> list[str]:
    return [os.path.abspath(path) for path in paths]


def _live(streams: dict[str, Writer], limit: int | None) -> Callable[[str, bytes], Any]:
    """Return a callback that passes output on, up to the limit, and waits for a slow reader."""
    left = dict.fromkeys(streams, limit)

    async def pass_on(name: str, data: bytes) -> None:
        room = left[name]
        if room is not None:
            data = data[:room]
            left[name] = room - len(data)
        if data:
            await streams[name].write(data)

    return pass_on


async def _run(
    sandbox: Sandbox,
    command: Command,
    streams: dict[str, Writer],
    *,
    as_json: bool,
    hand_on: bool,
) -> int:
    received: list[signal.Signals] = []
    try:
        with anyio.CancelScope() as scope:
            _stop_on_signals(scope, received)
            completed = await _spawn(sandbox, command, hand_on=hand_on)
            if as_json:
                await streams["stdout"].write(to_json(completed).encode() + b"\n")
            status, line = exit_status(completed), reason(completed)
        if scope.cancelled_caught:
            status, line = (
                128 + received[0],
                f"received {received[0].name}, and killed the program",
            )
    except StreamError as exc:
        if exc.reader_is_gone:
            return 141  # 128 + SIGPIPE
        status, line = OWN_FAILURE, str(exc)
    if line:
        with anyio.move_on_after(_LAST_WORD):
            await _say(streams["stderr"], line)
    return status


async def _spawn(sandbox: Sandbox, command: Command, *, hand_on: bool) -> Completed:
    try:
        if command.stdin is None and hand_on and isinstance(sandbox, ArgvSandbox):
            from anyspawn.cli.streamed import spawn_streamed

            return await spawn_streamed(sandbox, attrs.evolve(command, stdin=b""), Reader(0))
        return await sandbox.spawn(command)
    finally:
        close = getattr(sandbox, "aclose", None)
        if close is not None:
            with anyio.move_on_after(_CLOSING, shield=True):
                await close()


def _stop_on_signals(scope: anyio.CancelScope, received: list[signal.Signals]) -> None:
    """Let signals that would kill this command cancel ``scope`` instead; signals that it ignores
    from its start stay ignored.
    """

    def stop(signum: signal.Signals) -> None:
        received.append(signum)
        scope.cancel()

    for signum in _STOP:
        if signal.getsignal(signum) is not signal.SIG_IGN:
            asyncio.get_running_loop().add_signal_handler(signum, stop, signum)


async def _say(stderr: Writer, line: str) -> None:
    with suppress(StreamError):
        await stderr.write(f"anyspawn: {line}\n".encode(errors="backslashreplace"))
