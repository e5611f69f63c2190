"""Strategies for difficult commands and sandboxes."""

from __future__ import annotations

import os
import re

from hypothesis import strategies as st

from anyspawn import Bubblewrap, Command, Direct, DockerExec, DockerRun, KubectlExec, KubectlRun
from anyspawn.argv._text import is_text
from anyspawn.containers import SecurityConfig
from anyspawn.supervisor.encode import head, task_line

NASTY = [
    "",
    "-",
    "--",
    "-e",
    "--setenv",
    "--env=X",
    "--help",
    "-c",
    "a b",
    "a\nb",
    "$(id)",
    "`id`",
    ";",
    "*",
    "é",
    "\udcff",
    "=",
    "A=B",
    "{0}",
    "%s",
    "0",
]

texts = st.sampled_from(NASTY) | st.text(
    st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=12
)
names = st.sampled_from(
    ["PATH", "HOME", "LANG", "LD_PRELOAD", "DOCKER_HOST", "KUBECONFIG", "http_proxy", "A", "-e"]
) | (
    st.text(
        st.characters(exclude_characters="\0=", exclude_categories=["Cs"]), min_size=1, max_size=8
    )
)
secrets = st.integers(0, 10**9).map(lambda number: f"s3cret-{number}-\n=é")
environments = st.dictionaries(names, secrets, max_size=4)
folders = st.lists(
    st.sampled_from(["tmp", "home", "a b", "-x", "usr", "é", "..", "root"]), max_size=4
).map(lambda parts: "/" + "/".join(parts))
programs = st.sampled_from(["cat", "/bin/cat", "./run", "-cat", "a b"]) | texts.filter(bool)
commands = st.builds(
    lambda program, args, **fields: Command([program, *args], **fields),
    programs,
    st.lists(texts, max_size=5),
    stdin=st.integers(0, 10**9).map(lambda number: b"st4in-%d" % number),
    env=environments,
    cwd=st.none() | folders,
    timeout=st.none() | st.floats(0.1, 10),
)
options = st.lists(st.sampled_from(["--hostname", "box", "--uid", "1000"]), max_size=3)

sandboxes = {
    "direct": st.builds(Direct, inherit_env=st.booleans()),
    "bubblewrap": st.builds(
        Bubblewrap,
        readonly=st.lists(folders, max_size=2),
        writable=st.lists(folders, max_size=2),
        network=st.booleans(),
        share_env=st.lists(st.sampled_from(["LANG", "TERM"]), max_size=2),
        extra_args=options,
    ),
}


def variables(launch):
    """Return the name and value of each variable that a launch gives the program, in order."""
    pairs = list(launch.env.known().items())
    for arg in launch.fd_args:
        if arg.data is None or not arg.data.startswith(b"--setenv\0"):
            continue  # the runner's report and its seccomp filter
        words = os.fsdecode(arg.data).split("\0")[:-1]
        for option, name, value in zip(words[::3], words[1::3], words[2::3], strict=True):
            assert option == "--setenv"
            pairs.append((name, value))
    return pairs


values = st.integers(0, 10**9).map(lambda number: f"s3cret-{number}") | secrets
shell_names = st.sampled_from(["A", "B_2", "_c", "LANG", "http_x", "Path"])
container_commands = st.builds(
    lambda program, args, **fields: Command([program, *args], **fields),
    programs.filter(is_text),
    st.lists(texts.filter(is_text), max_size=5),
    stdin=st.integers(0, 10**9).map(lambda number: b"st4in-%d" % number),
    env=st.dictionaries(shell_names, values, max_size=4),
    cwd=st.none() | folders,
    timeout=st.none() | st.floats(0.1, 10),
)
container_sandboxes = {
    "docker_run": st.builds(
        DockerRun,
        st.sampled_from(["busybox", "python:3-slim", "localhost:5000/a/b@sha256:0"]),
        network=st.sampled_from([None, "none", "bridge"]),
        mounts=st.lists(st.sampled_from(["/a:/b", "vol:/c:ro", "./x y:/z"]), max_size=2),
        user=st.sampled_from([None, "1000:1000", "nobody"]),
        workdir=st.sampled_from([None, "/app"]),
        extra_args=st.lists(st.sampled_from(["--memory=1g", "--label", "a=b"]), max_size=3),
        security=st.sampled_from(
            [None, SecurityConfig(), SecurityConfig(memory=None, tmpfs=(), user=None)]
        ),
    ),
    "docker_exec": st.builds(
        DockerExec,
        st.sampled_from(["box", "a1b2c3"]),
        user=st.sampled_from([None, "1000"]),
        workdir=st.sampled_from([None, "/app"]),
        extra_args=st.lists(st.sampled_from(["--privileged", "--detach-keys=x"]), max_size=2),
        supervisor=st.sampled_from(["auto", "required", "off"]),
    ),
}
where = {
    "namespace": st.sampled_from([None, "hooks"]),
    "kubeconfig": st.sampled_from([None, "/etc/kube.yaml"]),
    "context": st.sampled_from([None, "prod"]),
}
container_sandboxes |= {
    "kubectl_exec": st.builds(
        KubectlExec,
        st.sampled_from(["agent", "pod/agent", "deployment/hooks"]),
        container=st.sampled_from([None, "hooks"]),
        extra_args=st.lists(st.sampled_from(["--request-timeout=5s", "--quiet"]), max_size=2),
        supervisor=st.sampled_from(["auto", "required"]),
        **where,
    )
    | st.builds(KubectlExec, selector=st.sampled_from(["app=hooks", "a in (b,c)"]), **where),
    "kubectl_run": st.builds(
        KubectlRun, st.sampled_from(["busybox", "localhost:5000/a@sha256:0"]), **where
    ),
}
container_sandboxes |= {
    "docker_run with residents": st.builds(DockerRun, st.just("busybox"), resident=st.just(2)),
    "docker_exec with residents": st.builds(
        DockerExec, st.just("box"), workdir=st.just("/app"), resident=st.just(2)
    ),
    "kubectl_exec with residents": st.builds(
        KubectlExec, st.just("agent"), resident=st.just(2), **where
    ),
    "bubblewrap with residents": st.builds(
        Bubblewrap, writable=st.lists(folders, max_size=1), resident=st.just(2)
    ),
}


def stays(launch):
    """Whether a launch starts a resident, which gets the command in its task."""
    return launch.task is not None and launch.task.stays


def task_words(launch, command):
    """Return a task's words as the shell reads them: directory, variables, an empty word,
    arguments.
    """
    task = launch.task
    if stays(launch):
        told = task_line(command.argv, task.env, task.stdin, task.cwd).partition(b"\0")[2]
    else:
        told = head(command.id, "n", task.env, len(task.stdin), task.cwd).partition(b"; set -- ")[2]
    line = os.fsdecode(told).replace("'\"$_nl\"'", "\n")
    return [word.replace("'\\''", "'") for word in re.findall(r"'((?:[^']|'\\'')*)'", line)]


def container_variables(launch, command):
    """Return the name and value of each variable that a launch gives a program in a container, in
    order.
    """
    if launch.task is not None:
        words = task_words(launch, command)[1:]
        return [tuple(word.split("=", 1)) for word in words[: words.index("")]]
    argv = launch.argv[: len(launch.argv) - len(command.argv)]
    named = [
        argv[index + 1]
        for index, word in enumerate(argv)
        if word == "-e" and argv[index + 1] in launch.env
    ]
    pairs = [(name, launch.env[name]) for name in named]
    for arg in launch.fd_args:
        pairs += [line.partition("=")[::2] for line in arg.data.decode().splitlines()]
    return pairs
