"""From plain values to attrs classes with cattrs: strict about types, and with all problems, not
only the first.
"""

from __future__ import annotations

import math
import re
import types
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Literal, TypeVar, Union, get_args, get_origin

import attrs
from cattrs import Converter
from cattrs.errors import (
    ClassValidationError,
    ForbiddenExtraKeysError,
    IterableValidationError,
)
from cattrs.gen import make_dict_structure_fn, override

from anyspawn._registry import nearest
from anyspawn.config._problems import Path, listed
from anyspawn.config._variables import Expanded

__all__ = ["build", "class_in", "in_config", "placed"]

_T = TypeVar("_T", bound=attrs.AttrsInstance)
_Problem = Callable[[Path, str], None]

_KINDS = {
    type(None): "null",
    bool: "a boolean",
    int: "a number",
    float: "a number",
    str: "a text",
    Expanded: "a text",
    list: "a list",
    dict: "a mapping",
}
_BOOLEANS = {"true": True, "false": False}


def _wrong(value: Any, wanted: str) -> TypeError:
    plain = isinstance(value, (bool, int, float)) or (type(value) is str and len(value) < 40)
    shown = f" ({value!r})" if plain else ""  # a variable's value can be a secret
    if isinstance(value, Expanded):
        shown = " (from a variable)"
    return TypeError(f"must be {wanted}, not {_KINDS.get(type(value), 'another value')}{shown}")


def _text(value: Any, _: Any) -> str:
    if not isinstance(value, str):
        hint = "; put it in quotes" if isinstance(value, (bool, int, float)) else ""
        raise TypeError(f"must be a text, not {_KINDS.get(type(value), 'another value')}{hint}")
    return str(value)


def _flag(value: Any, _: Any) -> bool:
    if isinstance(value, Expanded) and value.lower() in _BOOLEANS:
        return _BOOLEANS[value.lower()]
    if not isinstance(value, bool):
        raise _wrong(value, "true or false")
    return value


def _whole(value: Any, _: Any) -> int:
    if isinstance(value, Expanded) and re.fullmatch("[-+]?[0-9]{1,18}", value):
        return int(value)
    if isinstance(value, bool) or not isinstance(value, int):
        raise _wrong(value, "a whole number")
    return value


def _number(value: Any, _: Any) -> float:
    if isinstance(value, Expanded) and re.fullmatch(r"[-+]?[0-9]{1,18}(\.[0-9]{1,18})?", value):
        return float(value)
    if isinstance(value, bool) or not isinstance(value, (int, float)) or math.isnan(value):
        raise _wrong(value, "a number")
    return float(value)


def _literal(value: Any, wanted: Any) -> Any:
    known = get_args(wanted)
    if value not in known:
        shown = "another" if isinstance(value, Expanded) else repr(value)
        hint = nearest(value, list(known)) if isinstance(value, str) else ""
        raise ValueError(f"must be one of {listed(map(str, known))}, not {shown}{hint}")
    return next(item for item in known if item == value)


def _is_literal(wanted: Any) -> bool:
    return get_origin(wanted) is Literal


def _is_union(wanted: Any) -> bool:
    return get_origin(wanted) in {Union, types.UnionType}


def _is_mapping(wanted: Any) -> bool:
    return get_origin(wanted) is Mapping


def _is_tuple(wanted: Any) -> bool:
    return get_origin(wanted) is tuple


def _has_keys(wanted: Any) -> bool:
    return _is_mapping(wanted) or attrs.has(wanted)


def _is_plain(wanted: Any) -> bool:
    return not (_has_keys(wanted) or _is_tuple(wanted))


def _union(value: Any, wanted: Any) -> Any:
    """Choose the member by the form of the value: null, a mapping, a list, or else the plain
    one.
    """
    members = get_args(wanted)
    if value is None and type(None) in members:
        return None
    fits = (
        _has_keys
        if isinstance(value, dict)
        else _is_tuple
        if isinstance(value, list)
        else _is_plain
    )
    chosen = [member for member in members if member is not type(None)]
    words = [word for member in filter(_is_literal, members) for word in get_args(member)]
    if words and isinstance(value, str):
        if value in words:
            return words[words.index(value)]
        try:
            return _converter.structure(value, chosen[0])
        except TypeError as exc:
            raise TypeError(f"{exc}; or {listed(map(repr, filter(str, words)))}") from None
    return _converter.structure(value, next(filter(fits, chosen), chosen[0]))


def _tuple(value: Any, wanted: Any) -> tuple[Any, ...]:
    if not isinstance(value, list):
        hint = "; put brackets around it: [...]" if isinstance(value, str) else ""
        raise TypeError(f"{_wrong(value, 'a list')}{hint}")
    items: Any = list.__class_getitem__(get_args(wanted)[0])
    return tuple(_converter.structure(value, items))


def _mapping(value: Any, wanted: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise _wrong(value, "a mapping")
    items: Any = dict.__class_getitem__(get_args(wanted))
    return dict(_converter.structure(value, items))


_converter = Converter(forbid_extra_keys=True)
_converter.register_structure_hook(str, _text)
_converter.register_structure_hook(bool, _flag)
_converter.register_structure_hook(int, _whole)
_converter.register_structure_hook(float, _number)
_converter.register_structure_hook_func(_is_literal, _literal)
_converter.register_structure_hook_func(_is_union, _union)
_converter.register_structure_hook_func(_is_tuple, _tuple)
_converter.register_structure_hook_func(_is_mapping, _mapping)


@_converter.register_structure_hook_factory(attrs.has)
def _attrs(cls: type[Any]) -> Callable[[Any, Any], Any]:
    code_alone: dict[str, Any] = {
        attribute.name: override(omit=True)
        for attribute in attrs.fields(cls)
        if not in_config(attribute)
    }
    structure = make_dict_structure_fn(
        cls, _converter, _cattrs_forbid_extra_keys=True, **code_alone
    )

    def check(value: Any, wanted: Any) -> Any:
        if not isinstance(value, dict):
            raise _wrong(value, "a mapping")
        return structure(value, wanted)

    return check


def in_config(attribute: attrs.Attribute[Any]) -> bool:
    """Whether a file can set a field: ``config`` in its ``metadata`` is not false."""
    return attribute.init and bool(attribute.metadata.get("config", True))


def build(
    cls: type[_T],
    values: Any,
    path: Path,
    problem: _Problem,
    *,
    given: Mapping[str, Any] | None = None,
) -> _T | None:
    """Return an instance of an attrs class, or ``None`` if ``values`` are not valid for it.

    Args:
        cls: The class. Its fields are the allowed keys.
        values: The values in the file.
        path: Their path.
        problem: Called with each problem.
        given: Fields that the file cannot set.
    """
    if not isinstance(values, dict):
        problem(path, str(_wrong(values, "a mapping")))
        return None
    known = [
        attribute.name
        for attribute in attrs.fields(cls)
        if attribute.init
        and attribute.name not in (given or {})
        and not attribute.name.startswith("_")
    ]
    values = dict(values)
    for key in [key for key in values if key not in known]:
        problem((*path, key), unknown_key(key, known))
        del values[key]
    told: set[Any] = set()
    while True:
        try:
            made = _converter.structure({**values, **(given or {})}, cls)
        except ClassValidationError as exc:
            wrong = [
                (where, message)
                for where, message in _found(exc, cls)
                if not where or where[0] not in told
            ]
        else:
            return None if told else made
        for where, message in wrong:
            problem((*path, *where), message)
        # Without the invalid fields, the class can report its other problems.
        told |= {where[0] for where, _ in wrong if where}
        named = told & values.keys()
        for name in named:
            del values[name]
        if not named:
            return None


def _found(exc: Exception, cls: type | None, path: Path = ()) -> Iterator[tuple[Path, str]]:
    """Give all problems that cattrs, or the class itself, found."""
    if isinstance(exc, ClassValidationError):
        noted, plain = exc.group_exceptions()
        for inner, note in noted:
            yield from _found(inner, class_in(note.type), (*path, note.name))
        for inner in plain:
            if isinstance(inner, ForbiddenExtraKeysError):
                for key in sorted(inner.extra_fields):
                    known = [found.name for found in attrs.fields(inner.cl) if in_config(found)]
                    yield (*path, key), unknown_key(key, known)
            else:
                yield placed(inner, cls, path)
    elif isinstance(exc, IterableValidationError):
        for inner, item in exc.group_exceptions()[0]:
            yield from _found(inner, None, (*path, item.index))
    elif isinstance(exc, KeyError):
        yield path, "is missing"
    else:
        yield path, str(exc)


def unknown_key(key: str, known: list[str]) -> str:
    """Return the message for an unknown key."""
    return f"unknown key{nearest(key, known)} (known: {', '.join(known)})"


def class_in(wanted: Any) -> type[Any] | None:
    """Return the attrs class of a type, also of an optional one."""
    return next((member for member in (wanted, *get_args(wanted)) if attrs.has(member)), None)


def placed(exc: Exception, cls: type | None, path: Path) -> tuple[Path, str]:
    """Return a class's own error at the field that its message begins with; all messages of this
    package do.
    """
    message = str(exc)
    names = [attribute.name for attribute in attrs.fields(cls)] if cls is not None else []
    match = re.match(r"(\w+)(?:\[\d+\])?(?:: | )", message)
    if match and match[1] in names:
        return (*path, match[1]), message[match.end() :]
    return path, message
