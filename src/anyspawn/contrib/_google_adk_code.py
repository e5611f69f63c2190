"""The code executor for Google's ADK."""

from __future__ import annotations

import base64
from typing import Any, Literal

from google.adk.code_executors.base_code_executor import BaseCodeExecutor
from google.adk.code_executors.code_execution_utils import CodeExecutionInput, CodeExecutionResult

import anyspawn.sync


class BoxCodeExecutor(BaseCodeExecutor):  # type: ignore[misc]  # not installed everywhere
    """Runs each code block in a new box in ``sandbox`` (default: `Bubblewrap`), which needs
    ``python3``, for up to ``timeout_seconds`` (default: the sandbox's ``default_timeout``).
    """

    sandbox: Any = "bubblewrap"
    stateful: Literal[False] = False

    def execute_code(
        self, invocation_context: Any, code_execution_input: CodeExecutionInput
    ) -> CodeExecutionResult:
        code = code_execution_input.code.encode()
        timeout: Any = "default" if self.timeout_seconds is None else self.timeout_seconds
        with anyspawn.sync.open_box(self.sandbox) as box:
            for file in code_execution_input.input_files:
                data = file.content  # text is in base64
                box.write_file(file.name, base64.b64decode(data) if isinstance(data, str) else data)
            done = box.spawn(["python3", "-"], stdin=code, timeout=timeout, overflow="truncate")
        timed_out = isinstance(done.error, anyspawn.SpawnTimeoutError)
        if done.returncode is None and not timed_out:
            done.check()
        stderr = done.stderr_text  # any makes ADK count the code as failed
        if done.ok:
            stderr = ""
        elif timed_out or not stderr:
            stderr = f"{stderr}\n{done.error}".lstrip()
        return CodeExecutionResult(done.text, stderr, exit_code=done.returncode)
