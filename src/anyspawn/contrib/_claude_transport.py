"""The SDK's CLI as a live process in a box."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import anyio
from anyio.streams.text import TextReceiveStream, TextSendStream
from claude_agent_sdk import ClaudeAgentOptions, CLIConnectionError, ProcessError
from claude_agent_sdk._internal.transport.subprocess_cli import SubprocessCLITransport

from anyspawn import Box, SpawnError
from anyspawn._spawn.tasks import start_in_background
from anyspawn.contrib._common import finish, start


class BoxTransport(SubprocessCLITransport):  # type: ignore[misc]  # not installed everywhere
    """The CLI in ``box``, for one `query` or client with the same ``options``. Their ``cli_path``
    (default: ``claude``) and ``cwd`` are inside; it has the variables of ``env`` and no others. It
    has ``grace`` seconds to exit when its stdin is closed, and as many again after SIGTERM.
    """

    def __init__(self, box: Box, options: ClaudeAgentOptions, *, grace: float = 5.0) -> None:
        if options.can_use_tool:
            options = replace(options, permission_prompt_tool_name="stdio")
        super().__init__("", replace(options, cli_path=options.cli_path or "claude"))
        self._box, self._grace = box, grace

    async def connect(self) -> None:
        own = {"CLAUDE_CODE_ENTRYPOINT": "sdk-py", "CLAUDE_CODE_SDK_READS_SESSION_STATE": "1"}
        options, env = self._options, own | self._options.env
        fields = {"env": env, "cwd": options.cwd, "user": options.user, "grace": self._grace}
        try:
            self._process: Any = await start(self._box, self._build_command(), **fields)
        except SpawnError as exc:
            raise CLIConnectionError(str(exc)) from exc
        self._stdin_stream = TextSendStream(self._process.stdin)
        self._stdout_stream = TextReceiveStream(self._process.stdout)
        self._stderr_stream = TextReceiveStream(self._process.stderr, errors="replace")
        start_in_background(self._handle_stderr, name="anyspawn claude stderr")
        self._ready = True

    async def read_messages(self) -> Any:
        try:
            async for message in super().read_messages():
                yield message
        except ProcessError:  # ours also quotes stderr, and reports a lost connection
            await self._process.aclose()
            raise ProcessError(
                str(self._process.completed.error), self._process.returncode
            ) from None
        except anyio.get_cancelled_exc_class():  # cancelled again, the SDK would not call close
            start_in_background(self.close, name="anyspawn claude close")
            raise

    async def close(self) -> None:
        self._ready = False
        if self._process is not None:
            await finish(self._process, self._grace)
