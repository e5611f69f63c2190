"""Network hosts for tests on the loopback interface, with names."""

from __future__ import annotations

import http.server
import socket
import socketserver
import ssl
import threading
from contextlib import contextmanager

import anyio


class Handler(http.server.BaseHTTPRequestHandler):
    """Records the request and sends a body back."""

    protocol_version = "HTTP/1.1"

    def log_message(self, *args):
        pass

    def do_GET(self):
        self.answer()

    do_HEAD = do_PUT = do_POST = do_GET  # noqa: N815  the standard library's names

    def answer(self):
        self.server.seen.append((self.command, self.path, dict(self.headers.items())))
        body = self.body() or f"{self.server.name} {self.path}\n".encode()
        if self.path.startswith("/redirect?"):
            self.send_response(302)
            self.send_header("Location", self.path.partition("?")[2])
            body = b""
        else:
            self.send_response(200)
        if self.path == "/chunked" and self.request_version == "HTTP/1.1":
            self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()
            self.wfile.write(b"".join(b"1\r\n%c\r\n" % byte for byte in body) + b"0\r\n\r\n")
            return
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def body(self):
        if self.headers.get("Transfer-Encoding") != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length", 0)))
        found = b""
        while size := int(self.rfile.readline(), 16):
            found += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return found


class Server(socketserver.ThreadingMixIn, http.server.HTTPServer):
    daemon_threads = False
    block_on_close = True

    def handle_error(self, request, client_address):
        pass  # clients may disconnect at any time


@contextmanager
def serving(name="web", handler=Handler, tls=None):
    """Serve on 127.0.0.1; return the server with its ``port`` and the requests that it has
    ``seen``.
    """
    with Server(("127.0.0.1", 0), handler) as server:
        server.name, server.seen, server.port = name, [], server.server_port
        if tls is not None:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(tls)
            server.socket = context.wrap_socket(server.socket, server_side=True)
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()


class Names:
    """A resolver: names below ``test`` are this machine unless set otherwise."""

    def __init__(self):
        self.asked = []
        self.answers = {}

    async def __call__(self, name, port):
        self.asked.append((name, port))
        await anyio.lowlevel.checkpoint()
        if name in self.answers:
            answer = self.answers[name]
            return answer.pop(0) if answer and isinstance(answer[0], list) else answer
        if not name.endswith(".test"):
            raise OSError(f"no such name: {name}")
        return ["127.0.0.1"]


def listening():
    listener = socket.create_server(("127.0.0.1", 0))
    return listener, listener.getsockname()[1]


@contextmanager
def talking(talk):
    """Serve connections with a function of the socket; return the port."""

    class Talk(socketserver.BaseRequestHandler):
        def handle(self):
            talk(self.request)

    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Talk) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        try:
            yield server.server_address[1]
        finally:
            server.shutdown()
            thread.join()
