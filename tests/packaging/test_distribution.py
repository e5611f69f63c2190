"""The built distributions are complete and can be installed."""

from __future__ import annotations

import subprocess
import sys
import tarfile
import venv
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
USE = """
import anyspawn, anyio
assert anyio.run(lambda: anyspawn.spawn(["echo", "hello"])).stdout == b"hello\\n"
print(anyspawn.__version__)
"""


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    folder = tmp_path_factory.mktemp("dist")
    subprocess.run(
        [sys.executable, "-m", "build", "--no-isolation", "--outdir", folder, ROOT],
        check=True,
        stdout=subprocess.PIPE,
    )
    return {"wheel": next(folder.glob("*.whl")), "sdist": next(folder.glob("*.tar.gz"))}


def test_wheel_has_the_type_marker_and_no_tests(built):
    """The wheel contains the package with `py.typed`, the licence and the command, and nothing
    else.
    """
    names = zipfile.ZipFile(built["wheel"]).namelist()
    assert "anyspawn/py.typed" in names
    assert any(name.endswith("licenses/LICENSE") for name in names)
    assert any(name.endswith("entry_points.txt") for name in names)
    assert {name.split("/")[0].split("-")[0] for name in names} == {"anyspawn"}


def test_sdist_has_tests_docs_and_examples(built):
    """The sdist is enough to run the tests and build the documentation."""
    with tarfile.open(built["sdist"]) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    assert {
        "noxfile.py",
        "README.md",
        "LICENSE",
        "docs/conf.py",
        "tests/conftest.py",
        "examples/pii/pii.py",
    } <= names


@pytest.mark.parametrize("kind", ["wheel", "sdist"])
def test_installs_and_imports_in_a_clean_environment(built, kind, tmp_path):
    """A new virtual environment needs only the distribution and its two dependencies."""
    venv.create(tmp_path / "venv", with_pip=True)
    python = tmp_path / "venv" / "bin" / "python"
    subprocess.run(
        [python, "-m", "pip", "install", "--quiet", built[kind]], check=True, cwd=tmp_path
    )
    version = subprocess.run(
        [python, "-c", USE], check=True, cwd=tmp_path, stdout=subprocess.PIPE, text=True
    ).stdout
    assert version.strip() == built["wheel"].name.split("-")[1]
