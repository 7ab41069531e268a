"""espeak-ng through ctypes: 16 kHz audio of a text, and the start time of each word."""

import ctypes
import functools
import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from vocabulary import SAMPLE_RATE

Audio = NDArray[np.float32]

# Names and values from espeak-ng's speak_lib.h.
_AUDIO_OUTPUT_SYNCHRONOUS = 2
_EVENT_LIST_TERMINATED = 0
_EVENT_WORD = 1
_POSITION_CHARACTER = 1
_CHARS_UTF8 = 1
_RATE, _VOLUME, _PITCH, _RANGE, _WORD_GAP = 1, 2, 3, 4, 7


@dataclass(frozen=True)
class Voice:
    """espeak-ng's parameters: words a minute, pitch and its range from 0 to 100, gap in 10 ms."""

    name: str
    rate: int
    pitch: int
    pitch_range: int
    word_gap: int


@dataclass(frozen=True)
class Speech:
    """`word_starts` are (position of the word's first character in the text, seconds)."""

    audio: Audio
    word_starts: list[tuple[int, float]]


class _EventId(ctypes.Union):
    _fields_ = (
        ("number", ctypes.c_int),
        ("name", ctypes.c_char_p),
        ("string", ctypes.c_char * 8),
    )


class _Event(ctypes.Structure):
    _fields_ = (
        ("type", ctypes.c_int),
        ("unique_identifier", ctypes.c_uint),
        ("text_position", ctypes.c_int),
        ("length", ctypes.c_int),
        ("audio_position", ctypes.c_int),
        ("sample", ctypes.c_int),
        ("user_data", ctypes.c_void_p),
        ("id", _EventId),
    )


_SynthCallback = ctypes.CFUNCTYPE(
    ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.POINTER(_Event)
)


class Espeak:
    """The library has one state per process, so there is one instance: `espeak()`."""

    def __init__(self) -> None:
        self._library = ctypes.CDLL("libespeak-ng.so.1")
        self._rate = self._library.espeak_Initialize(_AUDIO_OUTPUT_SYNCHRONOUS, 0, None, 0)
        if self._rate <= 0:
            raise RuntimeError("espeak-ng found no data: is its data package installed?")
        self._audio: list[NDArray[np.int16]] = []
        self._words: list[tuple[int, int]] = []
        # A reference, because the library has only the pointer.
        self._callback = _SynthCallback(self._receive)
        self._library.espeak_SetSynthCallback(self._callback)

    def speak(self, text: str, voice: Voice) -> Speech:
        self._audio.clear()
        self._words.clear()
        self._select(voice)
        data = text.encode()
        self._library.espeak_Synth(
            data, len(data) + 1, 0, _POSITION_CHARACTER, 0, _CHARS_UTF8, None, None
        )
        self._library.espeak_Synchronize()
        if not self._audio:
            raise ValueError(f"espeak-ng said nothing for {text!r}")
        audio = np.concatenate(self._audio).astype(np.float32) / np.float32(32768)
        starts = [(position - 1, sample / self._rate) for position, sample in self._words]
        return Speech(resample(audio, self._rate, SAMPLE_RATE), starts)

    def _select(self, voice: Voice) -> None:
        if self._library.espeak_SetVoiceByName(voice.name.encode()) != 0:
            raise ValueError(f"espeak-ng has no voice {voice.name}")
        for parameter, value in (
            (_RATE, voice.rate),
            (_VOLUME, 100),
            (_PITCH, voice.pitch),
            (_RANGE, voice.pitch_range),
            (_WORD_GAP, voice.word_gap),
        ):
            self._library.espeak_SetParameter(parameter, value, 0)

    def _receive(self, samples: Any, count: int, events: Any) -> int:
        if samples and count > 0:
            self._audio.append(np.ctypeslib.as_array(samples, shape=(count,)).copy())
        i = 0
        while events[i].type != _EVENT_LIST_TERMINATED:
            if events[i].type == _EVENT_WORD:
                self._words.append((events[i].text_position, events[i].sample))
            i += 1
        return 0


@functools.cache
def espeak() -> Espeak:
    return Espeak()


def resample(audio: Audio, rate_in: int, rate_out: int) -> Audio:
    """Returns the band-limited audio, with one FFT over all of it, since utterances are short."""
    divisor = math.gcd(rate_in, rate_out)
    up, down = rate_out // divisor, rate_in // divisor
    padded = -(-len(audio) // down) * down
    spectrum = np.fft.rfft(np.pad(audio, (0, padded - len(audio))))
    length = padded // down * up
    kept = np.zeros(length // 2 + 1, dtype=complex)
    common = min(len(spectrum), len(kept))
    kept[:common] = spectrum[:common]
    scaled = np.fft.irfft(kept, length) * (length / padded)
    return scaled[: len(audio) * up // down].astype(np.float32)
