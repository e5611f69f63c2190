"""Proxies in docker's configuration do not reach our containers; a command has only the variables
that it was given.
"""

from __future__ import annotations

import json
import os

import pytest

from anyspawn import DockerRun, TransportError, spawn
from anyspawn.containers import ContainerManager, ContainerSpec, running

pytestmark = pytest.mark.anyio

SECRET = "http://user:PASSWORD@proxy.example:3128"
OURS = "http://filter.internal:3128"
NAMES = ("HTTP_PROXY", "http_proxy", "https_proxy", "NO_PROXY", "ALL_PROXY")


@pytest.fixture
def proxies(tmp_path, monkeypatch):
    """A configuration with proxies, and with a context that must stay in effect."""
    folder = tmp_path / "docker"
    folder.mkdir()
    proxies = dict.fromkeys(("httpProxy", "httpsProxy", "noProxy", "allProxy"), SECRET)
    host = os.environ.get("DOCKER_HOST", "unix:///var/run/docker.sock")
    config = {"proxies": {"default": proxies}, "currentContext": "here", "auths": {"x": {}}}
    (folder / "config.json").write_text(json.dumps(config))
    monkeypatch.setenv("DOCKER_CONFIG", str(folder))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv("DOCKER_HOST", raising=False)
    meta = folder / "contexts" / "meta" / "x"
    meta.mkdir(parents=True)
    endpoint = {"Name": "here", "Metadata": {}, "Endpoints": {"docker": {"Host": host}}}
    (meta / "meta.json").write_text(json.dumps(endpoint))
    # docker looks a context up by the digest of its name
    import hashlib

    meta.rename(meta.parent / hashlib.sha256(b"here").hexdigest())
    return tmp_path


SHOW = ["sh", "-c", "env | grep -i _proxy= | sort; true"]


@pytest.mark.parametrize("resident", [0, 1])
async def test_docker_run(proxies, resident):
    """The command sees the proxies that it was given, and no others."""
    async with DockerRun("busybox", resident=resident, default_timeout=60) as sandbox:
        done = await spawn(SHOW, sandbox=sandbox, check=True)
        assert done.stdout == b""
        done = await spawn(SHOW, sandbox=sandbox, env=dict.fromkeys(NAMES, OURS), check=True)
    assert set(done.text.splitlines()) == {f"{name}={OURS}" for name in NAMES}
    kept = [path.read_text() for path in proxies.glob("cache/anyspawn/*/config.json")]
    assert kept == ['{"currentContext": "here"}']  # without credentials of registries
    await spawn(SHOW, sandbox=sandbox, check=True)
    await sandbox.aclose()
    assert len(list(proxies.glob("cache/anyspawn/*"))) == 1


async def test_containers(proxies):
    """The same holds for a container made by a manager."""
    async with running(ContainerSpec(image="busybox")) as box:
        assert (await spawn(SHOW, sandbox=box, check=True)).stdout == b""
    spec = ContainerSpec(image="busybox", cmd=SHOW, env={"HTTP_PROXY": OURS}, remove_on_exit=True)
    found = []
    manager = ContainerManager()
    await manager.run(await manager.create(spec), on_output=lambda *chunk: found.append(chunk))
    assert found == [("stdout", f"HTTP_PROXY={OURS}\n".encode())]


async def test_there_is_no_place_for_another_configuration(proxies, monkeypatch):
    """If the configuration without proxies cannot be written, nothing is started."""
    blocked = proxies / "file"
    blocked.write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(blocked))
    monkeypatch.setattr("tempfile.tempdir", str(blocked))
    done = await spawn(["true"], sandbox=DockerRun("busybox"), timeout=60)
    assert isinstance(done.error, TransportError), done
    assert done.error.started is False
    assert "make" in str(done.error)
