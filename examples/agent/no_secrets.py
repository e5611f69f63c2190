#!/usr/bin/env python3
"""A provider hook that keeps texts that look like API keys from the model."""

import json
import re
import sys

request = json.load(sys.stdin)["request"]
found = re.search(r"\bsk-[A-Za-z0-9]{8,}", json.dumps(request["Messages"]))
print(
    json.dumps(
        {"allow": not found, "reason": "there is an API key in the messages" if found else ""}
    )
)
