"""The project's tasks; `nox -l` lists them. Each sets up all that it needs."""

from __future__ import annotations

import os
from glob import glob
from pathlib import Path

import nox

nox.needs_version = ">=2024.10.9"
nox.options.default_venv_backend = "uv|virtualenv"
nox.options.sessions = ["lint", "typing", "tests", "docs"]

PROJECT = nox.project.load_toml("pyproject.toml")
PYTHONS = nox.project.python_versions(PROJECT)
PARALLEL = ("--numprocesses=4",)
# A daemon and a cluster take their time, and so do tests of load (marked `heavy`) and installation:
# on all Pythons but the last these are left out, and what is left of the daemon's and the cluster's
# runs on one event loop.
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

# Interpreters that pyenv has installed but not activated are found too.
os.environ["PATH"] = os.pathsep.join(
    [
        os.environ["PATH"],
        *sorted(
            glob(os.path.expanduser(os.environ.get("PYENV_ROOT", "~/.pyenv") + "/versions/3.*/bin"))
        ),
    ]
)


def install(session: nox.Session, group: str, *extras: str) -> None:
    """Install the project and one of its dependency groups."""
    project = f".[{','.join(extras)}]" if extras else "."
    session.install(project, *nox.project.dependency_groups(PROJECT, group))


@nox.session(python=PYTHONS)
def tests(session: nox.Session) -> None:
    """Run the tests on every Python that is there, and on the last one under coverage."""
    install(session, "test", "cli", "bubblewrap", "egress")
    if session.python != PYTHONS[-1]:
        loop = ("asyncio", "trio")[PYTHONS.index(str(session.python)) % 2]
        left_out = ("-m", "not heavy", *(f"--ignore={path}" for path in LAST_ALONE))
        session.run("pytest", *PARALLEL, *left_out, *session.posargs, env={"ENGINE_LOOPS": loop})
        return
    data = Path(session.virtualenv.location) / "coverage"
    env = {"COVERAGE_FILE": str(data), "COVERAGE_CORE": "ctrace"}
    for old in data.parent.glob("coverage*"):
        old.unlink()
    session.run("coverage", "run", "-m", "pytest", *PARALLEL, *session.posargs, env=env)
    if not session.posargs:
        session.run("coverage", "combine", "--quiet", env=env)
        session.run("coverage", "report", env=env)


@nox.session(python=PYTHONS[0])
def lowest(session: nox.Session) -> None:
    """Run the tests with the oldest versions that pyproject.toml allows."""
    requirements = [
        *PROJECT["project"]["dependencies"],
        *nox.project.dependency_groups(PROJECT, "test"),
    ]
    for extra in PROJECT["project"]["optional-dependencies"].values():
        requirements += extra
    # An MCP client asks for newer versions of what else the tests use than the project does, and is
    # left out with its tests.
    oldest = [
        requirement.replace(">=", "==")
        for requirement in requirements
        if ">=" in requirement and not requirement.startswith("mcp")
    ]
    session.install("--no-deps", ".")
    session.install(*sorted(set(oldest)))
    others = (
        "docker",
        "kubernetes",
        "docs",
        "packaging",
        "benchmarks",
        "examples",
        "bubblewrap/test_mcp.py",
    )
    session.run(
        "pytest", *PARALLEL, *(f"--ignore=tests/{name}" for name in others), *session.posargs
    )


@nox.session(python=PYTHONS[-1])
def fuzz(session: nox.Session) -> None:
    """Look long for an output of a hook that holds a denial and is taken for an allow."""
    install(session, "test")
    session.run("pytest", *PARALLEL, "tests/property/test_verdicts.py", "--hypothesis-profile=long")


@nox.session
def lint(session: nox.Session) -> None:
    """Check style and format."""
    session.install(*nox.project.dependency_groups(PROJECT, "lint"))
    session.run("ruff", "check", ".")
    session.run("ruff", "format", "--check", ".")


@nox.session(python=PYTHONS[0])
def typing(session: nox.Session) -> None:
    """Check types, strictly."""
    session.install("-e", ".[cli,egress]", *nox.project.dependency_groups(PROJECT, "typing"))
    session.run("mypy")


@nox.session
def docs(session: nox.Session) -> None:
    """Build the documentation; any warning is an error."""
    install(session, "docs", "cli", "config")
    session.run(
        "sphinx-build", "-W", "-n", "--keep-going", "-b", "html", "docs", "docs/_build/html"
    )


@nox.session
def demo(session: nox.Session) -> None:
    """Run a real exec hook, by a RuntimeConfig, over recorded requests in the daemonless
    sandbox.
    """
    session.install(".[bubblewrap,config]")
    session.run("python", "examples/pii/demo.py", *session.posargs)


@nox.session
def bench(session: nox.Session) -> None:
    """Measure against the alternatives, side by side, and write docs/benchmarks.md; --quick and
    --only PLACE for less.
    """
    install(session, "bench", "bubblewrap")
    session.run("python", "-m", "benchmarks", *session.posargs)


@nox.session
def soak(session: nox.Session) -> None:
    """Make thousands of calls of every kind, see that nothing grows, and write docs/soak.md;
    --calls N for fewer.
    """
    install(session, "bench", "bubblewrap")
    session.run("python", "-m", "benchmarks.soak", *session.posargs)
