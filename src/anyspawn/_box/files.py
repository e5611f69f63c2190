"""File operations of a box: small POSIX scripts, and the meaning of their statuses."""

from __future__ import annotations

import errno
import os
import tarfile
import tempfile
from typing import IO

from anyspawn._model import Completed
from anyspawn.exceptions import ExitError

__all__ = [
    "LIST",
    "PACK",
    "READ",
    "REMOVE",
    "UNPACK",
    "UNWRITE",
    "WORKDIR",
    "WRITE",
    "pack",
    "raise_for",
    "unpack",
]

_ERRNOS = {40: errno.ENOENT, 41: errno.EACCES, 42: errno.EISDIR, 43: errno.ENOTDIR}

# Exits with a status that says why a path does not exist, or cannot be created.
_WHY = """
why() {
  p=$1
  while p=${p%/*}; do [ ! -e "${p:-/}" ] || break; done
  [ -d "${p:-/}" ] || exit 43
  [ -x "${p:-/}" ] || exit 41
  [ -z "$2" ] || [ -w "${p:-/}" ] || exit 41
  [ -z "$2" ] || exit 1
  exit 40
}
"""
WORKDIR = 'mkdir -p "$1" && cd "$1" && pwd -P'
"""Makes a folder, and prints its name."""
READ = (
    _WHY
    + """
[ ! -d "$1" ] || exit 42
[ -e "$1" ] || why "$1"
[ -r "$1" ] || exit 41
exec cat <"$1"
"""
)
_BESIDE = """
f=$1
if [ -L "$f" ]; then f=$(readlink -f "$f") && [ "$f" ] || f=$1; fi
d=${f%/*}
t=$d/.anyspawn-$2
"""
WRITE = (
    _WHY
    + _BESIDE
    + """
[ ! -d "$f" ] || exit 42
[ ! -e "$f" ] || [ -w "$f" ] || exit 41
[ -d "${d:-/}" ] || mkdir -p "${d:-/}" || why "$f" w
trap 'rm -f "$t"' EXIT
if ! cat >"$t"; then
  [ -w "${d:-/}" ] || exit 41
  exit 1
fi
n=$(stat -c %s "$t" 2>/dev/null) || n=$(wc -c <"$t") # which may read it all
[ "$((n))" = "$3" ] || { echo "the data did not arrive whole" >&2; exit 1; }
m=$4
[ ! -e "$f" ] || m=$(stat -c %a "$f") || m=$4
[ -z "$m" ] || chmod "$m" "$t"
mv -f "$t" "$f" && trap - EXIT
"""
)
"""Writes stdin, whose size is known, to a file: all of it, or nothing."""
UNWRITE = _BESIDE + 'rm -f "$t"'
"""Removes the temporary file of a write that was killed."""
REMOVE = (
    _WHY
    + """
[ -e "$1" ] || [ -L "$1" ] || why "$1"
rm -rf "$1" || exit 41
"""
)
LIST = (
    _WHY
    + """
[ -e "$1" ] || why "$1"
[ -d "$1" ] || exit 43
[ -r "$1" ] && cd "$1" || exit 41
for f in * .[!.]* ..?*; do
  if [ -e "$f" ] || [ -L "$f" ]; then printf '%s\\0' "$f"; fi
done
"""
)
PACK = (
    _WHY
    + """
[ -e "$1" ] || [ -L "$1" ] || why "$1"
if [ -d "$1" ]; then
  [ -r "$1" ] && cd "$1" || exit 41
  exec tar -cf - .
fi
[ -L "$1" ] || [ -r "$1" ] || exit 41
cd "${1%/*}/" && exec tar -cf - "./${1##*/}"
"""
)
UNPACK = (
    _WHY
    + """
mkdir -p "$1" || why "$1" w
[ -w "$1" ] && cd "$1" || exit 41
said=$(tar -xof - 2>&1) || { printf '%s\\n' "$said" | tail -n 5 >&2; exit 1; }
"""
)


def raise_for(done: Completed, path: str) -> None:
    """Raise the error of a script's outcome, if it failed."""
    if isinstance(done.error, ExitError) and done.returncode in _ERRNOS:
        number = _ERRNOS[done.returncode]
        raise OSError(number, os.strerror(number), path)
    done.check()


def pack(source: str, into: IO[bytes]) -> None:
    """Write a folder's content as a tar; links are packed, not followed."""
    with tarfile.open(fileobj=into, mode="w") as tar:
        tar.add(source, arcname=".")


def unpack(packed: IO[bytes], target: str) -> None:
    """Unpack the output of `PACK` at a path of the host; for a folder the path must not exist.

    Raises:
        PermissionError: It contains a name or a link that leads out of it, or a device.
        FileExistsError: The folder exists.
    """
    parent = os.path.dirname(os.path.abspath(target))
    os.makedirs(parent, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=parent, prefix=".anyspawn-") as folder:
        place = os.path.join(folder, "tree")
        os.mkdir(place)
        with tarfile.open(fileobj=packed, mode="r") as tar:
            members = tar.getmembers()
            try:
                tar.extractall(place, members=members, filter="data")
            except tarfile.FilterError as exc:
                raise PermissionError(
                    errno.EACCES, f"the download would write outside of {target!r}: {exc}"
                ) from None
        if members and members[0].isdir():
            if os.path.lexists(target):
                raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), target)
            os.rename(place, target)
            os.mkdir(place)  # removed at the end of the block
        else:
            os.replace(os.path.join(place, members[0].name), target)
