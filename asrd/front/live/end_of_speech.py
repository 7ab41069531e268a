"""The end of what somebody says: speech, and then enough silence (`end_of_speech_ms`). Pure."""

from collections.abc import Iterable

from asrd.wire.options import Options, VadParameters
from asrd.wire.records import Segment

# New audio after which the VAD listens again, and audio before it that it hears once more: its
# probabilities depend on that.
STEP_SECONDS, _CONTEXT_SECONDS = 0.25, 2.0
# Shorter sounds are no speech: a click must not count as a word.
_SHORTEST_MS = 200
# Silence is measured here, not by the VAD.
_PAUSE_MS = 100
OPTIONS = Options(
    task="speech",
    vad_parameters=VadParameters(
        min_speech_duration_ms=_SHORTEST_MS, min_silence_duration_ms=_PAUSE_MS, speech_pad_ms=0
    ),
)


class EndOfSpeech:
    """The state of one stream. All times are in seconds from its start."""

    def __init__(self, silence: float) -> None:
        self._silence = silence
        self._spoken_until: float | None = None
        # The end of the audio that the VAD has heard.
        self.heard = 0.0

    @property
    def begin(self) -> float:
        """The start of the audio that the VAD is to hear next."""
        return max(0.0, self.heard - _CONTEXT_SECONDS)

    def hear(self, speech: Iterable[Segment], begin: float, end: float) -> bool:
        """Takes the speech in the audio between `begin` and `end`. Returns True if it has ended."""
        self.heard = end
        last = max((begin + segment.end for segment in speech), default=None)
        if last is not None:
            self._spoken_until = max(min(last, end), self._spoken_until or 0.0)
        return self._spoken_until is not None and end - self._spoken_until >= self._silence
