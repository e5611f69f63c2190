"""Checks of Python sessions and ports in boxes, shared by the tests of each mode."""

from __future__ import annotations

import os

import anyio
import pytest

IGNORES = "import time\nwhile True:\n    try: time.sleep(987)\n    except BaseException: pass"


async def python(box, program="python3"):
    """State survives from run to run. Code that hangs is interrupted or killed, and the result says
    which.
    """
    async with box.python(program) as session:
        assert session.version.startswith("3.")
        result = await session.run("import time\nx = [1, (2,)]\ndef f(): return x\nprint('out')")
        assert (result.ok, result.value, result.text) == (True, None, "out\n")
        result = await session.run("f()")
        assert (result.value, result.data, result.text) == ("[1, (2,)]", [1, [2]], "")
        result = await session.run("import os; os.write(2, b'err'); 1 / 0")
        assert (result.error.type, result.stderr_text) == ("ZeroDivisionError", "err")
        assert "1 / 0" in result.error.traceback
        for hangs in ("time.sleep(987)", "os.system('sleep 987')"):
            result = await session.run(hangs, timeout=1, grace=60)
            assert (result.ok, result.stopped, result.state_lost) == (False, "timeout", False)
        assert (await session.run("x")).data == [1, [2]]
        result = await session.run(IGNORES, timeout=0.5, grace=0.5)
        assert (result.stopped, result.state_lost, result.error.type) == ("timeout", True, "Killed")
        assert "timed out after 0.5 s" in result.error.message
        result = await session.run("import os; os._exit(7)")
        assert (result.state_lost, result.error.type) == (True, "Exited")
        assert (await session.run("x")).error.type == "NameError"


SERVER = r"""
import os, socket, struct, threading
server = socket.create_server(("127.0.0.1", 0))
os.write(1, b"%d\n" % server.getsockname()[1])

def echo(peer):
    first = peer.recv(1)
    if first == b"R":  # reset
        peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        return peer.close()
    if first == b"F":  # the end first, then what is yet to come
        peer.shutdown(socket.SHUT_WR)
        while data := peer.recv(65536):
            os.write(1, data)
        return peer.close()
    while data := peer.recv(65536):
        peer.sendall(data)
    peer.sendall(b"end")
    peer.close()

while True:
    threading.Thread(target=echo, args=server.accept()[:1]).start()
"""


async def all_of(stream):
    return b"".join([data async for data in stream])


async def connected(box, python, size):
    """A stream to a port inside carries any amount of data both ways, with a half-close on either
    side. Errors are reported, and a closed or cancelled stream leaves no process.
    """
    async with box.open_process([python, "-c", SERVER]) as server:
        port = int(await server.stdout.receive())
        async with await box.connect(port) as stream:
            with anyio.move_on_after(0.01) as scope:
                await stream.receive()
            assert scope.cancelled_caught
            await stream.send(b"Ehello")
            assert await stream.receive(2) == b"he"
            assert await stream.receive() == b"llo"
            await stream.send_eof()
            assert await all_of(stream) == b"end"
            with pytest.raises(anyio.EndOfStream):
                await stream.receive()
        with pytest.raises(anyio.ClosedResourceError):
            await stream.receive()
        with pytest.raises(anyio.ClosedResourceError):
            await stream.send(b"x")
        data = os.urandom(size)
        async with await box.connect(port) as stream, anyio.create_task_group() as tasks:

            async def send():
                await stream.send(b"E" + data)
                await stream.send_eof()

            tasks.start_soon(send)
            assert await all_of(stream) == data + b"end"
        async with await box.connect(port) as stream:
            await stream.send(b"F")
            assert await all_of(stream) == b""
            await stream.send(b"after the end")
            assert await server.stdout.receive() == b"after the end"
        async with await box.connect(port) as stream:
            await stream.send(b"R")
            with pytest.raises((anyio.BrokenResourceError, ConnectionResetError)):
                await all_of(stream)
        stream = await box.connect(port)
    async with stream:
        with pytest.raises((anyio.EndOfStream, anyio.BrokenResourceError, ConnectionResetError)):
            await stream.receive()  # the server is gone
    with pytest.raises(ConnectionRefusedError, match=str(port)):
        await box.connect(port)
