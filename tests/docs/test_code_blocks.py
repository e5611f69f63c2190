"""Every code block of the README and the documentation works as shown."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tomllib
import uuid
from pathlib import Path

import pytest

from cluster import cluster_works, kubectl
from engines import docker_works
from warm import Warm

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
BLOCKS = [
    pytest.param(
        page,
        match[1].strip(),
        match[2],
        id=f"{page.relative_to(ROOT)}-{number}-{match[1].strip('{} ').split('}')[0]}",
    )
    for page in PAGES
    for number, match in enumerate(
        re.finditer(r"^```(\S.*?)\n(.*?)^```", page.read_text(), re.DOTALL | re.MULTILINE)
    )
]
SPACE = "hooks-demo"
CLUSTER = {name: value for name, value in os.environ.items() if name == "KUBECONFIG"}
SESSIONS = re.findall(r"^@nox.*\ndef (\w+)", (ROOT / "noxfile.py").read_text(), re.MULTILINE)


PYTHON = Warm("anyspawn.hooks", "anyspawn.sandboxes.bubblewrap", options=("-W", "error"))


@pytest.fixture(scope="module", autouse=True)
def python():
    with PYTHON:
        yield


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """A folder for each page with the examples as in a clone, so that later blocks see the files of
    earlier ones.
    """
    found = {page: tmp_path_factory.mktemp("page") for page in PAGES}
    for folder in found.values():
        folder.chmod(0o777)  # a container writes here as nobody
    for folder in found.values():
        (folder / "examples").symlink_to(ROOT / "examples")
    return found


@pytest.mark.parametrize(("page", "kind", "text"), BLOCKS)
def test_block(page, kind, text, folders, request):
    """Python blocks run, excerpts (py) are part of an example, consoles print what they show, and
    set-up commands name real sessions and extras. No other kind of block is allowed.
    """
    check = {
        "python": run_python,
        "py": find_excerpt,
        "console": run_console,
        "sh": read_setup,
        "toml": read_toml,
    }.get(kind)
    if check is None:
        assert kind in (
            "{toctree}",
            "{eval-rst}",
            "{include} ../CHANGELOG.md",
        )  # Sphinx runs these when it builds the documentation
    elif page.name == "docker.md" and not docker_works():
        pytest.skip("no docker daemon answers")
    elif page.name == "kubernetes.md" and not cluster_works():
        pytest.skip("KUBECONFIG names no cluster that answers")
    elif page.name == "kubernetes.md":
        check(text.replace(SPACE, request.getfixturevalue("space")), folders[page])
    else:
        check(text, folders[page])


@pytest.fixture(scope="module")
def space():
    """Give the page's namespace a new name, because the namespace of the last run may still exist;
    do not wait for its pods to end.
    """
    name = f"{SPACE}-{uuid.uuid4().hex[:8]}"
    yield name
    kubectl(
        "-n",
        name,
        "delete",
        "pods",
        "--all",
        "--force",
        "--grace-period=0",
        "--wait=false",
        check=False,
    )
    kubectl("delete", "namespace", name, "--wait=false", "--ignore-not-found")


def run_python(text, folder):
    done = PYTHON.run(text, cwd=folder)
    assert done.returncode == 0, done.stderr.decode()


def find_excerpt(text, folder):
    files = (ROOT / "examples").rglob("*.py")
    assert any(text in file.read_text() for file in files), "no example has these lines"


def run_console(text, folder):
    bin_folder = Path(sys.executable).parent
    for command, shown in re.findall(
        r"^\$ (.*(?:\n> .*)*)\n((?:(?!\$ ).*\n)*)", text, re.MULTILINE
    ):
        done = subprocess.run(
            ["sh", "-c", command.replace("\n> ", "\n")],
            cwd=folder,
            env={"PATH": f"{bin_folder}:/usr/local/bin:/usr/bin:/bin", **CLUSTER},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=60,
            check=False,
        )
        pattern = ".*".join(re.escape(part) for part in shown.split("..."))
        assert re.fullmatch(pattern, done.stdout, re.DOTALL), (command, done.stdout)


def read_setup(text, folder):
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"][
        "optional-dependencies"
    ]
    for line in text.splitlines():
        for name in re.findall(r"nox -s (\w+)", line):
            assert name in SESSIONS
        for names in re.findall(r"anyspawn\[(.*?)\]", line):
            assert set(names.split(",")) <= set(extras)
        assert line.startswith(("pip install ", "nox -s ", "git clone ", "cd "))


def read_toml(text, folder):
    tomllib.loads(text)


def test_every_block_was_found():
    """The pattern finds every block."""
    fences = sum(page.read_text().count("\n```") for page in PAGES)
    assert fences == 2 * len(BLOCKS)
