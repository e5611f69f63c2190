"""A filtered network (`Egress`) in containers."""

from __future__ import annotations

import anyio
import pytest

import anyspawn
from anyspawn import (
    Cleanup,
    Command,
    ConfigError,
    DockerRun,
    Egress,
    EgressCounts,
    NotStartedError,
    SpawnTimeoutError,
    TransportError,
    spawn,
)
from anyspawn._egress import _attach
from anyspawn.containers import SecurityConfig
from engines import docker, made_by_us
from hosts import Names, serving, talking
from machine import eventually

pytestmark = pytest.mark.anyio


@pytest.fixture
def web():
    with serving() as server:
        yield server


@pytest.fixture
def names():
    return Names()


@pytest.fixture
def network(names):
    return Egress(allow=[], private=["*.test:*"], resolve=names)


def box(network, image="python:3-slim", **options):
    return DockerRun(image, network=network, default_timeout=60, **options)


@pytest.mark.parametrize("security", [None, SecurityConfig()], ids=["dockers own", "strict"])
async def test_python(network, web, security):
    """A program reaches an allowed host through the usual variables, whether it is
    confined or not.
    """
    code = (
        f"from urllib.request import urlopen; print(urlopen('http://web.test:{web.port}/').read())"
    )
    done = await spawn(["python", "-c", code], sandbox=box(network, security=security), check=True)
    assert done.stdout == b"b'web /\\n'\n"
    assert done.egress == EgressCounts(allowed=1)
    assert done.cleanup is Cleanup.NOT_NEEDED
    assert not eventually(made_by_us, 30)


async def test_there_is_no_other_way(network, web, names):
    """Sockets, datagrams and look-ups lead nowhere, there is no gateway and no docker resolver, and
    the proxy refuses what is not allowed.
    """
    code = f"""
import socket
from urllib.request import urlopen
def tried(what, function):
    try:
        print(what, "reached", function())
    except OSError as exc:
        print(what, "refused")
for host in ("127.0.0.1", "172.17.0.1", "192.0.2.1", "169.254.169.254"):
    tried("tcp", lambda: socket.create_connection((host, {web.port}), 2))
for family, host in ((socket.AF_INET, "192.0.2.1"), (socket.AF_INET6, "2001:db8::1")):
    tried("udp", lambda: socket.socket(family, socket.SOCK_DGRAM).sendto(b"x", (host, 53)))
tried("name", lambda: socket.getaddrinfo("secret.evil.example", 80))
tried("proxy", lambda: urlopen("http://secret.evil.example/"))
tried("proxy", lambda: urlopen("http://169.254.169.254/"))
print([name for _, name in socket.if_nameindex() if not name.startswith(("tunl", "sit", "ip6"))])
"""
    done = await spawn(["python", "-c", code], sandbox=box(network), check=True)
    assert b"reached" not in done.stdout, done.stdout
    assert done.stdout.count(b"refused") == 9
    assert done.stdout.endswith(b"['lo']\n")
    assert done.egress == EgressCounts(denied=2)
    assert names.asked == []


async def test_the_images_entrypoint_and_status_stay(network):
    """An Egress changes neither statuses nor the errors of programs that cannot be started."""
    done = await spawn(["sh", "-c", "exit 7"], sandbox=box(network, "busybox"))
    assert done.returncode == 7
    done = await spawn(["no-such-program"], sandbox=box(network, "busybox"))
    assert isinstance(done.error, NotStartedError)


async def test_a_live_process(network, web):
    """A live process can use the network as long as it lives."""
    script = f"while read -r x; do wget -q -O - http://web.test:{web.port}/$x; done"
    async with anyspawn.open_process(
        ["sh", "-c", script], sandbox=box(network, "busybox")
    ) as process:
        for word in (b"one", b"two"):
            await process.stdin.send(word + b"\n")
            assert await process.stdout.receive() == b"web /" + word + b"\n"
    assert process.completed.egress == EgressCounts(allowed=2)
    assert not eventually(made_by_us, 30)


async def test_timeout(network):
    """The timeout ends both containers and the connection."""
    ended = []

    def wait(client):
        while client.recv(1000):
            pass
        ended.append(True)

    with talking(wait) as port:
        argv = ["wget", "-q", "-O", "-", f"http://web.test:{port}/"]
        done = await spawn(argv, sandbox=box(network, "busybox"), timeout=5)
    assert isinstance(done.error, SpawnTimeoutError)
    assert done.cleanup is Cleanup.CONFIRMED
    assert ended == [True]
    assert not made_by_us()


@pytest.mark.parametrize("delay", [0.05, 0.2, 0.4, 0.8])
async def test_cancelled(network, delay):
    """A call that is cancelled at any moment leaves no container (see ``no_container_is_left``)."""
    with anyio.move_on_after(delay) as scope:
        await spawn(["sleep", "60"], sandbox=box(network, "busybox"))
    assert scope.cancelled_caught


async def test_an_image_without_sh(network):
    """The container that holds the network runs sh from the same image. Without sh, nothing is
    started.
    """
    done = await spawn(["/hello"], sandbox=box(network, "distroless"))
    assert isinstance(done.error, TransportError)
    assert done.error.started is False
    assert "sh" in str(done.error)


async def test_a_daemon_elsewhere(network, monkeypatch):
    """If the daemon runs on another machine, the container's network cannot be entered, and nothing
    runs.
    """
    monkeypatch.setattr(_attach, "_argv_of", lambda pid: ["something", "else"])
    done = await spawn(["true"], sandbox=box(network, "busybox"))
    assert isinstance(done.error, TransportError)
    assert done.error.started is False
    assert "on this machine" in str(done.error)


async def test_without_its_holder_a_launch_runs_nothing(network):
    """The pure launch names the network of a container that does not exist, so docker
    refuses it.
    """
    argv = box(network, "busybox").launch(Command(["true"])).argv
    (option,) = [arg for arg in argv if arg.startswith("--network=")]
    with pytest.raises(AssertionError, match="No such container: anyspawn-"):
        docker("run", "--rm", option, "busybox", "true")


def test_residents_are_refused():
    """A resident cannot have an Egress yet; the constructor says so."""
    with pytest.raises(ConfigError, match="resident: "):
        DockerRun("busybox", network=Egress(allow=["pypi.org"]), resident=1)
