"""Reads one stream of a supervisor, for the tests of its scripts."""

from __future__ import annotations

from anyspawn.supervisor.protocol import Decoder, Report


class Frames:
    """Removes the frames from one stream and keeps their words. Other attributes are those of the
    `Report`.
    """

    def __init__(self, nonce, *, begun=False, wants=False):
        self.words = []
        self._report = Report(ready=begun, wants=wants)
        self._decoder = Decoder(nonce, begun=begun)

    def __getattr__(self, name):
        return getattr(self._report, name)

    def _hear(self, own):
        if self._decoder.ready and not self._report.ready:
            self._report.ready = True
            self.words.append("ready")
        said, self._decoder.words = self._decoder.words, []
        for word in said:
            self.words.append(word)
            self._report.hear(word)
        return own

    def feed(self, data):
        return self._hear(self._decoder.feed(data))

    def rest(self):
        return self._hear(self._decoder.rest())

    def pass_on(self):
        return self._decoder.pass_on()

    @property
    def doubtful(self):
        return self._decoder.doubtful

    @property
    def opening(self):
        return self._decoder.opening

    @property
    def over(self):
        return "end" in self.words or self.swept

    @property
    def clean(self):
        return self.left_nothing

    @property
    def lost(self):
        return self.stdin_lost
