"""Code of smolagents' CodeAgent, run by a Python that stays in a box of any sandbox."""

from __future__ import annotations

import atexit
import re
from contextlib import ExitStack
from typing import Any

from anyio.from_thread import start_blocking_portal
from smolagents.local_python_executor import CodeOutput
from smolagents.monitoring import AgentLogger, LogLevel
from smolagents.remote_executors import RemotePythonExecutor

import anyspawn

__all__ = ["AnyspawnExecutor"]


class AnyspawnExecutor(RemotePythonExecutor):  # type: ignore[misc]  # not installed everywhere
    """A box with a Python that keeps its variables from step to step, until `cleanup`. A step is
    interrupted after the sandbox's ``default_timeout``; its error tells the agent.
    """

    def __init__(self, sandbox: anyspawn.Sandbox | str) -> None:
        super().__init__([], AgentLogger(level=LogLevel.ERROR))
        self._setup: dict[str, None] = {}  # what an interpreter needs before the agent's code
        self._lost = False
        with ExitStack() as stack:
            self._portal = stack.enter_context(start_blocking_portal(name="anyspawn smolagents"))
            enter = self._portal.wrap_async_context_manager
            self.box = stack.enter_context(enter(anyspawn.open_box(sandbox)))
            self._session = stack.enter_context(enter(self.box.python()))
            self._stack = stack.pop_all()
        atexit.register(self.cleanup)  # who forgets it must not wait for the box's thread for ever

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
        done = self._portal.call(self._session.run, code)
        self._lost = self._lost or done.state_lost
        logs = done.text + done.stderr_text
        if done.error and done.error.type.endswith(self.FINAL_ANSWER_EXCEPTION):
            answer: Any = self._deserialize_final_answer(done.error.message)
            return CodeOutput(output=answer, logs=logs, is_final_answer=True)
        if not done.ok:
            stopped = f"The code was interrupted: {done.stopped}\n" if done.stopped else ""
            lost = "All variables are lost.\n" if done.state_lost else ""
            said = (done.error.traceback or done.error.message) if done.error else ""
            raise RuntimeError(f"{logs}\n{stopped}{lost}{said}".strip())
        return CodeOutput(output=done.value, logs=logs, is_final_answer=False)

    def install_packages(self, additional_imports: list[str]) -> list[str]:
        return additional_imports  # they are in the sandbox, or the tool's import says so

    def cleanup(self) -> None:
        """End the box, with all that is in it. May be called again."""
        atexit.unregister(self.cleanup)
        self._stack.close()
