"""Adapters for agent runtimes, one module each; none is imported with `anyspawn`."""
