"""The relay between a stream and a port, with each tool that it can use."""

from __future__ import annotations

import os
import shutil
import socket

import anyio
import pytest

import anyspawn
from anyspawn import NotStartedError
from anyspawn._box.connect import Relayed, relay

pytestmark = pytest.mark.anyio

BUSYBOX = shutil.which("busybox")
TOOLS = {
    "python3": "/usr/bin/python3",
    "perl": "/usr/bin/perl",
    "nc": BUSYBOX or "/no/busybox",
    "nothing": None,
}
COMMON = ("sh", "cat")


@pytest.fixture(params=TOOLS)
async def connect(request, tmp_path):
    """Connect to a port through a relay that finds only one of the tools."""
    tool, program = request.param, TOOLS[request.param]
    if program and not os.path.exists(program):
        pytest.skip(f"there is no {program}")
    for name in COMMON:
        (tmp_path / name).symlink_to(shutil.which(name))
    if program:
        (tmp_path / tool).symlink_to(program)
    opened = []

    async def connect(port):
        process = await anyspawn.start_process(relay(port), env={"PATH": str(tmp_path)})
        opened.append(process)
        stream = Relayed(process, port, set())
        await stream.opened()
        return stream

    connect.tool = tool
    yield connect
    for process in opened:
        await process.aclose()


@pytest.mark.parametrize("family", [socket.AF_INET, socket.AF_INET6], ids=["v4", "v6"])
async def test_both_ways(connect, family):
    """Any bytes pass in both directions; the end of one direction does not end the other."""
    host = "::1" if family == socket.AF_INET6 else "127.0.0.1"
    data = bytes(range(256)) * 4096
    got = []

    async def serve(peer):
        async with peer:
            async for chunk in peer:
                got.append(chunk)
                await peer.send(chunk)
            await peer.send(b"end")

    async with (
        await anyio.create_tcp_listener(local_host=host, local_port=0, family=family) as server,
        anyio.create_task_group() as tasks,
    ):
        port = server.extra(anyio.abc.SocketAttribute.local_port)
        tasks.start_soon(server.serve, serve)
        if connect.tool == "nothing":
            with pytest.raises(NotStartedError, match="python3, perl or BusyBox"):
                await connect(port)
        else:
            async with await connect(port) as stream:

                async def send():
                    await stream.send(data)
                    await stream.send_eof()

                tasks.start_soon(send)
                answer = b"".join([chunk async for chunk in stream])
                assert (answer, b"".join(got)) == (data + b"end", data)
        tasks.cancel_scope.cancel()


async def test_nobody_listens(connect):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound, but not listening
        port = taken.getsockname()[1]
        error = NotStartedError if connect.tool == "nothing" else ConnectionRefusedError
        with pytest.raises(error):
            await connect(port)
