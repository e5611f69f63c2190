"""The parts of a sandbox session of OpenAI's Agents SDK, one in each file."""
