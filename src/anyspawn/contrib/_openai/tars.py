"""Tars of a workspace, as the SDK accepts them: only files, folders and links."""

from __future__ import annotations

import io
import shutil
import tarfile
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import cast

from agents.sandbox.util import safe_extract_tarfile, should_skip_tar_member

__all__ = ["extract", "without"]


def without(path: str, skip: Iterable[Path]) -> io.IOBase:
    """Return the tar at ``path`` without the files below the paths to skip."""
    kept = tempfile.TemporaryFile()  # noqa: SIM115  who asks for it closes it
    with tarfile.open(path) as source, tarfile.open(fileobj=kept, mode="w") as target:
        for member in source.getmembers():
            if should_skip_tar_member(member.name, skip_rel_paths=skip, root_name=None):
                continue
            content = None if member.issym() else source.extractfile(member)
            if (
                member.islnk()
            ):  # a hard link becomes a second file, as the SDK restores no hard links
                member.size = source.getmember(member.linkname).size
                member.type, member.linkname = tarfile.REGTYPE, ""
            if content is not None or member.isdir() or member.issym():
                target.addfile(member, content)
    kept.seek(0)
    return cast("io.IOBase", kept)


def extract(data: io.IOBase, folder: Path) -> None:
    """Extract a tar into ``folder``, which is created, and nowhere else."""
    with tempfile.TemporaryFile() as whole:
        shutil.copyfileobj(cast("io.BytesIO", data), whole)
        whole.seek(0)
        with tarfile.open(fileobj=whole) as tar:
            safe_extract_tarfile(tar, root=folder)
