"""Reads YAML into plain values that remember their places. Strict where YAML is lenient.

Scalars follow YAML 1.2's core schema: ``yes``, ``off``, ``12:30`` and dates are texts, as their
authors mean them.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from typing import Any

import yaml

from anyspawn.config._problems import ConfigProblem, Path, dotted

__all__ = ["Document"]

_MOST_VALUES = 20_000
_MOST_CHARACTERS = 2**20
_MOST_DIGITS = 18


class _Loader(yaml.SafeLoader):
    values = 0

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        """Stop as soon as there are too many values."""
        self.values += not (isinstance(parent, yaml.MappingNode) and index is None)  # no keys
        if self.values > _MOST_VALUES:
            raise _TooManyError(self.peek_event().start_mark)  # type: ignore[no-untyped-call]  # in PyYAML's types
        return super().compose_node(parent, index)

    yaml_implicit_resolvers: dict[str, list[tuple[str, re.Pattern[str]]]] = {}  # noqa: RUF012  PyYAML's own form


_PATTERNS = {
    "null": r"~|null|Null|NULL|",
    "bool": r"true|True|TRUE|false|False|FALSE",
    "int": r"[-+]?[0-9]+|0x[0-9a-fA-F]+",
    "float": r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)",
}
_FIRST = {
    "null": ["~", "n", "N", ""],
    "bool": list("tTfF"),
    "int": list("-+0123456789"),
    "float": list("-+.0123456789"),
}

for _tag, _pattern in _PATTERNS.items():
    _Loader.add_implicit_resolver(
        f"tag:yaml.org,2002:{_tag}", re.compile(f"(?:{_pattern})$"), _FIRST[_tag]
    )
_Loader.add_implicit_resolver("tag:yaml.org,2002:merge", re.compile("<<$"), ["<"])


def _int(text: str) -> int:
    return int(text, 16) if text.startswith("0x") else int(text)


def _float(text: str) -> float:
    return float(
        text.replace(".inf", "inf")
        .replace(".Inf", "inf")
        .replace(".INF", "inf")
        .replace(".nan", "nan")
        .lower()
    )


class Document:
    """A YAML document as plain values, with its problems.

    Args:
        text: The document.

    Attributes:
        value: The document's value; ``None`` if it is not valid YAML.
        problems: The errors.
        notes: The warnings.
    """

    def __init__(self, text: str) -> None:
        self.value: Any = None
        self.problems: list[ConfigProblem] = []
        self.notes: list[ConfigProblem] = []
        self._places: dict[Path, yaml.Mark] = {}
        self._count = 0
        if len(text) > _MOST_CHARACTERS:
            line = text.count("\n", 0, _MOST_CHARACTERS) + 1
            column = _MOST_CHARACTERS - text.rfind("\n", 0, _MOST_CHARACTERS)
            what = f"the file goes on beyond {_MOST_CHARACTERS} characters; write less"
            self.problems.append(ConfigProblem("", what, line, column))
            return
        try:
            node = yaml.compose(text, Loader=_Loader)
            if node is None:
                self.problems.append(
                    ConfigProblem("", "the file is empty; it must hold a RuntimeConfig", 1, 1)
                )
            else:
                self.value = self._build(node, (), ())
        except yaml.MarkedYAMLError as exc:
            mark = exc.problem_mark or exc.context_mark
            what = " ".join(part for part in (exc.context, exc.problem) if part)
            if "undefined alias" in what:  # the name can be a text that lacks quotes, and a secret
                what = "an alias that nothing defines; put a text that begins with * in quotes"
            lines = text.splitlines()
            if mark is not None and "${" in "".join(lines[mark.line : mark.line + 1]):
                what += '; put a variable within braces in quotes: "${NAME}"'
            self.problems.append(ConfigProblem("", f"this is not YAML: {what}", *_numbers(mark)))
        except (
            yaml.YAMLError,
            ValueError,
            OverflowError,
        ) as exc:  # the latter for impossible escapes
            self.problems.append(
                ConfigProblem("", f"this is not YAML: {' '.join(str(exc).split())}")
            )
        except RecursionError:
            self.problems.append(ConfigProblem("", "values are nested too deeply"))
        except _TooManyError as exc:
            self.problems.append(
                ConfigProblem(
                    "",
                    f"there are more than {_MOST_VALUES} values, aliases written out; write less",
                    *_numbers(exc.mark),
                )
            )

    def problem(self, path: Path, message: str) -> None:
        """Add a problem at a path; if the path has no place in the file, at the nearest one above
        it.
        """
        self.problems.append(self._placed(path, message))

    def note(self, path: Path, message: str) -> None:
        """Add a note at a path, as `problem` does."""
        self.notes.append(self._placed(path, message))

    def _placed(self, path: Path, message: str) -> ConfigProblem:
        above = path
        while above and above not in self._places:
            above = above[:-1]
        return ConfigProblem(dotted(path), message, *_numbers(self._places.get(above)))

    def _build(self, node: yaml.Node, path: Path, parents: tuple[int, ...]) -> Any:
        self._count += 1
        if self._count > _MOST_VALUES:
            raise _TooManyError(node.start_mark)
        self._places.setdefault(path, node.start_mark)
        if id(node) in parents:
            self.problem(path, "the alias is inside the value that it refers to")
            return None
        parents = (*parents, id(node))
        if isinstance(node, yaml.MappingNode):
            return dict(self._pairs(node, path, parents))
        if isinstance(node, yaml.SequenceNode):
            return [
                self._build(item, (*path, index), parents) for index, item in enumerate(node.value)
            ]
        assert isinstance(node, yaml.ScalarNode)
        return self._scalar(node, path)

    def _pairs(
        self, node: yaml.MappingNode, path: Path, parents: tuple[int, ...]
    ) -> Iterator[tuple[str, Any]]:
        seen: dict[str, int] = {}
        merged: dict[str, Any] = {}
        for key_node, value_node in node.value:
            if key_node.tag == "tag:yaml.org,2002:merge":
                sources = (
                    value_node.value if isinstance(value_node, yaml.SequenceNode) else [value_node]
                )
                for source in sources:
                    found = self._build(source, path, parents)
                    if isinstance(found, dict):
                        for name, value in found.items():
                            merged.setdefault(name, value)
                    else:
                        self.problem(
                            path, "<< takes an alias of a mapping, or a list of such aliases"
                        )
                continue
            key = key_node.value
            if not isinstance(key_node, yaml.ScalarNode):
                self.problem(path, f"a key in line {key_node.start_mark.line + 1} is not text")
                continue
            line = key_node.start_mark.line + 1
            if not _encodes(key):
                self.problem(
                    path, f"a key in line {line} has a lone surrogate, which UTF-8 cannot encode"
                )
                continue
            if key in seen:
                place = (*path, key)
                self._places[place] = key_node.start_mark
                self.problem(
                    place, f"the key comes twice, first in line {seen[key]}; remove or rename one"
                )
                continue
            seen[key] = line
            self._places[*path, key] = key_node.start_mark
            merged[key] = self._build(value_node, (*path, key), parents)
        yield from merged.items()

    def _scalar(self, node: yaml.ScalarNode, path: Path) -> Any:
        kind, text = node.tag.rpartition(":")[2], node.value
        if kind == "str":
            if not _encodes(text):
                self.problem(path, "the text has a lone surrogate, which UTF-8 cannot encode")
            return text
        if not node.tag.startswith("tag:yaml.org,2002:") or kind not in _PATTERNS:
            self.problem(path, "tags are not known here; put a text that begins with ! in quotes")
            return None
        if not re.fullmatch(_PATTERNS[kind], text):
            self.problem(path, f"the value is not a {kind}, as its tag says")
            return None
        if kind == "null":
            return None
        if kind == "bool":
            return text.lower() == "true"
        number = (
            _int(text)
            if kind == "int" and len(text) <= _MOST_DIGITS
            else _float(text)
            if kind == "float"
            else None
        )
        if number is None or (number in {math.inf, -math.inf} and "inf" not in text.lower()):
            self.problem(path, "the number has more digits than can be read")
            return None
        return number


def _encodes(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


class _TooManyError(Exception):
    """The document has more values than any real configuration.

    Attributes:
        mark: The place of the first value beyond the bound.
    """

    def __init__(self, mark: yaml.Mark | None) -> None:
        self.mark = mark


def _numbers(mark: yaml.Mark | None) -> tuple[int, int] | tuple[()]:
    return (mark.line + 1, mark.column + 1) if mark is not None else ()
