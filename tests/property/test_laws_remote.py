"""The laws of `launch` for commands in containers, and the fixed layouts of argvs."""

from __future__ import annotations

import builtins
import itertools
import re
from unittest import mock

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

import strategies as own
from anyspawn import Command, ConfigError, DockerExec, DockerRun, KubectlExec, KubectlRun
from anyspawn.argv import docker_exec_argv, docker_run_argv, kubectl_exec_argv, kubectl_run_argv
from anyspawn.supervisor import reading_script, script, script_line
from frames import Frames

modes = pytest.mark.parametrize("mode", sorted(own.container_sandboxes))


def drawn(data, mode):
    return data.draw(own.container_sandboxes[mode]), data.draw(own.container_commands)


@modes
@given(data=st.data())
def test_suffix(mode, data):
    """CMD ARGS is always a verbatim suffix."""
    sandbox, command = drawn(data, mode)
    launch = sandbox.launch(command)
    if own.stays(launch):
        assert own.task_words(launch, command)[-len(command.argv) :] == list(command.argv)
    else:
        assert launch.argv[-len(command.argv) :] == command.argv


@modes
@given(data=st.data())
def test_bytes_that_are_not_text(mode, data):
    """A resident gets the bytes unchanged. Elsewhere they are refused, because the engines would
    change them.
    """
    sandbox, command = drawn(data, mode)
    command = attrs.evolve(command, argv=(*command.argv, "\udcff"))
    if getattr(sandbox, "resident", 0) not in {0, "auto"}:
        assert own.task_words(sandbox.launch(command), command)[-1] == "\udcff"
    else:
        with pytest.raises(ConfigError, match="argv has bytes that are not UTF-8"):
            sandbox.launch(command)


@modes
@given(data=st.data())
def test_variables_once(mode, data):
    """Every env name arrives once, with its exact value."""
    sandbox, command = drawn(data, mode)
    arriving = own.container_variables(sandbox.launch(command), command)
    assert len({name for name, _ in arriving}) == len(arriving)
    assert dict(arriving) == dict(command.env)


@modes
@given(data=st.data())
def test_no_secret_in_argv(mode, data):
    """No argv contains a variable's value or any byte of stdin, including the argvs of the
    clean-up.
    """
    sandbox, command = drawn(data, mode)
    launch = sandbox.launch(command)
    words = "\0".join((*launch.argv, *launch.stop, *launch.end, *launch.gone, *launch.guard))
    assert "s3cret-" not in words
    assert "st4in-" not in words


@modes
@given(data=st.data())
def test_stdin_whole_and_last(mode, data):
    """The program's whole stdin is passed on unchanged, with a supervisor or without."""
    sandbox, command = drawn(data, mode)
    launch = sandbox.launch(command)
    read = launch.stdin if launch.task is None else launch.task.stdin
    assert read == command.stdin


@modes
@given(data=st.data())
def test_deterministic(mode, data):
    """The same settings and command give the same launch."""
    sandbox, command = drawn(data, mode)
    assert sandbox.launch(command) == sandbox.launch(command)


@modes
@given(data=st.data())
def test_pure(mode, data):
    """`launch` touches neither environment nor disk."""
    sandbox, command = drawn(data, mode)
    script_line()  # the script is read once, when the first supervisor needs it
    with (
        mock.patch.object(builtins, "open", side_effect=AssertionError),
        mock.patch("os.environ", new=None),
        mock.patch("os.stat", side_effect=AssertionError),
    ):
        sandbox.launch(command)


def test_a_program_that_is_given_the_script():
    """An argument that equals the script does not change how the supervisor starts."""
    for sandbox in (DockerExec("box"), KubectlExec("pod")):
        plain, odd = (
            sandbox.launch(Command(["cat", arg], id="ab" * 8)) for arg in ("x", reading_script())
        )
        assert odd.task == plain.task


def target_of(mode, sandbox, command):
    if mode == "bubblewrap with residents":
        return "--"
    if mode == "docker_run with residents":
        return "busybox"
    return {
        "docker_run": lambda: sandbox.image,
        "docker_exec": lambda: sandbox.container,
        "kubectl_exec": lambda: sandbox.pod or "pod/?",
        "kubectl_run": lambda: f"anyspawn-{command.id}",
    }[mode.removesuffix(" with residents")]()


@modes
@given(data=st.data())
def test_no_value_becomes_an_option(mode, data):
    """Before the image or the container, argv contains only the flags that the settings and the
    variables' names need.
    """
    sandbox, command = drawn(data, mode)
    launch = sandbox.launch(command)
    argv = launch.argv
    head = argv if own.stays(launch) else argv[: len(argv) - len(command.argv)]
    allowed = ("-i", "--", "-v", "-e", "-c", "-n")
    assert target_of(mode, sandbox, command) in head
    assert all(word.startswith(allowed) for word in head if word.startswith("-"))


def test_layouts():
    """The layouts are those of the reference implementation, plus some standard flags."""
    plain = DockerExec(
        "box", workdir="/app", user="me", extra_args=["--privileged"], supervisor="off"
    )
    assert docker_exec_argv(plain, Command(["cat", "-n"])) == (
        *(
            "docker",
            "exec",
            "-i",
            "--workdir=/app",
            "--user=me",
            "--privileged",
            "box",
            "cat",
            "-n",
        ),
    )
    supervised = docker_exec_argv(DockerExec("box"), Command(["cat", "-n"], env={"A": "b"}))
    assert supervised == (
        "docker",
        "exec",
        "-i",
        "box",
        "sh",
        "-c",
        script(),
        "anyspawn",
        "cat",
        "-n",
    )
    run = DockerRun(
        "busybox",
        network="none",
        mounts=["/a:/b", "v:/c"],
        extra_args=["--memory=1g"],
        docker_path="podman",
    )
    command = Command(["cat"], env={"A": "b", "C": "d\ne"}, id="ab" * 8)
    assert docker_run_argv(run, command) == (
        *(
            "podman",
            "run",
            "--rm",
            "-i",
            "--name",
            "anyspawn-abababababababab",
            "--label",
            "io.anyspawn.id=abababababababab",
        ),
        *(
            "--label",
            "io.anyspawn.owner=?",
            "--pull=never",
            "--log-driver=none",
            "--network=none",
            "-v",
            "/a:/b",
            "-v",
            "v:/c",
            "--entrypoint=",
        ),
        *("--env-file", "/dev/fd/?", "-e", "C", "--memory=1g", "busybox", "cat"),
    )


def test_kubectl_layouts():
    """The layout is that of the reference implementation, with the supervisor between target and
    command.
    """
    plain = KubectlExec(
        *("agent",),
        namespace="ns",
        container="hooks",
        kubeconfig="/k.yaml",
        context="prod",
        extra_args=["--request-timeout=5s"],
        supervisor="off",
    )
    head = (
        "kubectl",
        "--kubeconfig=/k.yaml",
        "--context=prod",
        "exec",
        "-i",
        "-n",
        "ns",
        "-c",
        "hooks",
    )
    assert kubectl_exec_argv(plain, Command(["cat", "-n"])) == (
        *head,
        "--request-timeout=5s",
        "agent",
        "--",
        "cat",
        "-n",
    )
    assert kubectl_exec_argv(
        KubectlExec("deployment/x"), Command(["cat", "-n"], env={"A": "b"}, cwd="/x")
    ) == (
        *(
            "kubectl",
            "exec",
            "-i",
            "deployment/x",
            "--",
            "sh",
            "-c",
            reading_script(),
            "anyspawn",
            "cat",
            "-n",
        ),
    )
    assert kubectl_exec_argv(KubectlExec(selector="a=b"), Command(["cat"]))[:5] == (
        *("kubectl", "exec", "-i", "pod/?", "--"),
    )
    run = KubectlRun("busybox", namespace="ns", kubectl_path="/bin/kubectl")
    assert kubectl_run_argv(run, Command(["cat"], id="ab" * 8)) == (
        *(
            "/bin/kubectl",
            "exec",
            "-i",
            "-n",
            "ns",
            "-c",
            "main",
            "anyspawn-abababababababab",
            "--",
        ),
        *("sh", "-c", reading_script(), "anyspawn", "cat"),
    )


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: DockerRun(""), "image is empty"),
        (lambda: DockerRun("-it"), "image must not start with '-'"),
        (lambda: DockerRun("a\0b"), "image contains a NUL"),
        (lambda: DockerRun(3), "image must be a str"),
        (lambda: DockerRun("a", network="-x"), "network must not start with '-'"),
        (lambda: DockerRun("a", network=""), "network is empty"),
        (lambda: DockerRun("a", mounts="x:/y"), "mounts must be a list"),
        (lambda: DockerRun("a", mounts=["-v"]), "mounts: '-v' is not of the form"),
        (lambda: DockerRun("a", mounts=["/a"]), "mounts: '/a' is not of the form"),
        (lambda: DockerRun("a", user="-0"), "user must not start with '-'"),
        (lambda: DockerRun("a", workdir=""), "workdir is empty"),
        (lambda: DockerRun("a", extra_args="--x"), "extra_args must be a list"),
        (lambda: DockerRun("a", docker_path=""), "docker_path is empty"),
        (lambda: DockerRun("a", pull="always"), "pull must be 'never' or 'missing'"),
        (lambda: DockerRun("a", security={}), "security must be a SecurityConfig or None"),
        (lambda: DockerExec(""), "container is empty"),
        (lambda: DockerExec("-c"), "container must not start with '-'"),
        (KubectlExec, "pod or selector: give one of them"),
        (lambda: KubectlExec("a", selector="b=c"), "pod or selector: give one of them"),
        (lambda: KubectlExec(""), "pod is empty"),
        (lambda: KubectlExec("-n"), "pod must not start with '-'"),
        (lambda: KubectlExec("deployment/"), "pod must be NAME or KIND/NAME"),
        (lambda: KubectlExec("a", namespace="--x"), "namespace must not start with '-'"),
        (
            lambda: KubectlExec("a", max_concurrent_per_pod=0),
            "max_concurrent_per_pod must be an int of 1 or more",
        ),
        (
            lambda: KubectlExec("a").launch(Command(["x"], env={"a-b": "c"})),
            "a shell cannot pass on 'a-b'",
        ),
        (
            lambda: DockerExec("a", supervisor="on"),
            "supervisor must be 'auto', 'required' or 'off'",
        ),
        (
            lambda: DockerExec("a").launch(Command(["x"], env={"a-b": "c"})),
            "a shell cannot pass on 'a-b'",
        ),
        (
            lambda: DockerRun("a", resident=1).launch(Command(["x"], env={"a-b": "c"})),
            "a shell cannot pass on 'a-b'; use letters, digits and _, or leave out resident",
        ),
        (lambda: DockerExec("a").launch(Command(["x"], stdin=None)), "needs supervisor='off'"),
        (
            lambda: DockerRun("a").launch(Command(["x"], env={"PATH": "a\nb"})),
            "docker would take the variable for itself",
        ),
        (
            lambda: DockerRun("a").launch(Command(["x"], env={"DOCKER_HOST": "a\tb"})),
            "the value of DOCKER_HOST",
        ),
        (
            lambda: DockerRun("a").launch(Command(["x"], env={"#a": "c"})),
            "'#a' cannot be passed to a container",
        ),
    ],
)
def test_wrong_values(make, message):
    """Each error names the field before anything starts, and contains no variable's value."""
    with pytest.raises(ConfigError) as caught:
        make()
    assert message in str(caught.value)


NONCE = "n" * 32


@given(
    pieces=st.lists(
        st.binary(max_size=20)
        | st.sampled_from(
            [
                b"\x1e",
                b"\x1e" + b"n" * 10,
                b"\x1e" + NONCE.encode(),
                b"\x1e" + NONCE.encode() + b" " + b"x" * 99,
            ]
        ),
        max_size=6,
    ),
    words=st.lists(st.sampled_from(["unstarted 126", "exit 3", "clean"]), max_size=4),
    cuts=st.lists(st.integers(0, 400), max_size=30),
    impatient=st.booleans(),
)
def test_frames_are_taken_out_whatever_the_chunks_are(pieces, words, cuts, impatient):
    """The parser removes the frames and nothing else. Output that looks like the beginning of a
    frame stays, and is passed on if nothing follows. If a frame is split just then, its first bytes
    stay in the output too.
    """
    frames = [b"\x1e" + NONCE.encode() + b" " + word.encode() + b"\x1e" for word in words]
    # so that a piece and a frame cannot form another frame
    output = [piece + b"." for piece in pieces]
    opening = b"the client's own words\n\x1eanyspawn ready\nand more"
    mixed = [opening, b"\x1e" + NONCE.encode() + b" start\x1e"] + [
        part
        for index in range(max(len(frames), len(output)))
        for part in (*output[index : index + 1], *frames[index : index + 1])
    ]
    stream = b"".join(mixed)
    found, parser = b"", Frames(NONCE)
    edges = sorted({0, len(stream), *(cut for cut in cuts if cut < len(stream))})
    for begin, end in itertools.pairwise(edges):
        found += parser.feed(stream[begin:end])
        if impatient and parser.doubtful:
            found += parser.pass_on()
            assert not parser.doubtful
    found += parser.rest()
    if not any(NONCE.encode() + b" " in piece for piece in pieces):
        begins = [match.start() for match in re.finditer(b"\x1e" + NONCE.encode() + b" ", stream)]
        if not impatient or not any(begin < edge < begin + 8 for begin in begins for edge in edges):
            assert found == b"".join(output)
        assert parser.words == ["ready", "start", *words]
        assert parser.opening == b"the client's own words\nand more"


def test_a_frame_of_another_nonce_is_output():
    """A program may print a frame of another nonce."""
    parser = Frames(NONCE)
    assert parser.feed(b"\x1e" + NONCE.encode() + b" start\x1e") == b""
    forged = b"\x1e" + b"m" * 32 + b" exit 0\x1e"
    assert parser.feed(forged) + parser.rest() == forged
    assert parser.exit_status is None
