"""``anyspawn schema``: the JSON Schema of configuration files."""

from __future__ import annotations

import json

import click

from anyspawn.config import json_schema

__all__ = ["schema"]


@click.command()
def schema() -> None:
    """Print the JSON Schema of RuntimeConfig files, for editors and other checkers.

    \b
    Example:
      anyspawn schema > runtimeconfig.schema.json
    """  # noqa: D301  click is told by that very character to leave lines as they are
    click.echo(json.dumps(json_schema(), indent=2))
