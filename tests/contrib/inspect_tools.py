"""A run of Inspect whose sample uses the tools that Inspect injects, beside the example:
``inspect_tools.py SANDBOX FOLDER``. One run is quicker than two.
"""

from __future__ import annotations

import runpy
import sys
from pathlib import Path

from inspect_ai import Task, eval  # noqa: A004  Inspect's name
from inspect_ai.dataset import Sample
from inspect_ai.solver import solver
from inspect_ai.tool import bash_session, text_editor
from inspect_ai.util import sandbox

from anyspawn import DockerRun
from anyspawn.containers import SecurityConfig

LOOSE = SecurityConfig(cap_drop=(), read_only=False, tmpfs=(), user=None, no_new_privileges=False)
DOCKER = DockerRun("python:3-slim", security=LOOSE, default_timeout=60)


@solver
def tools():
    async def solve(state, _):
        done = await sandbox().exec_remote(["sh", "-c", "echo out; exit 3"], stream=False)
        await text_editor()(command="create", path="/tmp/a", file_text="edited")
        shown = await bash_session()(action="type_submit", input="cat /tmp/a")
        print(done.returncode, done.stdout, shown)  # noqa: T201  this is how it answers
        return state

    return solve


if __name__ == "__main__":
    name, folder = sys.argv[1:]
    tasks = [Task([Sample(input="go")], solver=tools(), sandbox=name)]
    if name == "anyspawn":
        example = Path(__file__).parents[2] / "examples" / "runtimes" / "inspect_task.py"
        tasks.append(runpy.run_path(str(example))["boxed"]())
    else:
        from anyspawn.contrib.inspect_ai import provider

        provider(name, DOCKER)
    logs = eval(tasks, model="mockllm/model", display="none", log_dir=folder)
    print(*(log.status for log in logs))  # noqa: T201
    print(*(log.results.scores[0].metrics["accuracy"].value for log in logs[1:]))  # noqa: T201
