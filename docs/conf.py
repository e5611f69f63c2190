"""Sphinx settings."""

from __future__ import annotations

from typing import Any

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

from anyspawn.config import json_schema

project = "anyspawn"
author = "The anyspawn authors"
copyright = author  # noqa: A001  Sphinx's name for it
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
html_theme = "furo"
html_title = "anyspawn"
exclude_patterns = ["_build"]
myst_heading_anchors = 3
autodoc_member_order = "bysource"
autodoc_typehints = "description"
autodoc_typehints_description_target = "documented"
nitpick_ignore_regex = [
    (
        r"py:.*",
        r"(collections\.abc|typing|os|weakref|anyio|attrs?|types|abc)\..*",
    ),  # documented elsewhere
    (r"py:.*", r"(?!anyspawn)[\w.]*"),  # builtins and type expressions that autodoc takes apart
    (r"py:.*", r"anyspawn\.supervisor\..*"),  # private
    (r"py:.*", r"anyspawn\._.*"),  # private names, as autodoc sees their re-exports
]
default_role = "code"


class ConfigFields(SphinxDirective):
    """A table of the keys that a part of the configuration file has, made of its JSON Schema."""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        entry = json_schema()["properties"]["spec"]["properties"][self.arguments[0]][
            "additionalProperties"
        ]
        lines = []
        for kind in entry.get("oneOf", [entry]):
            fields = dict(kind["properties"])
            mode = fields.pop("mode", {}).get("const") if "oneOf" in entry else None
            if not fields:  # a mode that is a variable, whose keys nobody knows
                continue
            if mode:
                lines += [f"**{mode}**: {kind['description']}", ""]
            lines += [".. list-table::", "   :header-rows: 1", "   :widths: 20 20 60", ""]
            lines += ["   * - key", "     - value", "     - meaning"]
            for name, field in fields.items():
                required = " (required)" if name in kind["required"] else ""
                lines += [f"   * - ``{name}``{required}", f"     - {_form(field)}"]
                lines += [f"     - {field.get('description', '')}"]
            lines.append("")
        return self.parse_text_to_nodes("\n".join(lines))


def _form(schema: dict[str, Any]) -> str:
    if "anyOf" in schema:
        forms = [_form(member) for member in schema["anyOf"] if "pattern" not in member]
        return " or ".join(dict.fromkeys(forms))
    if "enum" in schema:
        return ", ".join(f"``{value}``" for value in schema["enum"])
    if schema.get("type") == "array":
        return f"list of {_form(schema['items'])}"
    if schema.get("type") == "object":
        return "mapping"
    names = {
        "string": "text",
        "boolean": "true or false",
        "integer": "whole number",
        "number": "number",
        "null": "null",
    }
    return names[schema["type"]]


def setup(app: Sphinx) -> None:
    app.add_directive("config-fields", ConfigFields)
