"""The command line, ``anyspawn``: one file a subcommand. It needs the ``cli`` extra."""

from __future__ import annotations

import sys

__all__ = ["main"]


def main() -> int:
    """Run the command line with ``sys.argv``, and return the status to exit with."""
    try:
        import click  # noqa: F401  looked for here, so that the extra's absence is one line and no traceback
    except ImportError:
        print(
            "anyspawn: the command line needs click; install it with: pip install 'anyspawn[cli]'",
            file=sys.stderr,
        )
        return 2
    from anyspawn.cli.app import start

    return start()
