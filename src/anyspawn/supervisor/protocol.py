"""What a supervisor says: frames within the program's two output streams. Bytes in, facts out.

A frame is RS NONCE " " WORD RS. The nonce is the call's own and random, so that a program that
does not know it cannot make one. This module knows no I/O; `Conversation` is fed what was read,
returns what of it is the program's, and keeps what was said in a `Report`.
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
"""So many bytes of a frame's beginning no program writes by chance."""
_OPENING = 64 * 1024

TOOK, BROKE = "took", "broke"
"""A chunk of stdin was written to the program; or the program reads no more."""


@define
class Report:
    """What a supervisor has said of its command so far.

    Attributes:
        asks: A resident waits for its script.
        ready: It waits for its task, which it is not given before.
        begun: It has set about the command.
        unstarted: The shell's status when it could not execute the program (126, 127), or came to
            grief before.
        gone: The status, 126 or 127, of what was a program before and is none any more.
        nocwd: The working directory could not be entered.
        running: The program has taken the place of the shell that starts it.
        exit_status: The status with which the command ended.
        held: Something that the command left behind holds one of its streams.
        whole: The end of the command's stdout was seen.
        clean: Nothing of the command was left, as far as the supervisor could look.
        swept: It has looked, whatever it found.
        killed: Something of the command was left, and was killed.
        left: Something of it was left, and stays as long as the supervisor does.
        untagged: The command could not be given the tag by which it is found.
        elusive: What was left starts its like, faster than it can be looked at.
        lost: Its stdin did not arrive whole; what is said after its end, of a stdin that it left,
            does not count.
        failed: The supervisor's shell could not go on, as no process could be started, for one.
        send: A resident waits for a long stdin.
        took: It has read that to its end.
        wants: The command has a stdin, of which has to be said what became of it.
        fed: All of it was written to the command.
        unread: What writes it was still there when the command ended.
        fit: Any exec executes the program: it is known by its first bytes.
        oom: The kernel killed something in the container for lack of memory meanwhile.
    """

    asks: bool = False
    ready: bool = False
    begun: bool = False
    unstarted: int | None = None
    gone: int | None = None
    nocwd: bool = False
    running: bool = False
    exit_status: int | None = None
    held: bool = False
    whole: bool = False
    clean: bool = False
    swept: bool = False
    killed: bool = False
    left: bool = False
    untagged: bool = False
    elusive: bool = False
    lost: bool = False
    failed: bool = False
    send: bool = False
    took: bool = False
    wants: bool = False
    fed: bool = False
    unread: bool = False
    fit: bool = False
    oom: bool = False

    @property
    def started(self) -> bool:
        """Whether the command was seen to start."""
        return self.begun and self.unstarted is None

    @property
    def not_started(self) -> bool:
        """Whether the supervisor said that it could not start the command."""
        return not self.started and (self.unstarted is not None or self.exit_status is not None)

    @property
    def listens(self) -> bool:
        """Whether a resident heeds words about the command: it has read a long stdin to its end."""
        return self.begun and (not self.send or self.took)

    @property
    def stdin_lost(self) -> bool:
        """Whether the command's stdin did not arrive whole."""
        untold = self.wants and self.exit_status is not None and not (self.fed or self.unread)
        return self.lost or untold or (self.swept and self.send and not self.listens)

    @property
    def left_nothing(self) -> bool:
        """Whether the supervisor looked for what the command left, could see, and saw nothing."""
        return self.clean and not self.untagged

    def hear(self, word: str) -> None:
        """Take a word of stderr."""
        name, _, number = word.partition(" ")
        match name:
            case "unstarted" | "gone" if number.isdigit():
                if getattr(self, name) is None:
                    setattr(self, name, int(number))
            case "exit" if number.isdigit():
                if self.exit_status is None:
                    self.exit_status = int(number)
            case "clean" | "unclean":
                self.clean, self.swept = name == "clean", True
            case "left":
                self.left = self.swept = True
            case "start":
                self.begun = True
            case "lost":
                self.lost = self.lost or self.exit_status is None
            case "nocwd" | "running" | "held" | "untagged" | "elusive" | "send" | "took":
                setattr(self, name, True)
            case "fed" | "unread" | "fit" | "failed" | "oom" | "killed":
                setattr(self, name, True)
            case _:
                pass  # a word of a newer script


class Decoder:
    """Takes the frames out of one stream, whatever the chunks are that it comes in.

    What comes before the command's start is not the command's: it is kept apart.

    Args:
        nonce: What frames begin with.
        begun: All that comes is the command's.

    Attributes:
        words: What the frames said, in order; whoever reads them takes them out.
        opening: What came before the command's start: the client's own words.
        asks: The supervisor has said in this stream that it waits for its script.
        ready: It has said that it waits for its task.
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
        """Return ``data`` without frames; what may be the beginning of one is held back."""
        data = self._held + data
        known, self._passed, self._held = self._passed, 0, b""
        passed = []
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
        """Whether something is held back that is hardly the beginning of a frame."""
        return self._begun and self._passed < len(self._held) < _SURE

    def pass_on(self) -> bytes:
        """Return that after all; a frame that it begins is known by it nevertheless."""
        data, self._passed = self._held[self._passed :], len(self._held)
        return data

    def _own(self, data: bytes) -> bytes:
        """Return what of ``data`` is the command's."""
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
        """Return what was held back, at the end of the stream."""
        held, self._held, self._passed = self._held[self._passed :], b"", 0
        return self._own(held)

    def _partial(self, data: bytes) -> int:
        """Return where at the end of ``data`` a frame may be beginning."""
        at = data.rfind(_RS, max(0, len(data) - len(self._start) + 1))
        return at if at >= 0 and self._start.startswith(data[at:]) else len(data)


class Conversation:
    """Both streams of a supervisor, as one state machine.

    Args:
        nonce: What its frames begin with.
        begun: It is a resident that has served before: it is ready, and its stdout is the
            program's from the first byte.

    Attributes:
        report: What it has said.
        chunks: The answers to chunks of stdin that nobody has taken yet, `TOOK` or `BROKE` each.
    """

    def __init__(self, nonce: str, *, begun: bool = False) -> None:
        self.report = Report(ready=begun)
        self.chunks: list[str] = []
        self._streaming = False
        self._decoders = {"stdout": Decoder(nonce, begun=begun), "stderr": Decoder(nonce)}

    def expect_chunks(self) -> None:
        """Take `TOOK` for the answer to a chunk, not for that to a resident's long stdin."""
        self._streaming = True

    def receive(self, stream: Literal["stdout", "stderr"], data: bytes) -> bytes:
        """Return what of ``data`` is the program's; empty data is the stream's end."""
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
        """Whether the supervisor has said all that there is to say in a stream."""
        return self.report.whole if stream == "stdout" else self.report.swept

    def opening(self, stream: str) -> bytes:
        """Return what the client said in a stream before the command's start."""
        return self._decoders[stream].opening

    def doubtful(self, stream: str) -> bool:
        """Whether a stream holds back what is hardly the beginning of a frame."""
        return self._decoders[stream].doubtful

    def pass_on(self, stream: str) -> bytes:
        """Return what a stream holds back."""
        return self._decoders[stream].pass_on()
