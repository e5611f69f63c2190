"""Uses of the public API, checked by mypy in strict mode and never run.

An error that is expected carries an ignore comment; strict mode reports one that is no longer
needed.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, assert_type

import anyspawn
from anyspawn import (
    ArgvSandbox,
    Bubblewrap,
    Cleanup,
    Command,
    Completed,
    Direct,
    DockerExec,
    DockerRun,
    Egress,
    EgressCounts,
    ExitError,
    KubectlExec,
    KubectlRun,
    Launch,
    NotStartedError,
    Process,
    Registry,
    Sandbox,
    SandboxFactory,
    SpawnError,
    SpawnTimeoutError,
    TransportError,
    default_registry,
    lookup_sandbox,
    register_sandbox,
    spawn,
    sync,
)
from anyspawn.argv import bubblewrap_argv
from anyspawn.config import OpenConfig, RuntimeConfig, load_config
from anyspawn.containers import (
    ContainerInfo,
    ContainerManager,
    ContainerSpec,
    Orphan,
    SecurityConfig,
    reap_orphans,
    running,
)
from anyspawn.hooks import (
    Decision,
    EvalResult,
    ExecHook,
    ExecToolHook,
    HookRunner,
    ToolRequest,
    run_hooks,
)
from anyspawn.tools import Selection, ToolResult


async def calls(chunks: list[bytes]) -> None:
    def keep(stream: Literal["stdout", "stderr"], chunk: bytes) -> None:
        chunks.append(chunk)

    async def keep_async(stream: Literal["stdout", "stderr"], chunk: bytes) -> None:
        chunks.append(chunk)

    assert_type(await spawn(["true"]), Completed)
    await spawn(("true",), stdin=None, env={"A": "1"}, cwd="/", timeout=1, on_output=keep)
    await spawn(
        Command(["true"], env=["A=1", "HOME"]), sandbox=Bubblewrap(readonly=["/srv"]), check=True
    )
    await spawn(["true"], on_output=keep_async, overflow="truncate", output_limit=10)
    await spawn(["true"], overflow="drop")  # type: ignore[arg-type]
    await spawn(["true"], stdin="text")  # type: ignore[arg-type]
    await spawn(["true"], 5)  # type: ignore[call-arg, arg-type]
    await spawn(["true"], on_output=print_number)  # type: ignore[arg-type]


async def live(command: Command) -> None:
    async with anyspawn.open_process(
        ["cat"], sandbox=Bubblewrap(), env={"A": "1"}, timeout=5, grace=1
    ) as process:
        assert_type(process, Process)
        assert_type(process.returncode, int | None)
        assert_type(process.completed, Completed | None)
        await process.stdin.send(b"x")
        assert_type(await process.stdout.receive(), bytes)
        assert_type(await process.wait(), int)
    async with Direct().open_process(command) as process:
        await process.send_signal(2)
    anyspawn.open_process(["cat"], stdin=b"x")  # type: ignore[call-arg]


async def python(box: anyspawn.Box) -> None:
    async with box.python("python3.13", cwd="x", env=["A=1"]) as session:
        assert_type(session, anyspawn.PythonSession)
        result = await session.run("1", timeout=None, overflow="tail")
        assert_type(result, anyspawn.PythonResult)
        assert_type(result.value, str | None)
        assert_type(result.error, anyspawn.PythonFailure | None)
        assert_type(result.state_lost, bool)
        await session.run(b"1")  # type: ignore[arg-type]


def print_number(number: int) -> None: ...


def outcome(completed: Completed) -> None:
    assert_type(completed.argv, tuple[str, ...])
    assert_type(completed.returncode, int | None)
    assert_type(completed.egress, EgressCounts | None)
    assert_type(completed.stdout, bytes)
    assert_type(completed.error, SpawnError | None)
    assert_type(completed.cleanup, Cleanup)
    assert_type(completed.check(), Completed)
    completed.returncode = 3  # type: ignore[misc]
    match completed.error:
        case SpawnTimeoutError() | ExitError():
            pass
        case NotStartedError(reason=reason):
            assert_type(reason, str)
        case TransportError(started=started):
            assert_type(started, bool | None)
        case SpawnError(completed=whole):
            assert_type(whole, Completed | None)
        case None:
            pass


class Ssh(ArgvSandbox):
    def launch(self, command: Command) -> Launch:
        return Launch(argv=("ssh", "host", "--", *command.argv), stdin=command.stdin, runner="ssh")


class Cloud:
    name = "cloud"

    async def spawn(self, command: Command) -> Completed:
        return Completed(argv=command.argv, returncode=0)


def make(name: str, config: Mapping[str, Any]) -> Sandbox:
    return Ssh(name=name)


async def sandboxes(registry: Registry) -> None:
    both: list[Sandbox] = [Ssh(name="ssh"), Cloud()]
    await spawn(["true"], sandbox=both[0])
    await spawn(["true"], sandbox=object())  # type: ignore[arg-type]
    async with Direct(max_concurrent=3) as direct:
        assert_type(direct, Direct)
    registry.register("ssh", make)
    register_sandbox("ssh", make)
    register_sandbox("ssh", print_number)  # type: ignore[arg-type]
    assert_type(lookup_sandbox("ssh"), SandboxFactory)
    assert_type(default_registry.modes(), tuple[str, ...])
    assert_type(bubblewrap_argv(Bubblewrap(), Command(["true"])), tuple[str, ...])
    Bubblewrap(network="none")  # type: ignore[arg-type]
    Bubblewrap(network=Egress(allow=["pypi.org"], private=(), resolve=resolve))
    DockerRun("busybox", network=Egress(allow=[], resolve=lambda name, port: ["::1"]))  # type: ignore[arg-type, return-value]
    Direct("direct")  # type: ignore[call-arg, arg-type]


def threads() -> None:
    assert_type(sync.spawn(["true"], timeout=1.0), Completed)
    sync.spawn("ls", timeout="1")  # type: ignore[arg-type]
    with sync.open_box("bubblewrap") as box:
        assert_type(box.read_file("a", limit=1), bytes)
        box.write_file("a")  # type: ignore[call-arg]
    with sync.HookRunner([]) as runner:
        assert_type(runner.run("before_execution", {}), Decision)


async def resolve(name: str, port: int) -> list[str]:
    return [f"{name}:{port}"]


async def containers(manager: ContainerManager, spec: ContainerSpec) -> None:
    assert_type(await manager.create(spec), str)
    assert_type(await manager.run("id"), int)
    assert_type(await manager.inspect("id"), ContainerInfo)
    async with running(spec) as box:
        assert_type(box, DockerExec)
    assert_type(await reap_orphans(), list[Orphan])
    DockerRun("busybox", security=SecurityConfig(memory="1g"), pull="missing")
    DockerRun("busybox", pull="always")  # type: ignore[arg-type]
    DockerExec("box", supervisor="maybe")  # type: ignore[arg-type]
    assert_type(
        KubectlExec("deployment/hooks", namespace="agents", max_concurrent_per_pod=4).pod,
        str | None,
    )
    KubectlExec(selector="app=hooks", supervisor="required")
    KubectlRun(
        "busybox", resources={"limits": {"cpu": "1"}}, overrides={"spec": {"hostNetwork": False}}
    )
    KubectlRun("busybox", image_pull_policy="missing")  # type: ignore[arg-type]
    assert_type(await reap_orphans(mode="kubectl_run", namespace="agents"), list[Orphan])


async def hooks(guard: ExecToolHook, config: RuntimeConfig) -> None:
    assert_type(await guard.before_execution({"any": ["json"]}), Decision)
    async with config.open() as runner:
        assert_type(runner, OpenConfig)
        assert_type(await runner.tools["search"]({"q": 1}), ToolResult)
        assert_type(await runner.evals["tone"]("text"), EvalResult)
        assert_type(await runner.selectors["near"]({}, []), Selection)
        assert_type(await run_hooks(runner, "before_execution", ToolRequest(name="x")), Decision)
        assert_type(runner["guard"], ExecHook)
    assert_type(load_config("agent.yaml"), RuntimeConfig)
    async with ExecToolHook(name="x", command="y", runtime="server") as server:
        assert_type(server, ExecToolHook)
    ExecToolHook(name="x", command="y", runtime="worker")  # type: ignore[arg-type]
    ExecToolHook(name="x", command="y", mode="maybe")  # type: ignore[arg-type]


async def phases_are_literals(hook: ExecToolHook, runner: HookRunner) -> None:
    assert_type(await hook.run("before_execution", {}), Decision)
    await hook.run("before_exec", {})  # type: ignore[arg-type]
    await runner.run("Stop", {})
    await runner.run("stopp", {})  # type: ignore[arg-type]
    ExecToolHook(name="x", command="x", phases=["after_execution"])
    ExecToolHook(name="x", command="x", phases=["after_exec"])  # type: ignore[list-item]
