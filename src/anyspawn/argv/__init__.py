"""The argv builders: pure functions from a sandbox's settings and a command to the local process's
arguments.

The command's ``argv`` is always a verbatim suffix of the result, which never contains a variable's
value.
"""

from __future__ import annotations

from anyspawn.argv.bubblewrap import bubblewrap_argv
from anyspawn.argv.docker import docker_exec_argv, docker_run_argv
from anyspawn.argv.kubectl import kubectl_exec_argv, kubectl_run_argv

__all__ = [
    "bubblewrap_argv",
    "docker_exec_argv",
    "docker_run_argv",
    "kubectl_exec_argv",
    "kubectl_run_argv",
]
