"""The one room that opens processes: pipes, process groups, and the course of a call."""
