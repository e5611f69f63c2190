"""Plots as SVG text: lines on logarithmic axes, and panels of samples over time. No library is
needed. They take the colour of the text around them, light or dark.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from html import escape

Points = Sequence[tuple[float, float]]
_COLOURS = (
    "#d62728",
    "#1f77b4",
    "#2ca02c",
    "#ff7f0e",
    "#9467bd",
    "#8c564b",
    "#17becf",
    "#7f7f7f",
    "#bcbd22",
)
_WIDTH, _HEIGHT, _LEFT, _TOP, _LEGEND, _BOTTOM = 820, 380, 64, 34, 300, 44
_PANEL = 84


def _svg(width: int, height: int, title: str, parts: list[str]) -> str:
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" role="img" '
        f'font-family="sans-serif" font-size="12" fill="currentColor" color="#777">'
        f"<title>{escape(title)}</title>"
        f'<text x="12" y="20" font-size="14" font-weight="bold">{escape(title)}</text>'
    )
    return "\n".join([head, *parts, "</svg>\n"])


def _text(x: float, y: float, words: str, anchor: str = "middle") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(words)}</text>'


def _line(points: Points, colour: str, *, dashed: bool = False) -> str:
    where = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
    dash = ' stroke-dasharray="5 3"' if dashed else ""
    return f'<polyline points="{where}" fill="none" stroke="{colour}" stroke-width="2"{dash}/>'


def _grid(x1: float, y1: float, x2: float, y2: float) -> str:
    return (
        f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" '
        'stroke="currentColor" stroke-opacity="0.25"/>'
    )


def _decades(values: list[float]) -> list[float]:
    """Return the ends of an axis and what is marked on it: 1, 2, 5, 10, ..."""
    marks = [step * 10.0**power for power in range(-6, 9) for step in (1, 2, 5)]
    low = max((mark for mark in marks if mark <= min(values)), default=marks[0])
    high = min((mark for mark in marks if mark >= max(values)), default=marks[-1])
    return [mark for mark in marks if low <= mark <= max(high, low * 2)]


def lines(title: str, x_label: str, y_label: str, series: Mapping[str, Points]) -> str:
    """Return a plot of positive values, both axes logarithmic; names that begin with anyspawn are
    drawn through, others dashed.
    """
    series = {name: points for name, points in series.items() if points}
    if not series:
        return _svg(
            _WIDTH, _TOP + 20, title, [_text(12, _TOP + 10, "nothing was measured", "start")]
        )
    ticks = sorted({x for points in series.values() for x, _ in points})
    marks = _decades([y for points in series.values() for _, y in points])
    right, bottom = _WIDTH - _LEGEND, _HEIGHT - _BOTTOM

    def at(value: float, low: float, high: float, start: float, end: float) -> float:
        share = (
            (math.log(value) - math.log(low)) / (math.log(high) - math.log(low))
            if high > low
            else 0.5
        )
        return start + share * (end - start)

    def place(x: float, y: float) -> tuple[float, float]:
        return at(x, ticks[0], ticks[-1], _LEFT, right), at(y, marks[0], marks[-1], bottom, _TOP)

    parts = []
    for mark in marks:
        y = place(ticks[0], mark)[1]
        parts += [_grid(_LEFT, y, right, y), _text(_LEFT - 6, y + 4, f"{mark:g}", "end")]
    for tick in ticks:
        x = place(tick, marks[0])[0]
        parts += [_grid(x, _TOP, x, bottom), _text(x, bottom + 16, f"{tick:g}")]
    parts.append(_text((_LEFT + right) / 2, _HEIGHT - 8, f"{x_label}; up: {y_label}"))
    for number, (name, points) in enumerate(series.items()):
        colour = _COLOURS[number % len(_COLOURS)]
        where = [place(x, y) for x, y in points]
        parts.append(_line(where, colour, dashed=not name.startswith("anyspawn")))
        parts += [f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" fill="{colour}"/>' for x, y in where]
        y = _TOP + 8 + 20 * number
        parts.append(
            _line(
                [(right + 14, y), (right + 38, y)], colour, dashed=not name.startswith("anyspawn")
            )
        )
        parts.append(_text(right + 44, y + 4, name, "start"))
    return _svg(_WIDTH, _HEIGHT, title, parts)


def panels(title: str, x_label: str, rows: Mapping[str, Mapping[str, Points]]) -> str:
    """Return a panel for each row, one under the other, from zero up, with a line for each of its
    series.
    """
    height = _TOP + _PANEL * len(rows) + _BOTTOM
    names = sorted({name for series in rows.values() for name in series})
    colours = {name: _COLOURS[number % len(_COLOURS)] for number, name in enumerate(names)}
    last = (
        max(
            (x for series in rows.values() for points in series.values() for x, _ in points),
            default=1,
        )
        or 1
    )
    left, right = _LEFT + 90, _WIDTH - 110
    parts = []
    for number, (label, series) in enumerate(rows.items()):
        top, bottom = _TOP + _PANEL * number + 10, _TOP + _PANEL * (number + 1) - 8
        most = max((y for points in series.values() for _, y in points), default=0)
        parts += [_grid(left, top, right, top), _grid(left, bottom, right, bottom)]
        parts += [
            _text(left - 6, top + 4, f"{most:g}", "end"),
            _text(left - 6, bottom + 4, "0", "end"),
        ]
        parts.append(_text(12, (top + bottom) / 2, label, "start"))
        for name, points in series.items():
            where = [
                (
                    left + x / last * (right - left),
                    bottom - (y / most if most else 0) * (bottom - top),
                )
                for x, y in points
            ]
            parts.append(_line(where, colours[name]))
    for number, name in enumerate(names):
        y = _TOP + 14 + 20 * number
        parts += [
            _line([(right + 10, y), (right + 30, y)], colours[name]),
            _text(right + 36, y + 4, name, "start"),
        ]
    parts.append(_text((left + right) / 2, height - 12, f"{x_label} (0 .. {last:g})"))
    return _svg(_WIDTH, height, title, parts)
