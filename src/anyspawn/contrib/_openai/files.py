"""The part of a session that reads and writes files, where the manifest allows it."""

from __future__ import annotations

import io
import os
from pathlib import Path
from typing import Any

from agents.sandbox import WorkspaceArchiveWriteError
from agents.sandbox.session.workspace_payloads import coerce_write_payload

import anyspawn
from anyspawn.contrib._openai.commands import Commands

__all__ = ["Files"]

_REAL = 'p=$1; until [ -e "${p:-/}" ] || [ -L "$p" ]; do p=${p%/*}; done; readlink -f "${p:-/}"'
"""Prints the real path of the existing part of a path."""
_WRITE = 'mkdir -p "${1%/*}" && cat >"$1"'


class Files(Commands):
    """Both a link and its target must be allowed."""

    async def _validate_path_access(self, path: Any, *, for_write: bool = False) -> Path:
        inside: Path = self.normalize_path(path, for_write=for_write)
        done = await self._exec_checked_nonzero("sh", "-c", _REAL, "sh", str(inside))
        self.normalize_path(os.fsdecode(done.stdout).removesuffix("\n"), for_write=for_write)
        return inside

    async def read(self, path: Any, *, user: Any = None) -> io.IOBase:
        inside = await self._validate_path_access(path)
        command = ("cat", "--", str(inside))
        result = await self.exec(*command, shell=False, user=user)
        if not result.ok():
            await self._raise_read_error_from_exec(
                path=Path(path), workspace_path=inside, command=command, result=result, user=user
            )
        return io.BytesIO(result.stdout)

    async def write(self, path: Any, data: io.IOBase, *, user: Any = None) -> None:
        inside = await self._validate_path_access(path, for_write=True)
        content = coerce_write_payload(path=inside, data=data).stream.read()
        try:
            if user is None:
                await self.box.write_file(inside, content)
            else:
                command = ("sh", "-c", _WRITE, "sh", str(inside))
                done = await self.box.spawn(command, stdin=content, **await self._fields(user))
                done.check()
        except (OSError, anyspawn.SpawnError) as exc:
            raise WorkspaceArchiveWriteError(path=inside, message=str(exc), cause=exc) from exc
