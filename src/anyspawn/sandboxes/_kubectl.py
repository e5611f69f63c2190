"""Shared by both Kubernetes sandboxes: the meaning of kubectl's failures, and the state of a
pod.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from attrs import frozen

from anyspawn.exceptions import TransportError, TransportKind

__all__ = [
    "GONE",
    "INSTALL",
    "PodState",
    "about_the_pod",
    "failure",
    "is_all_there_is",
    "last_words",
    "pod_state",
]

INSTALL = "install kubectl (https://kubernetes.io/docs/tasks/tools/), or set kubectl_path"

GONE = ("(NotFound)", "container not found", "in a completed pod")
"""Messages of kubectl about a pod or container that has exited, with everything in it."""

_Failure = tuple[str, TransportKind, str]
_NODE: _Failure = (
    "error dialing backend",
    "unreachable",
    "the pod's node does not answer: see kubectl get nodes",
)
_CLUSTER: tuple[_Failure, ...] = (
    # messages of kubectl that do not blame a pod; their kind; advice. None appears once a program
    # runs.
    (
        "Please enter Username",
        "runner",
        "the kubeconfig has no credentials for this cluster, and kubectl asks for them; add them",
    ),
    ("Unauthorized", "runner", "log in again: the token or certificate is wrong or has expired"),
    (
        "getting credentials",
        "runner",
        "run the kubeconfig's credential plugin by hand to see why it fails",
    ),
    (
        "exceeded quota",
        "resources",
        "raise the namespace's quota, or have fewer pods at once (max_concurrent)",
    ),
    ("violates PodSecurity", "other", "correct overrides, or the namespace's Pod Security level"),
    (
        "is being terminated",
        "target",
        "choose another namespace, or wait until this one is gone and make it anew",
    ),
    ("(Forbidden)", "other", "grant this user what it names: kubectl auth can-i --list"),
    (
        "context was not found",
        "runner",
        "choose one of kubectl config get-contexts, or set kubeconfig",
    ),
    (" does not exist", "runner", "choose one of kubectl config get-contexts, or set kubeconfig"),
    ("error loading config file", "runner", "correct the kubeconfig"),
    ("no configuration has been provided", "runner", "set KUBECONFIG, kubeconfig or context"),
    ("no such file or directory", "runner", "correct kubeconfig"),
    ("error validating data: ValidationError", "other", "correct overrides"),
    (
        "was refused",
        "unreachable",
        "start the cluster, or choose another: kubectl config get-contexts",
    ),
    (
        "connection refused",
        "unreachable",
        "start the cluster, or choose another: kubectl config get-contexts",
    ),
    ("no such host", "unreachable", "check the cluster's address in the kubeconfig"),
    (
        "Unable to connect to the server",
        "unreachable",
        "check the cluster's address in the kubeconfig, and the network",
    ),
    ("x509:", "unreachable", "correct the cluster's certificate authority in the kubeconfig"),
    (
        "(TooManyRequests)",
        "unreachable",
        "the API server is overloaded: have fewer calls in flight (max_concurrent)",
    ),
    ("(ServiceUnavailable)", "unreachable", "the API server is not available now: try again later"),
    (
        "currently unable to handle the request",
        "unreachable",
        "the API server is not available now: try again later",
    ),
    ("unknown flag", "other", "correct extra_args, or install a newer kubectl (1.20 or later)"),
    (
        "unknown shorthand flag",
        "other",
        "correct extra_args, or install a newer kubectl (1.20 or later)",
    ),
    ("unknown command", "runner", "install a newer kubectl (1.20 or later)"),
    ("is not valid for pod", "target", "correct container"),
)
_POD: tuple[_Failure, ...] = (
    # the same, for failures of this pod; another pod can succeed
    ("(NotFound)", "target", "correct pod and namespace, or wait until there is one"),
    ("in a completed pod", "target", "start a new pod"),
    (
        "does not have a host assigned",
        "target",
        "wait until the pod is scheduled: kubectl describe pod says why it waits",
    ),
    (
        "container not found",
        "target",
        "wait until the container runs: kubectl describe pod says why it waits",
    ),
)
_WORDS = (
    "error: ",
    "Error: ",
    "Error from server",
    "Error in configuration",
    "Unable to connect",
    "The connection to the server",
    "Please enter",
)
_LOGGED = ("E", "W", "I", "F")
_SAID = 500


def failure(text: str, code: int | None, *, started: bool | None) -> TransportError:
    """Return kubectl's failure, read from its stderr.

    Args:
        text: What kubectl wrote to stderr.
        code: Its status.
        started: Whether the program ran, if the text does not say.
    """
    said = last_words(text)
    for words, kind, advice in (_NODE, *_CLUSTER, *_POD):
        if words in said and not started:
            return TransportError(f"{said}; {advice}", started=started, kind=kind)
    if code is not None and code < 0:
        return TransportError(f"kubectl was killed from outside by signal {-code}", started=started)
    return TransportError(said or f"kubectl exited with status {code}", started=started)


def about_the_pod(text: str) -> bool:
    """Whether a failure is this pod's alone, so that another pod can succeed."""
    said = last_words(text)
    return _NODE[0] in said or not any(words in said for words, *_ in _CLUSTER)


def is_all_there_is(text: str) -> bool:
    """Whether a text is exactly one message of kubectl, so that no program wrote any part of it.

    A second message in the line can follow a program's output without a line break.
    """
    lines = [line for line in _lines(text) if not line.startswith("See 'kubectl")]
    return (
        len(lines) == 1 and lines[0].startswith(_WORDS) and lines[0].lower().count("error: ") <= 1
    )


def _lines(text: str) -> list[str]:
    """Return the lines that are not empty, without kubectl's log lines."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return [line for line in lines if not (line.startswith(_LOGGED) and line[1:5].isdigit())]


def last_words(text: str) -> str:
    """Return the line in which kubectl says what went wrong, or the last one."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    plain = _lines(text)
    told = [line for line in plain if line.startswith(_WORDS)]
    return (
        (told or plain or lines or [""])[-1].removeprefix("error: ").removeprefix("Error: ")[:_SAID]
    )


@frozen
class PodState:
    """The state of a pod.

    Args:
        running: The container runs, and the pod is not being deleted.
        hopeless: It will not run again by itself.
        text: The state in words.
        kind: What is to blame if it does not run.
    """

    running: bool
    hopeless: bool
    text: str
    kind: TransportKind = "target"


_STUCK = {
    "ErrImagePull": "correct the image's name, or how it is pulled",
    "ImagePullBackOff": "correct the image's name, or how it is pulled",
    "ErrImageNeverPull": "the image is not on the node, and is not to be pulled",
    "ImageInspectError": "correct the image",
    "InvalidImageName": "correct the image's name",
    "CreateContainerConfigError": "correct the pod's settings",
    "CreateContainerError": "correct the pod's settings",
    "RunContainerError": "correct the image, which must have a sh, or the pod's settings",
    "CrashLoopBackOff": "see why with kubectl logs --previous",
}


def pod_state(pod: Mapping[str, Any], container: str | None) -> PodState:
    """Return the state of a pod, from the API's description of it.

    Args:
        pod: The description.
        container: The container that matters. Default: the first.
    """
    name, status = pod["metadata"]["name"], pod.get("status", {})
    if pod["metadata"].get("deletionTimestamp"):
        return PodState(
            running=False, hopeless=True, text=f"pod {name} is being deleted; start another"
        )
    statuses = {found["name"]: found for found in status.get("containerStatuses", ())}
    first = container or pod["spec"]["containers"][0]["name"]
    state = statuses.get(first, {}).get("state", {})
    phase = status.get("phase", "Unknown")
    if phase in {"Succeeded", "Failed"}:
        ended = state.get("terminated", {})
        why = _reason(status) or _reason(ended) or f"exit code {ended.get('exitCode')}"
        return PodState(
            running=False,
            hopeless=True,
            text=f"pod {name} has completed ({phase}: {why}); start a new one",
        )
    if "waiting" in state:
        waiting = state["waiting"]
        reason, last = (
            waiting.get("reason", ""),
            statuses[first].get("lastState", {}).get("terminated", {}),
        )
        stuck = _STUCK.get(reason)
        text = f"container {first} of pod {name} waits: {_reason(waiting)}"
        text += (
            f" (it ended before with exit code {last['exitCode']}: {last.get('reason')})"
            if last
            else ""
        )
        return PodState(
            running=False,
            hopeless=stuck is not None,
            text=f"{text}; {stuck}" if stuck else text,
            kind="image" if "Image" in reason else "target",
        )
    if "running" in state:
        return PodState(running=True, hopeless=False, text=f"container {first} of pod {name} runs")
    if "terminated" in state:
        text = f"container {first} of pod {name} has ended ({_reason(state['terminated'])})"
        return PodState(running=False, hopeless=False, text=text)
    scheduled = [entry for entry in status.get("conditions", ()) if entry["type"] == "PodScheduled"]
    why = (
        _reason(scheduled[0])
        if scheduled and scheduled[0]["status"] != "True"
        else "it is being prepared"
    )
    return PodState(
        running=False, hopeless=False, text=f"pod {name} is {phase}: {why or 'not scheduled yet'}"
    )


def _reason(entry: Mapping[str, Any]) -> str:
    said = ": ".join(str(entry[key]).strip() for key in ("reason", "message") if entry.get(key))
    return " ".join(said.split())[:_SAID]
