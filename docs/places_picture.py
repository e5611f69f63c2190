"""Draws where a program can run: `python docs/places_picture.py` writes docs/places.svg."""

from __future__ import annotations

from html import escape
from pathlib import Path

GROUPS = {
    "this host": {
        "Direct": "a process, as you",
        "Bubblewrap": "Linux namespaces, no daemon",
    },
    "docker or podman": {
        "DockerRun": "a fresh container each call",
        "DockerExec": "a container that runs already",
    },
    "Kubernetes": {
        "KubectlRun": "a fresh pod each call",
        "KubectlExec": "pods that run already",
    },
}
WIDTH, HEIGHT, ROW, LEFT, WALL = 760, 294, 34, 300, 740


def picture() -> str:
    """Return the picture as SVG, in the colour of the text around it."""
    middle = HEIGHT / 2
    parts = [
        (
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" color="#777" '
            'font-family="sans-serif" font-size="14" role="img" fill="currentColor" '
            'aria-label="One call, and the six places where its program can run">'
        ),
        (
            f'<rect x="10" y="{middle - 45}" width="170" height="90" rx="8" fill="none" '
            'stroke="currentColor" stroke-width="2"/>'
        ),
        _text(95, middle - 16, "your application", "middle"),
        _text(95, middle + 6, "spawn(argv,", "middle", mono=True),
        _text(95, middle + 26, "sandbox=...)", "middle", mono=True),
    ]
    y = 10.0
    for group, places in GROUPS.items():
        height = 14 + ROW * len(places)
        parts += [
            (
                f'<rect x="{LEFT}" y="{y}" width="{WALL - LEFT}" height="{height}" rx="8" fill="none" '
                'stroke="currentColor" stroke-dasharray="4 4"/>'
            ),
            _text(WALL - 10, y + 18, group, "end", weak=True),
        ]
        for number, (name, what) in enumerate(places.items()):
            line = y + 24 + number * ROW
            parts += [
                (
                    f'<path d="M180 {middle} C 240 {middle}, 230 {line} {LEFT + 6} {line}" '
                    'fill="none" stroke="currentColor" stroke-width="1.5"/>'
                ),
                f'<circle cx="{LEFT + 10}" cy="{line}" r="4"/>',
                _text(LEFT + 24, line + 5, name, "start", mono=True),
                _text(LEFT + 138, line + 5, what, "start"),
            ]
        y += height + 14
    return "\n".join([*parts, "</svg>", ""])


def _text(
    x: float, y: float, words: str, anchor: str, *, mono: bool = False, weak: bool = False
) -> str:
    font = ' font-family="monospace" font-weight="bold"' if mono else ""
    tone = ' font-style="italic"' if weak else ""
    return f'<text x="{x}" y="{y}" text-anchor="{anchor}"{font}{tone}>{escape(words)}</text>'


if __name__ == "__main__":
    (Path(__file__).parent / "places.svg").write_text(picture(), encoding="utf-8")
