"""``anyspawn check``: the problems of a configuration file."""

from __future__ import annotations

import logging

import click

from anyspawn.config import InvalidConfigError, RuntimeConfig, load_config

__all__ = ["check", "load", "load_valid"]


def load(path: str) -> RuntimeConfig:
    """Return the configuration of a file; a file that cannot be read is wrong usage."""
    try:
        return load_config(path)
    except OSError as exc:
        raise click.UsageError(f"cannot read {path}: {exc.strerror}") from exc


def load_valid(path: str) -> RuntimeConfig:
    """Return the configuration of a file; for an invalid one, exit with its problems."""
    try:
        return load(path)
    except InvalidConfigError as exc:
        click.echo(str(exc), err=True)
        raise click.exceptions.Exit(1) from None


@click.command()
@click.argument("configs", metavar="CONFIG...", type=click.Path(), nargs=-1, required=True)
def check(configs: tuple[str, ...]) -> int:
    """Check RuntimeConfig files, and report all problems with line and column.

    Warnings are about things that are valid but may not be what you meant, such as a command that
    does not exist on this host.

    \b
    Example:
      anyspawn check agent.yaml other.yaml

    \b
    Exit status: 0 there are no problems, 1 there are some, 2 a file cannot be read.
    """  # noqa: D301  click is told by that very character to leave lines as they are
    # Warnings are printed below, so do not log them too.
    logging.getLogger("anyspawn.config").addHandler(logging.NullHandler())
    return max([_check(config) for config in configs])


def _check(config: str) -> int:
    """Check one file; return its exit status."""
    try:
        loaded = load(config)
    except InvalidConfigError as exc:
        for line, problem in zip(exc.lines(), exc.problems, strict=True):
            click.echo(click.style(line.removesuffix(str(problem)), bold=True) + str(problem))
        return 1
    for note in loaded.warnings:
        place = ":".join(str(part) for part in (config, note.line, note.column) if part is not None)
        click.echo(click.style(f"{place}: ", bold=True) + f"warning: {note}")
    found = [
        _count(len(loaded.sandboxes), "sandbox", "es"),
        _count(len(loaded.hooks), "hook", "s"),
    ]
    more = (loaded.tools, "tool"), (loaded.evals, "eval"), (loaded.selectors, "selector")
    found += [_count(len(programs), name, "s") for programs, name in more if programs]
    click.echo(f"{config}: ok ({', '.join(found)})")
    return 0


def _count(number: int, name: str, plural: str) -> str:
    return f"{number} {name}{'' if number == 1 else plural}"
