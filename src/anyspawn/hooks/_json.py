"""Kinds of JSON values, as type guards."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeGuard

__all__ = ["is_array", "is_mapping", "is_object", "is_pair"]


def is_object(value: object) -> TypeGuard[dict[str, Any]]:
    """Whether a value is a JSON object, as it was read."""
    return isinstance(value, dict)


def is_array(value: object) -> TypeGuard[list[Any]]:
    """Whether a value is a JSON array, as it was read."""
    return isinstance(value, list)


def is_mapping(value: object) -> TypeGuard[Mapping[str, Any]]:
    """Whether a caller's value represents a JSON object."""
    return isinstance(value, Mapping)


def is_pair(value: object) -> TypeGuard[tuple[Any, Any]]:
    """Whether a value is a tuple of two, such as a request and its response."""
    return isinstance(value, tuple) and len(value) == 2
