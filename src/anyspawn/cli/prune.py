"""``anyspawn prune``: remove what a process that died has left behind."""

from __future__ import annotations

import sys
from typing import Any

import anyio
import click

from anyspawn import SpawnError
from anyspawn._foreign import plain
from anyspawn.containers import Orphan, reap_orphans

__all__ = ["prune"]


@click.command()
@click.option("--dry-run", is_flag=True, help="List them, and remove nothing.")
@click.option("--kept", is_flag=True, help="Also what was to stay, such as box --keep.")
@click.option("--all-boots", is_flag=True, help="Also what was made before this host's last boot.")
@click.option(
    "--mode",
    type=click.Choice(["docker_run", "kubectl_run"]),
    default="docker_run",
    show_default=True,
    help="Containers, or pods.",
)
@click.option(
    "--docker-path",
    default="docker",
    show_default=True,
    metavar="PROGRAM",
    help="docker_run: the client.",
)
@click.option(
    "--kubectl-path",
    default="kubectl",
    show_default=True,
    metavar="PROGRAM",
    help="kubectl_run: the client.",
)
@click.option(
    "--kubeconfig", metavar="FILE", help="kubectl_run: the kubeconfig.  [default: kubectl's own]"
)
@click.option("--context", metavar="NAME", help="kubectl_run: its context.")
@click.option(
    "--namespace", metavar="NAME", help="kubectl_run: where to look.  [default: in all namespaces]"
)
def prune(**options: Any) -> int:
    """List and remove the containers or pods, running or not, whose owner on this host is provably
    dead.

    What living processes and other hosts made, and what anyspawn did not make, is never touched.
    What was to stay (box --keep, ContainerManager) and what is older than this host's last boot is
    left alone unless you ask for it.

    \b
    Examples:
      anyspawn prune --dry-run
      anyspawn prune --mode kubectl_run --namespace hooks

    Exit status: 0, or 1 where the daemon or the cluster could not be asked.
    """  # noqa: D301  click is told by that very character to leave lines as they are

    async def reap() -> list[Orphan]:
        return await reap_orphans(**options)

    try:
        orphans = anyio.run(reap)
    except SpawnError as exc:
        print(f"anyspawn: {exc}", file=sys.stderr)
        return 1
    for orphan in orphans:
        click.echo(plain(f"{orphan.id[:12]}  {orphan.name}  {orphan.image}  {orphan.state}"))
    click.echo(f"{len(orphans)} {'would be ' if options['dry_run'] else ''}removed")
    return 0
