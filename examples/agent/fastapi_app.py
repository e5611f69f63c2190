"""A FastAPI endpoint that lets hooks judge every tool call before it runs, and answers a denial at
once.

Run it with: uvicorn fastapi_app:app
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Annotated, Any

from fastapi import Body, FastAPI, HTTPException, Request

from anyspawn import Bubblewrap, ExitError, spawn
from anyspawn.config import load_config
from anyspawn.hooks import ToolRequest

HERE = Path(__file__).parent


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    """Hold the hooks open as long as the application runs; on the way out, what still observes is
    drained.
    """
    async with load_config(HERE / "agent.yaml").open() as hooks:
        app.state.hooks = hooks
        yield


app = FastAPI(lifespan=lifespan)


@app.post("/shell")
async def shell(request: Request, command: Annotated[str, Body(embed=True)]) -> dict[str, Any]:
    """Run a shell command in a sandbox, if the hooks allow it."""
    decision = await request.app.state.hooks.run(
        "before_execution", ToolRequest(name="shell", args={"command": command})
    )
    if decision.blocks:
        raise HTTPException(403, {"hook": decision.hook, "reason": decision.reason})
    done = await spawn(
        ["sh", "-c", command],
        sandbox=Bubblewrap(),
        timeout=5,
        overflow="truncate",
        output_limit=65536,
    )
    if done.error is not None and not isinstance(done.error, ExitError):
        raise HTTPException(504, str(done.error))
    return {"returncode": done.returncode, "stdout": done.stdout.decode(errors="replace")}
