"""An MCP server on stdio with one tool, in plain Python, so that it runs in any image that has
one.
"""

from __future__ import annotations

import json
import sys
from typing import Any

ADD = {
    "name": "add",
    "description": "Add two numbers.",
    "inputSchema": {
        "type": "object",
        "properties": {"a": {"type": "number"}, "b": {"type": "number"}},
        "required": ["a", "b"],
    },
}


def answer(method: str, params: Any) -> dict[str, Any] | None:
    if method == "initialize":
        server = {"name": "calculator", "version": "1"}
        return {
            "protocolVersion": params["protocolVersion"],
            "capabilities": {"tools": {}},
            "serverInfo": server,
        }
    if method == "tools/list":
        return {"tools": [ADD]}
    if method == "tools/call":
        total = params["arguments"]["a"] + params["arguments"]["b"]
        return {"content": [{"type": "text", "text": str(total)}]}
    return {} if method == "ping" else None


for line in sys.stdin:
    message = json.loads(line)
    if "id" in message:
        result = answer(message["method"], message.get("params"))
        said = (
            {"result": result}
            if result is not None
            else {"error": {"code": -32601, "message": "unknown method"}}
        )
        print(json.dumps({"jsonrpc": "2.0", "id": message["id"], **said}), flush=True)
