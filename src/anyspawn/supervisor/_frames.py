"""What the supervisor and its caller say to each other: the head of its stdin, and the frames in
its output. Pure.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from anyspawn.exceptions import ConfigError

__all__ = ["SHORT", "Frames", "call_line", "head", "printf_format", "tag_of", "task"]

_RS = b"\x1e"
_READY = b"\x1eanyspawn ready\n"
_LONGEST = 64
_SURE = 8
"""So much of a frame's beginning no program writes by chance."""
SHORT = 4096
"""Bytes that any pipe takes: a stdin that is no longer is part of a resident's task, and a longer
one follows it.
"""
_OPENING = 64 * 1024
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


def tag_of(call_id: str) -> int:
    """Return the number by which the processes of a call are known: 1 to 2**50, from its id."""
    return int(call_id[:13] or "0", 16) % 2**50 + 1


def head(
    call_id: str, nonce: str, env: Mapping[str, str], size: int, cwd: str | None = None
) -> bytes:
    """Return what the supervisor reads before the command's stdin.

    Args:
        call_id: The call's id.
        nonce: What its frames begin with; a program is not told it.
        env: The command's variables.
        size: How many bytes of stdin follow.
        cwd: Where the command starts. Default: where the supervisor does.

    Raises:
        ConfigError: A variable's name is not one that a shell can hand on.
    """
    lines = _settings(env, cwd)
    first = f"{nonce} {call_id} {tag_of(call_id)} {len(lines)} {size}".encode()
    return b"\n".join([first, *lines]) + b"\n"


def _settings(env: Mapping[str, str], cwd: str | None) -> list[bytes]:
    """Return the shell's lines that set a command's working directory and variables."""
    lines = []
    if cwd is not None:
        refuse = b'{ printf "%s nocwd\\036" "$ANYSPAWN_frame" >&2; exit 126; }'
        lines.append(
            b"CDPATH= cd -- %s >/dev/null 2>&1 || %s; unset OLDPWD" % (_on_one_line(cwd), refuse)
        )
    for name, value in env.items():
        _check(name, ", or supervisor='off'")
        lines.append(b"export %s=%s" % (name.encode(), _on_one_line(value)))
    return lines


def _check(name: str, instead: str) -> None:
    if name.startswith("ANYSPAWN_"):
        raise ConfigError(f"env: {name!r} is one of the supervisor's own names; use another")
    if not _NAME.fullmatch(name):
        raise ConfigError(
            f"env: {name!r} cannot be handed on by a shell; use letters, digits and _{instead}"
        )


def task(
    argv: Sequence[str], env: Mapping[str, str], stdin: bytes, cwd: str | None = None
) -> bytes:
    """Return what a resident is told of one command, but for the word of its frames: a line, and a
    long stdin.

    Raises:
        ConfigError: A variable's name is not one that a shell can hand on.
    """
    for name in env:
        _check(name, ", or leave out resident")
    short = len(stdin) <= SHORT
    format_or_size = b"'=%s'" % printf_format(stdin) if short else b"%d" % len(stdin)
    words = [cwd or "", *(f"{name}={value}" for name, value in env.items()), "", *argv]
    return b"%s\0%s\n%s" % (format_or_size, b" ".join(map(_quoted, words)), b"" if short else stdin)


def call_line(task: bytes, nonce: str, known: str = "") -> bytes:
    """Return the line for a resident of a command's task.

    Args:
        task: What `task` returned, without a long stdin.
        nonce: What the command's frames begin with.
        known: ``yes``: the program was executed there before, and said to be fit, so that one that
            cannot be executed need not be told from one that returns 127; arguments and variables
            are not near any system's limit. ``ask``: have it said whether the program is fit.
    """
    form, _, rest = task.partition(b"\0")
    return b"run %s %s '%s' %s" % (nonce.encode(), form, known.encode(), rest)


_SPECIAL = re.compile(rb"[^ -$&(-,/-\[\]-~]")
"""What does not stand as itself: % ' \\ among it, and - and ., which are options and words of ours
where they stand alone.
"""
_FORMAT = [
    b"\\%03o" % byte if _SPECIAL.match(bytes([byte])) else bytes([byte]) for byte in range(256)
]


def printf_format(data: bytes) -> bytes:
    """Return what ``printf`` takes for ``data``, on one line, and as it stands between single
    quotes.
    """
    if data.isascii():  # text has few, and is searched faster than it is put together
        return _SPECIAL.sub(lambda match: _FORMAT[match[0][0]], data)
    return b"".join([_FORMAT[byte] for byte in data])


def _quoted(value: str) -> bytes:
    """Return a text as a shell's word."""
    return b"'" + value.encode(errors="surrogateescape").replace(b"'", b"'\\''") + b"'"


def _on_one_line(value: str) -> bytes:
    """Return a text as a shell's word without a line break."""
    return _quoted(value).replace(b"\n", b"'\"$ANYSPAWN_n\"'")


class Frames:
    """Takes the frames out of a stream, whatever the chunks are that it comes in.

    What comes before the command's start is not the command's: it is kept apart.

    Args:
        nonce: What frames begin with.
        begun: All that comes is the command's.

    Attributes:
        words: What the frames said, in order.
        opening: What came before the command's start: the client's own words.
    """

    def __init__(self, nonce: str, *, begun: bool = False) -> None:
        self.words: list[str] = []
        self._begun = begun
        self.opening = b""
        self._start = _RS + nonce.encode() + b" "
        self._held = b""
        self._passed = 0  # so much of that was passed on nevertheless

    def feed(self, data: bytes) -> bytes:
        """Return ``data`` without frames; what may be the beginning of one is held back."""
        data = self._held + data
        known, self._passed, self._held = self._passed, 0, b""
        passed = []
        while True:
            at = data.find(self._start)
            if at < 0:
                break
            end = data.find(_RS, at + len(self._start))
            if end < 0:
                if len(data) - at > len(self._start) + _LONGEST:  # no frame is as long as that
                    passed.append(self._own(data[: at + 1]))
                    data = data[at + 1 :]
                    continue
                self._held, data = data[at:], data[:at]
                break
            if at == 0 and not passed:
                known = 0
            passed.append(self._own(data[:at]))
            self.words.append(data[at + len(self._start) : end].decode(errors="replace"))
            data = data[end + 1 :]
        if not self._held:
            at = self._partial(data)
            self._held, data = data[at:], data[:at]
        passed.append(self._own(data))
        own = b"".join(passed)
        if not own and self._held:
            self._passed = known
        return own[known:]

    @property
    def doubtful(self) -> bool:
        """Whether something is held back that is hardly the beginning of a frame: too little of one
        has come.
        """
        return self.begun and self._passed < len(self._held) < _SURE

    def pass_on(self) -> bytes:
        """Return that after all; if it is the beginning of a frame, the frame is known by it
        nevertheless.
        """
        data, self._passed = self._held[self._passed :], len(self._held)
        return data

    def _own(self, data: bytes) -> bytes:
        """Return what of ``data`` is the command's."""
        if self._begun or "start" in self.words:
            return data
        opening = self.opening + data
        if _READY in opening:
            opening = opening.replace(_READY, b"", 1)
            self.words.append("ready")
        self.opening = opening[-_OPENING:]
        return b""

    def rest(self) -> bytes:
        """Return what was held back, at the end of the stream."""
        held, self._held, self._passed = self._held[self._passed :], b"", 0
        return self._own(held)

    def _partial(self, data: bytes) -> int:
        """Return where at the end of ``data`` a frame may be beginning."""
        at = data.rfind(_RS, max(0, len(data) - len(self._start) + 1))
        return at if at >= 0 and self._start.startswith(data[at:]) else len(data)

    @property
    def ready(self) -> bool:
        """Whether the supervisor waits for its head, which it is not given before."""
        return "ready" in self.words

    @property
    def begun(self) -> bool:
        """Whether the supervisor was seen to set about the command."""
        return "start" in self.words

    @property
    def started(self) -> bool:
        """Whether the command was seen to start."""
        return self.begun and self.unstarted is None

    @property
    def unstarted(self) -> int | None:
        """The status with which the shell could not execute the command, 126 or 127; another where
        it came to grief before.
        """
        return self._number("unstarted")

    @property
    def gone(self) -> int | None:
        """The status, 126 or 127, of what was a program and is none now: before it was to run, or
        because it removed itself.
        """
        return self._number("gone")

    @property
    def fit(self) -> bool:
        """Whether the program is one that any exec executes, should it prove to be one."""
        return "fit" in self.words

    @property
    def exit_status(self) -> int | None:
        """The status with which the command ended."""
        return self._number("exit")

    @property
    def send(self) -> bool:
        """Whether the resident waits for a long stdin."""
        return "send" in self.words

    @property
    def listens(self) -> bool:
        """Whether the resident heeds words about the command: it has begun it, and has read a long
        stdin to its end.
        """
        return self.begun and ("send" not in self.words or "took" in self.words)

    @property
    def held(self) -> bool:
        """Whether something that the command left behind holds one of its streams."""
        return "held" in self.words

    @property
    def whole(self) -> bool:
        """Whether the end of the command's output was seen."""
        return "end" in self.words

    @property
    def over(self) -> bool:
        """Whether a resident has said all that there is to say in this stream of the command."""
        return "end" in self.words or "clean" in self.words or "unclean" in self.words

    @property
    def lost(self) -> bool:
        """Whether the command's stdin did not arrive whole."""
        return "lost" in self.words or (self.over and self.send and not self.listens)

    @property
    def elusive(self) -> bool:
        """Whether what was left starts its like and ends, faster than it can be looked at."""
        return "elusive" in self.words

    @property
    def clean(self) -> bool:
        """Whether nothing of the command was left."""
        return "clean" in self.words and "untagged" not in self.words

    def _number(self, word: str) -> int | None:
        for said in self.words:
            name, _, number = said.partition(" ")
            if name == word and number.isdigit():
                return int(number)
        return None
