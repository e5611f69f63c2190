"""Long-lived containers: create, run, inspect, confine and remove them with the docker CLI."""

from __future__ import annotations

from anyspawn._security import SecurityConfig, SecurityOptions, parse_memory, security_options
from anyspawn.containers._images import detect_image, filter_env, select_image
from anyspawn.containers._info import ContainerInfo, Mount
from anyspawn.containers._manager import ContainerManager, ContainerSpec, running
from anyspawn.containers._reaper import Orphan, reap_orphans

__all__ = [
    "ContainerInfo",
    "ContainerManager",
    "ContainerSpec",
    "Mount",
    "Orphan",
    "SecurityConfig",
    "SecurityOptions",
    "detect_image",
    "filter_env",
    "parse_memory",
    "reap_orphans",
    "running",
    "security_options",
    "select_image",
]
