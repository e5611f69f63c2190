"""Draws terminals from what commands print: `python docs/terminal_pictures.py` runs them and
writes docs/demo.svg and docs/doctor.svg.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator, Sequence
from html import escape
from pathlib import Path

DOCS = Path(__file__).parent
COMMANDS = {
    "demo": "python examples/pii/demo.py",
    "doctor": "anyspawn doctor",
}
COLOURS = {"31": "#ff7b72", "32": "#7ee787", "33": "#e3b341"}
SIZE, ADVANCE, LEADING, EDGE, BAR = 14, 8.4, 20, 16, 32


def record(command: str) -> list[str]:
    """Run a command at a terminal, in the root folder of the project, and return its lines."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    ours, theirs = os.openpty()
    process = subprocess.Popen(
        ["sh", "-c", command],
        cwd=DOCS.parent,
        env={**{k: v for k, v in os.environ.items() if k != "NO_COLOR"}, "PATH": path},
        stdout=theirs,
    )
    os.close(theirs)
    seen = bytearray()
    while True:
        try:
            chunk = os.read(ours, 65536)
        except OSError:  # on Linux, when the last program has closed the terminal
            break
        if not chunk:
            break
        seen.extend(chunk)
    os.close(ours)
    process.wait()
    return [_general(line.rstrip()) for line in seen.decode().splitlines()]


def _general(line: str) -> str:
    """Shorten what only names the machine that the picture was made on."""
    line = re.sub(r"Linux-(\d+\.\d+)[^ ]*?-(x86_64|aarch64)[^ ]*", r"Linux-\1-\2", line)
    return re.sub(r"(v\d+\.\d+\.\d+)-[\w-]+", r"\1", line)


def picture(command: str, lines: Sequence[str]) -> str:
    """Return a terminal as SVG: the command, and the lines that it printed, with their colours."""
    rows = [f"$ {command}", *lines]
    columns = max(len(plain(row)) for row in rows)
    width, height = 2 * EDGE + columns * ADVANCE, BAR + LEADING * len(rows) + EDGE
    parts = [
        (
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:.0f} {height}" role="img" '
            "font-family=\"ui-monospace, Menlo, Consolas, 'DejaVu Sans Mono', monospace\" "
            f'font-size="{SIZE}" fill="#e6edf3"><title>{escape(command)}</title>'
        ),
        f'<rect width="{width:.0f}" height="{height}" rx="8" fill="#161b22"/>',
        *(
            f'<circle cx="{EDGE + 6 + 18 * number}" cy="16" r="5" fill="#484f58"/>'
            for number in range(3)
        ),
    ]
    for number, row in enumerate(rows):
        y = BAR + LEADING * number + SIZE
        column = 0
        for text, colour in _coloured(row):
            if text.strip():
                fill = f' fill="{colour}"' if colour else ""
                parts.append(
                    f'<text x="{EDGE + column * ADVANCE:.1f}" y="{y}" xml:space="preserve" '
                    f'textLength="{len(text) * ADVANCE:.1f}"{fill}>{escape(text)}</text>'
                )
            column += len(text)
    return "\n".join([*parts, "</svg>", ""])


def plain(line: str) -> str:
    """Return a line without its colours."""
    return re.sub(r"\x1b\[[0-9;]*m", "", line)


def _coloured(line: str) -> Iterator[tuple[str, str | None]]:
    colour = None
    for part in re.split(r"(\x1b\[[0-9;]*m)", line):
        if part.startswith("\x1b"):
            colour = next((COLOURS[code] for code in COLOURS if code in part), None)
        else:
            yield part, colour


if __name__ == "__main__":
    for name, command in COMMANDS.items():
        path = DOCS / f"{name}.svg"
        path.write_text(picture(command, record(command)), encoding="utf-8")
