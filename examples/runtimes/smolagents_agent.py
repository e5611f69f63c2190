"""An agent of smolagents whose code runs in a sandbox; a stand-in plays the model."""

from typing import Any

from smolagents import CodeAgent, Model
from smolagents.models import ChatMessage, MessageRole

from anyspawn import Bubblewrap
from anyspawn.contrib.smolagents import AnyspawnExecutor


class StandIn(Model):  # type: ignore[misc]  # not installed everywhere
    """Writes the same code, whatever it is asked."""

    def generate(self, *_: Any, **__: Any) -> ChatMessage:
        """Answer with a step of an agent."""
        step = "<code>\nfinal_answer(6 * 7)\n</code>"
        return ChatMessage(role=MessageRole.ASSISTANT, content=step)


def main(model: Model) -> None:
    """Ask the agent."""
    executor = AnyspawnExecutor(Bubblewrap(default_timeout=30))
    try:
        agent = CodeAgent(tools=[], model=model, executor=executor)
        print(agent.run("How much is 6 * 7?"))
    finally:
        executor.cleanup()


if __name__ == "__main__":
    main(StandIn())
