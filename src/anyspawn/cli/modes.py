"""``anyspawn modes``: where programs can run."""

from __future__ import annotations

import inspect

import click

from anyspawn import ConfigError, default_registry, lookup_sandbox

__all__ = ["modes"]


@click.command()
def modes() -> None:
    """List the modes that "anyspawn run --mode" knows, installed plugins included.

    \b
    Example:
      anyspawn modes
    """  # noqa: D301  click is told by that very character to leave lines as they are
    names = default_registry.modes()
    width = max(map(len, names))
    for name in names:
        click.echo(f"{name:<{width}}  {_describe(name)}".rstrip())


def _describe(mode: str) -> str:
    try:
        text = inspect.getdoc(lookup_sandbox(mode)) or ""
    except ConfigError as exc:
        return f"(broken: {exc})"
    return text.partition("\n")[0]
