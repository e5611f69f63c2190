"""Queries of the tests to a docker daemon."""

from __future__ import annotations

import json
import os
import subprocess

from anyspawn._owner import machine_id

LABEL = "anyspawn-test"
"""The label of containers that tests start themselves."""


ENVIRON = dict(os.environ)


def docker(*args, check=True):
    done = subprocess.run(
        ["docker", *args], env=ENVIRON, capture_output=True, text=True, timeout=60, check=False
    )
    assert not check or done.returncode == 0, done.stderr
    return done.stdout.strip()


def docker_works():
    """Whether a daemon answers."""
    try:
        return (
            subprocess.run(
                ["docker", "info"], capture_output=True, timeout=30, check=False
            ).returncode
            == 0
        )
    except (FileNotFoundError, subprocess.TimeoutExpired):
        return False


def made_by_us(*states):
    """Return the containers that anyspawn has made on this host. If each test process has its own
    host name, these are the containers of this process and its children.

    Args:
        states: The states of the containers. Default: any.
    """
    form = '{{.ID}} {{.Label "io.anyspawn.owner"}}'
    filters = [f"--filter=status={state}" for state in states]
    lines = docker(
        "ps", "-a", "--filter", "label=io.anyspawn.owner", *filters, "--format", form
    ).splitlines()
    return [line.split()[0] for line in lines if line.endswith(f"/{machine_id()}")]


def processes_in(container):
    """Return the command lines of a container's processes, without its first process
    and zombies.
    """
    first = json.loads(docker("inspect", container))[0]["State"]["Pid"]
    lines = docker("top", container, "-o", "pid,stat,args").splitlines()[1:]
    found = [line.split(None, 2) for line in lines]
    return [
        args
        for pid, stat, args in found
        if int(pid) != first and not stat.startswith("Z") and args != "sleep 1000"
    ]
