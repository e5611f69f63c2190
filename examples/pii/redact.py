#!/usr/bin/env python3
"""An exec hook that rewrites: e-mail addresses in a request become [e-mail], and the request goes
on.
"""

import json
import re
import sys

ADDRESS = re.compile(r"\b[\w.+-]+@[\w-]+(?:\.[\w-]+)+\b")

request = json.load(sys.stdin)["request"]
for message in request["Messages"]:
    message["Content"] = ADDRESS.sub("[e-mail]", message["Content"])
json.dump({"allow": True, "payload": request}, sys.stdout)
