"""A filtered network (`Egress`) in `Bubblewrap`, with ordinary programs and hostile ones."""

from __future__ import annotations

import http.server
import logging
import os
import subprocess
import sys
import zipfile
from functools import partial

import anyio
import pytest

import anyspawn
from anyspawn import (
    Bubblewrap,
    Cleanup,
    ConfigError,
    Egress,
    EgressCounts,
    NotStartedError,
    SpawnTimeoutError,
    TransportError,
    spawn,
)
from anyspawn._egress import _attach
from hosts import serving, talking
from machine import bubblewrap_works

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.skipif(
        not bubblewrap_works(), reason="needs bubblewrap, and permission to make user namespaces"
    ),
]


@pytest.fixture
def run(egress):
    """Run a program in a sandbox that can reach names below ``test``, or a given network."""

    async def run(*argv, network=None, cwd="/", check=False, **options):
        bound = {"readonly": [] if cwd == "/" else [cwd], "bind_program": True}
        network = network or egress()
        sandbox = Bubblewrap(network=network, default_timeout=60, **bound | options)
        return await spawn(argv, sandbox=sandbox, cwd=cwd, check=check)

    return run


def python(code):
    return [sys.executable, "-c", code]


class TestPrograms:
    """Programs reach an allowed host through the usual variables."""

    async def test_curl(self, run, web):
        done = await run("curl", "-sS", f"http://web.test:{web.port}/a", check=True)
        assert done.stdout == b"web /a\n"
        assert done.egress == EgressCounts(allowed=1)

    async def test_curl_over_tls(self, run, secure_web, certificate):
        """TLS is end to end: the certificate is the host's own, for the requested name."""
        argv = ["curl", "-sS", "--cacert", "ca.pem", f"https://web.test:{secure_web.port}/a"]
        done = await run(*argv, cwd=str(certificate), check=True)
        assert done.stdout == b"secure /a\n"

    async def test_curl_by_socks(self, run, web):
        argv = ["curl", "-sS", "-x", "socks5h://127.0.0.1:3128", f"http://web.test:{web.port}/a"]
        assert (await run(*argv, check=True)).stdout == b"web /a\n"

    @pytest.mark.parametrize("library", ["urllib", "requests", "httpx"])
    async def test_python(self, run, secure_web, certificate, library):
        """urllib, requests and httpx each read the variables in their own way."""
        url = f"https://web.test:{secure_web.port}/p"
        code = {
            "urllib": f"from urllib.request import urlopen\nprint(urlopen({url!r}).read())",
            "requests": f"import requests\nprint(requests.get({url!r}, verify='ca.pem').content)",
            "httpx": "import httpx, ssl\ntls = ssl.create_default_context(cafile='ca.pem')\n"
            f"print(httpx.get({url!r}, verify=tls).content)",
        }[library]
        argv = ["env", "SSL_CERT_FILE=ca.pem", *python(code)]
        done = await run(*argv, cwd=str(certificate), check=True)
        assert done.stdout == b"b'secure /p\\n'\n"

    async def test_pip(self, run, certificate, tmp_path):
        """pip installs over TLS from an allowed index."""
        with zipfile.ZipFile(tmp_path / "small-1-py3-none-any.whl", "w") as wheel:
            wheel.writestr("small.py", "said = 'installed'\n")
            wheel.writestr(
                "small-1.dist-info/METADATA", "Metadata-Version: 2.1\nName: small\nVersion: 1\n"
            )
            wheel.writestr("small-1.dist-info/WHEEL", "Wheel-Version: 1.0\nTag: py3-none-any\n")
            wheel.writestr("small-1.dist-info/RECORD", "")
        (tmp_path / "simple" / "small").mkdir(parents=True)
        link = '<a href="/small-1-py3-none-any.whl">small-1-py3-none-any.whl</a>'
        (tmp_path / "simple" / "small" / "index.html").write_text(link)
        with serving(handler=files(tmp_path), tls=certificate / "both.pem") as index:
            install = f"-m pip install -q --target /tmp/x --cert ca.pem -i https://web.test:{index.port}/simple small"
            script = f"{sys.executable} {install} && PYTHONPATH=/tmp/x {sys.executable} -c 'import small; print(small.said)'"
            done = await run("sh", "-c", script, cwd=str(certificate), check=True)
        assert done.stdout == b"installed\n"
        assert done.egress.allowed >= 1

    async def test_git(self, run, certificate, tmp_path):
        """git clones over https."""
        repository = tmp_path / "repository"
        identity = ["-c", "user.name=a", "-c", "user.email=a@test"]
        for argv in (
            ["init", "-q", "."],
            [*identity, "commit", "-q", "--allow-empty", "-m", "first"],
            ["update-server-info"],
        ):
            repository.mkdir(exist_ok=True)
            subprocess.run(["git", *argv], cwd=repository, check=True)
        with serving(handler=files(repository), tls=certificate / "both.pem") as server:
            clone = (
                f"git -c http.sslCAInfo=ca.pem clone -q https://web.test:{server.port}/.git /tmp/x"
            )
            script = f"{clone} && git -C /tmp/x log --format=%s"
            done = await run("sh", "-c", script, cwd=str(certificate), check=True)
        assert done.stdout == b"first\n"

    async def test_node(self, run, web):
        """node uses its own http client, because its fetch reads the variables only from version 24
        on.
        """
        code = """
        const {hostname, port} = new URL(process.env.HTTP_PROXY);
        const path = process.argv[1];
        require('http').get({hostname, port, path, headers: {host: new URL(path).host}},
            answer => answer.pipe(process.stdout));
        """
        done = await run("node", "-e", code, f"http://web.test:{web.port}/n", check=True)
        assert done.stdout == b"web /n\n"

    async def test_a_live_process(self, egress, web):
        """A live process can use the network as long as it lives."""
        code = f"""
from urllib.request import urlopen
for line in iter(input, ""):
    print(urlopen("http://web.test:{web.port}/" + line).read().decode(), end="", flush=True)
"""
        sandbox = Bubblewrap(network=egress(), bind_program=True, default_timeout=60)
        async with anyspawn.open_process(python(code), sandbox=sandbox, cwd="/") as process:
            for word in (b"one", b"two"):
                await process.stdin.send(word + b"\n")
                assert await process.stdout.receive() == b"web /" + word + b"\n"
        assert process.completed.egress == EgressCounts(allowed=2)

    async def test_a_live_process_that_ends_by_itself(self, egress, web):
        """A live program that exits by itself still reports its egress counts."""
        argv = ["curl", "-sS", f"http://web.test:{web.port}/a"]
        async with anyspawn.open_process(
            argv, sandbox=Bubblewrap(network=egress(), default_timeout=60), cwd="/"
        ) as process:
            assert await process.wait() == 0
        assert process.completed.egress == EgressCounts(allowed=1)

    async def test_its_own_loopback(self, run):
        """A program reaches servers on its own loopback interface without the proxy."""
        code = """
import http.server, threading, urllib.request
server = http.server.HTTPServer(("127.0.0.1", 0), http.server.SimpleHTTPRequestHandler)
threading.Thread(target=server.handle_request).start()
print(urllib.request.urlopen(f"http://localhost:{server.server_port}/").status)
"""
        done = await run(*python(code), check=True)
        assert done.stdout == b"200\n"
        assert done.egress == EgressCounts()

    async def test_loopback_of_the_host_by_name(self, web):
        """If localhost is allowed by name, it is the host's, through the proxy."""
        network = Egress(allow=[], private=[f"localhost:{web.port}"])
        done = await spawn(
            ["curl", "-sS", f"http://localhost:{web.port}/"],
            sandbox=Bubblewrap(network=network),
            cwd="/",
        )
        assert done.check().stdout == b"web /\n"

    async def test_as_an_ordinary_user(self, unprivileged, web):
        """The network works without privileges."""
        if os.getuid() != 0:
            pytest.skip("needs root, to be somebody else")
        code = """
import anyio, sys
from anyspawn import Bubblewrap, Egress, spawn
async def main():
    network = Egress(allow=[], private=["localhost:*"])
    done = await spawn(["curl", "-sS", sys.argv[1]], sandbox=Bubblewrap(network=network), cwd="/")
    print(done.check().stdout, done.egress.allowed)
anyio.run(main)
"""
        done = unprivileged.run(code, f"http://localhost:{web.port}/")
        assert done.stdout == "b'web /\\n' 1\n"

    async def test_started_as_another_user(self, run, web):
        """The network works if root starts the sandbox as another user."""
        if os.getuid() != 0:
            pytest.skip("needs root, to be somebody else")
        script = f"id -u; curl -sS http://web.test:{web.port}/"
        done = await run("sh", "-c", script, user="nobody", bind_program=False, check=True)
        assert done.stdout == b"65534\nweb /\n"

    @pytest.mark.parametrize("pid", ["1", "self"], ids=["another's", "our own"])
    async def test_a_network_that_is_not_a_sandboxs(self, unprivileged, pid):
        """anyspawn enters neither another user's network nor its own process's."""
        if os.getuid() != 0:
            pytest.skip("needs root, to be somebody else")
        code = """
import anyio, sys
from anyspawn import TransportError
from anyspawn._egress._attach import listener_in
try:
    anyio.run(listener_in, sys.argv[1])
except TransportError as exc:
    print(exc)
"""
        done = unprivileged.run(code, pid)
        assert "could not be entered" in done.stdout
        why = "shares the network" if pid == "self" else "Permission denied"
        assert why in done.stdout

    async def test_a_network_that_is_shared(self, run):
        """If extra_args share the host's network after all, nothing is started."""
        done = await run("echo", "ran", extra_args=["--share-net"])
        assert isinstance(done.error, TransportError)
        assert "shares the network" in str(done.error)
        assert done.stdout == b""


class TestAttacks:
    """A hostile program cannot get around the proxy."""

    @pytest.mark.parametrize("family", ["AF_INET", "AF_INET6"])
    @pytest.mark.parametrize("kind", ["SOCK_STREAM", "SOCK_DGRAM"])
    async def test_sockets(self, run, web, family, kind):
        """Without the proxy no socket reaches the host's loopback interface or beyond."""
        code = f"""
import socket
for host in {{"AF_INET": ["127.0.0.1", "192.0.2.1"], "AF_INET6": ["::1", "2001:db8::1"]}}["{family}"]:
    try:
        with socket.socket(socket.{family}, socket.{kind}) as s:
            s.connect((host, {web.port}))
            s.send(b"x")
            s.settimeout(1)
            print(s.recv(1))
    except OSError as exc:
        print("refused")
"""
        done = await run(*python(code), check=True)
        assert done.stdout == b"refused\n" * 2
        assert done.egress == EgressCounts()
        assert web.seen == []

    async def test_interfaces_and_routes(self, run):
        """There is a loopback interface, and no route."""
        code = (
            "import socket; print(socket.if_nameindex(), len(open('/proc/net/route').readlines()))"
        )
        assert (await run(*python(code), check=True)).stdout == b"[(1, 'lo')] 1\n"

    async def test_names_are_not_looked_up_inside(self, run, names):
        """Inside, no name is resolved; outside, only allowed names are. So DNS cannot carry data
        out.
        """
        code = """
import socket
try:
    print(socket.getaddrinfo("secret.evil.example", 80))
except OSError:
    print("none")
"""
        done = await run(*python(code), check=True)
        assert done.stdout == b"none\n"
        await run("curl", "-sS", "http://secret.evil.example/")
        assert names.asked == []

    async def test_descriptors(self, run):
        """The program does not inherit a descriptor of the proxy's connection."""
        done = await run("sh", "-c", "ls /proc/self/fd", check=True)
        assert done.stdout.split() == [b"0", b"1", b"2", b"3"]

    async def test_the_port_is_there_from_the_first_moment(self, run, web):
        """The proxy's port is ready before the program starts."""
        code = (
            "import socket; socket.create_connection(('127.0.0.1', 3128)).close(); print('there')"
        )
        for _ in range(5):
            assert (await run(*python(code), check=True)).stdout == b"there\n"

    async def test_it_cannot_take_the_ports_place(self, run):
        """The proxy's port is taken, so nothing inside can impersonate the proxy."""
        code = """
import socket
for option in (socket.SO_REUSEADDR, socket.SO_REUSEPORT):
    with socket.socket() as s:
        s.setsockopt(socket.SOL_SOCKET, option, 1)
        try:
            s.bind(("127.0.0.1", 3128)); s.listen()
        except OSError:
            print("taken")
"""
        assert (await run(*python(code), check=True)).stdout == b"taken\n" * 2

    async def test_two_calls_do_not_share(self, egress, web):
        """Each call has its own proxy and its own counts."""
        done = []

        async def call(n):
            script = f"for i in $(seq {n}); do curl -sS http://web.test:{web.port}/; done"
            sandbox = Bubblewrap(network=egress(), default_timeout=60)
            done.append(
                (n, await spawn(["sh", "-c", script], sandbox=sandbox, cwd="/", check=True))
            )

        async with anyio.create_task_group() as tasks:
            for n in (1, 2, 3):
                tasks.start_soon(call, n)
        assert {n: d.egress.allowed for n, d in done} == {1: 1, 2: 2, 3: 3}

    async def test_decisions_are_in_the_log(self, run, web, caplog):
        """Each decision is logged with the call's id, the requested host, and the reason."""
        caplog.set_level(logging.INFO, "anyspawn.egress")
        script = f"curl -sS http://web.test:{web.port}/; curl -sS https://evil.example/"
        done = await run("sh", "-c", script)
        assert done.egress == EgressCounts(allowed=1, denied=1)
        said = [record.getMessage().partition(" ")[2] for record in caplog.records]
        assert said == [
            f"allowed web.test:{web.port}: 127.0.0.1",
            "denied evil.example:443: the host is not allowed",
        ]


class TestEnds:
    """However a call ends, its connections end too."""

    async def test_timeout(self, egress):
        """A call that waits for a host times out, and the host sees the connection end."""
        ended = []

        def wait(client):
            while client.recv(1000):
                pass
            ended.append(True)

        with talking(wait) as port:
            sandbox = Bubblewrap(network=egress())
            argv = ["curl", "-sS", f"http://web.test:{port}/"]
            done = await spawn(argv, sandbox=sandbox, cwd="/", timeout=1)
        assert isinstance(done.error, SpawnTimeoutError)
        assert done.cleanup is Cleanup.CONFIRMED
        assert done.egress == EgressCounts(allowed=1)
        assert ended == [True]

    @pytest.mark.parametrize("delay", [0, 0.003, 0.01, 0.03, 0.1])
    async def test_cancelled(self, egress, delay):
        """A call that is cancelled at any moment leaves nothing (see ``nothing_is_left``)."""
        with anyio.move_on_after(delay) as scope:
            await spawn(["sleep", "60"], sandbox=Bubblewrap(network=egress()), cwd="/")
        assert scope.cancelled_caught

    async def test_a_way_that_cannot_be_made(self, egress, monkeypatch):
        """If the sandbox's network cannot be entered, nothing is started, and the error
        says why.
        """
        monkeypatch.setattr(_attach, "_ENTER", ["sh", "-c", "echo no permission >&2; exit 1"])
        done = await spawn(["echo", "ran"], sandbox=Bubblewrap(network=egress()), cwd="/")
        assert isinstance(done.error, TransportError)
        assert done.error.started is False
        assert "no permission" in str(done.error)
        assert done.stdout == b""
        with pytest.raises(TransportError, match="no permission"):
            async with anyspawn.open_process(
                ["echo", "ran"], sandbox=Bubblewrap(network=egress()), cwd="/"
            ):
                pass

    async def test_bwraps_own_failures(self, egress):
        """With an Egress, bwrap's own failures have the same errors as without."""
        sandbox = Bubblewrap(network=egress(), readonly=["/no/such/folder"])
        done = await spawn(["true"], sandbox=sandbox, cwd="/")
        assert isinstance(done.error, NotStartedError)
        assert "/no/such/folder" in str(done.error)
        done = await spawn(["no-such-program"], sandbox=Bubblewrap(network=egress()), cwd="/")
        assert isinstance(done.error, NotStartedError)

    async def test_an_exception_in_an_open_process(self, egress):
        """An exception in the block of a live process reaches the caller unchanged."""

        class Own(Exception):
            pass

        with pytest.raises(Own):
            async with anyspawn.open_process(
                ["cat"], sandbox=Bubblewrap(network=egress()), cwd="/"
            ):
                raise Own


def test_residents_are_refused():
    """A resident cannot have an Egress yet; the constructor says so."""
    with pytest.raises(ConfigError, match="resident: "):
        Bubblewrap(network=Egress(allow=["pypi.org"]), resident=1)


def files(folder):
    class Files(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *args):
            pass

    return partial(Files, directory=str(folder))
