"""`KubectlExec` and the newest kubectl's WebSockets, with a server on loopback whose faults can be
chosen.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import time

import attrs
import pytest

from anyspawn import (
    Cleanup,
    ExitError,
    KubectlExec,
    OutputLimitError,
    SpawnTimeoutError,
    TransportError,
    spawn,
)
from api import Api
from cluster import clients

pytestmark = pytest.mark.anyio


@pytest.fixture
def served(tmp_path, monkeypatch):
    """Return a function that starts a server with a fault, and returns the server and a sandbox for
    it.
    """
    monkeypatch.setenv("KUBECACHEDIR", str(tmp_path / "cache"))
    with contextlib.ExitStack() as stack:

        def start(fault=""):
            api = Api(fault)
            stack.callback(api.close)
            config = api.kubeconfig(tmp_path)
            return api, KubectlExec(
                "pod", kubeconfig=config, kubectl_path=clients()[-1], default_timeout=30
            )

        yield start


@pytest.mark.parametrize("size", [0, 1, 65_537, 5_000_003])
async def test_web_sockets(served, size):
    """Input of any size arrives and ends (the half-close), and both outputs and the status come
    back.
    """
    api, box = served()
    data = os.urandom(size)
    done = await spawn(["sh", "-c", "md5sum; echo err >&2; exit 7"], stdin=data, sandbox=box)
    assert done.stdout.split()[0].decode() == hashlib.md5(data).hexdigest(), done
    assert (done.stderr, done.returncode, done.cleanup) == (b"err\n", 7, Cleanup.NOT_NEEDED)
    assert isinstance(done.error, ExitError)
    assert any("/exec?" in path for path in api.requests)


async def test_what_the_server_is_asked(served):
    """A request contains neither a variable's value nor stdin, so an audit log cannot show them;
    and it is short.
    """
    api, box = served()
    done = await spawn(
        ["sh", "-c", "cat; echo $A"], stdin=b"s3cret-1", env={"A": "s3cret-2"}, cwd="/", sandbox=box
    )
    assert done.stdout == b"s3cret-1s3cret-2\n"
    assert api.requests
    assert not [path for path in api.requests if "s3cret" in path]
    assert max(map(len, api.requests)) < 512


@pytest.mark.parametrize("fault", ["", "drop"])
async def test_the_lifeline_over_a_web_socket(served, fault):
    """When a call ends early, the half-close alone makes the supervisor kill the program."""
    api, box = served(fault)
    limit = 1000 if fault else 4
    done = await spawn(
        ["sh", "-c", "setsid sleep 999 & echo half; sleep 999"], sandbox=box, output_limit=limit
    )
    if fault:
        assert isinstance(done.error, TransportError), done
        assert done.error.started is True
    else:
        assert isinstance(done.error, OutputLimitError), done
        assert (done.returncode, done.cleanup) == (137, Cleanup.CONFIRMED)
    assert api.processes[0].wait(10) == 0  # the supervisor exits when nothing of the call is left


async def test_a_server_that_never_answers(served):
    """The timeout holds, and the error says that nothing was started."""
    _, box = served("hang")
    began = time.monotonic()
    done = await spawn(["true"], sandbox=box, timeout=1)
    assert isinstance(done.error, SpawnTimeoutError)
    assert re.match(r"'true' was not started: kubectl\S* was not ready within 1 s", str(done.error))
    assert time.monotonic() - began < 10
    assert done.cleanup is Cleanup.CONFIRMED


@pytest.mark.parametrize(
    ("fault", "started", "stdout"),
    [
        ("drop at once", False, b""),
        ("drop", True, b"first "),
        ("no end", True, b"first half\n"),
        ("cut", True, b"first "),
    ],
)
async def test_connections_that_break(served, fault, started, stdout):
    """A lost connection must not look like an exit: neither if the status is lost, nor if the end
    of an output is.
    """
    _, box = served(fault)
    done = await spawn(["sh", "-c", "echo first half"], sandbox=box)
    assert isinstance(done.error, TransportError), done
    assert (done.error.started, done.returncode, done.stdout) == (started, None, stdout)
    if fault == "cut":
        assert "the end of the output of 'sh' is missing" in str(done.error)


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        ("429", "have fewer calls in flight"),
        ("503", "the API server is not available now"),
        ("429 exec", ""),
    ],
)
async def test_a_server_that_refuses(served, fault, words):
    """Nothing ran, and the error says why."""
    _, box = served(fault)
    done = await spawn(["true"], sandbox=box)
    assert isinstance(done.error, TransportError), done
    assert done.error.started is False
    assert words in str(done.error)


async def test_exit_0_without_proof(fake_kubectl):
    """A client that exits with 0, without the supervisor's frames, is not a success."""
    for script in (
        "exit 0",
        "printf '\\036anyspawn ready\\n' >&2; read -r x; exit 0",
        "cat >/dev/null; exit 0",
    ):
        box = KubectlExec("pod", kubectl_path=fake_kubectl(script), supervisor="required")
        done = await spawn(["true"], sandbox=box, timeout=5)
        assert isinstance(done.error, (TransportError, SpawnTimeoutError)), done
        assert done.returncode is None
    box = attrs.evolve(box, kubectl_path=fake_kubectl("exit 0"))
    assert (await spawn(["true"], sandbox=box)).error.started is False


def supervised(*words, out="", then="exit 0"):
    """Return a kubectl that plays a supervisor: it writes frames with some words to stderr, and
    some output to stdout.
    """
    lines = [
        "printf '\\036anyspawn ready\\n' >&2",
        'read -r script; read -r line || exit 125; eval "${line%%;*}"',
        "echo >>$0.ran",
    ]
    lines += [
        "printf '\\036%s start\\036' $_nonce",
        "printf '\\036%s start\\036' $_nonce >&2",
        f"printf '{out}'",
    ]
    lines += [f"printf '\\036%s {word}\\036' $_nonce >&2" for word in words]
    return "\n".join([*lines, then])


async def test_an_end_of_output_that_was_not_seen(fake_kubectl):
    """The status arrived, but the end of stdout did not. The two come over different streams, so
    output may be missing.
    """
    path = fake_kubectl(
        supervised("exit 0", out="first half", then="echo 'error: unexpected EOF' >&2; exit 1")
    )
    done = await spawn(["true"], sandbox=KubectlExec("pod", kubectl_path=path))
    assert isinstance(done.error, TransportError), done
    assert (done.error.started, done.returncode, done.stdout) == (True, None, b"first half")


@pytest.mark.parametrize(
    ("word", "cleanup"), [("held", Cleanup.CONFIRMED), ("elusive", Cleanup.UNCONFIRMED)]
)
async def test_a_look_from_outside(fake_kubectl, word, cleanup):
    """If a look from outside finds nothing, the clean-up is confirmed, unless the supervisor
    reported processes that are too fast to see.
    """
    said = supervised("exit 0", word, then="printf '\\036%s end\\036' $_nonce")
    path = fake_kubectl(f"case $* in *ANYSPAWN_ID=*) exit ;; esac\n{said}")
    done = await spawn(["true"], sandbox=KubectlExec("pod", kubectl_path=path))
    assert (done.error, done.cleanup) == (None, cleanup), done


@pytest.mark.parametrize("supervisor", ["auto", "required"])
async def test_a_program_that_says_there_is_no_sh(fake_kubectl, tmp_path, supervisor):
    """The program has run, so its claim that there is no sh must not make anyspawn run it again."""
    said = """echo 'exec: "sh": executable file not found in $PATH' >&2; kill -9 $$"""
    box = KubectlExec(
        "pod", kubectl_path=fake_kubectl(supervised(then=said)), supervisor=supervisor
    )
    done = await spawn(["true"], sandbox=box)
    assert isinstance(done.error, TransportError), done
    assert done.error.started is True
    assert (tmp_path / "kubectl.ran").read_text() == "\n"


@pytest.mark.parametrize(
    ("script", "started"),
    [
        ("echo 'dial tcp: connection refused' >&2; kill -9 $$", None),
        ("echo 'error: container not found' >&2; echo 'error: unexpected EOF' >&2; exit 1", None),
        ("printf 'error: mine' >&2; echo 'error: unexpected EOF' >&2; exit 1", None),
        ("echo 'Error from server (NotFound): pods \"x\" not found'; exit 1", None),
        ("echo 'Error from server (NotFound): pods \"x\" not found' >&2; exit 1", False),
    ],
)
async def test_without_a_supervisor_a_programs_words_prove_nothing(fake_kubectl, script, started):
    """The error says that nothing was started only if kubectl itself must have written
    the message.
    """
    box = KubectlExec("pod", kubectl_path=fake_kubectl(script), supervisor="off")
    done = await spawn(["true"], sandbox=box)
    assert isinstance(done.error, TransportError), done
    assert done.error.started is started
    assert (done.cleanup is Cleanup.NOT_NEEDED) is (started is False)


async def test_nothing_is_started_in_the_grace(fake_kubectl, tmp_path):
    """If the connection is ready only after the timeout, the supervisor does not get the task any
    more.
    """
    path = fake_kubectl("sleep 2\n" + supervised("exit 0"))
    done = await spawn(
        ["true"], sandbox=KubectlExec("pod", kubectl_path=path), timeout=0.5, grace=10
    )
    assert isinstance(done.error, SpawnTimeoutError)
    assert done.duration < 10
    assert not (tmp_path / "kubectl.ran").exists()
