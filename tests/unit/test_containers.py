"""The pure parts of `anyspawn.containers`: images, variables, and security settings as docker's
options.
"""

from __future__ import annotations

import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from anyspawn import ConfigError, _owner
from anyspawn.containers import (
    ContainerSpec,
    SecurityConfig,
    detect_image,
    filter_env,
    parse_memory,
    security_options,
    select_image,
)


@pytest.mark.parametrize(
    ("argv", "image"),
    [
        (["python"], "python:3-slim"),
        (["/usr/bin/python3.12", "x.py"], "python:3-slim"),
        (["./app.py"], "python:3-slim"),
        (["env", "-i", "A=b", "pytest"], "python:3-slim"),
        (["nice", "-n", "5", "node"], "node:lts-slim"),
        (["env", "-u", "go", "nice", "-5", "time", "-o", "x", "node"], "node:lts-slim"),
        (["nice", "-n"], "alpine:latest"),
        (["node", "x.js"], "node:lts-slim"),
        (["server.mjs"], "node:lts-slim"),
        (["npx", "x"], "node:lts-slim"),
        (["go", "run", "."], "golang:latest"),
        (["cargo", "test"], "rust:slim"),
        (["sh", "-c", "python"], "alpine:latest"),
        (["unknown"], "alpine:latest"),
        (["env"], "alpine:latest"),
        ([], "alpine:latest"),
    ],
)
def test_detect_image(argv, image):
    """The image follows from the program's name without its version, or from the
    script's suffix.
    """
    assert detect_image(argv) == image


IMAGES = {"claude": "c", "claude-code": "cc", "default": "d", "": "never"}


@pytest.mark.parametrize(
    ("agent", "images", "image"),
    [
        ("claude", IMAGES, "c"),
        ("claude-code", IMAGES, "cc"),
        ("claude-code-2", IMAGES, "cc"),
        ("claude-x", dict(reversed(IMAGES.items())), "c"),
        ("other", IMAGES, "d"),
        ("other", {}, "alpine:latest"),
        ("python3", {}, "python:3-slim"),
    ],
)
def test_select_image(agent, images, image):
    """The exact name wins, then the longest name that is a prefix, in whatever order; then the
    default, then the image that the command needs.
    """
    assert select_image(agent, images) == image
    assert select_image("other", {}, ["node"]) == "node:lts-slim"


def test_filter_env():
    """Names and patterns ignore case, and a blocked name wins over an allowed one."""
    host = {"LANG": "1", "LC_ALL": "2", "lc_time": "3", "API_KEY": "4", "PATH": "5"}
    assert filter_env(host, ["lang", "LC_*"]) == {"LANG": "1", "LC_ALL": "2", "lc_time": "3"}
    assert filter_env(host, ["*"], ["*key*", "lc_?ime"]) == {
        "LANG": "1",
        "LC_ALL": "2",
        "PATH": "5",
    }
    assert filter_env(host, []) == {}


@given(
    st.dictionaries(st.text(max_size=5), st.text(max_size=5)),
    st.lists(st.text(max_size=3)),
    st.lists(st.text(max_size=3)),
)
def test_filter_env_never_adds(host, allow, block):
    """The result is a part of the host's variables, and contains no blocked name."""
    found = filter_env(host, allow, block)
    assert found.items() <= host.items()
    assert not {name.upper() for name in found} & {name.upper() for name in block}


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("512MB", 512 * 2**20),
        ("512m", 512 * 2**20),
        ("1.5GiB", 3 * 2**29),
        ("4g", 4 * 2**30),
        ("10000k", 10000 * 2**10),
        ("1 TB", 2**40),
        ("8388608", 8 * 2**20),
        (8388608, 8 * 2**20),
        ("8388608b", 8 * 2**20),
    ],
)
def test_memory(text, size):
    """Sizes are read as docker reads them: every unit is a power of 1024."""
    assert parse_memory(text) == size


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is not a size"),
        ("lots", "is not a size"),
        ("5q", "is not a size"),
        ("-1g", "is not a size"),
        ("1e9", "is not a size"),
        ("1g1m", "is not a size"),
        ("1m", "less than the 6 MiB"),
        (0, "less than the 6 MiB"),
        (True, "memory must be a text"),
        (1.5, "memory must be a text"),
        (None, "memory must be a text"),
    ],
)
def test_bad_memory(text, message):
    """The error names the field and says what a valid size is."""
    with pytest.raises(ConfigError, match=r"^memory") as caught:
        parse_memory(text)
    assert message in str(caught.value)


def test_options_by_default():
    """The defaults are the strictest that still run ordinary programs."""
    options = security_options(SecurityConfig())
    assert options.args() == [
        "--cap-drop=ALL",
        "--security-opt=no-new-privileges=true",
        "--read-only",
        "--tmpfs=/tmp",
        "--memory=536870912",
        "--memory-swap=536870912",
        "--pids-limit=256",
        "--user=65534:65534",
        "--init",
    ]


def test_options_loosened():
    """A protection that is turned off leaves no option behind."""
    loose = SecurityConfig(
        cap_drop=[],
        cap_add=["CHOWN"],
        no_new_privileges=False,
        seccomp="unconfined",
        read_only=False,
        tmpfs=["/a:size=1m"],
        memory=None,
        cpus=1.5,
        pids_limit=None,
        user=None,
        init=False,
    )
    assert security_options(loose).args() == [
        "--cap-add=CHOWN",
        "--security-opt=seccomp=unconfined",
        "--tmpfs=/a:size=1m",
        "--cpus=1.5",
    ]


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"cap_drop": "ALL"}, "cap_drop must be a list"),
        ({"cap_drop": ["-x"]}, "cap_drop: '-x' is not a capability"),
        ({"cap_add": ["A B"]}, "cap_add: 'A B' is not a capability"),
        ({"no_new_privileges": 1}, "no_new_privileges must be true or false"),
        ({"seccomp": 3}, "seccomp must be the path of a profile"),
        ({"seccomp": "/no/such.json"}, "seccomp: the profile '/no/such.json' cannot be read"),
        ({"read_only": "yes"}, "read_only must be true or false"),
        ({"tmpfs": ["tmp"]}, "tmpfs: 'tmp' must be an absolute path"),
        ({"memory": "x"}, "memory: 'x' is not a size"),
        ({"cpus": 0}, "cpus must be a number from 0.01 up"),
        ({"cpus": "1"}, "cpus must be a number"),
        ({"pids_limit": 0}, "pids_limit must be a whole number from 1 up"),
        ({"user": "-0"}, "user must be of the form USER or USER:GROUP"),
        ({"user": ""}, "user must be of the form"),
        ({"init": None}, "init must be true or false"),
    ],
)
def test_bad_security(fields, message):
    """Each error names the field."""
    with pytest.raises(ConfigError) as caught:
        SecurityConfig(**fields)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "is not valid JSON"),
        ("[]", "has no defaultAction"),
        ("{}", "has no defaultAction"),
        ('{"defaultAction": 3}', "has no defaultAction"),
    ],
)
def test_bad_seccomp_profile(text, message, tmp_path):
    """A broken profile is refused before docker is asked."""
    file = tmp_path / "profile.json"
    file.write_text(text)
    with pytest.raises(ConfigError, match=message):
        SecurityConfig(seccomp=file)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"image": ""}, "image is empty"),
        ({"image": "-x"}, "image must not start with '-'"),
        ({"cmd": "ls"}, "cmd must be a list"),
        ({"entrypoint": "sh"}, "entrypoint must be a list"),
        ({"workspace": "/no/such"}, "workspace: '/no/such' is not a directory"),
        ({"workspace": 3}, "workspace must be a path or None"),
        ({"mount_target": ""}, "mount_target is empty"),
        ({"timeout": 0}, "timeout must be a finite number of seconds above 0"),
        ({"timeout": float("inf")}, "timeout must be a finite number"),
        ({"remove_on_exit": 1}, "remove_on_exit must be true or false"),
        ({"network": "-x"}, "network must not start with '-'"),
        ({"tty": "yes"}, "tty must be true or false"),
        ({"security": None}, "security must be a SecurityConfig"),
    ],
)
def test_bad_spec(fields, message):
    """Each error names the field."""
    with pytest.raises(ConfigError) as caught:
        ContainerSpec(**{"image": "busybox"} | fields)
    assert message in str(caught.value)


def test_without_proc_nobody_is_dead(monkeypatch):
    """If processes cannot be looked at, a living owner must not count as dead."""
    from anyspawn._owner import host_id

    assert _owner.is_dead(f"{host_id()}/4194303/1")
    monkeypatch.setattr(_owner, "start_time", lambda pid: "")
    assert not _owner.is_dead(f"{host_id()}/4194303/1")


@pytest.mark.parametrize("owner", ["", "x", "a/b/c", "other/1/1", "/1/1"])
def test_an_owner_that_cannot_be_read_is_not_dead(owner):
    """An owner on another host is not dead either."""
    assert not _owner.is_dead(owner)


def test_an_owner_that_proc_hides_is_not_dead(monkeypatch):
    """With hidepid, a missing /proc entry proves nothing while the pid is in use."""
    from anyspawn._owner import host_id, start_time

    monkeypatch.setattr(
        _owner, "start_time", lambda pid: start_time(pid) if pid == os.getpid() else ""
    )
    assert not _owner.is_dead(f"{host_id()}/1/1")
    assert _owner.is_dead(f"{host_id()}/4194303/1")
