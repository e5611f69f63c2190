"""The proxy alone, with real clients and hostile ones."""

from __future__ import annotations

import logging
import socket
import struct
from contextlib import asynccontextmanager, suppress

import anyio
import pytest

from anyspawn import spawn
from anyspawn._egress import _gate, _proxy
from anyspawn._egress._gate import Gate
from anyspawn._model import EgressCounts
from hosts import listening, talking

pytestmark = pytest.mark.anyio


@asynccontextmanager
async def proxied(egress):
    """Serve a proxy on this machine's loopback interface, and return its gate."""
    gate = Gate(egress, "call")
    listener, port = listening()
    async with _proxy.serving(listener, gate):
        gate.port = port
        yield gate


async def curl(gate, *args, proxy="http", stdin=b""):
    argv = ["curl", "-sS", "--noproxy", "", "-x", f"{proxy}://127.0.0.1:{gate.port}", *args]
    return await spawn(argv, stdin=stdin, timeout=60)


async def said(gate, data, *, end=False):
    """Send bytes to the proxy; return everything that it answers until it closes."""
    async with await anyio.connect_tcp("127.0.0.1", gate.port) as client:
        await client.send(data)
        if end:
            await client.send_eof()
        answer = b""
        try:
            while True:
                answer += await client.receive()
        except (anyio.EndOfStream, anyio.BrokenResourceError):
            return answer


class TestHttp:
    async def test_get(self, egress, web):
        """A plain request is forwarded with its path, and with the Host of its URL."""
        async with proxied(egress()) as gate:
            done = await curl(gate, f"http://web.test:{web.port}/a?b=c")
        assert done.check().stdout == b"web /a?b=c\n"
        method, path, headers = web.seen[0]
        assert (method, path, headers["Host"]) == ("GET", "/a?b=c", f"web.test:{web.port}")
        assert gate.counts == EgressCounts(allowed=1)

    async def test_what_is_for_a_proxy_is_not_handed_on(self, egress, web):
        """Hop-by-hop headers and those that Connection names are not forwarded, except for the
        length of the body.
        """
        headers = ["Proxy-Authorization: secret", "X-Hop: a", "TE: trailers", "X-Kept: b"]
        headers += ["Connection: x-hop, content-length", "Upgrade: websocket"]
        args = [item for header in headers for item in ("-H", header)]
        async with proxied(egress()) as gate:
            done = await curl(gate, *args, "-d", "data", f"http://web.test:{web.port}/")
        assert done.check().stdout == b"data"
        seen = {name.lower(): value for name, value in web.seen[0][2].items()}
        assert seen["x-kept"] == "b"
        assert seen["content-length"] == "4"
        assert seen["connection"] == "close"
        assert not {"proxy-authorization", "proxy-connection", "x-hop", "te", "upgrade"} & set(seen)

    @pytest.mark.parametrize(
        "how",
        [
            ["-T", "-", "-H", "Expect:"],
            ["-T", "-", "-H", "Expect: 100-continue"],
            ["--data-binary", "@-", "-H", "Content-Type: a/b"],
        ],
        ids=["chunked", "expect", "length"],
    )
    @pytest.mark.parametrize("path", ["", "chunked"])
    async def test_bodies_arrive_whole(self, egress, web, how, path):
        """300 kB arrive unchanged in both directions, however their length is encoded."""
        data = bytes(range(256)) * (1200 if not path else 40)
        async with proxied(egress()) as gate:
            done = await curl(gate, *how, f"http://web.test:{web.port}/{path}", stdin=data)
        assert done.check().stdout == data

    @pytest.mark.parametrize("args", [["-I"], ["--http1.0"]])
    async def test_head_and_old_clients(self, egress, web, args):
        """HEAD has no body, and an HTTP/1.0 client gets a body that ends with the connection."""
        async with proxied(egress()) as gate:
            done = await curl(gate, *args, f"http://web.test:{web.port}/chunked")
        assert done.check().stdout.startswith(b"HTTP/1.1 200" if args == ["-I"] else b"web /ch")

    async def test_connect(self, egress, secure_web, certificate):
        """TLS goes through a tunnel, end to end."""
        url = f"https://web.test:{secure_web.port}/x"
        async with proxied(egress()) as gate:
            done = await curl(gate, "--cacert", str(certificate / "ca.pem"), url)
        assert done.check().stdout == b"secure /x\n"
        assert gate.counts == EgressCounts(allowed=1)

    async def test_not_allowed(self, egress, web, names):
        """The client learns what was refused and why; the name is not even resolved."""
        async with proxied(egress("pypi.org")) as gate:
            done = await curl(gate, "-w", "%{http_code}", f"http://evil.example:{web.port}/")
        assert b"evil.example" in done.stdout
        assert b"the host is not allowed" in done.stdout
        assert done.stdout.endswith(b"403")
        assert gate.counts == EgressCounts(denied=1)
        assert names.asked == []
        assert web.seen == []

    async def test_a_redirect_is_a_request_like_any_other(self, egress, web):
        """An allowed host can redirect a client, but the client is refused there."""
        to = f"http://127.0.0.1:{web.port}/secret"
        async with proxied(egress()) as gate:
            done = await curl(gate, "-L", f"http://web.test:{web.port}/redirect?{to}")
        assert b"the host is not allowed" in done.stdout
        assert [path for _, path, _ in web.seen] == [f"/redirect?{to}"]
        assert gate.counts == EgressCounts(allowed=1, denied=1)

    async def test_unreachable(self, egress):
        """An allowed host that does not answer counts as failed, not as denied."""
        with socket.create_server(("127.0.0.1", 0)) as closed:
            port = closed.getsockname()[1]
        async with proxied(egress()) as gate:
            done = await curl(gate, "-w", "%{http_code}", f"http://web.test:{port}/")
            unknown = await curl(gate, "-w", "%{http_code}", "http://no.such.test/")
        assert done.stdout.endswith(b"502")
        assert unknown.stdout.endswith(b"502")
        assert gate.counts == EgressCounts(failed=2)

    async def test_a_server_that_speaks_something_else(self, egress):
        """If the server does not speak HTTP, the client gets a 502. If the answer breaks off, so
        does the client's.
        """

        def ssh(client):
            client.recv(1000)
            client.sendall(b"SSH-2.0-x\r\n")

        def cut(client):
            client.recv(1000)
            client.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nabc")

        with talking(ssh) as first, talking(cut) as second:
            async with proxied(egress()) as gate:
                done = await curl(gate, "-w", "%{http_code}", f"http://web.test:{first}/")
                part = await curl(gate, f"http://web.test:{second}/")
        assert done.stdout.endswith(b"502")
        assert (part.returncode, part.stdout) == (18, b"abc")

    @pytest.mark.parametrize(
        "target",
        [
            "http://web.test:PORT@127.0.0.1:PORT/",
            "http://127.0.0.1:PORT#@web.test/",
            "http://127.0.0.1:PORT\\@web.test:PORT/",
            "http://127.0.0.1:PORT/",
            "http://2130706433:PORT/",
            "http://0x7f000001:PORT/",
            "http://0177.0.0.1:PORT/",
            "http://127.1:PORT/",
            "http://0:PORT/",
            "http://[::1]:PORT/",
            "http://[::ffff:127.0.0.1]:PORT/",
            "http://[::ffff:7f00:1]:PORT/",
            "http://[::127.0.0.1]:PORT/",
            "http://[64:ff9b::7f00:1]:PORT/",
            "http://localhost:PORT/",
            "http://localhost.:PORT/",
            "http://127.0.0.1.:PORT/",
            "http://169.254.169.254/latest/meta-data/",
            "http://web.test.evil.example:PORT/",
            "http://evilweb.test.:0/",
            "http://web.test:65536/",
            "http://web.test:/",
            "http://web..test:PORT/",
            "http://web.test%00.evil.example:PORT/",
        ],
    )
    async def test_ways_around_the_rules(self, egress, web, target):
        """No spelling of an address and no trick with a URL reaches a host that is not allowed."""
        target = target.replace("PORT", str(web.port))
        data = f"GET {target} HTTP/1.1\r\nHost: web.test:{web.port}\r\n\r\n".encode()
        async with proxied(egress()) as gate:
            answer = await said(gate, data)
            status = answer.split(b" ")[1]
            assert status in {b"403", b"400"}
            connect = target.removeprefix("http://").partition("/")[0]
            answer = await said(gate, f"CONNECT {connect} HTTP/1.1\r\nHost: a\r\n\r\n".encode())
            assert answer.split(b" ")[1] in {b"403", b"400"}
        assert web.seen == []
        assert gate.counts.allowed == gate.counts.failed == 0
        assert gate.counts.denied == 2

    @pytest.mark.parametrize(
        "data",
        [
            b"CONNECT web.test:PORT HTTP/1.1\r\nHost: evil.example:PORT\r\n\r\n",
            b"GET http://web.test:PORT/ HTTP/1.1\r\nHost: evil.example\r\n\r\n",
            b"GET http://web.test:PORT/ HTTP/1.1\r\nHost: \xff\r\n\r\n",
        ],
    )
    async def test_a_host_header_that_contradicts(self, egress, web, data):
        """If the URL and the Host header name different hosts, neither is reached."""
        async with proxied(egress()) as gate:
            answer = await said(gate, data.replace(b"PORT", str(web.port).encode()))
        assert answer.startswith((b"HTTP/1.1 403 ", b"HTTP/1.1 400 "))
        assert web.seen == []
        assert gate.counts.allowed == 0

    @pytest.mark.parametrize(
        "data",
        [
            b"GET / HTTP/1.1\r\nHost: web.test\r\n\r\n",
            b"GET https://web.test/ HTTP/1.1\r\nHost: web.test\r\n\r\n",
            b"GET file:///etc/passwd HTTP/1.1\r\nHost: a\r\n\r\n",
            b"GET http://web.test/ HTTP/1.1\r\nHost: web.test\r\nHost: evil\r\n\r\n",
            b"GET http://web.test/ HTTP/1.1\r\n\r\n",
            b"POST http://a.test/ HTTP/1.1\r\nHost: a.test\r\nContent-Length: 1,2\r\n\r\n",
            b"CONNECT web.test:443 HTTP/1.1\r\nHost: web.test\r\nContent-Length: 3\r\n\r\nabc",
            b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(100) + b"\r\n\r\n",
            b"\x04\x01\x00\x50\x7f\x00\x00\x01\x00\r\n\r\n",
            b"nonsense\r\n\r\n",
        ],
    )
    async def test_what_is_no_request_to_a_proxy(self, egress, names, data):
        """Anything that is not a proxy request gets a 400, and nothing is resolved."""
        async with proxied(egress()) as gate:
            answer = await said(gate, data)
        assert answer.startswith(b"HTTP/1.1 400 ")
        assert names.asked == []

    async def test_head_of_what_is_not_allowed(self, egress):
        """The answer to a refused HEAD has no body."""
        async with proxied(egress()) as gate:
            answer = await said(gate, b"HEAD http://a.example/ HTTP/1.1\r\nHost: a.example\r\n\r\n")
        assert answer.startswith(b"HTTP/1.1 403 ")
        assert answer.endswith(b"\r\n\r\n")

    @pytest.mark.parametrize("rest", [b"zz\r\n", b"3\r\nabcdef\r\n0\r\n\r\n", b"3\r\nab"])
    async def test_a_body_that_is_not_whole(self, egress, rest):
        """If the body of a request breaks off or is malformed, the connection to the server ends
        too.
        """
        ended = []

        def answer(client):
            while client.recv(1000):
                pass
            ended.append(True)

        with talking(answer) as port:
            async with proxied(egress()) as gate:
                head = f"POST http://a.test:{port}/ HTTP/1.1\r\nHost: a.test\r\n"
                head += "Transfer-Encoding: chunked\r\n\r\n"
                got = await said(gate, head.encode() + rest, end=True)
                with anyio.fail_after(30):
                    while not ended:
                        await anyio.sleep(0.01)
        assert got.startswith(b"HTTP/1.1 400 ")

    async def test_an_answer_before_the_request_is_whole(self, egress):
        """A server may answer and close while the client still sends the body."""

        def answer(client):
            client.recv(1000)
            client.sendall(b"HTTP/1.1 413 No\r\nContent-Length: 2\r\n\r\nno")

        with talking(answer) as port:
            async with proxied(egress()) as gate:
                head = f"POST http://web.test:{port}/ HTTP/1.1\r\nHost: web.test\r\n"
                got = await said(gate, f"{head}Content-Length: 1000000\r\n\r\nabc".encode())
        assert got.startswith(b"HTTP/1.1 413 ")
        assert got.endswith(b"no")


class TestSocks:
    async def test_name(self, egress, web):
        """The proxy resolves a name and connects to it."""
        async with proxied(egress()) as gate:
            done = await curl(gate, f"http://web.test:{web.port}/s", proxy="socks5h")
        assert done.check().stdout == b"web /s\n"
        assert gate.counts == EgressCounts(allowed=1)

    async def test_address(self, egress, web):
        """An address is refused, unless a rule allows the address itself."""
        url = f"http://127.0.0.1:{web.port}/s"
        async with proxied(egress()) as gate:
            assert (await curl(gate, url, proxy="socks5")).returncode == 97
            assert gate.counts == EgressCounts(denied=1)
        async with proxied(egress(f"127.0.0.1:{web.port}")) as gate:
            assert (await curl(gate, url, proxy="socks5")).stdout == b"web /s\n"

    @pytest.mark.parametrize(
        ("request_", "code"),
        [
            (b"\x05\x01\x00\x03\x0cevil.example\x00\x50", 2),
            (b"\x05\x01\x00\x03\x09127.0.0.1\x00\x50", 2),
            (b"\x05\x01\x00\x03\x0a2130706433\x00\x50", 2),
            (b"\x05\x01\x00\x03\x02\xff\xfe\x00\x50", 2),
            (b"\x05\x01\x00\x03\x00\x00\x50", 2),
            (b"\x05\x01\x00\x04" + bytes(15) + b"\x01\x00\x50", 2),
            (b"\x05\x01\x00\x03\x07no.test\x00\x00", 4),
            (b"\x05\x02\x00\x03\x08web.test\x00\x50", 7),
            (b"\x05\x03\x00\x03\x08web.test\x00\x50", 7),
        ],
    )
    async def test_refusals(self, egress, names, request_, code):
        """Each refusal has the protocol's own code. BIND and UDP are not supported."""
        names.answers["no.test"] = []
        async with proxied(egress()) as gate:
            assert await said(gate, b"\x05\x02\x00\x02" + request_) == b"\x05\x00" + bytes(
                [5, code, 0, 1, 0, 0, 0, 0, 0, 0]
            )

    @pytest.mark.parametrize(
        ("data", "answer"),
        [
            (b"\x05\x01\x02", b"\x05\xff"),
            (b"\x05\x01\x00\x04\x01\x00\x03", b"\x05\x00"),
            (b"\x05\x01\x00\x05\x01\x00\x02\x01\x01", b"\x05\x00"),
        ],
    )
    async def test_nonsense(self, egress, data, answer):
        """A client that wants a password or sends nonsense gets only a refusal."""
        async with proxied(egress()) as gate:
            assert await said(gate, data) == answer

    async def test_byte_by_byte(self, egress, web):
        """The handshake may arrive in pieces of any size."""
        name = b"web.test"
        asked = b"\x05\x01\x00\x05\x01\x00\x03" + bytes([len(name)]) + name
        asked += struct.pack(">H", web.port)
        asked += b"GET / HTTP/1.0\r\n\r\n"
        async with (
            proxied(egress()) as gate,
            await anyio.connect_tcp("127.0.0.1", gate.port) as client,
        ):
            for byte in asked:
                await client.send(bytes([byte]))
                await anyio.lowlevel.checkpoint()
            answer = b""
            while b"web /" not in answer:
                answer += await client.receive()


class TestNames:
    async def test_a_name_with_a_private_address(self, egress, web, names):
        """An allowed name that resolves to a private address is refused (DNS rebinding)."""
        names.answers["rebound.example"] = ["127.0.0.1"]
        async with proxied(egress("rebound.example:*")) as gate:
            done = await curl(gate, f"http://rebound.example:{web.port}/")
        assert b"no public address (127.0.0.1)" in done.stdout
        assert gate.counts == EgressCounts(denied=1)
        assert web.seen == []

    async def test_link_local_needs_more_than_a_name(self, egress, names):
        """A rule in `private` does not open link-local addresses, such as a metadata service."""
        names.answers["meta.test"] = ["169.254.169.254"]
        names.answers["azure.test"] = ["168.63.129.16"]
        async with proxied(egress()) as gate:
            for name in ("meta", "azure"):
                assert b"no public address" in (await curl(gate, f"http://{name}.test/")).stdout

    async def test_it_connects_to_the_address_that_it_checked(self, egress, web, names):
        """A name is resolved once for each connection; a later answer of the resolver does not
        change the checked address.
        """
        private = ["192.168.0.9"]
        names.answers["web.test"] = [["127.0.0.1"], private, private]
        async with proxied(egress(f"127.0.0.1:{web.port}", "web.test:*", private=())) as gate:
            done = await curl(gate, f"http://web.test:{web.port}/")
            assert done.check().stdout == b"web /\n"
            assert len(names.asked) == 1
            done = await curl(gate, f"http://web.test:{web.port}/")
        assert b"192.168.0.9" in done.stdout
        assert gate.counts == EgressCounts(allowed=1, denied=1)

    async def test_of_several_addresses_only_those_that_may_be(self, egress, web, names):
        """Forbidden addresses are skipped, and if one does not answer, the next is tried."""
        names.answers["web.test"] = ["10.0.0.1", "127.0.0.2", "127.0.0.1"]
        rules = [f"127.0.0.1:{web.port}", f"127.0.0.2:{web.port}", "web.test:*"]
        async with proxied(egress(*rules, private=())) as gate:
            done = await curl(gate, f"http://web.test:{web.port}/")
        assert done.check().stdout == b"web /\n"

    async def test_the_systems_resolver(self, egress, web):
        """Without a resolve function the system resolves: localhost is the loopback interface."""
        from anyspawn import Egress

        async with proxied(Egress(allow=[], private=["localhost:*"])) as gate:
            done = await curl(gate, f"http://localhost:{web.port}/")
            assert done.check().stdout == b"web /\n"
        async with proxied(Egress(allow=["localhost:*"])) as gate:
            done = await curl(gate, f"http://localhost:{web.port}/")
            assert b"no public address" in done.stdout

    async def test_a_resolver_that_is_wrong(self, egress, names, caplog):
        """A wrong answer of the resolver ends that connection only, and is logged."""
        names.answers["bad.test"] = ["nonsense"]
        async with proxied(egress()) as gate:
            assert (
                await said(gate, b"CONNECT bad.test:443 HTTP/1.1\r\nHost: bad.test\r\n\r\n") == b""
            )
            assert await said(gate, b"GET / HTTP/1.0\r\n\r\n")
        assert "a connection of the proxy failed" in caplog.text


class TestBounds:
    async def test_slow_headers(self, egress, monkeypatch):
        """A connection whose headers do not arrive in time is closed."""
        monkeypatch.setattr(_proxy, "HEADER_TIMEOUT", 0.1)
        async with proxied(egress()) as gate:
            with anyio.fail_after(30):
                for begun in (
                    b"",
                    b"GET http://web.test/ HTTP/1.1\r\nHost:",
                    b"\x05",
                    b"\x05\x01\x00",
                ):
                    async with await anyio.connect_tcp("127.0.0.1", gate.port) as client:
                        if begun:
                            await client.send(begun)
                        with pytest.raises((anyio.EndOfStream, anyio.BrokenResourceError)):
                            while True:
                                assert await client.receive() == b"\x05\x00"

    async def test_large_headers(self, egress):
        """Headers above 16 KiB are refused, and the proxy does not keep more of them."""
        async with proxied(egress()) as gate:
            data = b"GET http://web.test/ HTTP/1.1\r\nX: " + b"a" * 200_000
            assert (await said(gate, data)).startswith(b"HTTP/1.1 431 ")

    async def test_many_connections(self, egress, web, monkeypatch):
        """A connection above the limit waits until another one ends."""
        monkeypatch.setattr(_proxy, "MAX_CONNECTIONS", 2)
        async with proxied(egress()) as gate, anyio.create_task_group() as tasks:
            idle = [await anyio.connect_tcp("127.0.0.1", gate.port) for _ in range(2)]
            done = []

            async def ask():
                done.append(await curl(gate, f"http://web.test:{web.port}/"))

            tasks.start_soon(ask)
            await anyio.wait_all_tasks_blocked()
            assert web.seen == []
            await idle[0].aclose()
            while not done:
                await anyio.sleep(0.01)
            await idle[1].aclose()
        assert done[0].check().stdout == b"web /\n"

    async def test_half_closed(self, egress):
        """A client that has closed its sending side is still answered: each direction ends
        separately.
        """

        def answer(client):
            heard = b""
            while data := client.recv(1000):
                heard += data
            client.sendall(heard[::-1])

        with talking(answer) as port:
            async with proxied(egress()) as gate:
                head = f"CONNECT web.test:{port} HTTP/1.1\r\nHost: web.test\r\n\r\nearly"
                got = await said(gate, head.encode(), end=True)
        assert got.endswith(b"\r\n\r\nylrae")

    async def test_the_end_closes_all(self, egress):
        """Leaving the block closes tunnels at both ends, even if nobody reads there."""
        with socket.create_server(("127.0.0.1", 0)) as server:
            port = server.getsockname()[1]
            async with proxied(egress()) as gate:
                client = socket.create_connection(("127.0.0.1", gate.port))
                client.sendall(
                    f"CONNECT web.test:{port} HTTP/1.1\r\nHost: web.test\r\n\r\n".encode()
                )
                await anyio.to_thread.run_sync(client.recv, 1000)
                taken, _ = server.accept()
                client.setblocking(False)
                for _ in range(200):  # until both directions are full or nearly full
                    for end in (client, taken):
                        end.setblocking(False)
                        with suppress(BlockingIOError):
                            end.send(bytes(100_000))
                    await anyio.lowlevel.checkpoint()
            for end in (client, taken):
                end.settimeout(30)
                with pytest.raises(OSError):  # noqa: PT011  a reset or a broken pipe, by chance
                    while True:
                        end.sendall(bytes(100_000))
                end.close()

    async def test_records_are_bounded(self, egress, caplog, monkeypatch):
        """Decisions are logged up to a limit; all of them are counted."""
        monkeypatch.setattr(_gate, "MAX_RECORDS", 3)
        caplog.set_level(logging.INFO, "anyspawn.egress")
        async with proxied(egress()) as gate:
            for n in range(5):
                await said(gate, b"CONNECT a%d.example:443 HTTP/1.1\r\nHost:\r\n\r\n" % n)
        assert gate.counts == EgressCounts(denied=5)
        assert [record.getMessage() for record in caplog.records] == [
            *(f"id=call denied a{n}.example:443: the host is not allowed" for n in range(3)),
            "id=call further connections are counted, not logged",
        ]

    async def test_what_a_program_says_cannot_forge_a_record(self, egress, caplog):
        """Control and non-ASCII characters are escaped in the log, and long names are cut."""
        async with proxied(egress()) as gate:
            name = "a\n\x1b[31m\u202e".encode() * 20
            await said(
                gate, b"\x05\x01\x00\x05\x01\x00\x03" + bytes([len(name)]) + name + b"\0\x50"
            )
        (record,) = caplog.records
        assert record.getMessage().isascii()
        assert record.getMessage().isprintable()
        assert len(record.getMessage()) < 1000

    async def test_an_exception_of_the_block(self, egress):
        """An exception in the block reaches the caller unchanged."""

        class Own(Exception):
            pass

        with pytest.raises(Own):
            async with proxied(egress()):
                raise Own
