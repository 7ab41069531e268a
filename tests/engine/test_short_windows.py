"""A window with little speech is encoded as long as that lasts, and doubtful text again."""

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from faster_whisper import WhisperModel
from faster_whisper.audio import pad_or_trim
from faster_whisper.feature_extractor import FeatureExtractor
from faster_whisper.transcribe import TranscriptionOptions

from asrd.engine import job_model
from asrd.engine.audio.reader import Samples
from asrd.engine.hints import Hints
from asrd.engine.job_model import JobModel
from asrd.engine.logmel import WINDOW, LogMel, Tail
from asrd.engine.plausible import is_plausible, most_tokens
from asrd.engine.whisper import WhisperEngine
from tests.support.engine_jobs import count_calls, transcribe
from tests.support.sounds import noise, sample, silence

FILTERS = FeatureExtractor().mel_filters
ANY = TranscriptionOptions(**dict.fromkeys(TranscriptionOptions.__annotations__))
OPTIONS = replace(
    ANY,
    temperatures=[0.0, 0.2, 0.4],
    compression_ratio_threshold=2.4,
    log_prob_threshold=-1.0,
    no_speech_threshold=0.6,
)


class Letters:
    """A tokenizer with a token for each character."""

    def decode(self, tokens: list[int]) -> str:
        return "".join(map(chr, tokens))


class Encoder:
    """A model that keeps the features that it encodes, and answers with the next of `results`:
    text, average log probability, compression ratio, and perhaps the probability of no speech."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *results: tuple[Any, ...]) -> None:
        self.encoded: list[Any] = []
        self.decoded: list[tuple[str, Any]] = []
        self.aligned: list[str] = []
        self._results = iter(results)
        monkeypatch.setattr(WhisperModel, "encode", self._encode)
        monkeypatch.setattr(WhisperModel, "generate_with_fallback", self._generate)
        monkeypatch.setattr(WhisperModel, "find_alignment", self._align)

    def window(self, model: JobModel, start: int = 0, frames: int = WINDOW) -> Any:
        """Encodes a window as `generate_segments` does."""
        features: Any = model._features
        frames = min(frames, features.shape[-1] - 1 - start)
        return model.encode(pad_or_trim(features[:, start : start + frames]))

    def model(self, samples: Samples, short: bool = True) -> JobModel:
        base = SimpleNamespace(feature_extractor=FeatureExtractor(), model=None)
        mel = LogMel([samples], FILTERS, lambda frame: None)
        return JobModel(base, mel, Hints(), short=short)

    def _encode(self, features: Any) -> str:
        self.encoded.append(features)
        return f"{features.shape[1]} frames"

    def _generate(self, encoded: str, prompt: list[int], tokenizer: Any, options: Any) -> Any:
        self.decoded.append((encoded, options))
        text, *numbers = next(self._results)
        silent = numbers[2] if len(numbers) > 2 else 0.1
        found = SimpleNamespace(sequences_ids=[list(map(ord, text))], no_speech_prob=silent)
        return found, numbers[0], 0.0, numbers[1]

    def _align(self, tokenizer: Any, tokens: Any, encoded: str, frames: int) -> None:
        self.aligned.append(encoded)


def test_window_is_what_whisper_makes_of_the_recording_and_8_s_of_silence(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    samples = noise(3, 0.3)
    encoder = Encoder(monkeypatch)
    encoder.window(encoder.model(samples))
    (found,) = encoder.encoded
    wanted = FeatureExtractor()(np.concatenate((samples, silence(10))))[:, :1100]
    assert found.shape == (80, 300 + 800)
    # The end of the sound reaches a little into the silence.
    for same in (slice(300), slice(303, 1100)):
        np.testing.assert_allclose(found[:, same], wanted[:, same], atol=1e-4)


@pytest.mark.parametrize(
    ("seconds", "short", "frames"),
    [(40, True, [3000, 1800]), (40, False, [3000, 3000]), (25, True, [3000])],
)
def test_last_window_is_shortened_where_that_saves_something(
    monkeypatch: pytest.MonkeyPatch, seconds: int, short: bool, frames: list[int]
) -> None:
    encoder = Encoder(monkeypatch)
    model = encoder.model(noise(seconds, 0.3), short)
    for start in range(0, 100 * seconds, WINDOW):
        encoder.window(model, start)
    assert [each.shape[1] for each in encoder.encoded] == frames
    if frames[-1] == WINDOW:
        assert not encoder.encoded[-1][:, (100 * seconds) % WINDOW :].any()


def test_clip_in_the_middle_is_shortened(monkeypatch: pytest.MonkeyPatch) -> None:
    encoder = Encoder(monkeypatch)
    encoder.window(encoder.model(noise(40, 0.3)), 500, 200)
    assert encoder.encoded[0].shape[1] == 1000


def decode(
    encoder: Encoder, seconds: float, options: Any = OPTIONS, prompt: list[int] | None = None
) -> str:
    model, tokenizer = encoder.model(noise(seconds, 0.3)), Letters()
    encoded = encoder.window(model)
    found = model.generate_with_fallback(encoded, prompt or [1, 2], tokenizer, options)
    model.find_alignment(tokenizer, [], encoded, 300)
    return tokenizer.decode(found[0].sequences_ids[0])


def test_short_window_is_decoded_once_at_the_first_temperature(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    encoder = Encoder(monkeypatch, ("go forward ten meters", -0.3, 1.0))
    assert decode(encoder, 3) == "go forward ten meters"
    ((encoded, once),) = encoder.decoded
    assert (encoded, encoder.aligned) == ("1100 frames", ["1100 frames"])
    assert once.temperatures == [0.0]


@pytest.mark.parametrize(
    "doubtful",
    [
        ("turn on all the lights of the living room, the kitchen, the bedroom and the hall", 0, 1),
        ("Ten of clubs. 10 of clubs, 10 of clubs", 0, 1),
        ("forward", 0, 2.5),
        ("forward", -0.85, 1),
        ("forward", float("nan"), 1),
        ("You", -0.7, 1, 0.9),
    ],
)
def test_doubtful_text_is_decoded_again_from_a_full_window(
    monkeypatch: pytest.MonkeyPatch, doubtful: tuple[Any, ...]
) -> None:
    encoder = Encoder(monkeypatch, doubtful, ("stop", -2.0, 1.0))
    assert decode(encoder, 3) == "stop"
    assert [each for each, _ in encoder.decoded] == ["1100 frames", "3000 frames"]
    assert encoder.decoded[1][1] is OPTIONS
    assert not encoder.encoded[1][:, 300:].any()
    assert encoder.aligned == ["3000 frames"]


def test_text_that_reaches_the_limit_of_a_short_window_is_never_kept(
    engine: WhisperEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    tokens: list[int] = []
    generate = WhisperModel.generate_with_fallback

    def counting(*arguments: Any) -> Any:
        found = generate(*arguments)
        tokens.append(len(found[0].sequences_ids[0]))
        return found

    monkeypatch.setattr(WhisperModel, "generate_with_fallback", counting)
    full = transcribe(engine, sample("en-0.wav"), window="full")
    (needed,) = tokens
    for most, decoded in ((needed + 1, [needed]), (needed, [needed, needed]), (5, [5, needed])):
        tokens.clear()
        monkeypatch.setattr(job_model, "most_tokens", lambda seconds, most=most: most)
        assert transcribe(engine, sample("en-0.wav"), window="short").text == full.text
        assert tokens == decoded


@pytest.mark.parametrize(
    ("text", "plausible"),
    [
        ("Ten of clubs. 10 of clubs, 10 of clubs", False),
        ("Bye bye.", False),
        ("好的好的好的好的", False),
        ("खाना खाना", False),
        # The marks are vowels: without them this is "च च".
        ("मेरे चाचा", True),
        ("今天天气很好我们去公园吧", True),
        ("", True),
        ("Ten of clubs, ten of hearts.", True),
    ],
)
def test_text_that_ends_with_the_same_twice_is_doubtful(text: str, plausible: bool) -> None:
    assert is_plausible(text, 3) == plausible


def test_repetition_that_a_full_window_finds_too_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    encoder = Encoder(monkeypatch, ("One, one.", -0.3, 1.0), ("No, no, no.", -0.3, 1.0))
    assert decode(encoder, 1) == "No, no, no."
    assert [each for each, _ in encoder.decoded] == ["900 frames", "3000 frames"]


@pytest.mark.parametrize("prompt", [3, 100, 226])
def test_room_is_that_of_the_fastest_speech(monkeypatch: pytest.MonkeyPatch, prompt: int) -> None:
    encoder = Encoder(monkeypatch, ("go forward", -0.3, 1.0))
    decode(encoder, 3, prompt=[1] * prompt)
    room = encoder.decoded[0][1].max_new_tokens
    # CTranslate2 makes at most half as many tokens as both together.
    assert min(room, (prompt + room) // 2) == most_tokens(3) == 136


def test_own_limit_of_tokens_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    encoder = Encoder(monkeypatch, ("go forward", -0.3, 1.0))
    decode(encoder, 3, replace(OPTIONS, max_new_tokens=10))
    assert encoder.decoded[0][1].max_new_tokens == 10


@pytest.mark.parametrize(
    ("probability", "language", "frames"), [(0.4, "es", [1100, 3000]), (0.6, "it", [1100])]
)
def test_language_that_is_improbable_in_a_short_window_is_detected_again(
    monkeypatch: pytest.MonkeyPatch, probability: float, language: str, frames: list[int]
) -> None:
    encoder = Encoder(monkeypatch)
    model: Any = encoder.model(noise(3, 0.3))
    found = {"1100 frames": ("<|it|>", probability), "3000 frames": ("<|es|>", 0.3)}
    model.model = SimpleNamespace(detect_language=lambda encoded: [[found[encoded]]])
    assert model.detect_language(Tail(model._features, 0))[0] == language
    # The window is decoded from what was encoded last.
    encoder.window(model)
    assert [each.shape[1] for each in encoder.encoded] == frames


@pytest.mark.parametrize("window", ["short", "full"])
@pytest.mark.parametrize("name", ["es-0.wav", "en-minute.flac"])
def test_window_in_which_the_language_was_detected_is_not_encoded_again(
    engine: WhisperEngine, monkeypatch: pytest.MonkeyPatch, window: str, name: str
) -> None:
    audio = sample(name)
    encoded = count_calls(monkeypatch, WhisperModel, "encode")
    found = transcribe(engine, audio, language=None, window=window)
    detected = len(encoded)
    assert found.language == name[:2]
    again = transcribe(engine, audio, language=found.language, window=window)
    assert (found.text, 2 * detected) == (again.text, len(encoded))
