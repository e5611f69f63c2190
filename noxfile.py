"""The project's tasks; `nox -l` lists them. Each sets up all that it needs."""

from __future__ import annotations

import os
import re
import shutil
from glob import glob
from pathlib import Path

import nox

nox.needs_version = ">=2024.10.9"
nox.options.default_venv_backend = "uv|virtualenv"
nox.options.sessions = ["lint", "typing", "tests", "docs"]

PROJECT = nox.project.load_toml("pyproject.toml")
PYTHONS = nox.project.python_versions(PROJECT)
PARALLEL = ("--numprocesses=4",)
# Tests of load (marked `heavy`), of installation, and most of those that use a daemon or a cluster
# take long: `tests` leaves them out, and `tests-all` runs them, and all that uses an engine, on the
# newest Python alone.
LAST_ALONE = (
    "tests/benchmarks",
    "tests/packaging",
    *(
        f"tests/docker/test_{name}.py"
        for name in ("containers", "docker_run", "mcp", "open", "podman")
    ),
    *(
        f"tests/kubernetes/test_{name}.py"
        for name in ("faults", "kubectl_run", "manifests", "open", "pods")
    ),
)

RUNTIMES = (
    "claude-agent-sdk",
    "deepagents",
    "google-adk",
    "inspect-ai",
    "mcp",
    "openai-agents",
    "pydantic-ai",
    "smolagents",
)
"""Extras for the adapters of anyspawn.contrib."""
INTERPRETERS = (
    "tests/core",
    "tests/unit/test_exports.py",
    "tests/kit/test_ours.py",
    "tests/kit/test_boxes.py",
    "tests/bubblewrap",
)
"""Tests of what differs from one Python to the next: processes, event loops, imports."""
ALIKE = tuple(
    f"--ignore=tests/{path}"
    for path in (
        "docker",
        "kubernetes",
        "kit/test_engine_boxes.py",
        "kit/test_engine_hosts.py",
        "kit/test_engines.py",
        "kit/test_third_party.py",
        "supervisor",
    )
)
"""Tests that use an engine, and of shell scripts, to which Python is all the same."""
FEW = ("--hypothesis-profile=few",)
NEWER = tuple(f"--ignore=tests/{name}" for name in ("docs", "examples", "bubblewrap/test_mcp.py"))
"""Tests that need newer versions of what they use than the project does."""
QUICK = ("-m", "not heavy", *(f"--ignore={path}" for path in LAST_ALONE))

# Installers compile nothing; without a cache, each of some thousand Pythons that tests start would
# compile all that it imports.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
# Interpreters that pyenv has installed but not activated are found too.
os.environ["PATH"] = os.pathsep.join(
    [
        os.environ["PATH"],
        *sorted(
            glob(os.path.expanduser(os.environ.get("PYENV_ROOT", "~/.pyenv") + "/versions/3.*/bin"))
        ),
    ]
)
THERE = [python for python in PYTHONS if shutil.which(f"python{python}")] or PYTHONS[-1:]


def install(session: nox.Session, group: str, *extras: str) -> None:
    """Install the project and one of its dependency groups."""
    project = f".[{','.join(extras)}]" if extras else "."
    session.install(project, *nox.project.dependency_groups(PROJECT, group))


@nox.session(python=THERE[-1])
def tests(session: nox.Session) -> None:
    """Run the tests that take minutes, on the newest Python that is installed."""
    install(session, "test", "cli", "bubblewrap", "egress")
    session.run("pytest", *PARALLEL, *QUICK, *session.posargs)


def install_oldest(session: nox.Session) -> None:
    """Install the project with the oldest versions that pyproject.toml allows.

    An MCP client asks for newer versions of what else the tests use than the project does, and is
    left out.
    """
    requirements = [
        *PROJECT["project"]["dependencies"],
        *nox.project.dependency_groups(PROJECT, "test"),
    ]
    for extra, needs in PROJECT["project"]["optional-dependencies"].items():
        requirements += () if extra in RUNTIMES else needs
    oldest = {
        requirement.replace(">=", "==")
        for requirement in requirements
        if ">=" in requirement and not requirement.startswith("mcp")
    }
    session.install("--no-deps", ".")
    session.install(*sorted(oldest))


@nox.session(name="tests-all", python=THERE)
def tests_all(session: nox.Session) -> None:
    """Run all tests on the newest Python, under coverage; what needs no engine on the oldest one,
    with the oldest versions that pyproject.toml allows; what depends on the Python on the others.
    """
    if session.python == THERE[-1]:
        install(session, "test", "cli", "bubblewrap", "egress")
        cover(session)
    elif session.python == PYTHONS[0]:
        install_oldest(session)
        which = (*QUICK, *ALIKE, *NEWER)
        session.run("pytest", *PARALLEL, *FEW, *which, *session.posargs)
    else:
        install(session, "test", "cli", "bubblewrap", "egress")
        which = (*QUICK, *INTERPRETERS)
        session.run("pytest", *PARALLEL, *FEW, *which, *session.posargs)


def cover(session: nox.Session) -> None:
    """Run all tests under coverage, and ask for the least of it where nothing was skipped."""
    folder = Path(session.virtualenv.location)
    report = folder / "tests.xml"
    env = {"COVERAGE_FILE": str(folder / "coverage"), "COVERAGE_CORE": "sysmon"}
    for old in folder.glob("coverage*"):
        old.unlink()
    result = f"--junitxml={report}"
    session.run("coverage", "run", "-m", "pytest", *PARALLEL, result, *session.posargs, env=env)
    if session.posargs:
        return
    session.run("coverage", "combine", "--quiet", env=env)
    skipped = re.search(r'skipped="[1-9]', report.read_text()) is not None
    lenient = ["--fail-under=0"] if skipped else []
    session.run("coverage", "report", *lenient, env=env)


@nox.session(python=THERE[-1])
def fuzz(session: nox.Session) -> None:
    """Look long for an output of a hook that holds a denial and is taken for an allow."""
    install(session, "test")
    session.run("pytest", *PARALLEL, "tests/property/test_verdicts.py", "--hypothesis-profile=long")


@nox.session(python=THERE[-1])
def runtimes(session: nox.Session) -> None:
    """Run the adapters of anyspawn.contrib with the agent runtimes that they are for."""
    install(session, "test", "bubblewrap", *RUNTIMES)
    session.install("langchain-tests>=1.1.9,<2")  # deepagents' suite of sandboxes
    session.run("pytest", "--numprocesses=2", "-W", "default", "tests/contrib", *session.posargs)


@nox.session
def lint(session: nox.Session) -> None:
    """Check style and format."""
    session.install(*nox.project.dependency_groups(PROJECT, "lint"))
    session.run("ruff", "check", ".")
    session.run("ruff", "format", "--check", ".")


@nox.session(python=PYTHONS[0])
def typing(session: nox.Session) -> None:
    """Check types, strictly, with mypy; what users see also with pyright."""
    session.install("-e", ".[cli,egress]", *nox.project.dependency_groups(PROJECT, "typing"))
    session.run("mypy")
    session.run("pyright")


@nox.session
def docs(session: nox.Session) -> None:
    """Build the documentation; any warning is an error."""
    install(session, "docs", "cli", "config")
    session.run(
        "sphinx-build", "-W", "-n", "--keep-going", "-b", "html", "docs", "docs/_build/html"
    )


@nox.session
def release(session: nox.Session) -> None:
    """Build the distributions, check their metadata, and install the wheel in a clean venv."""
    session.install("build>=1.2", "twine>=6.1")
    folder = Path("dist")
    shutil.rmtree(folder, ignore_errors=True)
    session.run("python", "-m", "build", "--outdir", str(folder))
    built = [str(path) for path in sorted(folder.iterdir())]
    session.run("twine", "check", "--strict", *built)
    (wheel,) = folder.glob("*.whl")
    clean = Path(session.create_tmp()) / "clean"
    session.run("python", "-m", "venv", "--clear", str(clean))
    python = str(clean / "bin" / "python")
    session.run(python, "-m", "pip", "install", "--quiet", f"{wheel}[cli]", external=True)
    hello = "import anyio, anyspawn; anyio.run(lambda: anyspawn.spawn(['true'], check=True))"
    session.run(python, "-I", "-c", hello, external=True)
    session.run(str(clean / "bin" / "anyspawn"), "run", "--", "true", external=True)
    session.log(f"built: {' '.join(built)}")


@nox.session
def demo(session: nox.Session) -> None:
    """Run a real exec hook, by a RuntimeConfig, over recorded requests in the daemonless
    sandbox.
    """
    session.install(".[bubblewrap,config]")
    session.run("python", "examples/pii/demo.py", *session.posargs)


@nox.session(python=THERE[-1])
def bench(session: nox.Session) -> None:
    """Measure against the alternatives, side by side, and write docs/benchmarks.md; --quick and
    --only PLACE for less.
    """
    install(session, "bench", "bubblewrap")
    session.run("python", "-m", "benchmarks", *session.posargs)


@nox.session(python=THERE[-1])
def soak(session: nox.Session) -> None:
    """Make thousands of calls of every kind, see that nothing grows, and write docs/soak.md;
    --calls N for fewer. --hooks: ten minutes of turns that hooks guard; --minutes N for fewer.
    """
    install(session, "bench", "bubblewrap")
    session.run("python", "-m", "benchmarks.soak", *session.posargs)
