"""Modes and their factories, built in or from plugins."""

from __future__ import annotations

import base64
import hashlib
import subprocess
import sys
import zipfile

import pytest

from anyspawn import Bubblewrap, ConfigError, Direct, Registry, default_registry, lookup_sandbox


def make(name, config):
    return Direct(name=name)


def test_register_lookup_replace():
    """A factory is found by its mode; only replace() may register a second one."""
    registry = Registry()
    registry.register("ssh", make)
    assert registry.lookup("ssh") is make
    with pytest.raises(ConfigError, match=r"'ssh' is registered already.*replace"):
        registry.register("ssh", make)
    registry.replace("ssh", lambda name, config: None)
    assert registry.lookup("ssh") is not make
    registry.replace("new", make)
    assert registry.modes() == ("new", "ssh")


@pytest.mark.parametrize(
    ("mode", "factory"), [("", make), (None, make), ("x", None), ("x", "make")]
)
def test_refused(mode, factory):
    """register() and replace() refuse an empty mode and a factory that is not callable."""
    for enter in (Registry().register, Registry().replace):
        with pytest.raises(ConfigError, match="mode"):
            enter(mode, factory)


def test_unknown_mode():
    """The error lists the known modes and suggests the nearest."""
    with pytest.raises(
        ConfigError, match=r"unknown mode 'bubblewarp'; did you mean 'bubblewrap'\? .*direct"
    ):
        lookup_sandbox("bubblewarp")
    with pytest.raises(ConfigError, match="known: "):
        lookup_sandbox("zzz")


def test_built_in_factories():
    """Settings become fields. An unknown key is named, with the nearest known one."""
    sandbox = lookup_sandbox("bubblewrap")(
        "box", {"readonly": ["/srv"], "network": True, "max_concurrent": 3}
    )
    assert sandbox == Bubblewrap(name="box", readonly=("/srv",), network=True, max_concurrent=3)
    assert lookup_sandbox("direct")("d", {}).name == "d"
    with pytest.raises(ConfigError, match="box: unknown key 'readnoly'; did you mean 'readonly'"):
        lookup_sandbox("bubblewrap")("box", {"readnoly": []})
    with pytest.raises(ConfigError, match="unknown key '_pools'"):
        lookup_sandbox("bubblewrap")("box", {"_pools": None})
    assert {"direct", "bubblewrap"} <= set(default_registry.modes())


@pytest.mark.parametrize(
    ("mode", "key", "value"),
    [
        ("direct", "default_timeout", 0),
        ("direct", "default_timeout", "5s"),
        ("direct", "max_concurrent", 0),
        ("direct", "max_concurrent", True),
        ("bubblewrap", "readonly", "/srv"),
        ("bubblewrap", "readonly", ["srv"]),
        ("bubblewrap", "writable", [3]),
        ("bubblewrap", "network", "yes"),
        ("bubblewrap", "share_env", ["A=1"]),
        ("bubblewrap", "extra_args", "--uid"),
    ],
)
def test_wrong_settings(mode, key, value):
    """The error names the field."""
    with pytest.raises(ConfigError, match=key):
        lookup_sandbox(mode)("x", {key: value})
    with pytest.raises(ConfigError, match="name"):
        lookup_sandbox(mode)("", {})


PLUGIN = '''
from anyspawn import Direct
def make(name, config):
    """A plugin's sandbox."""
    return Direct(name=name)
'''
USE = """
import sys, logging
logging.basicConfig(format="%(message)s")
from anyspawn import ConfigError, default_registry, lookup_sandbox
lookup_sandbox("direct")
assert "spawn_plugin" not in sys.modules
assert {"plugged", "broken"} <= set(default_registry.modes())
assert "spawn_plugin" not in sys.modules
print(lookup_sandbox("plugged")("p", {}).name)
try:
    lookup_sandbox("broken")
except ConfigError as exc:
    print(exc)
print(lookup_sandbox("plugged")("again", {}).name)
"""


def build_plugin(folder):
    """Build a wheel by hand: it is a zip with three metadata files."""
    files = {
        "spawn_plugin.py": PLUGIN,
        "spawn_plugin-1.0.dist-info/METADATA": "Metadata-Version: 2.1\nName: spawn-plugin\nVersion: 1.0\n",
        "spawn_plugin-1.0.dist-info/WHEEL": "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        "spawn_plugin-1.0.dist-info/entry_points.txt": (
            "[anyspawn.sandboxes]\nplugged = spawn_plugin:make\nbroken = spawn_plugin_gone:make\ndirect = spawn_plugin:make\n"
        ),
    }
    record = "spawn_plugin-1.0.dist-info/RECORD"
    lines = []
    for name, text in files.items():
        digest = (
            base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).rstrip(b"=").decode()
        )
        lines.append(f"{name},sha256={digest},{len(text.encode())}\n")
    wheel = folder / "spawn_plugin-1.0-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        for name, text in files.items():
            archive.writestr(name, text)
        archive.writestr(record, "".join(lines) + f"{record},,\n")
    return wheel


def test_plugins(tmp_path):
    """A plugin is loaded when its mode is looked up. A broken plugin is reported, and breaks
    nothing else.
    """
    target = tmp_path / "site"
    install = [
        "install",
        "--quiet",
        "--no-index",
        "--no-deps",
        "--target",
        target,
        build_plugin(tmp_path),
    ]
    subprocess.run([sys.executable, "-m", "pip", *install], check=True)
    use = f"import sys; sys.path.insert(0, {str(target)!r})\n{USE}"
    done = subprocess.run([sys.executable, "-c", use], capture_output=True, text=True, check=True)
    first, broken, again = done.stdout.splitlines()
    assert (first, again) == ("p", "again")
    assert "'broken'" in broken
    assert "spawn_plugin_gone" in broken
    assert "failed to load" in done.stderr
    assert "mode 'direct' is taken" in done.stderr
