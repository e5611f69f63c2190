"""``anyspawn init``: a configuration and a hook to start from."""

from __future__ import annotations

import sys
from pathlib import Path

import click

__all__ = ["init"]

_CONFIG = """\
# A RuntimeConfig: which hooks an agent runtime asks, and where they run.
# "anyspawn check agent.yaml" names every problem; "anyspawn schema" prints the schema for editors.
apiVersion: promptkit.altairalabs.ai/v1alpha1
kind: RuntimeConfig
spec:
  sandboxes:
    # A place that hooks can run in; "anyspawn modes" lists the modes. This one needs no daemon, has
    # no network, and sees none of your files but those of the hook.
    box:
      mode: bubblewrap
  hooks:
    guard:
      command: ./guard.py
      hook: tool                  # it judges tool calls ...
      phases: [before_execution]  # ... before they happen
      mode: filter                # and may deny them; "observe" only watches
      timeout_ms: 2000            # a hook that has not answered by then denies
      # sandbox: box              # remove the first "#" to run it in the sandbox above
"""

_GUARD = '''\
#!/usr/bin/env python3
"""Denies a tool call whose arguments name a file outside of the working folder."""

import json
import sys

request = json.load(sys.stdin)["request"]
path = str((request.get("Args") or {}).get("path", ""))
outside = path.startswith(("/", "~")) or ".." in path.split("/")
print(json.dumps({"allow": not outside, "reason": f"{path} is outside of the folder" if outside else ""}))
'''

_NEXT = """\
Wrote {files}. Try it:
  anyspawn check {config}
  echo '{{"Name": "read", "Args": {{"path": "/etc/passwd"}}}}' | anyspawn hook run {config} guard
"""


@click.command()
@click.argument("folder", type=click.Path(file_okay=False, path_type=Path), default=".")
def init(folder: Path) -> int:
    """Write a configuration (agent.yaml) and a working hook (guard.py) into FOLDER.

    FOLDER is created if it does not exist; the default is this folder. No file is overwritten.

    \b
    Example:
      anyspawn init my-agent

    Exit status: 0 written, 1 a file exists already or cannot be written, 2 wrong usage.
    """  # noqa: D301  click is told by that very character to leave lines as they are
    files = {folder / "agent.yaml": _CONFIG, folder / "guard.py": _GUARD}
    there = [file for file in files if file.exists() or file.is_symlink()]
    if there:
        print(f"anyspawn: {there[0]} exists already; nothing was written", file=sys.stderr)
        return 1
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for file, text in files.items():
            with file.open("x", encoding="utf-8") as opened:
                opened.write(text)
        (folder / "guard.py").chmod(0o755)
    except OSError as exc:
        print(f"anyspawn: {exc.filename}: {exc.strerror}", file=sys.stderr)
        return 1
    config, guard = files
    click.echo(_NEXT.format(files=f"{config} and {guard}", config=config), nl=False)
    return 0
