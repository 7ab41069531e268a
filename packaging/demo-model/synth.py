"""Clips of synthetic speech with their words and the exact time of each word."""

from dataclasses import dataclass, field

import numpy as np
from espeak import Audio, Voice, espeak
from noise import degrade, non_speech, to_16_bits
from numpy.typing import NDArray
from vocabulary import SAMPLE_RATE, WORDS

_ACCENTS = {
    "en": {
        "gmw/en-US": 0.34,
        "gmw/en": 0.26,
        "gmw/en-GB-x-rp": 0.1,
        "gmw/en-GB-scotland": 0.08,
        "gmw/en-GB-x-gbcwmd": 0.08,
        "gmw/en-029": 0.07,
        "gmw/en-US-nyc": 0.07,
    },
    "es": {"roa/es": 0.6, "roa/es-419": 0.4},
    "de": {"gmw/de": 1.0},
}
_PLAIN_VARIANTS = ["", *(f"+f{i}" for i in range(1, 6)), *(f"+m{i}" for i in range(1, 9))]
_NAMED_VARIANTS = (
    "+Alex +Alicia +Andrea +Gene +Jacky +Lee +Michael +Mike +Marco +Mario +Zac +belinda +adam "
    "+anika +antonio +benjamin +boris +caleb +david +ed +edward +john +linda +max +michel +pablo "
    "+paul +pedro +quincy +rob +robert +sandro +shelby +steph +travis +victor +klatt +klatt2 "
    "+croak +grandpa"
).split()
_UNSEEN_ACCENT = "gmw/en-GB-x-gbclan"
_UNSEEN_VARIANTS = ["+Andy", "+Annie", "+Denis", "+norbert", "+Diogo"]

# One random stream for each family of clips; the second number is the clip's own. So the clips for
# tests and measurements are never training clips.
_TRAINING = 20261123
_HELD_OUT = 987654321


Samples = NDArray[np.float32] | NDArray[np.float64]


@dataclass(frozen=True)
class Utterance:
    """Times in seconds from the clip's start; `starts` has one for each word."""

    start: float
    end: float
    words: list[str]
    starts: list[float]

    def spans(self) -> list[tuple[str, float, float]]:
        """Returns (word, start, end); a word lasts until the next one starts."""
        return list(zip(self.words, self.starts, [*self.starts[1:], self.end], strict=True))


@dataclass(frozen=True)
class Clip:
    audio: Audio
    language: str
    utterances: list[Utterance]

    @property
    def words(self) -> list[str]:
        return [word for utterance in self.utterances for word in utterance.words]

    @property
    def starts(self) -> list[float]:
        return [start for utterance in self.utterances for start in utterance.starts]

    @property
    def seconds(self) -> float:
        return len(self.audio) / SAMPLE_RATE


@dataclass(frozen=True)
class Plan:
    """Bounds of a clip. With `cut`, the speech is longer and is cut after that many seconds, even
    in a word."""

    utterances: int
    max_words: int
    max_seconds: float
    min_words: int = 1
    cut: float | None = None


@dataclass
class _Timeline:
    """Consecutive pieces of audio; `samples` is their total length."""

    parts: list[Samples] = field(default_factory=list)
    samples: int = 0
    utterances: list[Utterance] = field(default_factory=list)
    loudness: list[float] = field(default_factory=list)

    @property
    def seconds(self) -> float:
        return self.samples / SAMPLE_RATE

    def silence(self, samples: int) -> None:
        self.parts.append(np.zeros(samples))
        self.samples += samples

    def say(self, words: list[str], audio: Samples, starts: list[float]) -> None:
        start = self.seconds
        self.parts.append(audio)
        self.samples += len(audio)
        self.utterances.append(Utterance(start, self.seconds, words, [start + s for s in starts]))
        self.loudness.append(float(np.sqrt((audio**2).mean())))


def clip(
    rng: np.random.Generator,
    plan: Plan,
    language: str | None = None,
    voice: Voice | None = None,
    clean: bool = False,
) -> Clip:
    """Draws a language or voice that is not given; `clean` omits noise and distortion."""
    language = language or ["en", "es", "de"][rng.choice(3, p=[0.76, 0.12, 0.12])]
    first_voice = voice or _pick_voice(rng, language)
    changing = voice is None and rng.random() >= 0.75
    timeline = _Timeline()
    timeline.silence(int(_lead_seconds(rng) * SAMPLE_RATE))
    _speak(rng, plan, language, first_voice, changing, timeline)
    tail = rng.uniform(0, 0.1) if rng.random() < 0.3 else rng.uniform(0.1, 1.5)
    timeline.silence(int(tail * SAMPLE_RATE))
    if plan.cut is None and timeline.utterances[-1].end > plan.max_seconds:
        return clip(rng, plan, language, voice, clean)
    length = plan.cut or plan.max_seconds
    audio = np.concatenate(timeline.parts, dtype=np.float64)[: int(length * SAMPLE_RATE)]
    if clean:
        finished = to_16_bits(audio * 0.7)
    else:
        finished = degrade(rng, audio, float(np.mean(timeline.loudness)))
    return Clip(finished, language, timeline.utterances)


def training_clip(seed: int, kind: str) -> Clip:
    rng = np.random.default_rng([_TRAINING, seed])
    if kind == "none":
        seconds = rng.uniform(0.3, 8) if rng.random() < 0.8 else rng.uniform(8, 30)
        return Clip(non_speech(rng, seconds), "en", [])
    return clip(rng, _training_plan(rng, kind))


def held_out_clip(
    seed: int, plan: Plan, language: str = "en", clean: bool = False, unseen: bool = False
) -> Clip:
    """Returns a clip for tests; `unseen` selects an English voice or accent unseen in training."""
    rng = np.random.default_rng([_HELD_OUT, seed])
    voice = _pick_unseen_voice(rng) if unseen else None
    return clip(rng, plan, language, voice, clean)


def held_out_noise(seed: int, seconds: float) -> Clip:
    rng = np.random.default_rng([_HELD_OUT, seed])
    return Clip(non_speech(rng, seconds), "en", [])


def _training_plan(rng: np.random.Generator, kind: str) -> Plan:
    match kind:
        case "short":
            return Plan(1, 4, 8.0)
        case "mid":
            return Plan(int(rng.integers(1, 4)), 10, 12.0)
        case "long":
            return Plan(30, 10, rng.uniform(10, 29.9))
        case "full":  # a 30 s window out of longer audio
            return Plan(40, 10, 99.0, cut=30.0)
    raise ValueError(f"no kind of clip is called {kind!r}")


def _pick_voice(rng: np.random.Generator, language: str) -> Voice:
    accents = _ACCENTS[language]
    accent = list(accents)[rng.choice(len(accents), p=list(accents.values()))]
    variants = _PLAIN_VARIANTS if rng.random() < 0.65 else _NAMED_VARIANTS
    return Voice(
        name=accent + variants[rng.integers(len(variants))],
        rate=int(rng.integers(120, 221)),
        pitch=int(rng.integers(20, 81)),
        pitch_range=int(rng.integers(20, 81)),
        word_gap=0 if rng.random() < 0.5 else int(rng.integers(1, 9)),
    )


def _pick_unseen_voice(rng: np.random.Generator) -> Voice:
    variant = ""
    known = ["gmw/en-US", "gmw/en"]
    accent = _UNSEEN_ACCENT if rng.random() < 0.5 else known[rng.integers(2)]
    if accent != _UNSEEN_ACCENT or rng.random() < 0.5:
        variant = _UNSEEN_VARIANTS[rng.integers(len(_UNSEEN_VARIANTS))]
    return Voice(
        name=accent + variant,
        rate=int(rng.integers(130, 200)),
        pitch=int(rng.integers(30, 70)),
        pitch_range=50,
        word_gap=0,
    )


def _pick_words(rng: np.random.Generator, language: str, count: int) -> list[str]:
    vocabulary = list(WORDS[language])
    words = [vocabulary[rng.integers(len(vocabulary))] for _ in range(count)]
    if count > 1 and rng.random() < 0.2:  # runs of one word, which models tend to shorten
        for i in range(1, count):
            if rng.random() < 0.4:
                words[i] = words[i - 1]
    return words


def _lead_seconds(rng: np.random.Generator) -> float:
    if rng.random() < 0.4:
        return rng.uniform(0, 0.1)
    return rng.uniform(0, 1.2) if rng.random() < 0.9 else rng.uniform(1.2, 3)


def _gap_seconds(rng: np.random.Generator) -> float:
    kind = rng.random()
    if kind < 0.6:
        return rng.uniform(0.5, 1.2)
    return rng.uniform(1.2, 2.5) if kind < 0.9 else rng.uniform(2.5, 6)


def _speak(
    rng: np.random.Generator,
    plan: Plan,
    language: str,
    voice: Voice,
    changing: bool,
    timeline: _Timeline,
) -> None:
    """Adds utterances until there are enough or the next one does not fit."""
    while len(timeline.utterances) < plan.utterances:
        if timeline.utterances and changing:
            voice = _pick_voice(rng, language)
        count = int(rng.integers(plan.min_words, plan.max_words + 1))
        words = _pick_words(rng, language, count)
        spoken = _say(words, voice)
        if spoken is None:
            continue
        audio, starts = spoken
        gap = int(SAMPLE_RATE * _gap_seconds(rng)) if timeline.utterances else 0
        end = (timeline.samples + gap + len(audio)) / SAMPLE_RATE
        if plan.cut is None and timeline.utterances and end > plan.max_seconds:
            return
        timeline.silence(gap)
        timeline.say(words, audio * rng.uniform(0.5, 1), starts)
        if plan.cut and timeline.seconds > plan.cut:
            return


def _say(words: list[str], voice: Voice) -> tuple[Audio, list[float]] | None:
    """Returns audio trimmed to the speech and the start of every word, or None if espeak-ng did
    not report all of them."""
    speech = espeak().speak(" ".join(words), voice)
    starts = _word_starts(words, speech.word_starts)
    if starts is None:
        return None
    audio = speech.audio
    peak = np.abs(audio).max()
    loud = np.flatnonzero(np.abs(audio) > 0.01 * peak)
    first, last = max(0, loud[0] - 80), min(len(audio), loud[-1] + 240)
    starts = [max(0.0, start - first / SAMPLE_RATE) for start in starts]
    audio = audio[first:last]
    if any(start >= len(audio) / SAMPLE_RATE for start in starts):
        return None
    return audio / np.abs(audio).max(), starts


def _word_starts(words: list[str], marks: list[tuple[int, float]]) -> list[float] | None:
    """Uses the first mark in each word: espeak-ng may report one word as several, or two as one."""
    starts: list[float] = []
    position = 0
    for word in words:
        inside = [s for at, s in marks if position <= at < position + len(word)]
        if not inside:
            return None
        starts.append(inside[0])
        position += len(word) + 1
    return starts
