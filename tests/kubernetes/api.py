"""An API server on loopback that runs `exec` requests on this host, for faults that a real server
does not produce on demand.
"""

from __future__ import annotations

import json
import subprocess
import threading
from contextlib import suppress
from urllib.parse import parse_qs, urlsplit

from websockets.datastructures import Headers
from websockets.exceptions import ConnectionClosed
from websockets.http11 import Response
from websockets.sync.server import serve

_PODS = {"name": "pods", "singularName": "pod", "namespaced": True, "kind": "Pod", "verbs": ["get"]}
_DISCOVERY = {
    "/api": {"kind": "APIVersions", "versions": ["v1"]},
    "/apis": {"kind": "APIGroupList", "apiVersion": "v1", "groups": []},
    "/api/v1": {"kind": "APIResourceList", "groupVersion": "v1", "resources": [_PODS]},
}
STDIN, STDOUT, STDERR, STATUS, CLOSE = 0, 1, 2, 3, 255


class Api:
    """Answers kubectl's GET of a pod, and its exec over a WebSocket (v5.channel.k8s.io).

    Args:
        fault: The fault, if any: ``hang``, ``drop``, ``drop at once``, ``no end``,
            ``cut``, ``429``, ``503``, ``429 exec``.
    """

    def __init__(self, fault=""):
        self.fault = fault
        self.requests = []
        self.processes = []
        self._server = serve(
            self._exec,
            "127.0.0.1",
            0,
            process_request=self._request,
            subprotocols=["v5.channel.k8s.io"],
            max_size=None,
        )
        self.port = self._server.socket.getsockname()[1]
        self._thread = threading.Thread(target=self._server.serve_forever)
        self._thread.start()
        self._over = threading.Event()
        self._execs = []

    def kubeconfig(self, folder):
        """Return the path of a kubeconfig for this server."""
        config = {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "it", "cluster": {"server": f"http://127.0.0.1:{self.port}"}}],
            "users": [{"name": "me", "user": {"token": "t"}}],
            "contexts": [{"name": "it", "context": {"cluster": "it", "user": "me"}}],
            "current-context": "it",
        }
        (folder / "kubeconfig").write_text(json.dumps(config))
        return str(folder / "kubeconfig")

    def close(self):
        self._over.set()
        for process in self.processes:
            process.kill()
            process.wait()
        self._server.shutdown()
        self._thread.join()
        for thread in self._execs:  # they read the streams that are closed next
            thread.join(10)
        for process in self.processes:
            for stream in (process.stdin, process.stdout, process.stderr):
                stream.close()

    def _request(self, connection, request):
        self.requests.append(request.path)
        path = urlsplit(request.path).path
        if path.endswith("/exec"):
            if self.fault == "hang":
                self._over.wait(60)
            if self.fault == "429 exec":
                return _answer(429, _status(429, "TooManyRequests", "too many requests"))
            return None
        if self.fault in {"429", "503"} and path not in _DISCOVERY:
            reason = {"429": "TooManyRequests", "503": "ServiceUnavailable"}[self.fault]
            return _answer(int(self.fault), _status(int(self.fault), reason, "not now"))
        if path in _DISCOVERY:
            return _answer(200, _DISCOVERY[path])
        name = path.rpartition("/")[2]
        pod = {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": name, "namespace": "default"},
            "spec": {"containers": [{"name": "main"}]},
            "status": {
                "phase": "Running",
                "containerStatuses": [{"name": "main", "state": {"running": {}}}],
            },
        }
        return _answer(200, pod)

    def _exec(self, socket):
        self._execs.append(threading.current_thread())
        argv = parse_qs(urlsplit(socket.request.path).query)["command"]
        if self.fault == "drop at once":
            socket.socket.close()
            return
        pipe = subprocess.PIPE
        process = subprocess.Popen(argv, stdin=pipe, stdout=pipe, stderr=pipe)
        self.processes.append(process)
        channels = ((STDOUT, process.stdout), (STDERR, process.stderr))
        threads = [
            threading.Thread(target=self._pass_on, args=(socket, *channel)) for channel in channels
        ]
        threads.append(threading.Thread(target=self._take, args=(socket, process)))
        for thread in threads:
            thread.start()
        for thread in threads[:2]:
            thread.join()
        code = process.wait()
        if self.fault != "no end":
            ended = {"status": "Success"}
            if code:
                causes = [{"reason": "ExitCode", "message": str(code)}]
                ended = {
                    "status": "Failure",
                    "reason": "NonZeroExitCode",
                    "details": {"causes": causes},
                }
                ended["message"] = f"command terminated with non-zero exit code: {code}"
            _send(socket, STATUS, json.dumps({"metadata": {}, **ended}).encode())
        socket.close()
        threads[2].join()

    def _pass_on(self, socket, channel, stream):
        while data := stream.read1(65536):
            if channel == STDOUT and self.fault in {"drop", "cut"} and b"half" in data:
                data = data[: data.index(b"half")]
                if self.fault == "drop":
                    _send(socket, channel, data)
                    socket.socket.close()
                    return
                _send(socket, channel, data)
                while stream.read1(65536):
                    pass
                return
            if self.fault == "no end" and channel == STDERR:
                data = data.partition(b" exit ")[0]
            _send(socket, channel, data)

    def _take(self, socket, process):
        try:
            for message in socket:
                if message[0] == STDIN:
                    process.stdin.write(message[1:])
                    process.stdin.flush()
                elif message[0] == CLOSE:
                    process.stdin.close()
        except (ConnectionClosed, OSError, ValueError):
            return
        finally:
            with suppress(OSError):
                process.stdin.close()


def _send(socket, channel, data):
    with suppress(ConnectionClosed, OSError):
        socket.send(bytes([channel]) + data)


def _status(code, reason, message):
    return {
        "kind": "Status",
        "apiVersion": "v1",
        "status": "Failure",
        "code": code,
        "reason": reason,
        "message": message,
    }


def _answer(code, body):
    data = json.dumps(body).encode()
    headers = Headers(
        {
            "Content-Type": "application/json",
            "Content-Length": str(len(data)),
            "Connection": "close",
        }
    )
    return Response(code, "", headers, data)
