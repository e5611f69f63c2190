"""The part of a session that saves its workspace as a tar, and restores it."""

from __future__ import annotations

import io
import tarfile
import tempfile
from pathlib import Path

from agents.sandbox import WorkspaceArchiveReadError, WorkspaceArchiveWriteError
from anyio import to_thread

import anyspawn
from anyspawn.contrib._openai.files import Files
from anyspawn.contrib._openai.tars import extract, without

__all__ = ["Snapshots"]


class Snapshots(Files):
    """A snapshot may have 1 GiB."""

    def _should_compute_snapshot_fingerprint_on_persist(self) -> bool:
        return False  # it would tell that a box still has the snapshot's files; each is a new one

    async def persist_workspace(self) -> io.IOBase:
        skip = self._persist_workspace_skip_relpaths()
        with tempfile.TemporaryDirectory() as folder:
            try:
                await self.box.save(f"{folder}/tar")
                return await to_thread.run_sync(without, f"{folder}/tar", skip)
            except (OSError, KeyError, tarfile.TarError, anyspawn.SpawnError) as exc:
                root = self._workspace_root_path()
                raise WorkspaceArchiveReadError(path=root, cause=exc) from exc

    async def hydrate_workspace(self, data: io.IOBase) -> None:
        root = self._workspace_root_path()
        with tempfile.TemporaryDirectory() as folder:
            try:
                await to_thread.run_sync(extract, data, Path(folder, "tree"))
                await self.box.upload(f"{folder}/tree", root)
            except (OSError, ValueError, tarfile.TarError, anyspawn.SpawnError) as exc:
                raise WorkspaceArchiveWriteError(path=root, message=str(exc), cause=exc) from exc
