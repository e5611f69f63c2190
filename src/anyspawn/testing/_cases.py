"""Inputs that sandboxes have failed on."""

from __future__ import annotations

__all__ = ["NAMES", "NASTY", "PLACEHOLDERS", "TREES"]

NAMES = ["-n", "a b*", ".ü", "line\nbreak", "'$(id)"]
"""File names that shells may misread."""

NASTY = {
    "A": "x",
    "EMPTY": "",
    "LINES": "a\n\nb\n",
    "EQUALS": "a=b=",
    "SPACE": " a\t",
    "QUOTES": "'\"`$x\\n\\",
    "OTHER": "é\udc80\x01\x7f",
    "PATH": "/bin:/usr/bin:/x",
    "HOME": "/h",
    "IFS": "x",
    "DOCKER_HOST": "tcp://1.2.3.4:5",
    "KUBECONFIG": "/none",
    "LD_PRELOAD": "",
}
"""Variables that shells and runners use themselves, and values that are hard to pass on."""

TREES = {
    "a shell's tree": "sleep 999 & sh -c 'sleep 999 & sleep 999' & sleep 999",
    "setsid": "setsid sleep 999 & setsid sh -c 'setsid sleep 999' & sleep 999",
    "env -i": "env -i sleep 999 & env -i setsid sh -c 'sleep 999 & sleep 999' & sleep 999",
    "a fork loop": "while :; do sleep 0.05 & sleep 0.01; done",
    "TERM ignored": "trap '' TERM INT HUP; setsid sleep 999 & while :; do sleep 1; done",
    "streams closed": "exec >/dev/null 2>&1 </dev/null; setsid sleep 999 & sleep 999",
}
"""Scripts of processes that are hard to kill. The second shell of "env -i" has lost its mark."""

PLACEHOLDERS = [
    "/dev/fd/?",
    "?",
    "io.anyspawn.owner=?",
    "io.anyspawn.id=?",
    "{}",
    "$HOME",
    "%s",
    "",
    "--",
    "-x",
    "a b",
    "é",
    "\n",
]
"""Arguments that a sandbox may mistake for its own."""
