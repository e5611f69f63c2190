"""``anyspawn prune``: remove containers and pods that a dead process left."""

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
@click.option("--kept", is_flag=True, help="Also those that are meant to stay, as of box --keep.")
@click.option("--all-boots", is_flag=True, help="Also those from before this host's last boot.")
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
    """Remove the containers or pods, running or not, whose owner on this host is dead, and list
    them.

    Those of living processes and of other hosts, and those that anyspawn did not create, are never
    removed. Those that are meant to stay (box --keep, ContainerManager), and those from before this
    host's last boot, are removed only with --kept and --all-boots.

    \b
    Examples:
      anyspawn prune --dry-run
      anyspawn prune --mode kubectl_run --namespace hooks

    Exit status: 0, or 1 if the daemon or the cluster does not answer.
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
