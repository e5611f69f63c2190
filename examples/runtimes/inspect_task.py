"""An Inspect task whose samples each have a box; ``inspect eval inspect_task.py`` runs it."""

from __future__ import annotations

from inspect_ai import Task, task
from inspect_ai.dataset import Sample
from inspect_ai.scorer import includes
from inspect_ai.solver import Generate, TaskState, solver
from inspect_ai.util import sandbox

from anyspawn import Bubblewrap, Limits
from anyspawn.contrib.inspect_ai import provider

provider("small-box", Bubblewrap(limits=Limits(memory="1GiB")))


@solver
def count_files():  # type: ignore[no-untyped-def]  # its types are not installed everywhere
    async def solve(state: TaskState, generate: Generate) -> TaskState:  # noqa: ARG001  its protocol
        await sandbox().write_file("a/b.txt", "text")
        done = await sandbox().exec(["sh", "-c", "ls a"])
        state.output.completion = done.stdout
        return state

    return solve


@task  # type: ignore[untyped-decorator]
def boxed() -> Task:
    return Task(
        dataset=[Sample(input="Which files are there?", target="b.txt")],
        solver=count_files(),
        scorer=includes(),
        sandbox="small-box",
    )
