"""The documentation's pictures are drawn from the code and from the output of commands."""

from __future__ import annotations

import importlib.util
import re
from html import unescape
from pathlib import Path

import pytest

DOCS = Path(__file__).parents[2] / "docs"


def load(name):
    spec = importlib.util.spec_from_file_location(name, DOCS / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(
    ("script", "file"), [("call_picture", "call"), ("places_picture", "places")]
)
def test_a_picture_is_what_its_script_draws(script, file):
    """The file is up to date: `python docs/call_picture.py`, `python docs/places_picture.py`."""
    assert (DOCS / f"{file}.svg").read_text(encoding="utf-8") == load(script).picture()


def words(svg):
    """Return the text of a terminal's picture, with its numbers replaced."""
    shown = "".join(unescape(text) for text in re.findall(r"<text.*?>(.*?)</text>", svg))
    return re.sub(r"[\d.]+", "N", " ".join(shown.split()))


def test_the_recording_of_the_demo():
    """The example prints what the picture shows: `python docs/terminal_pictures.py`."""
    module = load("terminal_pictures")
    command = module.COMMANDS["demo"]
    drawn = module.picture(command, module.record(command))
    assert words((DOCS / "demo.svg").read_text(encoding="utf-8")) == words(drawn)


def test_the_recording_of_doctor():
    """`anyspawn doctor` reports the things that the picture shows, in this order."""
    module = load("terminal_pictures")
    things = [module.plain(line)[4:22].strip() for line in module.record("anyspawn doctor")]
    shown = (DOCS / "doctor.svg").read_text(encoding="utf-8")
    drawn = re.findall(r">  (\S.{17})", shown)
    assert [thing for thing in things if thing and "->" not in thing] == [d.strip() for d in drawn]


def test_colours_of_a_terminal():
    """The picture keeps a line's colours and escapes its text."""
    drawn = load("terminal_pictures").picture("true", ["\x1b[32mok\x1b[0m  <a>"])
    assert 'fill="#7ee787">ok</text>' in drawn
    assert ">  &lt;a&gt;</text>" in drawn
