"""Configuration files: YAML that describes sandboxes, hooks and other programs, in the form of a
Kubernetes resource. Needs the ``config`` extra.
"""

from __future__ import annotations

try:
    from anyspawn.config._hook import HookConfig
    from anyspawn.config._problems import ConfigProblem, InvalidConfigError
    from anyspawn.config._runtime import OpenConfig, RuntimeConfig, load_config, parse_config
    from anyspawn.config._schema import json_schema
except ModuleNotFoundError as exc:
    if exc.name not in {"cattrs", "yaml"}:
        raise
    message = f"anyspawn.config needs {exc.name}: pip install 'anyspawn[config]'"
    raise ModuleNotFoundError(message, name=exc.name) from None

__all__ = [
    "ConfigProblem",
    "HookConfig",
    "InvalidConfigError",
    "OpenConfig",
    "RuntimeConfig",
    "json_schema",
    "load_config",
    "parse_config",
]
