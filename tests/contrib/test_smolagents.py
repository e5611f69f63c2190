"""smolagents' own agent over a box, with a scripted model."""

from __future__ import annotations

import runpy
import subprocess
import sys
from pathlib import Path

import pytest
from smolagents import CodeAgent, Model, tool
from smolagents.models import ChatMessage, MessageRole

from anyspawn import Bubblewrap, DockerRun
from anyspawn.contrib.smolagents import AnyspawnExecutor

SANDBOXES = [Bubblewrap(default_timeout=30), DockerRun("python:3-slim", default_timeout=30)]


class Says(Model):
    """A stand-in for a model: each step is the next piece of code."""

    def __init__(self, *steps):
        super().__init__()
        self.steps = iter(steps)

    def generate(self, messages, **kwargs):
        text = f"Thought: next.\n<code>\n{next(self.steps)}\n</code>"
        return ChatMessage(role=MessageRole.ASSISTANT, content=text)


@tool
def double(number: int) -> int:
    """Double a number.

    Args:
        number: Which.
    """
    return 2 * number


@pytest.fixture(params=SANDBOXES, ids=lambda sandbox: sandbox.name)
def executor(request):
    made = AnyspawnExecutor(request.param)
    yield made
    made.cleanup()
    made.cleanup()


def test_an_agent(executor):
    """Each step sees the variables, files, tools and the agent's state; the agent sees an error."""
    steps = (
        "x = double(given)\nopen('kept', 'w').write('file')\nprint('so far', x)",
        "1 / 0",
        "final_answer({'x': x, 'kept': open('kept').read(), 'pair': (1, b'two')})",
    )
    agent = CodeAgent(tools=[double], model=Says(*steps), executor=executor, verbosity_level=0)
    answer = agent.run("double it", additional_args={"given": 21})
    assert answer == {"x": 42, "kept": "file", "pair": (1, b"two")}
    first, second, _ = [step for step in agent.memory.steps if hasattr(step, "observations")]
    assert "so far 42" in first.observations
    assert "ZeroDivisionError" in second.error.message


def test_an_interpreter_that_is_lost():
    """Code that cannot be interrupted is killed. The next step has the tools but not the variables,
    and the error says so.
    """
    stubborn = (
        "import signal\nx = 1\nprint('began')\n"
        "signal.signal(signal.SIGINT, signal.SIG_IGN)\nwhile True: pass"
    )
    steps = (stubborn, "x", "final_answer(double(21))")
    executor = AnyspawnExecutor(Bubblewrap(default_timeout=3))
    try:
        agent = CodeAgent(tools=[double], model=Says(*steps), executor=executor, verbosity_level=0)
        assert agent.run("go") == 42
    finally:
        executor.cleanup()
    first, second, _ = [step for step in agent.memory.steps if hasattr(step, "observations")]
    assert "interrupted: timeout" in first.error.message
    assert "variables are lost" in first.error.message
    assert "began" in first.error.message
    assert "NameError" in second.error.message


def test_a_box_that_cannot_be_opened():
    """The error is anyspawn's, and nothing is left behind."""
    with pytest.raises(ValueError, match="nowhere"):
        AnyspawnExecutor("nowhere")


def test_the_example(capsys):
    example = Path(__file__).parents[2] / "examples" / "runtimes" / "smolagents_agent.py"
    runpy.run_path(str(example), run_name="__main__")
    assert capsys.readouterr().out.splitlines()[-1] == "42"


def test_cleanup_that_nobody_called():
    """Without cleanup() the box ends with the process, and the process exits."""
    code = (
        "from anyspawn import Bubblewrap; from anyspawn.contrib.smolagents import AnyspawnExecutor;"
        "executor = AnyspawnExecutor(Bubblewrap()); print(executor('6 * 7').output)"
    )
    argv = [sys.executable, "-c", code]
    assert subprocess.run(argv, capture_output=True, check=True, timeout=60).stdout == b"42\n"
