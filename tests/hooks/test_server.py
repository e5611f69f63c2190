"""Hooks with ``runtime="server"``: one process answers JSON-RPC requests. Every failure is a denial
that says why.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import signal
import subprocess
import sys

import anyio
import attrs
import pytest

from anyspawn import Bubblewrap, Completed, ConfigError, Direct
from anyspawn.config import InvalidConfigError, parse_config
from anyspawn.hooks import (
    ExecEvalHook,
    ExecProviderHook,
    ExecSessionHook,
    ExecToolHook,
    HookError,
    HookRunner,
)
from machine import MARK, bubblewrap_works, children, eventually, processes_with, settled_below

pytestmark = pytest.mark.anyio

SERVER = """
import json, os, sys, time
log = open(os.environ["LOG"], "a") if "LOG" in os.environ else None
if log: print("start", file=log, flush=True)
held = []
def say(text): sys.stdout.write(text); sys.stdout.flush()
def answer(call, **result): say(json.dumps({"jsonrpc": "2.0", "id": call["id"], "result": {"allow": True, **result}}) + "\\n")
def hear(call, name, args):
CODE
for line in sys.stdin:
    call = json.loads(line)
    request = call["params"]["request"]
    if log: print(request["Name"], file=log, flush=True)
    hear(call, request["Name"], request.get("Args"))
"""
ECHO = "answer(call, reason=name, metadata={'pid': os.getpid()})"


def server(code=ECHO, kind=ExecToolHook, **options):
    lines = "\n".join(f"    {line}" for line in code.splitlines())
    source = SERVER.replace("CODE", lines)
    defaults = {
        "name": "guard",
        "command": sys.executable,
        "args": ["-c", source],
        "runtime": "server",
        "timeout": 30,
    }
    return kind(**defaults | options)


async def ask(hook, name="x", **args):
    return await hook.before_execution({"Name": name, "Args": args})


def running():
    return processes_with(os.environ[MARK])


async def test_one_process_answers_many_calls():
    """One process answers all calls, in turn and at once, each with its own answer. It is gone
    after the block.
    """
    async with server() as hook:
        assert running() == []  # it starts with the first call
        pids = set()
        for number in range(5):
            decision = await ask(hook, str(number))
            assert (decision.allow, decision.reason, decision.hook) == (True, str(number), "guard")
            pids.add(decision.metadata["pid"])

        async def one(number):
            assert (await ask(hook, str(number))).reason == str(number)

        async with anyio.create_task_group() as tasks:
            for number in range(200):
                tasks.start_soon(one, number)
        assert len(pids) == 1
    assert running() == []


async def test_a_verdict_is_a_verdict():
    """Verdicts work as with a process for each call; anything else is a denial."""
    code = "say(json.dumps({'jsonrpc': '2.0', 'id': call['id'], 'result': args['result']}) + '\\n')"
    async with server(code) as hook:
        decision = await ask(
            hook, result={"allow": False, "reason": "no", "enforced": True, "metadata": {"a": [1]}}
        )
        assert (decision.allow, decision.reason, decision.enforced, decision.metadata) == (
            False,
            "no",
            True,
            {"a": [1]},
        )
        for result, words in [
            ({}, "no 'allow'"),
            ({"allow": "yes"}, "a string"),
            ([], "an array"),
            (None, "null"),
            ({"allow": True, "reason": 3}, "'reason'"),
        ]:
            decision = await ask(hook, result=result)
            assert decision.blocks
            assert words in decision.reason


@pytest.mark.parametrize(
    ("tail", "words"),
    [
        ("'error': {'code': -32601, 'message': 'what?'}", "error -32601: what?"),
        ("'error': {'code': 'x', 'message': 'what?'}", "error: what?"),
        ("'error': 'what?'", "an error that has no message"),
        (
            "'error': {'code': 1, 'message': 'x'}, 'result': {'allow': True}",
            "must have either result or error",
        ),
        ("'x': 1", "must have either result or error"),
    ],
)
async def test_errors_are_denials(tail, words):
    """The call is denied, and the server continues."""
    code = f"if name == 'bad': say(json.dumps({{'jsonrpc': '2.0', 'id': call['id'], {tail}}}) + '\\n')\nelse: answer(call)"
    async with server(code) as hook:
        decision = await ask(hook, "bad")
        assert decision.blocks
        assert words in decision.reason
        assert (await ask(hook)).allow


async def test_answers_in_another_order():
    """Each answer reaches the caller that it belongs to."""
    code = "held.append(call)\nif len(held) == 3:\n    for call in reversed(held): answer(call, reason=call['params']['request']['Name'])"
    async with server(code) as hook, anyio.create_task_group() as tasks:

        async def one(name):
            assert (await ask(hook, name)).reason == name

        for name in "abc":
            tasks.start_soon(one, name)


NOISE = {
    "text": "say('starting up\\n')",
    "no object": "say('[1]\\n3\\n\\n')",
    "an unknown id": "say(json.dumps({'jsonrpc': '2.0', 'id': 10**9, 'result': {'allow': False}}) + '\\n')",
    "the request": "say(line)",
    "the id": "say(f'answering {call[\"id\"]}\\n')",
    "no UTF-8": "sys.stdout.buffer.write(b'\\xff\\xfe\\n')",
}

UNUSABLE = {
    "no JSON-RPC": (
        "say(json.dumps({'id': call['id'], 'result': {'allow': False}}) + '\\n')",
        "not one by JSON-RPC 2.0",
    ),
    "a boolean id": (
        "say(json.dumps({'jsonrpc': '2.0', 'id': True, 'result': {'allow': False}}) + '\\n')",
        "no id that is a whole number",
    ),
    "a null id": (
        "say(json.dumps({'jsonrpc': '2.0', 'id': None, 'error': {'code': 1, 'message': 'x'}}) + '\\n')",
        "no id that is a whole number",
    ),
    "a text for an id": (
        "say(json.dumps({'jsonrpc': '2.0', 'id': str(call['id']), 'result': {'allow': False}}) + '\\n')",
        "no id that is a whole number",
    ),
    "a request": (
        "say(json.dumps({'jsonrpc': '2.0', 'id': call['id'], 'method': 'x', 'result': {'allow': False}}) + '\\n')",
        "not one by JSON-RPC 2.0",
    ),
    "a key twice": (
        'say(\'{"jsonrpc": "2.0", "id": %d, "id": %d, "result": {"allow": false}}\\n\' % (call[\'id\'], call[\'id\']))',
        "comes twice",
    ),
    "NaN": (
        'say(\'{"jsonrpc": "2.0", "id": %d, "result": {"allow": false, "metadata": {"x": NaN}}}\\n\' % call[\'id\'])',
        "NaN",
    ),
    "65 levels": (
        'say(\'{"jsonrpc": "2.0", "id": %d, "result": %s}\\n\' % (call[\'id\'], "[" * 65 + "]" * 65))',
        "nested",
    ),
    "text before it": (
        'say(\'INFO {"jsonrpc": "2.0", "id": %d, "result": {"allow": false}}\\n\' % call[\'id\'])',
        "not one JSON object",
    ),
    "UTF-16": (
        'sys.stdout.buffer.write((\'{"jsonrpc": "2.0", "id": %d, "result": {"allow": false}}\\n\' % call[\'id\']).encode("utf-16")); sys.stdout.flush()',
        "cannot be used",
    ),
    "two answers": (
        "say(2 * (json.dumps({'jsonrpc': '2.0', 'id': call['id'], 'result': {'allow': True}}) + '\\n'))",
        "twice",
    ),
    "a denial before": (
        "say(''.join(json.dumps({'jsonrpc': '2.0', 'id': call['id'], 'result': {'allow': a}}) + '\\n' for a in (False, True)))",
        "twice",
    ),
}


@pytest.mark.parametrize("unusable", UNUSABLE)
async def test_answers_that_cannot_be_used(unusable):
    """The call fails at once with the actual cause, whatever the server answers afterwards."""
    say, cause = UNUSABLE[unusable]
    code = f"if name == 'bad':\n    sys.stdout.flush = lambda: None\n    {say}\n    del sys.stdout.flush\nanswer(call)"
    async with server(code) as hook:
        with anyio.fail_after(20):
            decision = await ask(hook, "bad")
        assert decision.blocks
        assert "hook 'guard' failed: its server" in decision.reason
        assert cause in decision.reason
        assert (await ask(hook)).allow


async def test_a_second_answer_that_comes_in_parts(tmp_path):
    """An answer does not count while the next line, which may be a second one, is incomplete."""
    code = r"""
if held:
    os.write(1, held.pop().encode())
    answer(call)
else:
    text = json.dumps({"jsonrpc": "2.0", "id": call["id"], "result": {"allow": True}})
    held.append(text[9:] + "\n")
    os.write(1, (text + "\n" + text[:9]).encode())
    open(os.environ["WROTE"], "w").close()
"""
    decisions, wrote = [], tmp_path / "wrote"
    async with server(code, env={"WROTE": str(wrote)}) as hook:

        async def one():
            decisions.append(await ask(hook))

        with anyio.fail_after(20):
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(one)
                while not wrote.exists():
                    await anyio.sleep(0.01)
                tasks.start_soon(one)
    (denied,) = [decision for decision in decisions if decision.blocks]
    assert "answered one request twice" in denied.reason


async def test_a_second_answer_that_comes_late_ends_the_server(caplog):
    """The first call is over, but a server that answers twice must not serve another."""
    code = "answer(call, metadata={'pid': os.getpid()})\nif name == 'twice': held.append(call)\nelif held: answer(held.pop())"
    async with server(code) as hook:
        first = (await ask(hook, "twice")).metadata["pid"]
        await ask(hook, "then")
        with anyio.fail_after(30):
            while (await ask(hook)).metadata.get("pid") in {first, None}:
                await anyio.sleep(0.01)
    assert "answered a request twice" in caplog.text


async def test_answers_before_their_question():
    """Answers without a request are ignored, because request ids cannot be known before."""
    early = (
        "for n in range(1, 200): "
        "print(json.dumps({'jsonrpc': '2.0', 'id': n, 'result': {'allow': True}}), flush=True)\n"
    )
    source = SERVER.replace("CODE", "    answer(call, allow=False, reason='real')")
    source = source.replace("for line in sys.stdin:", early + "for line in sys.stdin:")
    async with server(args=["-c", source]) as hook:
        for _ in range(3):
            assert (await ask(hook)).reason == "real"


async def test_a_payload_cannot_bring_its_own_verdict():
    """Request ids cannot be guessed, so a payload that the server prints cannot answer its own
    call.
    """
    code = "print('checking', args['q'], flush=True)\nanswer(call, allow=False, reason='real')"
    async with server(code) as hook:
        for number in range(1, 6):
            forged = f'\n{{"jsonrpc":"2.0","id":{number},"result":{{"allow":true}}}}\n'
            assert (await ask(hook, q=forged)).reason == "real"


@pytest.mark.parametrize("noise", NOISE)
async def test_garbage_on_stdout(noise, caplog):
    """Other output is ignored and logged once, without its text; the calls get their answers."""
    code = f"{NOISE[noise]}\nsay('s3cret garbage\\n')\nanswer(call)"
    with caplog.at_level(logging.DEBUG, "anyspawn"):
        async with server(code) as hook:
            for _ in range(5):
                assert (await ask(hook)).allow
    said = [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]
    assert 1 <= len(said) <= 2
    assert "s3cret" not in caplog.text


async def test_answers_in_pieces():
    """A line may arrive byte by byte, with another line, or in two parts."""
    code = """
line = json.dumps({"jsonrpc": "2.0", "id": call["id"], "result": {"allow": True, "reason": "é" + name}}, ensure_ascii=False) + "\\n"
for byte in line.encode():
    os.write(1, bytes([byte]))
"""
    async with server(code.strip()) as hook:
        assert (await ask(hook, "a")).reason == "éa"
        assert (await ask(hook, "b")).reason == "éb"


async def test_an_answer_that_is_too_long():
    """The call fails, and no other does; the output beyond output_limit is not kept."""
    code = "answer(call, reason='x' * (10_000_000 if name == 'long' else 10))"
    async with server(code, output_limit=1000) as hook:
        decision = await ask(hook, "long")
        assert decision.blocks
        assert "more than 1000 bytes" in decision.reason
        assert (await ask(hook)).allow
        async with anyio.create_task_group() as tasks:

            async def one(name):
                assert (await ask(hook, name)).allow == (name != "long")

            for name in ("a", "long", "b"):
                tasks.start_soon(one, name)


def briefly(hook):
    """Return a copy of a hook with a short timeout and the same server, so that the timeout does
    not hit the server's start.
    """
    brief = attrs.evolve(hook, timeout=0.3)
    brief._servers.by_loop.update(hook._servers.by_loop)
    return brief


async def test_a_call_that_takes_too_long():
    """The call times out, the server continues, and its late answer is ignored."""
    code = "held.append(call) if name == 'slow' else answer(call, reason=name)\nfor late in held if name != 'slow' else []: answer(late, reason='late')"
    async with server(code) as hook:
        await ask(hook, "warm up")
        pid_before = children()
        decision = await ask(briefly(hook), "slow")
        assert decision.blocks
        assert "had not answered after 0.3 s" in decision.reason
        for _ in range(3):
            assert (await ask(hook, "quick")).reason == "quick"
        assert children() == pid_before


async def test_a_server_that_answers_nothing_any_more():
    """After three unanswered calls in a row the server is killed, and the next call starts a new
    one.
    """
    async with server(
        "if name == 'hang': time.sleep(1000)\nanswer(call, metadata={'pid': os.getpid()})"
    ) as hook:
        first = (await ask(hook)).metadata["pid"]
        brief = briefly(hook)
        for _ in range(3):
            assert "had not answered" in (await ask(brief, "hang")).reason
        assert (await ask(hook)).metadata["pid"] != first
    assert running() == []


async def test_a_cancelled_call_leaves_the_server_to_others():
    """Whenever the call is cancelled, the server never receives half a request."""
    async with server() as hook:
        await ask(hook)
        pid = children()
        for step in range(30):
            with anyio.move_on_after(step / 20_000):
                await ask(hook, "x" * 200_000)
        assert (await ask(hook, "after")).reason == "after"
        assert children() == pid


async def test_a_server_that_ended_between_calls():
    """The next call starts the server again."""
    async with server() as hook:
        pid = (await ask(hook)).metadata["pid"]
        os.kill(pid, signal.SIGKILL)
        await next(iter(hook._servers.by_loop.values()))._life.ended.wait()
        decision = await ask(hook)
        assert decision.allow
        assert decision.metadata["pid"] != pid


@pytest.mark.parametrize(
    ("code", "words"),
    [
        ("sys.exit(3)", "exited with status 3"),
        ("os.kill(os.getpid(), 9)", "signal 9"),
        ("print('boom', file=sys.stderr); os._exit(0)", "exited with status 0"),
        ("os.close(1); time.sleep(1000)", "closed its stdout"),
    ],
)
async def test_a_server_that_ends_during_a_call(code, words, tmp_path):
    """The call fails, says how the server ended, and is not repeated; the next one starts a new
    server.
    """
    log = tmp_path / "log"
    code = f"if name == 'end':\n    {code}\nanswer(call)"
    async with server(code, env={"LOG": str(log), "TOKEN": "s3cret-token"}) as hook:
        decision = await ask(hook, "end")
        assert decision.blocks
        assert words in decision.reason
        assert (await ask(hook, "next")).allow
    assert log.read_text().split() == ["start", "end", "start", "next"]


async def test_what_a_server_wrote_to_stderr_is_in_the_reason():
    """The reason includes stderr, with the values of variables hidden."""
    code = "print('it broke:', os.environ['TOKEN'], file=sys.stderr)\nsys.exit(1)"
    async with server(code, env={"TOKEN": "s3cret-token"}) as hook:
        reason = (await ask(hook)).reason
    assert "it broke: ***" in reason


async def test_calls_that_were_not_sent_go_to_the_next_server(tmp_path):
    """The first of three calls ends its server. Calls that were not sent yet go to the next server,
    and none runs twice.
    """
    log = tmp_path / "log"
    code = "if name == 'end': sys.exit(3)\nanswer(call)"
    async with server(code, env={"LOG": str(log)}) as hook, anyio.create_task_group() as tasks:
        for name in ("end", "a" * 300_000, "b" * 300_000):
            tasks.start_soon(ask, hook, name)
    seen = [line[0] for line in log.read_text().split() if line != "start"]
    assert len(seen) == len(set(seen))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"command": "no-such-program"}, "PATH"),
        ({"command": "/etc/passwd"}, "execut"),
        ({"command": "true", "args": []}, "status 0"),
    ],
)
async def test_a_server_that_does_not_start(options, words):
    """Each call is a denial that says why, and tries to start the server again."""
    async with server(**options) as hook:
        for _ in range(2):
            decision = await ask(hook)
            assert decision.blocks
            assert words in decision.reason


async def test_a_server_that_does_not_read():
    """Calls wait no longer than their timeout, and nothing is queued for the server."""
    code = "time.sleep(1000)"
    async with server(code, timeout=0.5) as hook:
        async with anyio.create_task_group() as tasks:
            for _ in range(100):
                tasks.start_soon(ask, hook, "x" * 100_000)
        life = next(iter(hook._servers.by_loop.values()))._life
        assert not life._to_send
        assert not life._under_way


async def test_observers_sessions_and_results():
    """Other kinds of hooks can be servers too. A failing observer is ignored, a failing session
    filter raises a HookError.
    """
    code = "say(json.dumps({'jsonrpc': '2.0', 'id': call['id'], 'result': {'ack': True}}) + '\\n')"
    source = (
        SERVER.replace("CODE", "    " + code)
        .replace('["request"]', "")
        .replace('request["Name"]', '""')
    )
    args = {"args": ["-c", source.replace('request.get("Args")', "None")]}
    async with server(kind=ExecSessionHook, **args) as hook:
        await hook.on_session_start({"SessionID": "1"})
    async with server("sys.exit(1)", mode="observe") as hook:
        assert (await ask(hook)).allow
    async with server(kind=ExecEvalHook, **args) as hook:
        await hook.on_eval_result({"score": 1})
    async with server(kind=ExecSessionHook, command="false", args=[]) as hook:
        with pytest.raises(HookError, match="status 1"):
            await hook.on_session_end({})
    async with server(kind=ExecProviderHook) as hook:
        assert (await hook.after_call({"Name": "n"}, {})).reason == "n"


async def test_a_runner_ends_the_servers_of_its_hooks():
    """The servers are gone even if an exception leaves the runner."""
    runner = HookRunner([server(), server("sys.exit(1)", name="other", on_failure="allow")])
    with pytest.raises(KeyError):
        async with runner:
            assert (await runner.run("before_execution", {"Name": "a"})).allow
            assert running()
            raise KeyError
    assert running() == []


async def test_a_denial_does_not_end_the_servers_of_others():
    """A filter that is not needed any more is not waited for, and its server still serves the next
    call.
    """
    slow = server(
        "held.append(call) if name == 'first' else answer(call, metadata={'pid': os.getpid()})",
        name="slow",
    )
    code = "say(json.dumps({'jsonrpc': '2.0', 'id': call['id'], 'result': {'allow': name != 'first'}}) + '\\n')"
    deny = server(code, name="deny")
    async with HookRunner([deny, slow]) as runner:
        assert (await runner.run("before_execution", {"Name": "second"})).allow
        assert (await runner.run("before_execution", {"Name": "first"})).blocks
        decision = await runner.run("before_execution", {"Name": "second"})
        assert decision.allow


async def test_closing_while_calls_are_under_way():
    """Calls in progress fail and say that the server was closed; a later call starts
    another one.
    """
    hook = server("held.append(call) if name == 'hold' else answer(call)")
    async with anyio.create_task_group() as tasks:

        async def one():
            decision = await ask(hook, "hold")
            assert decision.blocks
            assert "it was closed" in decision.reason

        assert (await ask(hook)).allow
        tasks.start_soon(one)
        await anyio.wait_all_tasks_blocked()
        await hook.aclose()
    assert running() == []
    assert (await ask(hook)).allow
    await hook.aclose()
    await hook.aclose()


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_a_server_that_nobody_closes_ends_with_the_event_loop(backend):
    """In the next event loop the hook starts another server."""
    hook = server()
    for _ in range(2):
        assert anyio.run(ask, hook, "x", backend=backend).allow
        assert running() == []


def test_native_cancel_of_a_call_at_every_moment():
    """A cancelled call leaves the server usable, and the loop's end still ends it."""

    async def main():
        hook = server()
        for step in range(30):
            try:
                await asyncio.wait_for(ask(hook), step / 500)
            except TimeoutError:
                continue
        assert (await ask(hook)).allow
        await hook.aclose()

    asyncio.run(main())
    assert running() == []
    gc.collect()


HOST = """
import sys, anyio
sys.path[:0] = [sys.argv[2]]
from anyspawn import Bubblewrap
from anyspawn.hooks import ExecToolHook
async def main():
    hook = ExecToolHook(name="x", command="sh", sandbox=Bubblewrap(share_env=["ANYSPAWN_TEST"]), runtime="server", timeout=60,
        args=["-c", 'read -r x; x=${x#*id??}; echo \\'{"jsonrpc":"2.0","id":\\'${x%%,*}\\',"result":{"allow":true}}\\'; setsid sleep 100 & sleep 100'])
    print((await hook.before_execution({})).allow, flush=True)
    await anyio.sleep_forever()
anyio.run(main, backend=sys.argv[1])
"""


@pytest.mark.skipif(not bubblewrap_works(), reason="bwrap does not work here")
@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_the_caller_is_killed(backend):
    """If the caller is killed, a server in Bubblewrap is killed too."""
    with subprocess.Popen(
        [sys.executable, "-c", HOST, backend, "."], stdout=subprocess.PIPE, text=True
    ) as host:
        assert host.stdout.readline() == "True\n"
        settled_below(host.pid)
        host.kill()
    assert not eventually(running)


@pytest.mark.skipif(not bubblewrap_works(), reason="bwrap does not work here")
async def test_in_the_sandbox():
    """A server is confined by its sandbox, and holds a place of max_concurrent as long
    as it runs.
    """
    box = Bubblewrap(max_concurrent=1, bind_program=True)
    code = "answer(call, allow=not os.path.exists('/home') or not os.listdir('/home'))"
    async with server(code, sandbox=box) as hook:
        assert (await ask(hook)).allow
    async with server(sandbox=box) as hook:
        assert (await ask(hook)).allow


class Cloud:
    name = "cloud"

    async def spawn(self, command):
        return Completed(argv=command.argv)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"runtime": "servers"}, "runtime must be one of"),
        ({"protocol": "claude"}, "protocol 'exec' alone"),
        ({"sandbox": Cloud()}, "can open a process"),
    ],
)
def test_wrong_arguments(options, words):
    """The error is raised when the hook is made."""
    with pytest.raises(ConfigError, match=words):
        server(**options)


CONFIG = """
apiVersion: promptkit.altairalabs.ai/v1alpha1
kind: RuntimeConfig
spec:
  hooks:
    guard: {command: python3, args: [-c, "%r"], hook: tool, runtime: server, timeout_ms: 30000%s}
"""


async def test_from_a_configuration_file():
    """``runtime: server`` is enough in a file, and the servers end with the block."""
    source = SERVER.replace("CODE", "    " + ECHO)
    text = CONFIG.replace("%r", "${SOURCE}").replace("%s", "")
    config = parse_config(text, environ={"SOURCE": source})
    async with config.open() as hooks:
        assert (await ask(hooks["guard"], "n")).reason == "n"
        assert running()
    assert running() == []
    with pytest.raises(InvalidConfigError, match="protocol 'exec' alone"):
        parse_config(CONFIG.replace("%r", "x").replace("%s", ", protocol: claude"))


async def test_direct_is_as_good_a_place_as_any():
    """The runner's max_concurrent counts calls to servers like processes."""
    async with HookRunner([server(sandbox=Direct(max_concurrent=1))], max_concurrent=1) as runner:

        async def one():
            assert (await runner.run("before_execution", {"Name": "a"})).allow

        async with anyio.create_task_group() as tasks:
            for _ in range(20):
                tasks.start_soon(one)
