"""Sphinx settings."""

from __future__ import annotations

import importlib
import re
from pathlib import Path
from typing import Any

from docutils import nodes
from sphinx import addnodes
from sphinx.application import Sphinx
from sphinx.transforms import SphinxTransform
from sphinx.transforms.post_transforms import SphinxPostTransform
from sphinx.util.docutils import SphinxDirective

from anyspawn.config import json_schema

project = "anyspawn"
author = "The anyspawn authors"
copyright = author  # noqa: A001  Sphinx's name for it
extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx_copybutton",
    "sphinx_design",
]
html_theme = "furo"
html_title = "anyspawn"
smartquotes_action = "D"  # quotes stay as messages have them, and can be searched for
html_static_path = ["_static"]
html_css_files = ["site.css"]
copybutton_prompt_text = r"\$ |> "
copybutton_prompt_is_regexp = True  # what commands print is not copied
myst_enable_extensions = ["colon_fence"]
exclude_patterns = ["_build"]
myst_heading_anchors = 3
autodoc_member_order = "bysource"
autodoc_type_aliases = {"Phase": "anyspawn.hooks.Phase"}
autodoc_typehints = "description"
autodoc_typehints_description_target = "documented"
nitpick_ignore = [("py:class", "'anyspawn.hooks.Phase'")]  # as autodoc writes an alias in a tuple
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


NAMES = {
    name: f"{module}.{name}"
    for module in (
        "anyspawn.argv",
        "anyspawn.testing",
        "anyspawn.containers",
        "anyspawn.config",
        "anyspawn.tools",
        "anyspawn.hooks",
        "anyspawn",
    )
    for name in importlib.import_module(module).__all__
}
"""Public names, and where they stand."""


LINKED = nodes.title | nodes.reference | addnodes.pending_xref


class LinkNames(SphinxTransform):
    """Links each public name to its reference, where it first stands on a page, outside of
    headings and other links.
    """

    default_priority = 500

    def apply(self, **_kwargs: Any) -> None:
        linked = set()
        for literal in list(self.document.findall(nodes.literal)):
            found = re.fullmatch(
                r"(?:anyspawn\.(?:[a-z]+\.)?)?(\w+)(?:\(.*\)|\.\w+)?", literal.astext()
            )
            if found is None or found[1] not in NAMES or found[1] in linked:
                continue
            above = literal.parent
            while above is not None and not isinstance(above, LINKED):
                above = above.parent
            if above is None:
                linked.add(found[1])
                link = addnodes.pending_xref(
                    "",
                    refdomain="py",
                    reftype="obj",
                    reftarget=NAMES[found[1]],
                    refdoc=self.env.docname,
                )
                literal.replace_self(link)
                link += literal


class PlainTypes(SphinxPostTransform):
    """Shows a type as its name, where autodoc leaves a tilde and its module, or an alias's
    wrapping, around it.
    """

    default_priority = 900

    def run(self, **_kwargs: Any) -> None:
        for text in list(self.document.findall(nodes.Text)):
            named = re.sub(r"~(?:\w+\.)+(?=\w)", "", text)
            if named != text:
                text.parent.replace(text, nodes.Text(named))
        for part in list(self.document.findall(nodes.emphasis)):
            if part.astext() == "TypeAliasForwardRef":  # then: ( 'module.Name' )
                following = part.parent[part.parent.index(part) :][:4]
                name = following[2].astext().strip("'").rpartition(".")[2]
                part.replace_self(nodes.emphasis("", name))
                for rest in following[1:]:
                    rest.parent.remove(rest)


class DrawnPictures(SphinxPostTransform):
    """Puts pictures that take the colour of the text into the page, so that they follow its
    light or dark mode.
    """

    default_priority = 900
    formats = ("html",)

    def run(self, **_kwargs: Any) -> None:
        for image in list(self.document.findall(nodes.image)):
            path = Path(self.app.srcdir, image["uri"])
            if path.suffix == ".svg" and "currentColor" in (text := path.read_text("utf-8")):
                drawn = f'<div class="drawn">{text}</div>'
                image.replace_self(nodes.raw("", drawn, format="html"))


def setup(app: Sphinx) -> None:
    app.add_transform(LinkNames)
    app.add_post_transform(PlainTypes)
    app.add_post_transform(DrawnPictures)
    app.add_directive("config-fields", ConfigFields)
