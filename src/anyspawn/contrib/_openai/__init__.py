"""What a sandbox session of OpenAI's Agents SDK asks of a box, one part in each file."""
