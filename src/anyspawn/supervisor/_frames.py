"""What the supervisor and its caller say to each other: the head of its stdin, and the frames in its output. Pure."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence

from anyspawn.exceptions import ConfigError

__all__ = ["SHORT", "Frames", "Slot", "head", "tag_of", "task"]

_RS = b"\x1e"
_READY = b"\x1eanyspawn ready\n"
_LONGEST = 64
SHORT = 4096
"""Bytes that any pipe takes; of a longer stdin a resident is told before the task."""
_LINE = 256
"""Bytes of stdin that it reads as a line: byte by byte, but without starting another process."""
_OPENING = 64 * 1024
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


def tag_of(call_id: str) -> int:
    """Return the number by which the processes of a call are known: 1 to 2**50, from its id."""
    return int(call_id[:13] or "0", 16) % 2**50 + 1


def head(call_id: str, nonce: str, env: Mapping[str, str], size: int, cwd: str | None = None) -> bytes:
    """Return what the supervisor reads before the command's stdin.

    Args:
        call_id: The call's id.
        nonce: What its frames begin with; whoever does not know it cannot make one.
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
        lines.append(b"CDPATH= cd -- %s >/dev/null 2>&1 || %s; unset OLDPWD" % (_quoted(cwd), refuse))
    for name, value in env.items():
        if name.startswith("ANYSPAWN_"):
            raise ConfigError(f"env: {name!r} is one of the supervisor's own names; use another")
        if not _NAME.fullmatch(name):
            raise ConfigError(
                f"env: {name!r} cannot be handed on by a shell; use letters, digits and _, or supervisor='off'"
            )
        lines.append(b"export %s=%s" % (name.encode(), _quoted(value)))
    return lines


class Slot:
    """The words by which a resident's next command is known, told before there is one.

    Attributes:
        nonce: What its frames begin with.
        id: What its processes carry.
    """

    def __init__(self) -> None:
        self.nonce = os.urandom(16).hex()
        self.id = os.urandom(16).hex()

    @property
    def tag(self) -> str:
        """The number by which its processes are known."""
        return str(tag_of(self.id))

    def line(self, size: int = 0) -> bytes:
        """Return the line that announces it; ``size`` is that of a stdin too large for a pipe."""
        return f"{self.nonce} {self.id} {self.tag} {size}\n".encode()


def task(argv: Sequence[str], env: Mapping[str, str], stdin: bytes, cwd: str | None = None) -> bytes:
    """Return what a resident reads of one command.

    Raises:
        ConfigError: A variable's name is not one that a shell can hand on.
    """
    words = b" ".join(_quoted(word) for word in argv)
    lines = [*_settings(env, cwd), b"set -- " + words, b""]
    if not stdin:
        return b"\n".join([b"0", *lines]) + b"\n"
    if len(stdin) > _LINE:
        return b"\n".join([b"%d" % len(stdin), *lines]) + b"\n" + stdin
    return b"\n".join([b"f", *lines, b"".join(_FORMAT[byte] for byte in stdin)]) + b"\n"


_FORMAT = [bytes([byte]) if 32 <= byte < 127 and byte not in b"%\\-" else b"\\%03o" % byte for byte in range(256)]
"""How each byte stands in a printf format; the hyphen too, lest one at the beginning be an option."""


def _quoted(value: str) -> bytes:
    """Return a text as a shell's word, on one line."""
    plain = value.encode(errors="surrogateescape")
    return b"'" + plain.replace(b"'", b"'\\''").replace(b"\n", b"'\"$ANYSPAWN_n\"'") + b"'"


class Frames:
    """Takes the frames out of a stream, whatever the chunks are that it comes in.

    What comes before the command's start is not the command's: it is kept apart.

    Args:
        nonce: What frames begin with.

    Attributes:
        words: What the frames said, in order.
        opening: What came before the command's start: the client's own words.
    """

    def __init__(self, nonce: str) -> None:
        self.words: list[str] = []
        self.opening = b""
        self._start = _RS + nonce.encode() + b" "
        self._held = b""

    def feed(self, data: bytes) -> bytes:
        """Return ``data`` without frames; what may be the beginning of one is held back."""
        data = self._held + data
        self._held = b""
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
            passed.append(self._own(data[:at]))
            self.words.append(data[at + len(self._start) : end].decode(errors="replace"))
            data = data[end + 1 :]
        if not self._held:
            at = self._partial(data)
            self._held, data = data[at:], data[:at]
        passed.append(self._own(data))
        return b"".join(passed)

    def _own(self, data: bytes) -> bytes:
        """Return what of ``data`` is the command's."""
        if "start" in self.words:
            return data
        opening = self.opening + data
        if _READY in opening:
            opening = opening.replace(_READY, b"", 1)
            self.words.append("ready")
        self.opening = opening[-_OPENING:]
        return b""

    def rest(self) -> bytes:
        """Return what was held back, at the end of the stream."""
        held, self._held = self._held, b""
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
    def started(self) -> bool:
        """Whether the command was seen to start."""
        return "start" in self.words and self.unstarted is None

    @property
    def unstarted(self) -> int | None:
        """The status with which the shell could not execute the command, 126 or 127."""
        return self._number("unstarted")

    @property
    def exit_status(self) -> int | None:
        """The status with which the command ended."""
        return self._number("exit")

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
        return "lost" in self.words

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
