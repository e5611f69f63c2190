"""A box as the sandbox of a deep agent (deepagents): `BoxBackend`."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

from deepagents.backends.protocol import ExecuteResponse, FileDownloadResponse, FileUploadResponse
from deepagents.backends.sandbox import BaseSandbox

import anyspawn

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
        self._loop, self._thread = asyncio.get_running_loop(), threading.get_ident()

    async def aexecute(self, command: str, *, timeout: int | None = None) -> ExecuteResponse:
        done = await self.box.spawn(["sh", "-c", command], merge_stderr=True, overflow="truncate",
            timeout="default" if timeout is None else timeout or None)  # fmt: skip
        cut = done.stdout_total > len(done.stdout)
        if isinstance(done.error, anyspawn.SpawnTimeoutError):
            return ExecuteResponse(f"{done.text}\n{done.error}", 124, cut)
        code = done.check().returncode if done.returncode is None else done.returncode
        return ExecuteResponse(done.text, code, cut)

    async def _try(self, path: str, do: Any, *args: Any) -> tuple[Any, Any]:
        try:
            return (await do(path, *args), None) if path[:1] == "/" else (None, "invalid_path")
        except (OSError, anyspawn.OutputLimitError) as exc:
            return None, _WORDS.get(type(exc), str(exc))

    async def aupload_files(self, files: list[tuple[str, bytes]]) -> list[FileUploadResponse]:
        tried = [(path, await self._try(path, self.box.write_file, data)) for path, data in files]
        return [FileUploadResponse(path, error) for path, (_, error) in tried]

    async def adownload_files(self, paths: list[str]) -> list[FileDownloadResponse]:
        return [FileDownloadResponse(p, *await self._try(p, self.box.read_file)) for p in paths]

    def _wait(self, do: Any, *args: Any, **fields: Any) -> Any:
        if threading.get_ident() == self._thread:
            raise RuntimeError("this would block the event loop of the box: await the 'a' method")
        return asyncio.run_coroutine_threadsafe(do(*args, **fields), self._loop).result()

    def execute(self, command: str, *, timeout: int | None = None) -> Any:
        return self._wait(self.aexecute, command, timeout=timeout)

    def upload_files(self, files: list[tuple[str, bytes]]) -> Any:
        return self._wait(self.aupload_files, files)

    def download_files(self, paths: list[str]) -> Any:
        return self._wait(self.adownload_files, paths)
