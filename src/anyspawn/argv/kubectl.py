"""The kubectl command lines. https://kubernetes.io/docs/reference/kubectl/generated/kubectl_exec/
documents the options.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from anyspawn._model import Fill
from anyspawn.argv._text import check_text
from anyspawn.exceptions import ConfigError
from anyspawn.supervisor import reading_script, resident_script

if TYPE_CHECKING:
    from anyspawn._model import Command
    from anyspawn.sandboxes.kubectl_exec import KubectlExec
    from anyspawn.sandboxes.kubectl_run import KubectlRun

__all__ = [
    "CONTAINER",
    "kubectl_argv",
    "kubectl_exec_argv",
    "kubectl_run_argv",
    "pod_name",
]

_ANY_POD = Fill("pod/?", "pod")
"""The pod of a selector, which is chosen when the process starts."""
CONTAINER = "main"
"""The container of a pod that runs one command."""


def pod_name(command: Command) -> str:
    """Return the name of the pod that runs ``command``."""
    return f"anyspawn-{command.id}"


def kubectl_argv(config: KubectlExec | KubectlRun, verb: str, *args: str) -> tuple[str, ...]:
    """Return the arguments of a kubectl command in a sandbox's cluster and namespace."""
    argv = [config.kubectl_path]
    argv += [f"--kubeconfig={config.kubeconfig}"] if config.kubeconfig else []
    argv += [f"--context={config.context}"] if config.context else []
    argv.append(verb)
    if verb == "exec":
        argv.append("-i")
    argv += ["-n", config.namespace] if config.namespace else []
    return (*argv, *args)


def kubectl_exec_argv(config: KubectlExec, command: Command) -> tuple[str, ...]:
    """Return the arguments of ``kubectl exec`` for ``command``: with the supervisor unless it is
    off; with ``resident="auto"``, those of a call without a resident.

    With a selector the pod is a placeholder, filled in when the process starts. Variables are on
    stdin.

    Raises:
        ConfigError: Without the supervisor, variables, a working directory and merged streams are
            not possible.
    """
    container = ["-c", config.container] if config.container else []
    target = (*container, *config.extra_args, config.pod or _ANY_POD, "--")
    if config.supervisor == "off":
        wanted = {"env": command.env, "cwd": command.cwd, "merge_stderr": command.merge_stderr}
        for name in (name for name, value in wanted.items() if value):
            raise ConfigError(
                f"{name} cannot be passed on by kubectl exec itself; it needs the supervisor"
            )
        check_text("argv", command.argv, "the supervisor's residents pass on any")
        return kubectl_argv(config, "exec", *target, *command.argv)
    if config.resident not in (0, "auto"):
        begun: tuple[str, ...] = ("sh", "-c", resident_script(), "anyspawn")
    else:
        check_text("argv", command.argv, "resident=1 passes on any")
        begun = ("sh", "-c", reading_script(), "anyspawn", *command.argv)
    return kubectl_argv(config, "exec", *target, *begun)


def kubectl_run_argv(config: KubectlRun, command: Command) -> tuple[str, ...]:
    """Return the arguments of the ``kubectl exec`` that runs ``command`` in the pod made for it."""
    check_text("argv", command.argv, "pass them on stdin, or in a variable")
    target = ("-c", CONTAINER, pod_name(command), "--")
    return kubectl_argv(
        config, "exec", *target, "sh", "-c", reading_script(), "anyspawn", *command.argv
    )
