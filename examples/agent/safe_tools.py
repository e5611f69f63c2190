#!/usr/bin/env python3
"""A tool hook that denies shell commands that delete or download."""

import json
import sys

request = json.load(sys.stdin)["request"]
words = str(request["Args"].get("command", "")).split() if request["Name"] == "shell" else []
bad = sorted({"rm", "curl", "wget", "dd"} & set(words))
print(
    json.dumps(
        {"allow": not bad, "reason": f"the shell may not run {', '.join(bad)}" if bad else ""}
    )
)
