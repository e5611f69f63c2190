"""What each hook of a configuration did at one phase, as a table or as JSON."""

from __future__ import annotations

import difflib
import json
import sys
from typing import Any

import click

from anyspawn._foreign import plain
from anyspawn.config import RuntimeConfig
from anyspawn.hooks import Decision, ExecHook, HookCall
from anyspawn.hooks._payloads import to_wire
from anyspawn.hooks._phases import AFTER
from anyspawn.hooks._runner import DENIED_BEFORE

__all__ = ["rows", "show"]

Row = dict[str, Any]


async def rows(config: RuntimeConfig, phase: Any, payload: Any) -> tuple[Decision, list[Row]]:
    """Ask all hooks; return their decision, and a row for each of them, in the file's order."""
    seen: list[HookCall] = []
    async with config.open() as hooks:
        decision = await hooks.run(phase, payload, seen=seen)
    found: list[Row] = []
    for hook in config.hooks.values():
        calls = [call for call in seen if call.hook == hook.name]
        found += [_row(hook, phase, call) for call in calls] or [_row(hook, phase, None)]
    return decision, found


def _row(hook: ExecHook, phase: str, call: HookCall | None) -> Row:
    row: Row = {"hook": hook.name, "mode": hook.mode, "sandbox": hook.sandbox.name, "asked": False}
    if call is None:
        left_out = DENIED_BEFORE if hook.mode == "filter" else "it was left out"
        return {**row, "why": left_out if phase in hook.phases else hook.why_not(phase)}
    if not call.asked:
        return {**row, "why": hook.why_not(phase)}
    decision = call.decision
    row |= {"asked": True, "seconds": round(call.seconds, 6)}
    if decision is None:
        return {**row, "verdict": "ended", "why": "another hook had denied"}
    told = "told" if hook.mode == "observe" else "allow" if decision.allow else "deny"
    row |= {"verdict": told, "reason": decision.reason}
    if decision.payload is not None:
        part = "response" if phase in AFTER else next(iter(call.payload))
        row |= {"before": to_wire(call.payload[part]), "after": to_wire(decision.payload)}
    return row


def show(decision: Decision, rows: list[Row], *, as_json: bool) -> None:
    """Print rows: as JSON, as a table on a terminal, and as lines elsewhere."""
    outcome = {"allow": decision.allow, "blocks": decision.blocks, "hook": decision.hook}
    outcome["reason"] = decision.reason
    if as_json:
        click.echo(json.dumps({"hooks": rows, "decision": outcome}))
        return
    if sys.stdout.isatty():
        _table(rows)
    else:
        for row in rows:
            click.echo("  ".join(cell for cell in _cells(row) if cell))
    for row in rows:
        if "after" in row:
            click.echo(f"{row['hook']} rewrote the payload:")
            for line in _difference(row["before"], row["after"]):
                color = {"+": "green", "-": "red"}.get(line[:1])
                click.echo(click.style(f"  {plain(line)}", fg=color))
    said = "denied" if decision.blocks else "allowed"
    by = f" by {decision.hook}" if decision.blocks else ""
    click.echo(plain(f"{said}{by}" + (f": {decision.reason}" if decision.reason else "")))


def _cells(row: Row) -> tuple[str, str, str, str, str]:
    took = f"{row['seconds'] * 1000:.1f} ms" if "seconds" in row else ""
    return (
        row["hook"],
        row.get("verdict", "not asked"),
        row["sandbox"],
        took,
        plain(row.get("reason") or row.get("why", ""), lines=False),
    )


def _table(rows: list[Row]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table("hook", "verdict", "sandbox", "time", "reason")
    colors = {"allow": "green", "deny": "red"}
    for row in rows:
        name, verdict, *rest = _cells(row)
        verdict_text = Text(verdict, style=colors.get(verdict, ""))
        table.add_row(Text(name), verdict_text, *(Text(cell) for cell in rest))
    Console().print(table)


def _difference(before: Any, after: Any) -> list[str]:
    old, new = (
        json.dumps(value, indent=2, ensure_ascii=False).splitlines() for value in (before, after)
    )
    return list(difflib.unified_diff(old, new, lineterm="", n=2))[2:]
