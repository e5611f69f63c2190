"""A Python session in a box that needs no engine."""

from __future__ import annotations

import shutil
import subprocess

import anyio
import pytest

import anyspawn
import boxes
from anyspawn import Bubblewrap, Direct, NotStartedError
from machine import MARK, bubblewrap_works, eventually, processes_with

pytestmark = pytest.mark.anyio

SPACES = pytest.mark.skipif(not bubblewrap_works(), reason="bwrap does not work here")
MODES = {
    "direct": Direct(default_timeout=60),
    "bubblewrap": Bubblewrap(share_env=[MARK], default_timeout=60),
}
PYTHONS = [
    name
    for name in (f"python3.{minor}" for minor in range(8, 16))
    if shutil.which(name) and not subprocess.run([name, "-c", ""], capture_output=True).returncode
]
SLEEPS = "import subprocess, time; child = subprocess.Popen(['sleep', '987']); time.sleep(987)"
NEVER_MIND = """
import subprocess, time
child = subprocess.Popen(["sleep", "987"])
while True:
    try:
        time.sleep(987)
    except BaseException:
        pass
"""


@pytest.fixture(params=["direct", pytest.param("bubblewrap", marks=SPACES)])
async def box(request):
    async with anyspawn.open_box(MODES[request.param]) as box:
        yield box


@pytest.fixture
async def session(box):
    async with box.python() as session:
        yield session


async def test_what_a_session_promises(box):
    await boxes.python(box)


@pytest.mark.parametrize("anyio_backend", [("asyncio", {})])
@pytest.mark.parametrize("program", PYTHONS)
async def test_every_python(program):
    """Every installed Python from 3.8 on works the same."""
    async with anyspawn.open_box(Direct(default_timeout=60)) as box:
        await boxes.python(box, program)


async def test_values(session):
    """The value of the last expression comes as its repr and, if JSON can hold it, as data."""
    for code, value, data in (
        ("1 + 1", "2", 2),
        ("x = 1", None, None),
        ("None", None, None),
        ("", None, None),
        ("'a' 'b'", "'ab'", "ab"),
        (
            "[1, (2.5, None), {'ü': True}]",
            "[1, (2.5, None), {'ü': True}]",
            [1, [2.5, None], {"ü": True}],
        ),
        ("{1}", "{1}", None),
        ("float('nan')", "nan", None),
        ("'\\ud800'", "'\\ud800'", "\ud800"),
        ("for i in range(3): i", None, None),
        ("class A:\n def __repr__(self): return 'an a\\ud800'\nA()", "an a\\ud800", None),
    ):
        result = await session.run(code)
        assert (result.ok, result.value, result.data) == (True, value, data), result


async def test_failures(session):
    """An exception comes as its type, its message and the traceback that Python prints."""
    result = await session.run("def f():\n    raise KeyError('x')\nf()")
    assert (result.ok, result.error.type, result.error.message) == (False, "KeyError", "'x'")
    assert result.error.traceback.startswith('Traceback (most recent call last):\n  File "<run 1>"')
    assert "raise KeyError('x')\n" in result.error.traceback
    assert "anyspawn" not in result.error.traceback
    for code, kind, words in (
        ("f(", "SyntaxError", "<run 2>"),
        ("import json; json.loads('x')", "json.decoder.JSONDecodeError", "Expecting value"),
        ("class E(Exception): pass\nraise E('own')", "E", "own"),
        ("class S(Exception):\n def __str__(self): 1/0\nraise S", "S", "__str__ failed"),
        ("class R:\n def __repr__(self): return 1/0\nR()", "ZeroDivisionError", "division"),
        ("import sys; sys.exit(3)", "SystemExit", "3"),
        ("input()", "EOFError", "EOF"),
        ("x\0", ("SyntaxError", "ValueError"), "null byte"),
    ):
        result = await session.run(code)
        kinds = kind if isinstance(kind, tuple) else (kind,)
        assert result.error.type in kinds
        assert words in result.error.message
        assert not result.state_lost


@pytest.mark.parametrize("overflow", ["head", "tail", "truncate"])
async def test_much_output(session, overflow):
    """Output is limited as with `spawn`; a long value or message has a mark in its middle."""
    code = "import sys\nfor i in range(9000): print(i); print(i, file=sys.stderr)\n'v' * 9000"
    result = await session.run(code, output_limit=100, overflow=overflow)
    whole = "".join(f"{i}\n" for i in range(9000)).encode()
    kept = {"head": whole[:100], "tail": whole[-100:], "truncate": whole[:50] + whole[-50:]}
    assert result.ok
    assert result.stdout == result.stderr == kept[overflow]
    assert result.stdout_total == len(whole)
    assert f"[... {len(whole) - 100} bytes left out ...]" in result.text
    assert result.value.startswith("'vv")
    assert "[... 8902 bytes left out ...]" in result.value
    assert result.data is None
    failed = await session.run("raise ValueError('m' * 9000)", output_limit=100)
    assert len(failed.error.message) < 200
    assert len(failed.error.traceback) < 200


async def test_endless_output(session):
    """By default endless output interrupts the code, and the variables stay."""
    await session.run("x = 1")
    result = await session.run(
        "while True: print('y' * 100)", output_limit=5000, timeout=None, grace=60
    )
    assert (result.ok, result.stopped, result.state_lost) == (False, "output_limit", False)
    assert result.error.type == "KeyboardInterrupt"
    assert len(result.stdout) == 5000
    assert (await session.run("x")).data == 1


async def test_cancelled(session):
    """A cancellation interrupts the code, and kills the interpreter if the code does not react."""
    await session.run("x = 1")
    with anyio.move_on_after(0.5) as scope:
        await session.run("import time; time.sleep(987)", timeout=None, grace=60)
    assert scope.cancelled_caught
    assert (await session.run("x")).data == 1
    with anyio.move_on_after(0.5) as scope:
        await session.run(NEVER_MIND, timeout=None, grace=0.1)
    assert scope.cancelled_caught
    assert (await session.run("x")).error.type == "NameError"


@pytest.mark.parametrize("anyio_backend", [("asyncio", {})])
async def test_cancelled_by_asyncio(session):
    """A task that is cancelled twice ends, and so does the code that it runs."""
    import asyncio

    await session.run("x = 1")
    for code, grace, kept in (("import time; time.sleep(987)", 60, True), (NEVER_MIND, 1, False)):
        task = asyncio.create_task(session.run(code, timeout=None, grace=grace))
        for _ in range(2):
            await asyncio.sleep(0.3)
            task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert (await session.run("x")).ok is kept


async def test_one_after_the_other(session):
    """Runs that are requested at the same time take turns."""
    results = []

    async def run(number):
        results.append(await session.run(f"seen = [*globals().get('seen', []), {number}]; seen"))

    async with anyio.create_task_group() as tasks:
        for number in range(5):
            tasks.start_soon(run, number)
    assert sorted(len(result.data) for result in results) == [1, 2, 3, 4, 5]


FRAMES = "X 0 1\nR 20\n1 -1 -1 -1 -1\n7\nI 1\n"
TO_HOST = "os.write(os.open(f'/proc/{os.getppid()}/fd/1', 1), "


async def test_what_code_does_to_its_streams(session):
    """Code that prints our own frames, closes its streams or forks does not disturb the session:
    each run keeps its own output and result, in the same interpreter.
    """
    await session.run("import os, sys, signal, subprocess; x = 1")
    for code, out in (
        (f"print({FRAMES!r}, end='')", FRAMES),
        (f"os.write(1, {FRAMES!r}.encode()) and None", FRAMES),
        ("print('a', flush=True); os.close(0); os.close(1); os.close(2)", "a\n"),
        ("print('a'); sys.stdout.close(); sys.stderr.close(); sys.stdin.close()", "a\n"),
        ("print('a', flush=True); os.dup2(os.open('/dev/null', 1), 1); print('b')", "a\n"),
        ("if not os.fork(): sys.exit(3)\nprint(os.wait()[1] >> 8)", "3\n"),
        ("if not os.fork(): os._exit(4)\nprint(os.wait()[1] >> 8)", "4\n"),
        ("os.fork() and print(os.wait()[1], 'b')", "0 b\n"),
        ("subprocess.run(['sh', '-c', 'echo a; cat'])", "a\n"),
        ("import asyncio\nasync def main(): print('a')\nasyncio.run(main())", "a\n"),
        ("signal.signal(signal.SIGINT, signal.SIG_IGN); print('a')", "a\n"),
    ):
        result = await session.run(code)
        assert result.ok, result.error
        assert result.text == out
    result = await session.run("import time; time.sleep(987)", timeout=0.5, grace=60)
    assert (result.error.type, result.state_lost) == ("KeyboardInterrupt", False)
    assert (await session.run("x")).data == 1


async def test_what_ends_the_interpreter(session):
    """The result says how the interpreter ended and keeps the earlier output; the next run gets a
    new interpreter.
    """
    for code, kind, words in (
        ("os._exit(3)", "Exited", "status 3"),
        ("os.kill(os.getpid(), 11)", "Killed", "SIGSEGV"),
        ("os.closerange(3, 3000)", "Exited", "status 1"),
        ("os.kill(os.getppid(), 9)", "Killed", "lost"),
        (f"{TO_HOST}b'junk\\n'); x", "Killed", "lost"),
        (f"{TO_HOST}b'O 99999999\\n'); x", "Killed", "lost"),
        (f"{TO_HOST}b'R 9\\n1 1 1 1 9\\n'); x", "Killed", "lost"),
    ):
        result = await session.run(f"import os\nx = 1\nprint('before', flush=True)\n{code}")
        assert (result.ok, result.state_lost, result.error.type) == (False, True, kind)
        assert words in result.error.message
        assert "the variables are lost" in result.error.message
        if "getppid" not in code:  # killing the parent loses the output that it relays
            assert result.text == "before\n"
        assert (await session.run("x")).error.type == "NameError"


async def test_an_end_between_two_runs(session):
    """If the interpreter ends between two runs, the next run says so and does not
    execute its code.
    """
    code = "import os, threading; threading.Timer(0.3, os._exit, [3]).start(); os.getpid()"
    assert (await session.run(code)).ok
    await anyio.sleep(1.5)
    result = await session.run("print('never')")
    assert (result.state_lost, result.text) == (True, "")
    assert "did not run" in result.error.message
    assert (await session.run("1")).data == 1


async def test_its_end(box):
    """The interpreter runs its exit handlers; no process and no file of the session is left."""
    await box.write_file("module.py", "import atexit\natexit.register(open('out', 'w').write, 'x')")
    async with box.python() as session:
        assert (await session.run("import module; module.__name__")).data == "module"
        await session.run("import subprocess; child = subprocess.Popen(['sleep', '987'])")
    assert await box.list_dir() == ["module.py", "out"]
    assert await box.read_file("out") == b"x"
    with pytest.raises(anyio.ClosedResourceError):
        await session.run("1")
    await session.aclose()


async def test_closed_under_way(box):
    """If another task closes the session, the code that runs is killed."""
    async with box.python() as session, anyio.create_task_group() as tasks:

        async def run():
            with pytest.raises(anyio.ClosedResourceError):
                await session.run(SLEEPS, timeout=None)

        tasks.start_soon(run)
        await anyio.wait_all_tasks_blocked()
        await session.aclose()


async def test_the_block_is_cancelled(box):
    """Nothing is left after a cancellation; the fixtures check for processes."""
    with anyio.move_on_after(1) as scope:
        async with box.python() as session:
            await session.run(NEVER_MIND, timeout=None, grace=0.1)
    assert scope.cancelled_caught
    assert not eventually(lambda: processes_with("sleep 987"))


async def test_settings(box):
    """Variables, working directory and interpreter belong to the session; a wrong setting starts
    nothing.
    """
    await box.write_file("sub/x", b"")
    async with box.python(env={"X": "1\n2"}, cwd="sub") as session:
        result = await session.run("import os; os.environ['X'], os.listdir()")
        assert result.data == ["1\n2", ["x"]]
        for wrong in ({"timeout": 0}, {"overflow": "no"}, {"output_limit": -1}, {"grace": -1}):
            with pytest.raises(ValueError, match=next(iter(wrong))):
                await session.run("1", **wrong)
        with pytest.raises(TypeError, match="code"):
            await session.run(b"1")
    for program, kind, words in (
        ("no-such", "not_found", "there is no Python in the box: .*no-such.* image"),
        ("true", "other", "'true' is not Python 3.8 or later: it exited with status 0"),
    ):
        with pytest.raises(NotStartedError, match=words) as caught:
            async with box.python(program):
                pass
        assert caught.value.kind == kind


async def test_noise_before_it_is_ready(box):
    """Output before the interpreter is ready, as from a start-up file that prints, is skipped."""
    await box.write_file("noisy/sitecustomize.py", "import os; os.write(1, b'R 9\\nnoise' * 999)")
    folder = f"{box.workdir}/noisy"
    async with box.python(env={"PYTHONPATH": folder}) as session:
        assert (await session.run("import sitecustomize; 1")).data == 1


async def test_no_descriptor_is_met_by_chance(session):
    """Files that the code opens get the lowest descriptors, and its children inherit none of the
    session's.
    """
    assert (await session.run("import os, subprocess; os.open('/dev/null', 0)")).data == 3
    code = "subprocess.check_output(['ls', '/proc/self/fd'], close_fds=False).decode().split()"
    assert max(map(int, (await session.run(code)).data)) < 10
