"""What a box promises wherever it is, as steps that a test of each mode takes."""

from __future__ import annotations

import os

import anyio
import pytest

import anyspawn
from anyspawn import Cleanup, ConfigError, NotStartedError, OutputLimitError, SpawnTimeoutError

ANY_BYTES = bytes(range(256)) * 3
NAMES = ["b", "-n", "a b", "ü", "line\nbreak", ".hidden", "$(id)", "'", "*"]


async def files(box):
    """What is written is read, whatever it holds and is called; its folders are made."""
    await box.write_file("a/b/c.bin", ANY_BYTES)
    assert await box.read_file("a/b/c.bin") == ANY_BYTES
    await box.write_file("a/b/c.bin", "text ü")
    assert await box.read_file(f"{box.workdir}/a/b/../b/c.bin") == "text ü".encode()
    await box.write_file("empty", b"")
    assert await box.read_file("empty") == b""
    for name in NAMES:
        await box.write_file(f"names/{name}", name)
    assert await box.list_dir("names") == sorted(NAMES)
    assert [await box.read_file(f"names/{name}") for name in NAMES] == [
        name.encode() for name in NAMES
    ]
    await box.remove("names/-n")
    await box.remove("a")
    assert await box.list_dir() == ["empty", "names"]
    assert "-n" not in await box.list_dir("names")


async def permissions(box):
    """A file that is written again keeps its permissions; a link is written through."""
    await box.write_file("tool", "#!/bin/sh\necho one\n")
    await box.spawn(["sh", "-c", "chmod 751 tool; ln -s tool link"], check=True)
    await box.write_file("link", "#!/bin/sh\necho two\n")
    done = await box.spawn(["sh", "-c", "./tool; ls -l tool; ls -l link"], check=True)
    assert done.text.startswith("two\n-rwxr-x--x")
    assert "link -> tool" in done.text
    await box.remove("link")
    assert await box.list_dir() == ["tool"]


async def errors(box):
    """What goes wrong with a file is the error that Python has for it, and nothing is written."""
    await box.write_file("file", b"12345")
    for call, error in (
        (box.read_file("no"), FileNotFoundError),
        (box.read_file("no/where"), FileNotFoundError),
        (box.read_file("."), IsADirectoryError),
        (box.read_file("file/x"), NotADirectoryError),
        (box.write_file(".", b""), IsADirectoryError),
        (box.write_file("file/x", b""), NotADirectoryError),
        (box.list_dir("no"), FileNotFoundError),
        (box.list_dir("file"), NotADirectoryError),
        (box.remove("no"), FileNotFoundError),
        (box.download("no", "/nowhere/x"), FileNotFoundError),
        (box.read_file("file", limit=4), OutputLimitError),
        (box.remove("."), ValueError),
        (box.remove(".."), (ValueError, PermissionError)),
        (box.read_file(""), ValueError),
        (box.read_file("a\0b"), ValueError),
    ):
        with pytest.raises(error):
            await call
    assert await box.read_file("file", limit=5) == b"12345"
    assert await box.list_dir() == ["file"]


async def trees(box, folder):
    """A tree goes in and comes out as it was, links and permissions too; one that would leave its
    place does not come out at all.
    """
    source = folder / "source"
    (source / "deep/er").mkdir(parents=True)
    (source / "deep/er/x").write_bytes(ANY_BYTES)
    (source / "deep/tool").write_text("#!/bin/sh\necho tool\n")
    (source / "deep/tool").chmod(0o755)
    (source / "link").symlink_to("deep/tool")
    await box.upload(source, "up/here")
    assert (await box.spawn(["./link"], cwd="up/here", check=True)).text == "tool\n"
    await box.download("up/here", folder / "out/tree")
    assert (folder / "out/tree/deep/er/x").read_bytes() == ANY_BYTES
    assert os.readlink(folder / "out/tree/link") == "deep/tool"
    assert os.access(folder / "out/tree/deep/tool", os.X_OK)
    with pytest.raises(FileExistsError):
        await box.download("up/here", folder / "out/tree")
    await box.upload(source / "deep/tool", "tool")
    await box.download("tool", folder / "out/tool")
    assert (folder / "out/tool").read_text() == "#!/bin/sh\necho tool\n"
    assert os.access(folder / "out/tool", os.X_OK)
    await box.write_file("copy", source / "deep/er/x")
    assert await box.read_file("copy") == ANY_BYTES
    with pytest.raises(OutputLimitError):
        await box.download("up", folder / "out/large", limit=1000)
    for link in ("/etc/passwd", "../../../secret"):
        await box.spawn(["sh", "-c", 'rm -f up/bad; ln -s "$1" up/bad', "sh", link], check=True)
        with pytest.raises(PermissionError):
            await box.download("up", folder / "out/bad")
    assert sorted(os.listdir(folder / "out")) == ["tool", "tree"]


async def calls(box):
    """Calls share files; each starts where it is told, ends alone, and leaves no process."""
    done = await box.spawn(["sh", "-c", 'cat; pwd; echo "$X"'], stdin=b"in\n", env={"X": "1\n2"})
    assert done.check().text == f"in\n{box.workdir}\n1\n2\n"
    await box.write_file("sub/x", b"")
    assert (await box.spawn(["ls"], cwd="sub", check=True)).text == "x\n"
    assert (await box.spawn(["sh", "-c", "exit 7"])).returncode == 7
    both = "for i in 1 2 3; do echo $i; echo e$i >&2; done"
    done = await box.spawn(["sh", "-c", both], merge_stderr=True, check=True)
    assert (done.text, done.stderr) == ("1\ne1\n2\ne2\n3\ne3\n", b"")
    for argv, cwd, kind in ((["no-such"], ".", "not_found"), (["true"], "no", "cwd")):
        error = (await box.spawn(argv, cwd=cwd)).error
        assert isinstance(error, NotStartedError)
        assert error.kind == kind
    late = await box.spawn(["sh", "-c", "touch here; sleep 987"], timeout=3)
    assert isinstance(late.error, SpawnTimeoutError)
    assert late.cleanup is Cleanup.CONFIRMED
    await box.spawn(["sh", "-c", "sleep 987 >/dev/null 2>&1 &"], check=True)
    assert await box.read_file("here") == b""


TICKS = "while :; do echo noise; echo . >>ticks; sleep 0.05; done"


async def ticks(box):
    """Whether something in the box runs, which writes all the time."""
    await box.write_file("ticks", b"")
    with anyio.move_on_after(1):
        while not await box.read_file("ticks"):
            pass
    return bool(await box.read_file("ticks"))


async def leaving(box):
    """What a call leaves runs on where that is asked for, whatever it writes and to what; else it
    is killed, and the outcome says so. A call that times out leaves nothing.
    """
    sh = ["sh", "-c"]
    done = await box.spawn([*sh, f"({TICKS}) & echo up; exit 3"], leave="detached")
    assert (done.returncode, done.cleanup) == (3, Cleanup.LEFT)
    assert done.stdout.startswith(b"up\n")
    assert await ticks(box)
    done = await box.spawn([*sh, "sleep 987 >/dev/null 2>&1 & echo up"], check=True)
    assert (done.text, done.cleanup) == ("up\n", Cleanup.CONFIRMED)
    for leave in ("nothing", "detached"):
        done = await box.spawn(["true"], leave=leave, check=True)
        assert done.cleanup is Cleanup.NOT_NEEDED
    late = await box.spawn([*sh, "sleep 987 & sleep 987"], leave="detached", timeout=1)
    assert isinstance(late.error, SpawnTimeoutError)
    assert late.cleanup is Cleanup.CONFIRMED
    assert await ticks(box)
    with pytest.raises(ValueError, match="leave"):
        await box.spawn(["true"], leave="something")


async def beside_each_other(box):
    """Calls run at once, one reads what another writes, and a live program talks meanwhile."""
    async with box.open_process(["cat"]) as process:
        async with anyio.create_task_group() as tasks:
            for number in range(4):
                tasks.start_soon(
                    lambda n=number: box.spawn(["sh", "-c", f"echo {n} >n{n}"], check=True)
                )
        await process.stdin.send(b"in")
        assert await process.stdout.receive() == b"in"
    assert [await box.read_file(f"n{number}") for number in range(4)] == [
        f"{number}\n".encode() for number in range(4)
    ]


async def saved(box, sandbox, folder, **where):
    """What was saved is in another box; a file that is too large is as before."""
    await box.write_file("kept/x", ANY_BYTES)
    await box.save(folder / "box.tar")
    with pytest.raises(OutputLimitError):
        await box.save(folder / "box.tar", limit=1000)
    async with anyspawn.open_box(sandbox, restore=folder / "box.tar", **where) as other:
        assert await other.read_file("kept/x") == ANY_BYTES
        await other.remove("kept")
    assert await box.read_file("kept/x") == ANY_BYTES


async def wrong(box):
    """What cannot be is said before anything starts."""
    with pytest.raises(TypeError):
        await box.spawn("ls")
    if not box._place.sandbox.takes_user:
        with pytest.raises(ConfigError, match="user"):
            await box.spawn(["true"], user="nobody")


IGNORES = "import time\nwhile True:\n    try: time.sleep(987)\n    except BaseException: pass"


async def python(box, program="python3"):
    """State stays from run to run; what hangs is interrupted, else killed, and each is told."""
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
    """A stream to a port inside: both ways, as much as there is, with a half-close on either side;
    what goes wrong is said, and what is closed, or cancelled, leaves no process.
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
