"""Why a program could not be started, in words that name what is missing and what to do."""

from __future__ import annotations

import errno
import os
from contextlib import suppress

from anyspawn.exceptions import NotStartedKind

__all__ = ["HOST_ERRORS", "cwd_problem", "describe"]

HOST_ERRORS = {
    errno.EMFILE: "this process has no file descriptor left; raise its limit (ulimit -n) or run fewer calls at once",
    errno.ENFILE: "this host has no file descriptor left; run fewer programs at once",
    errno.ENOMEM: "this host has no memory left to start it",
    errno.E2BIG: "its arguments and environment are too long; pass data on stdin",
    errno.EAGAIN: "the limit of processes is reached (ulimit -u, or the container's pids limit)",
}


def cwd_problem(cwd: str | None) -> str:
    """Return what is wrong with a working directory, or nothing."""
    if cwd is None:
        return ""
    if not os.path.exists(cwd):
        return f"the working directory {cwd!r} does not exist; create it or give another cwd"
    if not os.path.isdir(cwd):
        return f"the working directory {cwd!r} is not a directory; give a directory as cwd"
    if not os.access(cwd, os.X_OK):
        return f"this user may not enter the working directory {cwd!r}"
    return ""


def describe(
    program: str, cwd: str | None, path: str, error: OSError
) -> tuple[NotStartedKind, str]:
    """Return why ``program`` could not be started, from the system's error and the files on disk.

    ``path`` is the search path. Not every event loop says which file an error is about, so they
    are looked at again.
    """
    if error.errno in HOST_ERRORS:
        kind: NotStartedKind = "too_long" if error.errno == errno.E2BIG else "resources"
        return kind, f"{program!r} was not started: {HOST_ERRORS[error.errno]}"
    file = program if os.sep in program else _on_path(program, cwd, path)
    if file is None:
        return "not_found", (
            f"program {program!r} was not found on PATH; install it, or give its whole path"
        )
    file = os.path.join(cwd or "", file)
    if os.path.isdir(file):
        return "not_executable", f"{file!r} is a directory, not a program"
    if not os.path.exists(file):
        return "not_found", f"program {program!r} does not exist"
    if error.errno == errno.ENOENT:
        return "not_executable", _no_interpreter(file)  # as bash has it
    if error.errno == errno.EACCES and not os.access(file, os.X_OK):
        return "not_executable", f"{file!r} is not executable; set its executable bit (chmod +x)"
    if error.errno == errno.ENOEXEC:
        return "not_executable", (
            f"{file!r} is in no format that this system executes; a script needs a first line such "
            "as #!/bin/sh"
        )
    return "other", f"{program!r} was not started: {error.strerror or error}"


def _on_path(program: str, cwd: str | None, path: str) -> str | None:
    """Return the first file of that name, executable or not; entries are relative to ``cwd``."""
    for folder in path.split(os.pathsep):
        file = os.path.join(cwd or "", folder, program)
        if os.path.isfile(file):
            return file
    return None


def _no_interpreter(file: str) -> str:
    line = b""
    with suppress(OSError), open(file, "rb") as script:
        line = script.readline(256)
    words = line[2:].split()
    if not line.startswith(b"#!") or not words:
        return (
            f"program {file!r} exists, but the interpreter or loader that it asks for does not; "
            "install that"
        )
    interpreter = os.fsdecode(words[0])
    if line.endswith(b"\r\n") and len(words) == 1 and os.path.exists(interpreter):
        return (
            f"the first line of {file!r} ends in CR LF, and there is no interpreter of that name; "
            "save the file with LF alone (dos2unix)"
        )
    return (
        f"program {file!r} exists, but its interpreter {interpreter!r} does not; correct its first "
        "line or install that"
    )
