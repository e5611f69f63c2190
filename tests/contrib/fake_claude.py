#!/usr/bin/env python3
"""Stands in for the CLI of Claude Code.

It speaks stream-json on stdio, asks the registered hooks, and runs the commands of its Bash tool.
Each prompt is a JSON object:

- `bash`: a command for the Bash tool; the answer is the result that the model would see.
- `say`: text for stdout, `complain`: text for stderr, `exit`: the exit status.
- `hang`: start a program that stays, with this mark among its arguments, ignore SIGTERM, and wait.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time

hooks: dict[str, list[str]] = {}


def emit(**fields):
    sys.stdout.write(json.dumps(fields) + "\n")
    sys.stdout.flush()


def messages():
    for line in sys.stdin:
        yield json.loads(line)


def ask(event, **fields):
    """Ask the first hook of an event; return its answer, or an empty one."""
    if event not in hooks:
        return {}
    told = {"hook_event_name": event, "tool_name": "Bash", "session_id": "s", "cwd": ".", **fields}
    request = {"subtype": "hook_callback", "callback_id": hooks[event][0], "input": told}
    emit(type="control_request", request_id="h", request={**request, "tool_use_id": "t1"})
    answer = next(said for said in received if said["type"] == "control_response")["response"]
    if answer["subtype"] == "error":
        return {"continue": False, "stopReason": answer["error"]}
    return answer["response"]


def bash(command):
    """Run a command as the tool does; return the result for the model."""
    specific = ask("PreToolUse", tool_input={"command": command}).get("hookSpecificOutput", {})
    if specific.get("permissionDecision") == "deny":
        return "denied: " + specific["permissionDecisionReason"]
    used = specific.get("updatedInput", {"command": command})
    done = subprocess.run(["sh", "-c", used["command"]], capture_output=True, text=True)
    if done.returncode:
        event, fields = "PostToolUseFailure", {"error": done.stderr}
    else:
        event, fields = "PostToolUse", {"tool_response": {"stdout": done.stdout}}
    answer = ask(event, tool_input=used, **fields)
    if answer.get("continue") is False:
        return "stopped: " + answer["stopReason"]
    specific = answer.get("hookSpecificOutput", {})
    return specific.get("updatedToolOutput") or fields.get("tool_response") or fields["error"]


def serve(prompt):
    sys.stdout.write(prompt.get("say", "") + "\n")
    if "complain" in prompt:
        sys.stderr.write(prompt["complain"] + "\n")
    if "exit" in prompt:
        sys.exit(prompt["exit"])
    if "hang" in prompt:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        subprocess.Popen(["sleep", f"300.{prompt['hang']}"], start_new_session=True)
        emit(type="system", subtype="hangs", session_id="s")
        time.sleep(300)
    shown = bash(prompt["bash"]) if "bash" in prompt else dict(os.environ) | {"argv": sys.argv}
    shown = shown if isinstance(shown, str) else json.dumps(shown)
    emit(
        type="result", subtype="success", duration_ms=1, duration_api_ms=1, is_error=False,
        num_turns=1, session_id="s", result=shown,
    )  # fmt: skip
    emit(type="system", subtype="session_state_changed", state="idle", session_id="s",
         uuid="u", sdk_host_only=True)  # fmt: skip


received = messages()
for message in received:
    if message["type"] == "control_request":
        asked = message["request"]
        for name, matchers in (asked.get("hooks") or {}).items():
            assert all(matcher["onFailure"] == "block" for matcher in matchers)
            hooks[name] = matchers[0]["hookCallbackIds"]
        told = {"hook_on_failure_supported": True}
        request_id = message["request_id"]
        emit(type="control_response",
             response={"subtype": "success", "request_id": request_id, "response": told})  # fmt: skip
    elif message["type"] == "user":
        serve(json.loads(message["message"]["content"]))
