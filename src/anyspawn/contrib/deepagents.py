"""A box as the sandbox of a deep agent (deepagents): `BoxBackend`."""

from __future__ import annotations

from typing import Any

import anyspawn
from anyspawn.contrib._common import OneLoop, needs, run_shell

with needs("deepagents"):
    from deepagents.backends import protocol
    from deepagents.backends.sandbox import BaseSandbox

__all__ = ["BoxBackend"]

_WORDS: dict[type[Exception], str] = {FileNotFoundError: "file_not_found", PermissionError: "permission_denied",
          IsADirectoryError: "is_directory", NotADirectoryError: "invalid_path"}  # fmt: skip


class BoxBackend(BaseSandbox):  # type: ignore[misc]  # not installed everywhere
    """Commands and files of an agent in ``box``. Make it in the event loop that opened the box;
    its blocking methods are for other threads.
    """

    id = ""

    def __init__(self, box: anyspawn.Box) -> None:
        self.box, self.id = box, box.id
        self._loop = OneLoop()

    async def aexecute(self, command: str, *, timeout: int | None = None) -> Any:
        limit = "default" if timeout is None else timeout or None
        done, timed_out = await run_shell(self.box, command, merge_stderr=True, timeout=limit)
        text = f"{done.text}\n{done.error}" if timed_out else done.text
        cut = done.stdout_total > len(done.stdout)
        return protocol.ExecuteResponse(text, 124 if timed_out else done.returncode, cut)

    async def _try(self, path: str, do: Any, *args: Any) -> tuple[Any, Any]:
        try:
            return (await do(path, *args), None) if path[:1] == "/" else (None, "invalid_path")
        except (OSError, anyspawn.OutputLimitError) as exc:
            return None, _WORDS.get(type(exc), str(exc))

    async def aupload_files(self, files: list[tuple[str, bytes]]) -> Any:
        tried = [(path, await self._try(path, self.box.write_file, data)) for path, data in files]
        return [protocol.FileUploadResponse(path, error) for path, (_, error) in tried]

    async def adownload_files(self, paths: list[str]) -> Any:
        read = self.box.read_file
        return [protocol.FileDownloadResponse(p, *await self._try(p, read)) for p in paths]

    def execute(self, command: str, *, timeout: int | None = None) -> Any:
        return self._loop.wait(self.aexecute, command, timeout=timeout)

    def upload_files(self, files: list[tuple[str, bytes]]) -> Any:
        return self._loop.wait(self.aupload_files, files)

    def download_files(self, paths: list[str]) -> Any:
        return self._loop.wait(self.adownload_files, paths)
