"""The frames of a supervisor within the program's two output streams. Bytes in, facts out; no I/O.

A frame is RS NONCE " " WORD RS. The nonce is random for each call, so a program cannot forge one.
`Conversation` takes what was read, returns the program's part, and keeps the rest in a `Report`.
"""

from __future__ import annotations

from typing import Literal

from attrs import define

__all__ = ["BROKE", "TOOK", "Conversation", "Decoder", "Report"]

_RS = b"\x1e"
_ASKS = b"\x1eanyspawn asks\n"
_READY = b"\x1eanyspawn ready\n"
_LONGEST = 64
_SURE = 8
"""No program writes this many bytes of a frame's beginning by chance."""
_OPENING = 64 * 1024

_STATUSES = {"unstarted": "unstarted", "gone": "gone", "exit": "exit_status"}
_FACTS = {"start": "begun"} | {
    name: name
    for name in (
        *("nocwd", "running", "held", "untagged", "elusive", "send", "took"),
        *("fed", "unread", "fit", "failed", "oom", "killed"),
    )
}

TOOK, BROKE = "took", "broke"
"""A chunk of stdin was written to the program, or the program has closed its stdin."""


@define
class Report:
    """What a supervisor has reported of its command so far."""

    asks: bool = False  # a resident waits for its script
    ready: bool = False  # it waits for its task, which is not sent before
    begun: bool = False  # it has begun the command
    unstarted: int | None = None  # the shell's status when it could not execute the program
    gone: int | None = None  # 126 or 127, of a program that it had executed before
    nocwd: bool = False  # the working directory could not be entered
    running: bool = False  # the program has taken the place of the shell that starts it
    exit_status: int | None = None  # of the command
    held: bool = False  # a process that the command left holds one of its streams
    whole: bool = False  # the end of the command's stdout was seen
    clean: bool = False  # nothing of the command is left, and the search was possible
    swept: bool = False  # it has searched, whatever it found
    killed: bool = False  # something was left, and was killed
    left: bool = False  # something was left, and stays as long as the supervisor does
    untagged: bool = False  # the command does not have its tag
    elusive: bool = False  # what was left starts copies faster than they can be examined
    lost: bool = False  # stdin did not arrive whole; ignored after the command's end
    failed: bool = (
        False  # the supervisor's shell could not continue, for example without a free process
    )
    send: bool = False  # a resident waits for a long stdin
    took: bool = False  # it has read the long stdin to its end
    wants: bool = False  # the command has a stdin, so one of the next two must be reported
    fed: bool = False  # all of stdin was written to the command
    unread: bool = False  # the process that writes it still ran when the command ended
    fit: bool = False  # any exec executes the program: its first bytes show that
    oom: bool = False  # the kernel killed something in the container for lack of memory

    @property
    def started(self) -> bool:
        """Whether the supervisor has reported the command's start."""
        return self.begun and self.unstarted is None

    @property
    def not_started(self) -> bool:
        """Whether the supervisor has reported that it could not start the command."""
        return not self.started and (self.unstarted is not None or self.exit_status is not None)

    @property
    def listens(self) -> bool:
        """Whether a resident reads messages: it has read a long stdin to its end."""
        return self.begun and (not self.send or self.took)

    @property
    def stdin_lost(self) -> bool:
        """Whether the command's stdin did not arrive whole."""
        untold = self.wants and self.exit_status is not None and not (self.fed or self.unread)
        return self.lost or untold or (self.swept and self.send and not self.listens)

    @property
    def left_nothing(self) -> bool:
        """Whether the supervisor searched for processes that the command left, could see them, and
        found none.
        """
        return self.clean and not self.untagged

    def hear(self, word: str) -> None:
        """Record a frame of stderr."""
        name, _, number = word.partition(" ")
        if name in _STATUSES and number.isdigit():
            if getattr(self, _STATUSES[name]) is None:
                setattr(self, _STATUSES[name], int(number))
        elif name in ("clean", "unclean", "left"):
            self.swept = True
            self.clean, self.left = name == "clean", self.left or name == "left"
        elif name == "lost":
            self.lost = self.lost or self.exit_status is None
        elif name in _FACTS:  # others are words of a newer script
            setattr(self, _FACTS[name], True)


class Decoder:
    """Takes the frames out of one stream, however it is cut into chunks.

    Args:
        nonce: The random word of the frames.
        begun: All output is the command's, also before a frame says that it starts.

    Attributes:
        words: The words of the frames, in order; the reader removes them.
        opening: The output before the command's start: the client's own.
        asks: The supervisor waits for its script.
        ready: It waits for its task.
    """

    def __init__(self, nonce: str, *, begun: bool = False) -> None:
        self.words: list[str] = []
        self.opening = b""
        self.asks = self.ready = False
        self._begun = begun
        self._start = _RS + nonce.encode() + b" "
        self._held = b""
        self._passed = 0  # so much of that was passed on nevertheless

    def feed(self, data: bytes) -> bytes:
        """Return ``data`` without frames; hold back what may be the beginning of one."""
        data = self._held + data
        known, self._passed, self._held = self._passed, 0, b""
        passed: list[bytes] = []
        while (at := data.find(self._start)) >= 0:
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
            word = data[at + len(self._start) : end].decode(errors="replace")
            self.words.append(word)
            self._begun = self._begun or word == "start"
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
        """Whether it holds back bytes that are hardly the beginning of a frame."""
        return self._begun and self._passed < len(self._held) < _SURE

    def pass_on(self) -> bytes:
        """Return the bytes that are held back; a frame that they begin is still found."""
        data, self._passed = self._held[self._passed :], len(self._held)
        return data

    def _own(self, data: bytes) -> bytes:
        """Return the part of ``data`` that is the command's."""
        if self._begun:
            return data
        opening = self.opening + data
        if _ASKS in opening:
            opening = opening.replace(_ASKS, b"", 1)
            self.asks = True
        if _READY in opening:
            opening = opening.replace(_READY, b"", 1)
            self.ready = True
        self.opening = opening[-_OPENING:]
        return b""

    def rest(self) -> bytes:
        """Return the bytes that are held back, at the end of the stream."""
        held, self._held, self._passed = self._held[self._passed :], b"", 0
        return self._own(held)

    def _partial(self, data: bytes) -> int:
        """Return the position at the end of ``data`` where a frame may begin."""
        at = data.rfind(_RS, max(0, len(data) - len(self._start) + 1))
        return at if at >= 0 and self._start.startswith(data[at:]) else len(data)


class Conversation:
    """Both streams of a supervisor, as one state machine.

    Args:
        nonce: The random word of its frames.
        begun: A resident that has served before: it is ready, and its stdout is the program's from
            the first byte.

    Attributes:
        report: The facts so far.
        chunks: `TOOK` or `BROKE` for each chunk of stdin; the reader removes them.
    """

    def __init__(self, nonce: str, *, begun: bool = False) -> None:
        self.report = Report(ready=begun)
        self.chunks: list[str] = []
        self._streaming = False
        self._decoders = {"stdout": Decoder(nonce, begun=begun), "stderr": Decoder(nonce)}

    def expect_chunks(self) -> None:
        """Read `TOOK` as the answer to a chunk; otherwise it answers a resident's long stdin."""
        self._streaming = True

    def receive(self, stream: Literal["stdout", "stderr"], data: bytes) -> bytes:
        """Return the part of ``data`` that is the program's; empty data is the stream's end."""
        decoder = self._decoders[stream]
        own = decoder.feed(data) if data else decoder.rest()
        if stream == "stderr":
            self.report.asks = decoder.asks
            self.report.ready = self.report.ready or decoder.ready
        elif own:
            self.report.begun = True
        if decoder.words:
            words, decoder.words = decoder.words, []
            for word in words:
                if stream == "stdout":
                    self.report.whole = self.report.whole or word == "end"
                    self.report.begun = self.report.begun or word == "start"
                    if word.startswith("unstarted"):  # where the command's stderr is its stdout
                        self.report.hear(word)
                elif self._streaming and word in {TOOK, BROKE}:
                    self.chunks.append(word)
                else:
                    self.report.hear(word)
        return own

    def over(self, stream: str) -> bool:
        """Whether the supervisor has sent its last frame in a stream."""
        return self.report.whole if stream == "stdout" else self.report.swept

    def opening(self, stream: str) -> bytes:
        """Return what the client wrote to a stream before the command's start."""
        return self._decoders[stream].opening

    def doubtful(self, stream: str) -> bool:
        """Whether a stream holds back bytes that are hardly the beginning of a frame."""
        return self._decoders[stream].doubtful

    def pass_on(self, stream: str) -> bytes:
        """Return the bytes that a stream holds back."""
        return self._decoders[stream].pass_on()
