"""The supervisor: a few lines of POSIX sh that look after a command inside a container or a pod."""

from __future__ import annotations

from functools import cache

from anyspawn.supervisor.encode import printf_format, tag_of
from anyspawn.supervisor.protocol import Conversation, Report

__all__ = [
    "SWEEP",
    "Conversation",
    "Report",
    "reading_script",
    "resident_begin",
    "resident_script",
    "script",
    "script_line",
]

SWEEP = """
{ ulimit -x "$1" || ulimit -w "$1"; } 2>/dev/null
lone() { [ $# -le 1 ]; }
seen= told=
for file in $(grep -l "^Max file locks  *$1 " /proc/[0-9]*/limits; grep -l "ANYSPAWN_ID=$2" /proc/[0-9]*/environ); do
  process=${file%/*}
  pid=${process#/proc/}
  [ "$pid" != "$$" ] || { seen=1; continue; }
  case " $told " in *" $pid "*) continue ;; esac
  IFS= read -r state <"$process/stat" || continue
  read -r _ _ _ parent _ <"$process/stat" || continue
  [ "$parent" != "$$" ] || continue
  case ${state##*) } in [ZX]*) lone "$process"/task/* && continue ;; esac
  told="$told $pid"
  echo "$pid"
  [ -z "$3" ] || kill "-$3" "$pid"
done 2>/dev/null
if [ -z "$3" ]; then
  for line in $(grep -H "^Max file locks  *[0-9]" /proc/[0-9]*/limits | tr -s ' ' ':'); do
    limit=${line#*:Max:file:locks:}
    limit=${limit%%:*} process=${line%%/limits*}
    [ "$limit" -lt "$1" ] || continue
    id=$(tr '\\0' '\\n' <"$process/environ" | grep '^ANYSPAWN_ID=')
    id=$(printf %.13s "${id#*=}")
    case $id in '' | *[!0-9a-f]*) ;; *) [ "$((0x$id % 1125899906842624 + 1))" != "$limit" ] || continue ;; esac
    echo "${process#/proc/}"
  done 2>/dev/null
fi
[ -n "$seen" ]
"""
"""A script that lists the processes of a tag and an id; a third argument is a signal to send them.

It tags itself, and fails unless it finds itself: if /proc shows nothing, an empty list proves
nothing. Without a signal it also lists processes that may hide, by a lower limit, unless they are
another call's.
"""

_FIT = (
    "case $KSH_VERSION in *' KSH '*|Version*) echo 'anyspawn: sh is a Korn shell, which is not "
    "supported; use dash, bash or busybox' >&2; exit 125;; esac; "
)
_READY = _FIT + "printf '\\036anyspawn ready\\n' >&2"
_READ_LINE = '; IFS= read -r _script || exit 125; eval "$(printf "$_script")"'
_READ_ONE = _READY + _READ_LINE
_READ_MANY = _FIT + "printf '\\036anyspawn asks\\n' >&2" + _READ_LINE
_READ_ON = _READY + "; exec sh -s anyspawn"


@cache
def script() -> str:
    """Return the script that looks after one command."""
    return f"{_READY}\n{_script('common.sh', 'supervisor.sh')}"


def reading_script() -> str:
    """Return a script that reads `script_line` from stdin and executes it.

    kubectl sends an argv in a request's URL, which some proxies limit to 8 KiB.
    """
    return _READ_ONE


@cache
def script_line() -> bytes:
    """Return the script as a line: a format for ``printf``."""
    return printf_format(script().partition("\n")[2].encode()) + b"\n"


def resident_script(*, alone: bool = False) -> str:
    """Return the script that reads the first bytes of `resident_begin` from stdin.

    Args:
        alone: The container or sandbox is for one command.
    """
    return _READ_ON if alone else _READ_MANY


@cache
def _resident(*, alone: bool) -> bytes:
    if alone:
        return _script("common.sh", "resident.sh").encode() + b"\n"
    return printf_format(_script("common.sh", "resident.sh", "serve.sh").encode()) + b"\n"


def resident_begin(resident_id: str, *, alone: bool = False, patience: int = 2) -> bytes:
    """Return what a resident reads first: the rest of its script.

    Args:
        resident_id: The id of all its commands.
        alone: The container is for one command: every hidden process in it is the command's.
        patience: Seconds for which it chases processes that start a copy and exit.
    """
    sole = "yes" if alone else ""
    known = f"_id={resident_id} _tag={tag_of(resident_id)} _alone={sole} _patience={patience}\n"
    told = known.encode() if alone else printf_format(known.encode())
    return told + _resident(alone=alone)


def _script(*names: str) -> str:
    from importlib.resources import files

    text = "".join(files(__name__).joinpath(name).read_text(encoding="utf-8") for name in names)
    lines = (line.strip() for line in text.splitlines())
    return "\n".join(line for line in lines if line and not line.startswith("#"))
