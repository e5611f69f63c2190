"""Tools, evaluators and selectors: real programs with typed results."""

from __future__ import annotations

import json
import sys

import anyio
import pytest

from anyspawn import (
    Bubblewrap,
    Command,
    Completed,
    ConfigError,
    ExitError,
    NotStartedError,
    OutputLimitError,
    SpawnTimeoutError,
    TransportError,
)
from anyspawn.config import parse_config
from anyspawn.hooks import EvalResult, ExecEvalHook, run_hooks
from anyspawn.tools import (
    AnswerError,
    ExecEval,
    ExecSelector,
    ExecTool,
    Pending,
    Selection,
    ToolResult,
)

pytestmark = pytest.mark.anyio

ECHO = "import json,sys; print(json.dumps({'result': json.load(sys.stdin)}))"
SERVER = """
import json, sys, time
for line in sys.stdin:
    call = json.loads(line)
    told = call["params"]
    answer = {"jsonrpc": "2.0", "id": call["id"]}
    %s
    print(json.dumps(answer), flush=True)
"""


def python(code, kind=ExecTool, **options):
    fields = {"name": "t", "command": sys.executable, "args": ["-c", code], "timeout": 30}
    return kind(**fields | options)


def printing(text, kind=ExecTool, **options):
    return python(f"import sys; sys.stdin.read(); sys.stdout.write({text!r})", kind, **options)


def server(statement, kind=ExecTool, **options):
    return python(SERVER % statement, kind, runtime="server", **options)


@pytest.mark.parametrize("args", [{"q": 1}, None, [1, "é"], "text"])
async def test_what_a_tool_is_told(args):
    """A tool reads one JSON object with its arguments, whatever they are."""
    assert await python(ECHO)(args) == ToolResult(result={"args": args})


@pytest.mark.parametrize(
    ("answer", "result"),
    [
        ({"result": 3}, ToolResult(result=3)),
        ({"result": None}, ToolResult()),
        ({"result": {"a": [1]}, "error": ""}, ToolResult(result={"a": [1]})),
        ({"result": 0, "pending": None}, ToolResult(result=0)),
        ({"error": "no such page"}, ToolResult(error="no such page")),
        ({"result": None, "error": "x"}, ToolResult(error="x")),
        (
            {"pending": {"reason": "approval", "message": "ask"}},
            ToolResult(pending=Pending(reason="approval", message="ask")),
        ),
        ({"pending": {}}, ToolResult(pending=Pending())),
    ],
)
async def test_what_a_tool_answers(answer, result):
    """A tool answers with a result, an error or a pending state, as a process and as a server."""
    assert await printing(json.dumps(answer))({}) == result
    if len(answer) == 1:
        async with server(f"answer['result'] = {answer!r}") as tool:
            assert await tool({}) == result
    assert result.ok is (result.error is None and result.pending is None)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "answered nothing"),
        ("3", "is a number, not a JSON object"),
        ("{}", "none of 'result', 'error' and 'pending'"),
        ('{"reslt": 1}', "none of 'result'"),
        ('{"result": 1, "error": "x"}', "has result and error"),
        ('{"result": 1, "pending": {}}', "has result and pending"),
        ('{"error": 3}', "'error' of its answer is a number"),
        ('{"pending": true}', "'pending' of its answer is a boolean"),
        ('{"pending": {"reason": 3}}', "'reason' of its answer is a number"),
        ('{"result": 1} {"result": 2}', "not one JSON object"),
        ('{"result": NaN}', "NaN"),
        ('{"result": 1, "result": 2}', "key 'result' comes twice"),
    ],
)
async def test_answers_that_cannot_be_used(text, words):
    """Bad answers raise an error that names the tool and the cause; they are never a result."""
    with pytest.raises(AnswerError, match=words) as caught:
        await printing(text)({})
    assert str(caught.value).startswith("tool 't' failed: ")
    assert caught.value.completed.returncode == 0


async def test_an_answer_that_may_go_on_is_none():
    """The program left a process that holds its stdout, so more of the answer may follow. The
    message includes the end of stderr.
    """
    held = ExecTool(
        name="t",
        command="sh",
        args=["-c", "echo '{\"result\": 1}'; echo why >&2; sleep 100 &"],
        timeout=30,
    )
    with pytest.raises(AnswerError, match=r"may be incomplete.*; stderr: why"):
        await held({})


@pytest.mark.parametrize(
    ("tool", "error", "words"),
    [
        (python("import sys; sys.exit('no net')"), ExitError, "exited with status 1.*no net"),
        (python("import time; time.sleep(100)", timeout=0.5), SpawnTimeoutError, "timed out"),
        (printing("x" * 100, output_limit=10), OutputLimitError, "10 bytes"),
        (ExecTool(name="t", command="/no/such/program"), NotStartedError, "no/such/program"),
    ],
    ids=["exit", "timeout", "output", "missing"],
)
async def test_failures_of_a_process(tool, error, words):
    """Failures raise the same classes as any other call."""
    with pytest.raises(error, match=words) as caught:
        await tool({})
    assert caught.value.completed is not None


@pytest.mark.parametrize(
    ("statement", "error", "words"),
    [
        ("sys.exit(3)", ExitError, "exited with status 3 before it answered"),
        ("time.sleep(100)", SpawnTimeoutError, "had not answered after 1 s"),
        ("answer['result'] = 'x' * 10_000", OutputLimitError, "more than 5000 bytes"),
        ("answer['result'] = float('nan')", AnswerError, "NaN"),
    ],
    ids=["exit", "timeout", "output", "answer"],
)
async def test_failures_of_a_server(statement, error, words):
    """The same failures raise the same classes for a server."""
    # a short timeout must not hit the server's start
    timeout = 1 if error is SpawnTimeoutError else 60
    async with server(statement, output_limit=5000, timeout=timeout) as tool:
        with pytest.raises(error, match=words) as caught:
            await tool({})
        assert str(caught.value).startswith("tool 't' failed: its server")


async def test_a_server_that_does_not_start():
    with pytest.raises(NotStartedError, match="no/such/program"):
        await ExecTool(name="t", command="/no/such/program", runtime="server")({})


async def test_a_server_that_is_closed_during_a_call():
    """The error says that the tool may have done its work."""
    errors = []
    async with server("time.sleep(100)", timeout=60) as tool:

        async def call():
            with pytest.raises(TransportError) as caught:
                await tool({})
            errors.append(caught.value)

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(call)
            while not any(s._life and s._life._under_way for s in tool._servers.by_loop.values()):
                await anyio.sleep(0.01)
            await tool.aclose()
    assert errors[0].started is True
    assert "was killed before it answered: it was closed" in str(errors[0])


async def test_a_servers_result_is_the_tools_own():
    """The result can be any JSON value, and a JSON-RPC error is the tool's error. One process
    answers all calls.
    """
    async with server("answer['result'] = [told, __import__('os').getpid()]") as tool:
        first, second = await tool({"a": 1}), await tool({"a": 2})
        assert (first.result[0], second.result[0]) == ({"args": {"a": 1}}, {"args": {"a": 2}})
        assert first.result[1] == second.result[1]
    async with server("answer['error'] = {'code': 5, 'message': 'no page'}") as tool:
        assert await tool({}) == ToolResult(error="error 5: no page")


async def test_the_error_of_a_tool_hides_the_values_of_variables():
    """Errors hide the values; results are passed on unchanged."""
    code = "import json,os; t = os.environ['API_TOKEN']; print(json.dumps({%r: t}))"
    env = {"API_TOKEN": "sekrit-123456"}
    assert (await python(code % "error", env=env)({})).error == "***"
    assert (await python(code % "result", env=env)({})).result == "sekrit-123456"


async def test_arguments_that_json_cannot_hold():
    """The error is raised before anything starts."""
    for wrong in ({"a": float("nan")}, {"a": {1, 2}}, {1: 2}):
        with pytest.raises(ValueError, match=r"^args: "):
            await ExecTool(name="t", command="/no/such/program")(wrong)


async def test_in_a_sandbox(tmp_path):
    """A tool runs in its sandbox, as a process for each call and as a server."""
    mark = tmp_path / "mark"
    mark.touch()
    seen = f"__import__('os').path.exists('{mark}')"
    code = f"import json; print(json.dumps({{'result': {seen}}}))"
    assert (await python(code)({})).result is True
    async with Bubblewrap() as box:
        assert (await python(code, command="python3", sandbox=box)({})).result is False
        async with server(f"answer['result'] = {seen}", command="python3", sandbox=box) as tool:
            assert (await tool({})).result is False


async def test_an_evaluator():
    """An evaluator reads the available parts of the conversation, and its result fits
    eval hooks.
    """
    told = []
    code = (
        "import json,sys; t = json.load(sys.stdin); "
        "print(json.dumps({'score': 0.5, 'detail': 'so so', 'data': t}))"
    )
    tone = python(code, ExecEval, name="tone", timeout=None)
    assert tone.timeout == 30
    result = await tone("hello", params={"min": 1}, messages=[{"role": "user"}], session_id="s")
    assert isinstance(result, EvalResult)
    assert (result.type, result.score, result.explanation) == ("tone", 0.5, "so so")
    context = {"messages": [{"role": "user"}], "turn_index": 0, "session_id": "s"}
    told = {"type": "tone", "params": {"min": 1}, "content": "hello", "context": context}
    assert result.value == result.details == told
    assert (await tone("x")).details == {
        "type": "tone",
        "content": "x",
        "context": {"turn_index": 0},
    }
    hook = ExecEvalHook(name="h", command="true")
    assert (await run_hooks([hook], "eval_result", result)).allow


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{}", "no 'score'"),
        ('{"score": null}', "'score' of its answer is null"),
        ('{"score": true}', "'score' of its answer is a boolean"),
        ('{"score": 1e999}', "too large"),
        ('{"score": 1' + "0" * 400 + "}", "too large"),
        ('{"score": 1, "detail": []}', "'detail' of its answer is an array"),
        ('{"score": 1, "data": "x"}', "'data' of its answer is a string"),
    ],
)
async def test_scores_that_cannot_be_used(text, words):
    """A missing score or one that is not a number is an error, not 0."""
    with pytest.raises(AnswerError, match=f"eval 't' failed: .*{words}"):
        await printing(text, ExecEval)("x")


async def test_a_selector():
    """A selector reads the query and the candidates, and answers with ids of candidates."""
    code = (
        "import json,sys; t = json.load(sys.stdin); ids = [c['id'] for c in t['candidates']]; "
        "print(json.dumps({'selected': ids[::-1] + ids, 'reason': t['query']['text']}))"
    )
    candidates = [{"id": "a", "name": "A"}, {"id": "b"}]
    near = python(code, ExecSelector)
    chosen = await near({"text": "why"}, candidates)
    assert chosen == Selection(selected=("b", "a"), reason="why")
    assert (await near({"text": "why"}, [])).selected == ()


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{}", "no 'selected'"),
        ('{"selected": "a"}', "'selected' of its answer is a string"),
        ('{"selected": [1]}', "holds a number"),
        ('{"selected": ["z"]}', "names 'z', which is not a candidate"),
        ('{"selected": [], "reason": 3}', "'reason' of its answer is a number"),
    ],
)
async def test_selections_that_cannot_be_used(text, words):
    """An id that is not a candidate's is an error."""
    with pytest.raises(AnswerError, match=f"selector 't' failed: .*{words}"):
        await printing(text, ExecSelector)({}, [{"id": "a"}])


async def test_evaluators_and_selectors_as_servers():
    """A JSON-RPC result has the form that a process prints; a JSON-RPC error raises."""
    async with server("answer['result'] = {'score': 1}", ExecEval) as tone:
        assert (await tone("x")).score == 1.0
    async with server("answer['result'] = {'selected': ['a']}", ExecSelector) as near:
        assert (await near({}, [{"id": "a"}])).selected == ("a",)
    async with server("answer['result'] = 3", ExecEval) as tone:
        with pytest.raises(AnswerError, match="is a number, not a JSON object"):
            await tone("x")
    async with server("answer['error'] = {'code': 1, 'message': 'no'}", ExecEval) as tone:
        with pytest.raises(ExitError, match="answered with error 1: no"):
            await tone("x")


async def test_wrong_calls():
    """The error names the argument, and nothing starts."""
    tone = ExecEval(name="t", command="/no/such/program")
    near = ExecSelector(name="t", command="/no/such/program")
    with pytest.raises(TypeError, match=r"^content must be a text"):
        await tone(3)
    with pytest.raises(ValueError, match=r"^candidates\[1\] must be a mapping with a text 'id'"):
        await near({}, [{"id": "a"}, {"name": "b"}])
    with pytest.raises(ValueError, match=r"^candidates\[1\]: the id 'a' comes twice"):
        await near({}, [{"id": "a"}, {"id": "a"}])
    with pytest.raises(TypeError, match=r"^query must be a mapping"):
        await near("q", [])


class Endless:
    """A third-party sandbox that never returns, or leaves out the error."""

    name = "endless"
    default_timeout = 0.01

    def __init__(self, status=None):
        self._status = status

    async def spawn(self, command: Command) -> Completed:
        if self._status is None:
            await anyio.sleep_forever()
        return Completed(argv=command.argv, stdout=b'{"result": 1}', returncode=self._status)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"command": ""}, "command is empty"),
        ({"name": ""}, "name must be a text"),
        ({"args": "x"}, "args must be a list"),
        ({"timeout": "soon"}, "timeout must be a number"),
        ({"output_limit": 0}, "output_limit must be"),
        ({"runtime": "daemon"}, "runtime must be one of exec, server"),
        ({"sandbox": 3}, "sandbox must have a name"),
        ({"sandbox": Endless(), "runtime": "server"}, "a sandbox that can open a process"),
    ],
)
def test_wrong_arguments(options, words):
    """The error names the argument."""
    with pytest.raises(ConfigError, match=words):
        ExecTool(**{"name": "t", "command": "x"} | options)


async def test_bespoke_sandboxes(monkeypatch):
    """A sandbox that does not return is given up, and a bad status is an error even without an
    error object.
    """
    monkeypatch.setattr("anyspawn.tools._exec.BACKSTOP", 0.1)
    with pytest.raises(SpawnTimeoutError, match="its sandbox did not return"):
        await ExecTool(name="t", command="x", sandbox=Endless())({})
    with pytest.raises(ExitError, match="it exited with status 4"):
        await ExecTool(name="t", command="x", sandbox=Endless(4), timeout=5)({})

    class Broken(Endless):
        def open_process(self, command):
            raise RuntimeError("no way")

    with pytest.raises(RuntimeError, match="no way"):
        await ExecTool(name="t", command="x", sandbox=Broken(), runtime="server", timeout=30)({})


HEAD = "apiVersion: promptkit.altairalabs.ai/v1alpha1\nkind: RuntimeConfig\n"


def document(**spec):
    return HEAD + "spec: " + json.dumps(spec) + "\n"


async def test_an_open_configuration_has_them_all():
    """An open configuration has hooks, tools, evaluators and selectors, all callable; its servers
    end with it.
    """
    echo = {"command": sys.executable, "args": ["-c", ECHO], "timeout_ms": 30000}
    served = {**echo, "args": ["-c", SERVER % "answer['result'] = 7"], "runtime": "server"}
    scored = {**echo, "args": ["-c", "print('{\"score\": 2}')"]}
    chosen = {**echo, "args": ["-c", "print('{\"selected\": []}')"]}
    guard = {"command": "echo", "args": ['{"allow": false}'], "hook": "tool"}
    config = parse_config(
        document(
            hooks={"guard": guard},
            tools={"echo": echo, "served": served, "web": {"mode": "live", "http": {"url": "x"}}},
            evals={"tone": scored},
            selectors={"near": chosen},
        )
    )
    assert set(config.tools) == {"echo", "served"}
    async with config.open() as opened:
        assert (await opened.tools["echo"]({"a": 1})).result == {"args": {"a": 1}}
        assert (await opened.tools["served"]({})).result == 7
        assert (await opened.evals["tone"]("x")).score == 2
        assert (await opened.selectors["near"]({}, [])).selected == ()
        assert (await opened.hooks.run("before_execution", {})).blocks
        assert (await opened.hooks["guard"]("before_execution", {})).blocks
        (life,) = [s._life for s in opened.tools["served"]._servers.by_loop.values()]
        assert not life.over
    assert life.over


@pytest.mark.parametrize("runtime", ["exec", "server"])
async def test_calls_under_way_are_drained(runtime, tmp_path):
    """Leaving the configuration waits for a tool that another task is calling."""
    (tmp_path / "go").touch()
    wait = "import json,os,sys,time\nopen('{0}/began', 'w').close()\nwhile os.path.exists('{0}/go'): time.sleep(0.01)\n"
    code = wait.format(tmp_path) + "print('{\"result\": 1}')"
    if runtime == "server":
        indented = wait.format(tmp_path).replace("\n", "\n    ")
        code = SERVER % (indented + "\n    answer['result'] = 1")
    entry = {"command": sys.executable, "args": ["-c", code], "runtime": runtime}
    config = parse_config(document(tools={"slow": {**entry, "timeout_ms": 30000}}))
    results = []
    async with anyio.create_task_group() as tasks:
        async with config.open() as opened:

            async def call():
                results.append(await opened.tools["slow"]({}))

            tasks.start_soon(call)
            while not (tmp_path / "began").exists():
                await anyio.sleep(0.01)

            async def let_go():
                await anyio.sleep(0.2)
                (tmp_path / "go").unlink()

            tasks.start_soon(let_go)
        assert results == [ToolResult(result=1)]


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ({"tools": {"t": {"comand": "x"}}}, r"spec\.tools\.t\.comand: unknown key"),
        ({"tools": {"t": {"runtime": "server"}}}, r"spec\.tools\.t\.command: is missing"),
        ({"tools": {"t": {"command": "x", "http": {}}}}, r"spec\.tools\.t\.http: unknown key"),
        (
            {"tools": {"t": {"command": "x", "sandbox": "b"}}},
            r"spec\.tools\.t\.sandbox: no sandbox",
        ),
        ({"evals": {"t": {"args": []}}}, r"spec\.evals\.t\.command: is missing"),
        ({"evals": {"t": {"command": "x", "timeout_ms": "5"}}}, r"evals\.t\.timeout_ms: must be"),
        ({"selectors": {"t": {"command": ""}}}, r"spec\.selectors\.t\.command: is empty"),
        ({"selectors": {"t": None}}, r"spec\.selectors\.t: must be a mapping"),
        ({"selector": {}}, r"spec\.selector: unknown key; did you mean 'selectors'"),
        ({"tool_selector": "t"}, r"spec\.tool_selector: no selector is called 't'"),
        ({"tool_selector": 3}, r"spec\.tool_selector: must be a text"),
        ({"skills": {"selector": "t"}}, r"spec\.skills\.selector: no selector is called 't'"),
        ({"tools": {"t": {"command": "${NOPE_X}"}}}, r"spec\.tools\.t\.command: .*NOPE_X"),
    ],
)
def test_what_a_configuration_may_not_say(spec, words):
    """Each problem has its place in the file."""
    with pytest.raises(ConfigError, match=words):
        parse_config(document(**spec))


def test_what_is_bound_to_other_things_is_left_alone():
    """Entries with another binding are ignored, even if they use unset variables or keys that only
    the reference implementation knows.
    """
    tools = {
        "web": {"mode": "live", "http": {"url": "${NOPE_X}"}, "timeout_ms": "5s"},
        "mock": None,
        "mine": {"command": "x", "description": "a tool", "input_schema": {"type": "object"}},
    }
    assert list(parse_config(document(tools=tools)).tools) == ["mine"]
