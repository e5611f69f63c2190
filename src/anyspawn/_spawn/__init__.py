"""The only package that opens processes: pipes, process groups, and the phases of a call."""
