"""Draws the phases of a call, from the table in which they stand: `python docs/call_picture.py`."""

from __future__ import annotations

from pathlib import Path

from anyspawn._spawn.phase import NEXT, Event, Phase

PLACES = {Phase.RUNNING: 20, Phase.DRAINING: 250, Phase.ENDING: 480, Phase.SETTLED: 710}
SAYS = {
    Event.EXITED: "the program exited",
    Event.STOPPED: "timeout, overflow, cancellation",
    Event.LEFT_SOMETHING: "something is left",
    Event.GONE: "nothing is left",
}
WIDTH, TOP = 150, 150


def picture() -> str:
    """Return the picture as SVG."""
    parts = [
        (
            '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 80 880 190" '
            'font-family="sans-serif" font-size="13" role="img" color="#777" aria-label="The phases of a call">'
        ),
        (
            '<defs><marker id="tip" viewBox="0 0 8 8" refX="8" refY="4" markerWidth="8" '
            'markerHeight="8" orient="auto"><path d="M0 0 8 4 0 8z" fill="currentColor"/></marker></defs>'
        ),
    ]
    for phase, left in PLACES.items():
        parts.append(
            f'<rect x="{left}" y="{TOP}" width="{WIDTH}" height="40" rx="8" fill="none" '
            f'stroke="currentColor" stroke-width="2"/><text x="{left + WIDTH / 2}" y="{TOP + 25}" '
            f'text-anchor="middle" fill="currentColor" font-weight="bold">{phase.name}</text>'
        )
    above, below = TOP, TOP + 40
    for (phase, event), following in NEXT.items():
        begin, end = PLACES[phase] + WIDTH, PLACES[following]
        if phase is following:
            continue
        if end - begin < WIDTH:
            x, y = (begin + end) / 2, TOP + 20
            line = f"M{begin} {y} H{end}"
            y += 38 if event is Event.LEFT_SOMETHING else -40
        else:
            high = 30 + 25 * (phase is Phase.RUNNING)
            over = event is Event.STOPPED
            edge, y = (above, above - high) if over else (below, below + high)
            x = (begin + end) / 2
            start, stop = begin - WIDTH / 2, end + WIDTH / 2
            line = f"M{start} {edge} V{y} H{stop} V{edge}"
            y += -6 if over else 16
        parts.append(
            f'<path d="{line}" fill="none" stroke="currentColor" stroke-width="1.5" '
            'marker-end="url(#tip)"/>'
            f'<text x="{x}" y="{y}" text-anchor="middle" fill="currentColor">{SAYS[event]}</text>'
        )
    return "\n".join([*parts, "</svg>", ""])


if __name__ == "__main__":
    (Path(__file__).parent / "call.svg").write_text(picture(), encoding="utf-8")
