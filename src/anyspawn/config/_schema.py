"""The JSON Schema of a RuntimeConfig, made of the classes that read it."""

from __future__ import annotations

import inspect
import re
import types
from collections.abc import Mapping
from copy import deepcopy
from typing import Any, Literal, Union, get_args, get_origin

import attrs

from anyspawn._registry import Registry, default_registry
from anyspawn.config._fields import in_config
from anyspawn.config._hook import HookConfig
from anyspawn.config._program import LONGEST_MS, ProgramConfig
from anyspawn.config._runtime import API_VERSION, KIND, NEAR_MISSES, NOT_PROGRAMS, OF_PROGRAM
from anyspawn.exceptions import ConfigError
from anyspawn.hooks._phases import KINDS
from anyspawn.hooks._protocols import AGENTS

__all__ = ["json_schema"]

_DIALECT = "https://json-schema.org/draft/2020-12/schema"
_VARIABLE = {"type": "string", "pattern": r"\$\{"}
_PLAIN: Mapping[Any, dict[str, Any]] = {
    str: {"type": "string"},
    bool: {"anyOf": [{"type": "boolean"}, _VARIABLE]},
    int: {"anyOf": [{"type": "integer"}, _VARIABLE]},
    float: {"anyOf": [{"type": "number"}, _VARIABLE]},
    type(None): {"type": "null"},
}


def json_schema(registry: Registry = default_registry) -> dict[str, Any]:
    """Return the JSON Schema (draft 2020-12) of a RuntimeConfig, with the modes of ``registry``.

    For modes of plugins, and factories that are not an attrs class, the schema has only the name.
    """
    modes = {mode: _class_of(mode, registry) for mode in registry.modes()}
    sandboxes = [
        _object(cls, {"mode": {"const": mode}}, required=["mode"], without={"name"})
        if cls is not None
        else _open(mode)
        for mode, cls in modes.items()
    ]
    sandboxes.append({"type": "object", "properties": {"mode": _VARIABLE}, "required": ["mode"]})
    return {
        "$schema": _DIALECT,
        "title": KIND,
        "type": "object",
        "properties": {
            "apiVersion": {"const": API_VERSION},
            "kind": {"const": KIND},
            "metadata": {"type": ["object", "null"]},
            "spec": {
                "type": ["object", "null"],
                "properties": {
                    "sandboxes": _section({"oneOf": sandboxes}),
                    "hooks": _section(_hook()),
                    "tools": _section(_tool()),
                    "evals": _section(_program()),
                    "selectors": _section(_program()),
                },
                "propertyNames": {"not": {"pattern": f"^(?:{NEAR_MISSES})$"}},
            },
        },
        "required": ["apiVersion", "kind"],
        "additionalProperties": False,
    }


def _program(cls: type[ProgramConfig] = ProgramConfig) -> dict[str, Any]:
    """Return the schema of a program's fields."""
    schema = _object(cls, {}, required=[], without=set())
    fields = schema["properties"]
    fields["command"]["minLength"] = 1
    fields["output_limit"]["anyOf"][0]["minimum"] = 1
    fields["timeout_ms"]["anyOf"][0] = {
        "anyOf": [{"type": "number", "maximum": LONGEST_MS}, _VARIABLE]
    }
    fields["sandbox"] = {"type": "string", "description": fields["sandbox"]["description"]}
    return schema


def _tool() -> dict[str, Any]:
    """Return the schema of a tool: a program, or anything else."""
    schema = _program()
    schema["properties"] |= {name: {} for name in NOT_PROGRAMS}
    other = {"propertyNames": {"not": {"pattern": f"^(?:{OF_PROGRAM})$"}}}
    return {"anyOf": [schema, {"type": "null"}, {"type": "object", **other}]}


def _hook() -> dict[str, Any]:
    """Return the schema of a hook: its fields, and the conditions between them."""
    schema = _program(HookConfig)
    agents = list(AGENTS)
    absent_or_exec = {"properties": {"protocol": {"const": "exec"}}}
    of_agent = {"properties": {"protocol": {"enum": agents}}, "required": ["protocol"]}
    never = {"not": {"const": True}}
    trivial = {"anyOf": [{"enum": ["", "*"]}, _VARIABLE]}
    matching = {"properties": {"matcher": {"not": trivial}}, "required": ["matcher"]}
    together = [
        _when(absent_or_exec, matcher=trivial),
        _when(absent_or_exec, project={"type": "null"}),
        _when(of_agent, runtime={"not": {"const": "server"}}, names={"not": {"const": "snake"}}),
        _when(_said(hook="eval"), rewrites=never, sequential=never),
        _when({"allOf": [absent_or_exec, _said(hook="session")]}, rewrites=never),
        _when(_said(mode="observe"), rewrites=never, sequential=never),
    ]
    for protocol in ("exec", *agents):
        said = absent_or_exec if protocol == "exec" else _said(protocol=protocol)
        others = [f"as_{agent}" for agent in agents if agent != protocol]
        together.append(_when(said, on_failure={"not": {"enum": others}}))
        for kind, phases in KINDS.items():
            possible = [
                phase
                for phase in phases
                if (kind != "agent" if protocol == "exec" else phase in AGENTS[protocol].events)
            ]
            condition = {"allOf": [said, _said(hook=kind)]}
            if not possible:
                together.append({"if": condition, "then": False})
            elif kind != "eval":
                items = {"anyOf": [{"enum": possible}, _VARIABLE]}
                wanted = {"items": items, "minItems": 1}
                together.append(_when(condition, phases=wanted))
            if protocol != "exec":
                told = AGENTS[protocol].events
                named = [phase for phase in possible if told[phase].subject]
                contains = {"contains": {"anyOf": [{"enum": named}, _VARIABLE]}}
                together.append(_when({"allOf": [condition, matching]}, phases=contains))
                if possible and not named:
                    together.append(_when(condition, matcher=trivial))
    return {**schema, "allOf": together}


def _said(**values: str) -> dict[str, Any]:
    """Return the schema of an object with these values."""
    return {
        "properties": {name: {"const": value} for name, value in values.items()},
        "required": list(values),
    }


def _when(condition: dict[str, Any], **fields: dict[str, Any]) -> dict[str, Any]:
    """Return a schema that constrains fields if a condition holds."""
    return {"if": condition, "then": {"properties": fields}}


def _class_of(mode: str, registry: Registry) -> type[Any] | None:
    try:
        return getattr(registry.lookup(mode), "sandbox", None)
    except ConfigError:  # a broken plugin
        return None


def _section(entry: dict[str, Any]) -> dict[str, Any]:
    return {
        "type": ["object", "null"],
        "propertyNames": {"minLength": 1},
        "additionalProperties": entry,
    }


def _open(mode: str) -> dict[str, Any]:
    return {"type": "object", "properties": {"mode": {"const": mode}}, "required": ["mode"]}


def _object(
    cls: type[Any], properties: dict[str, Any], required: list[str], without: set[str]
) -> dict[str, Any]:
    attrs.resolve_types(cls)
    said = _argument_docs(cls)
    for attribute in attrs.fields(cls):
        if not in_config(attribute) or attribute.name in without:
            continue
        schema = deepcopy(_schema(attribute.type))  # a copy: the code below adds to it
        if attribute.name in said:
            schema["description"] = said[attribute.name]
        if attribute.default is attrs.NOTHING:
            required = [*required, attribute.name]
        properties[attribute.name] = schema
    summary = " ".join((inspect.getdoc(cls) or "").partition("\n\n")[0].split())
    return {
        "type": "object",
        "description": summary,
        "properties": properties,
        "required": required,
        "additionalProperties": False,
    }


def _schema(kind: Any) -> dict[str, Any]:
    origin, members = get_origin(kind), get_args(kind)
    if origin in {Union, types.UnionType}:
        return {"anyOf": [_schema(member) for member in members]}
    if origin is Literal:
        return {"anyOf": [{"enum": list(members)}, _VARIABLE]}
    if origin is tuple:
        return {"type": "array", "items": _schema(members[0])}
    if origin is Mapping:
        return {"type": "object", "additionalProperties": _schema(members[1])}
    if attrs.has(kind):
        return _object(kind, {}, required=[], without=set())
    return _PLAIN.get(kind, {})


def _argument_docs(cls: type[Any]) -> dict[str, str]:
    """Return the description of each argument, from the docstrings of a class and its bases."""
    said: dict[str, str] = {}
    for base in reversed(cls.__mro__):
        _, _, arguments = (inspect.cleandoc(base.__doc__ or "")).partition("\nArgs:\n")
        arguments = re.split(r"\n(?=\S)", arguments, maxsplit=1)[0]
        for entry in re.split(r"\n(?=    \S)", "\n" + arguments):
            match = re.fullmatch(r"    (\w+): (.*)", entry.strip("\n"), re.DOTALL)
            if match:
                said[match[1]] = " ".join(match[2].split())
    return said
