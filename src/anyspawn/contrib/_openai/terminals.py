"""The part of a session that keeps programs running, for its model to read and type into."""

from __future__ import annotations

import asyncio
from typing import Any

from agents.sandbox.session import pty_types as pty

from anyspawn.contrib._openai.commands import Commands
from anyspawn.contrib._openai.programs import Program

__all__ = ["Terminals"]


class Terminals(Commands):
    """Each program has a number, until a read finds that it has exited, or the session stops."""

    async def pty_exec_start(
        self, *command: Any, shell: Any = True, user: Any = None, tty: bool = False, **how: Any
    ) -> pty.PtyExecUpdate:
        argv = self._prepare_exec_command(*command, shell=shell, user=None)
        fields = await self._fields(user)
        if len(self._programs) >= pty.PTY_PROCESSES_MAX:
            await self._end(next(iter(self._programs)))  # the oldest
        number = pty.allocate_pty_process_id(set(self._programs))
        self._programs[number] = Program(self.box, argv, tty=tty, **fields)
        seconds = how.get("yield_time_s")
        try:
            return await self._look(number, 10 if seconds is None else seconds, how)
        except BaseException:
            await self._end(number)
            raise

    async def pty_write_stdin(self, *, session_id: int, chars: str, **how: Any) -> Any:
        programs = self._programs
        program = self._resolve_pty_session_entry(pty_processes=programs, session_id=session_id)
        if chars:
            if program.typed is None:
                raise RuntimeError("stdin is not available for this process")
            program.typed.put_nowait(chars)
        seconds = max(how.get("yield_time_s") or 0, 0 if chars else 5)  # no model asks all the time
        return await self._look(session_id, seconds, how)

    async def _look(self, number: int, seconds: float, how: dict[str, Any]) -> pty.PtyExecUpdate:
        program = self._programs[number]
        output, tokens, over = await program.look(seconds, how.get("max_output_tokens"))
        if not over:
            return pty.PtyExecUpdate(number, output, None, tokens)
        self._programs.pop(number, None)
        return pty.PtyExecUpdate(None, output, program.task.result(), tokens)

    async def _end(self, *numbers: int) -> None:
        tasks = [self._programs.pop(number).task for number in numbers if number in self._programs]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def pty_terminate_all(self) -> None:
        await self._end(*self._programs)
