"""Why a program could not be started, in words that name what is missing and what to do."""

from __future__ import annotations

import errno
import os

__all__ = ["HOST_ERRORS", "cwd_problem", "describe"]

HOST_ERRORS = {
    errno.EMFILE: "this process has no file descriptor left; raise its limit (ulimit -n) or run fewer calls at once",
    errno.ENFILE: "this host has no file descriptor left; run fewer programs at once",
    errno.ENOMEM: "this host has no memory left to start it",
    errno.E2BIG: "its arguments and environment are too long; pass data on stdin",
    errno.EAGAIN: "the limit of processes is reached (ulimit -u, or the container's pids limit)",
}


def _interpreter(path: str) -> str:
    try:
        with open(path, "rb") as file:
            first = file.readline(256)
    except OSError:
        return ""
    return (
        os.fsdecode(first[2:].split()[0]) if first.startswith(b"#!") and first[2:].split() else ""
    )


def cwd_problem(cwd: str | None) -> str:
    """Return what is wrong with a working directory, or nothing."""
    if cwd is None:
        return ""
    if not os.path.exists(cwd):
        return f"the working directory {cwd!r} does not exist; create it or give another cwd"
    if not os.path.isdir(cwd):
        return f"the working directory {cwd!r} is not a directory; give a directory as cwd"
    if not os.access(cwd, os.X_OK):
        return f"the working directory {cwd!r} may not be entered by this user"
    return ""


def describe(program: str, cwd: str | None, path: str, error: OSError) -> str:
    """Return why ``program`` could not be started, from what the operating system said and what is
    on disk.

    ``path`` is the search path. Not every event loop says which file an error is about, so they are
    looked at again.
    """
    if error.errno in HOST_ERRORS:
        return f"{program!r} was not started: {HOST_ERRORS[error.errno]}"
    if os.sep in program:
        file = os.path.join(cwd or "", program)
    else:
        import shutil

        found = shutil.which(program, os.F_OK, path)
        if found is None:
            return f"program {program!r} was not found on PATH; install it, or give its whole path"
        file = found
    if os.path.isdir(file):
        return f"{file!r} is a directory, not a program"
    if not os.path.exists(file):
        return f"program {program!r} does not exist"
    if error.errno == errno.ENOENT:
        interpreter = _interpreter(file)
        what = (
            f"its interpreter {interpreter!r}"
            if interpreter
            else "the interpreter or loader that it asks for"
        )
        return (
            f"program {file!r} exists, but {what} does not; correct its first line or install that"
        )
    if error.errno == errno.EACCES and not os.access(file, os.X_OK):
        return f"{file!r} is not executable; set its executable bit (chmod +x)"
    if error.errno == errno.ENOEXEC:
        return f"{file!r} is in no format that this system executes; a script needs a first line such as #!/bin/sh"
    return f"{program!r} was not started: {error.strerror or error}"
