"""``anyspawn box``: a command in a hardened container, with this folder as its workspace."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import anyio
import click

from anyspawn import ConfigError, SpawnError
from anyspawn.cli.outcome import OWN_FAILURE
from anyspawn.cli.streams import fill_closed_streams
from anyspawn.containers import (
    ContainerManager,
    ContainerSpec,
    SecurityConfig,
    detect_image,
    filter_env,
)
from anyspawn.sandboxes.docker_run import GUARD

__all__ = ["box"]

_ALLOW = (
    "LANG",
    "LANGUAGE",
    "LC_*",
    "TERM",
    "TZ",
    "COLORTERM",
    "NO_COLOR",
    "FORCE_COLOR",
    "CI",
    "COLUMNS",
    "LINES",
)
_NOBODY = 65534
_COMPILERS = {"eclipse-temurin", "gcc", "golang", "gradle", "maven", "rust"}
"""Images of tools that build programs in /tmp and run them there."""


@click.command(context_settings={"allow_interspersed_args": False}, options_metavar="[OPTIONS] --")
@click.option("--image", help="The image.  [default: what the command needs]")
@click.option(
    "--workspace",
    default=".",
    show_default=True,
    metavar="DIR",
    help="The folder that is /work inside.",
)
@click.option(
    "--network",
    default="none",
    show_default=True,
    help="A docker network; bridge for the usual one.",
)
@click.option("--env", multiple=True, metavar="NAME[=VALUE]", help="One more variable. Repeatable.")
@click.option("--keep", is_flag=True, help="Keep the container after it exits.")
@click.option(
    "--docker-path", default="docker", show_default=True, metavar="PROGRAM", help="The client."
)
@click.argument(
    "argv", nargs=-1, required=True, type=click.UNPROCESSED, metavar="PROGRAM [ARGS]..."
)
@click.pass_context
def box(
    context: click.Context,
    /,
    image: str | None,
    workspace: str,
    network: str,
    env: tuple[str, ...],
    docker_path: str,
    argv: tuple[str, ...],
    *,
    keep: bool,
) -> int:
    """Run PROGRAM in a fresh hardened container, with this folder as /work.

    It has no capabilities, no new privileges, a read-only root, limits on memory and processes, no
    network unless you ask for one, and your user's number (nobody's, if you are root). Of your
    variables it gets only those for language, terminal and time zone. It has a terminal if you have
    one. Programs in /tmp run only in images of compilers (golang, rust, gcc and the like).

    \b
    Examples:
      anyspawn box -- python app.py
      anyspawn box --network bridge --env API_TOKEN -- npm test
      anyspawn box --image alpine:latest -- sh

    Exit status: the program's own; 125 if the container cannot be created or an option is wrong;
    docker's own (1, 126, 127) if the container cannot be started.
    """  # noqa: D301  click is told by that very character to leave lines as they are
    fill_closed_streams()
    terminal = os.isatty(0) and os.isatty(1)
    image = image or detect_image(argv)
    builds = image.rpartition("/")[2].partition(":")[0] in _COMPILERS
    try:
        spec = ContainerSpec(
            image=image,
            cmd=argv,
            entrypoint=(),
            remove_on_exit=not keep,
            workspace=workspace,
            env=[
                *(f"{name}={value}" for name, value in filter_env(os.environ, _ALLOW).items()),
                "HOME=/tmp",
                *env,
            ],
            network=network,
            tty=terminal,
            attach_stdin=True,
            security=SecurityConfig(
                user=f"{os.getuid() or _NOBODY}:{os.getgid() or _NOBODY}",
                tmpfs=["/tmp:exec" if builds else "/tmp"],
            ),
        )
        manager = ContainerManager(docker_path=docker_path)
        container = anyio.run(_prepare, manager, spec)
    except (ConfigError, ValueError) as exc:
        raise click.UsageError(str(exc), context) from exc
    except SpawnError as exc:
        print(f"anyspawn: {exc}", file=sys.stderr)
        return OWN_FAILURE
    except KeyboardInterrupt:
        return 130
    if not keep:
        _guard(docker_path, container)
    # From here on this process is docker, which handles terminal, window size and signals.
    client = [docker_path, "start", "--attach", "--interactive", container]
    os.execvp(docker_path, client)  # noqa: S606  it does not return
    raise AssertionError


async def _prepare(manager: ContainerManager, spec: ContainerSpec) -> str:
    with _progress(spec.image) as tell:
        await manager.pull_if_missing(spec.image, on_progress=tell)
    return await manager.create(spec)


@contextmanager
def _progress(image: str) -> Iterator[Callable[[str], None]]:
    """Give a callback that shows a pull's progress: a bar on a terminal, nothing elsewhere."""
    if not os.isatty(2):
        yield lambda _: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn

    progress = Progress(
        TextColumn("pulling {task.description}"),
        BarColumn(),
        TextColumn("{task.completed}/{task.total} layers"),
        console=Console(stderr=True),
        transient=True,
    )
    task = progress.add_task(image, total=0)
    layers: dict[str, bool] = {}

    def tell(line: str) -> None:
        progress.start()  # only now, so that nothing appears if there is nothing to pull
        layer, colon, state = line.partition(": ")
        if colon and re.fullmatch("[0-9a-f]{12}", layer):
            layers[layer] = layers.get(layer, False) or state in {"Pull complete", "Already exists"}
            progress.update(task, total=len(layers), completed=sum(layers.values()))

    try:
        yield tell
    finally:
        progress.stop()


def _guard(docker_path: str, container: str) -> None:
    """Start a guard that removes the container when this process, which becomes docker, is gone."""
    read_end, write_end = os.pipe()
    os.set_inheritable(write_end, True)  # noqa: FBT003  it takes no keyword
    null = subprocess.DEVNULL
    argv = ["sh", "-c", GUARD, docker_path, container]
    subprocess.Popen(
        argv, stdin=read_end, stdout=null, stderr=null, cwd="/", start_new_session=True
    )
    os.close(read_end)
