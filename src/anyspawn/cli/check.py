"""``anyspawn check``: what is wrong with a configuration file."""

from __future__ import annotations

import click

from anyspawn.config import InvalidConfigError, RuntimeConfig, load_config

__all__ = ["check", "load"]


def load(path: str) -> RuntimeConfig:
    """Return the configuration of a file; one that cannot be read is wrong usage."""
    try:
        return load_config(path)
    except OSError as exc:
        raise click.UsageError(f"cannot read {path}: {exc.strerror}") from exc


@click.command()
@click.argument("config", type=click.Path())
def check(config: str) -> int:
    """Check a RuntimeConfig file, and name all its problems with their places.

    \b
    Example:
      anyspawn check agent.yaml

    \b
    Exit status: 0 there are none, 1 there are some, 2 the file cannot be read.
    """  # noqa: D301  click is told by that very character to leave lines as they are
    try:
        loaded = load(config)
    except InvalidConfigError as exc:
        for line, problem in zip(exc.lines(), exc.problems, strict=True):
            click.echo(click.style(line.removesuffix(str(problem)), bold=True) + str(problem))
        return 1
    click.echo(
        f"{config}: ok ({_count(len(loaded.sandboxes), 'sandbox', 'es')}, {_count(len(loaded.hooks), 'hook', 's')})"
    )
    return 0


def _count(number: int, name: str, plural: str) -> str:
    return f"{number} {name}{'' if number == 1 else plural}"
