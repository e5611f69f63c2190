"""An MCP server that misbehaves in a chosen way: ``hostile_server.py KIND MARK``. It starts a
process that would survive it, with the mark as its argument.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time

kind, mark = sys.argv[1:]
subprocess.Popen(
    ["sleep", f"300.{mark}"],
    stdin=subprocess.DEVNULL,
    stdout=None if kind == "holder" else subprocess.DEVNULL,
    stderr=subprocess.DEVNULL,
    start_new_session=kind == "daemon",
)
if kind == "stubborn":
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
if kind == "junk":
    os.write(1, b"Loading ... 100%\n\x1b[31mnot json\x1b[0m\n\xff\xfe\x00\n")
if kind == "noisy":
    os.write(2, b"log line " * 20_000)


def say(**message):
    print(json.dumps({"jsonrpc": "2.0", **message}), flush=True)  # noqa: T201  this is how it answers


for line in sys.stdin:
    asked = json.loads(line)
    method, number = asked.get("method"), asked.get("id")
    if method == "initialize":
        version = asked["params"]["protocolVersion"]
        info = {"name": "x", "version": "1"}
        say(
            id=number,
            result={"protocolVersion": version, "capabilities": {"tools": {}}, "serverInfo": info},
        )
    elif method == "tools/list":
        say(id=number, result={"tools": [{"name": "t", "inputSchema": {"type": "object"}}]})
    elif method == "tools/call":
        if kind == "die":
            os.kill(os.getpid(), signal.SIGKILL)
        if kind in {"slow", "stubborn"}:
            time.sleep(100)
        text = "x" * 2_000_000 if kind == "big" else "ok"
        say(id=number, result={"content": [{"type": "text", "text": text}]})
    elif number is not None:
        say(id=number, error={"code": -32601, "message": "no"})
if kind in {"hang", "stubborn"}:
    time.sleep(200)
