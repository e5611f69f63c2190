"""Runs the code of smolagents' CodeAgent in one Python interpreter in a box, in any sandbox."""

from __future__ import annotations

import re
from contextlib import ExitStack

import anyspawn.sync
from anyspawn.contrib._common import needs, why_failed

with needs("smolagents"):
    from smolagents import AgentLogger, LogLevel
    from smolagents.remote_executors import CodeOutput, RemotePythonExecutor

__all__ = ["AnyspawnExecutor"]


class AnyspawnExecutor(RemotePythonExecutor):  # type: ignore[misc]  # not installed everywhere
    """A box with a Python that keeps its variables from step to step, until `cleanup`. A step is
    interrupted after the sandbox's ``default_timeout``; its error tells the agent.
    """

    def __init__(self, sandbox: anyspawn.Sandbox | str) -> None:
        super().__init__([], AgentLogger(level=LogLevel.ERROR))
        self._setup, self._lost = dict[str, None](), False  # code for each new interpreter
        with ExitStack() as stack:
            self.box = stack.enter_context(anyspawn.sync.open_box(sandbox))
            self._session = stack.enter_context(self.box.python())
            self._stack = stack.pop_all()

    def run_code_raise_errors(self, code: str) -> CodeOutput:
        # only answers that are pictures or arrays need them, and these import them where they do
        code = re.sub(r"^import (PIL|numpy)$", "", code, flags=re.MULTILINE)
        self._setup[code] = None
        return self._run(code)

    def __call__(self, code_action: str) -> CodeOutput:
        if self._lost:
            for code in self._setup:
                self._run(code)
            self._lost = False
        return self._run(code_action)

    def _run(self, code: str) -> CodeOutput:
        done = self._session.run(code)
        self._lost = self._lost or done.state_lost
        logs = done.text + done.stderr_text
        if done.error and done.error.type.endswith(self.FINAL_ANSWER_EXCEPTION):
            answer = self._deserialize_final_answer(done.error.message)
            return CodeOutput(output=answer, logs=logs, is_final_answer=True)
        if not done.ok:
            raise RuntimeError(f"{logs}\n{why_failed(done)}".strip())
        return CodeOutput(output=done.value, logs=logs, is_final_answer=False)

    def install_packages(self, additional_imports: list[str]) -> list[str]:
        return additional_imports  # they are in the sandbox, or the tool's import says so

    def cleanup(self) -> None:
        """End the box, with everything in it. It can be called more than once."""
        self._stack.close()
