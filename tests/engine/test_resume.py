"""A job stops before any call of the weights, and goes on from any checkpoint as if nothing had
happened; a checkpoint that is wrong does no harm."""

import itertools
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from asrd.engine import whisper as engine_module
from asrd.engine.audio.reader import RATE, Samples
from asrd.engine.hints import PROMPT_TOKENS
from asrd.engine.interface import Transcription
from asrd.engine.whisper import WhisperEngine
from asrd.errors import InternalError
from asrd.wire.records import WEEK_S, AudioFormat, Checkpoint
from tests.support.engine_jobs import (
    GREEDY,
    Listener,
    assert_resumable,
    count_calls,
    run_in_turns,
    run_job,
    transcribe,
    watched,
)
from tests.support.sounds import encoded, memory_file, noise, sample, silence

# Windows of ten seconds, which take a third of the time.
SHORT = replace(GREEDY, chunk_length=10)


@pytest.fixture(scope="module")
def recording(minute: Samples) -> Samples:
    """Speech, a pause of more than a window, and louder speech."""
    return np.concatenate((minute[: 23 * RATE], silence(13), minute[: 9 * RATE] * np.float32(1.2)))


# --- turns --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "calls"),
    [
        ({"language": None, "word_timestamps": True}, ("align", "detect_language")),
        ({"multilingual": True, "hotwords": "green"}, ("detect_language",)),
        ({"temperature": (0.0, 0.5), "compression_ratio_threshold": 0.0}, ()),
        ({"batch_size": 2, "word_timestamps": True, "language": None}, ("align",)),
        ({"task": "detect", "language": None}, ("detect_language",)),
    ],
    ids=str,
)
def test_each_call_of_the_weights_has_a_turn(
    engine: WhisperEngine, recording: Samples, options: dict[str, Any], calls: tuple[str, ...]
) -> None:
    events: list[str] = []

    class Turns(Listener):
        def on_progress(self, done: float, total: float | None) -> None:
            events.append("turn")

    transcribe(watched(engine, events.append), recording, SHORT, Turns(), **options)
    before = {pair for pair in itertools.pairwise(events) if pair[1] != "turn"}
    needed = {"encode", *calls} if "task" in options else {"encode", "generate", *calls}
    assert before >= {("turn", name) for name in needed}
    assert {first for first, _ in before} == {"turn"}


def test_two_jobs_in_turns_have_the_texts_that_each_has_alone(
    engine: WhisperEngine, recording: Samples
) -> None:
    jobs: list[tuple[Samples, dict[str, Any]]] = [
        (recording, {"word_timestamps": True, "vad_filter": True}),
        (sample("es-0.wav"), {"language": None, "hotwords": "verde", "chunk_length": None}),
    ]

    def job(number: int, listener: Listener | None = None) -> Transcription:
        audio, options = jobs[number]
        return transcribe(engine, audio, SHORT, listener, **options)

    assert run_in_turns(job) == [job(0), job(1)]


# --- checkpoints --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"condition_on_previous_text": False, "window": "full"},
        {"word_timestamps": True},
        {"word_timestamps": True, "hallucination_silence_threshold": 0.5},
        {"vad_filter": True, "word_timestamps": True},
        {"clip_timestamps": (1.0, 12.0, 12.0, 15.5, 20.0, 22.3, 37.0)},
        {"clip_timestamps": (2.5, 14.0, 500.0, 501.0), "include_tokens": True},
        {"language": None, "languages": ("en", "es"), "multilingual": True},
        {"batch_size": 2, "chunk_length": 5, "word_timestamps": True, "language": None},
    ],
    ids=str,
)
def test_attempt_from_a_checkpoint_gives_the_rest(
    engine: WhisperEngine, recording: Samples, options: dict[str, Any]
) -> None:
    assert_resumable(engine, recording, 2, replace(SHORT, **options))


def test_each_window_but_the_first_has_a_checkpoint(
    engine: WhisperEngine, recording: Samples
) -> None:
    listener = Listener()
    transcribe(engine, recording, SHORT, listener, include_tokens=True)
    frames = [each.frame for each in listener.checkpoints]
    assert frames == sorted(set(frames))
    assert frames[0] > 500
    assert frames[-1] > 100 * (len(recording) / RATE - 10)
    for each in listener.checkpoints:
        assert each.seconds == each.frame / 100
        done = listener.segments[: each.segments]
        assert all((segment.seek or 0) < each.frame for segment in done)
        said = [token for segment in done for token in segment.tokens or ()]
        assert each.tokens == tuple(said[-2 * PROMPT_TOKENS :])
    without = Listener()
    transcribe(engine, recording, SHORT, without, condition_on_previous_text=False)
    assert {each.tokens for each in without.checkpoints} == {()}


def test_longest_text_before_a_window_is_cut(engine: WhisperEngine, minute: Samples) -> None:
    """The tokens that a checkpoint leaves out of a long text never prompted a window."""
    # More than enough text, however much of it the processor's rounding makes.
    audio = np.concatenate([minute] * 5)
    options = replace(GREEDY, initial_prompt="hello", hotwords="green")
    whole = Listener()
    result = transcribe(engine, audio, options, whole)
    cut = next(each for each in whole.checkpoints if len(each.tokens) == 2 * PROMPT_TOKENS)
    rest = transcribe(engine, audio, options, Listener(), cut)
    assert rest.segments == result.segments[cut.segments :]


def test_language_that_silence_leaves_open_is_detected_by_the_next_attempt(
    engine: WhisperEngine,
) -> None:
    """The first window with sound decides, no matter how many are asked for."""
    spanish, english = (
        np.concatenate((sample(name), silence(30)))[: 30 * RATE]
        for name in ("es-0.wav", "en-0.wav")
    )
    audio = np.concatenate((silence(90), spanish, english, english))
    options = replace(GREEDY, language=None, language_detection_segments=3)
    options = replace(options, language_detection_threshold=1.0)
    whole = assert_resumable(engine, audio, 5, options)
    # The window that decides may be encoded again for it, so its attempt has to decide, too.
    assert [each.language for each in whole.checkpoints] == [None, None, None, "es", "es"]


def test_louder_place_before_a_checkpoint_counts_after_it(
    engine: WhisperEngine, minute: Samples
) -> None:
    """A container whose start is louder than the rest; its loudest place is not searched again."""
    audio = np.concatenate((noise(1, 0.5), silence(9), minute[: 32 * RATE] * np.float32(0.1)))
    assert_resumable(engine, encoded(audio, "flac", "flac"), 3, SHORT)


def test_other_defaults_do_not_change_a_job_that_goes_on(
    engine: WhisperEngine, recording: Samples
) -> None:
    """Here the first worker's settings have the filter, so its frames are those of speech."""
    whole = Listener()
    result = transcribe(engine, recording, SHORT, whole, vad_filter=True)
    checkpoint = whole.checkpoints[-1]
    found = transcribe(engine, recording, GREEDY, resume=checkpoint)
    assert found.segments == result.segments[checkpoint.segments :] != ()


def test_channels_have_no_checkpoints_and_need_none(engine: WhisperEngine, minute: Samples) -> None:
    both = np.stack((minute, minute[::-1]), axis=1)[: 25 * RATE].astype("<f4").tobytes()
    split, audio = replace(SHORT, split_channels=True), AudioFormat("pcm_f32le", RATE, 2)
    listener = Listener()
    with memory_file(both) as fd:
        whole = run_job(engine, fd, audio, split, listener=listener)
        again = run_job(engine, fd, audio, split, resume=Checkpoint(1000, 10.0, 3))
    assert not listener.checkpoints
    assert again == whole


# --- wrong checkpoints --------------------------------------------------------------------------

WAYS: list[dict[str, Any]] = [
    {},
    {"vad_filter": True},
    {"batch_size": 2},
    {"word_timestamps": True, "hallucination_silence_threshold": 1.0},
    {"clip_timestamps": (0.0, 12.0)},
    {"language": None, "multilingual": True},
]


@pytest.mark.parametrize("options", WAYS, ids=str)
@pytest.mark.parametrize("frame", [12_000, 1 << 31])
def test_nothing_is_left_after_the_end(
    engine: WhisperEngine, recording: Samples, options: dict[str, Any], frame: int
) -> None:
    resume = Checkpoint(frame, WEEK_S, 7, (1, 2))
    found = transcribe(engine, recording, SHORT, resume=resume, **options)
    assert (found.text, found.segments) == ("", ())
    assert found.audio_seconds == len(recording) / RATE


def test_last_frames_are_a_window(engine: WhisperEngine, recording: Samples) -> None:
    frames = len(recording) // 160
    for frame in frames - 1, frames, frames + 1:
        transcribe(engine, recording, SHORT, resume=Checkpoint(frame, 0.0, 0))


@pytest.mark.parametrize("options", [*WAYS, {"task": "detect", "language": None}], ids=str)
@pytest.mark.parametrize("extreme", [-1, 1])
def test_extreme_values_end_in_an_answer(
    engine: WhisperEngine, recording: Samples, options: dict[str, Any], extreme: int
) -> None:
    last = engine._arguments._first_timestamp + 1500
    low = Checkpoint(0, WEEK_S, 1 << 20, (), None, 0.0, -1000.0)
    high = Checkpoint(777, 0.0, 0, (last,) * 446, "de", 1.0, 1000.0, WEEK_S)
    resume = low if extreme < 0 else high
    found = transcribe(engine, recording, SHORT, resume=resume, **options)
    assert found.audio_seconds == len(recording) / RATE


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"language": "tlh"}, "resume.language: this model does not know 'tlh'"),
        ({"tokens": (5, 2093)}, "resume.tokens: this model's tokens end at 2092"),
    ],
)
def test_checkpoint_of_another_model_is_refused(
    engine: WhisperEngine, monkeypatch: pytest.MonkeyPatch, changes: dict[str, Any], text: str
) -> None:
    opened = count_calls(monkeypatch, engine_module, "open_recording")
    with pytest.raises(InternalError, match=text):
        transcribe(engine, silence(1), resume=replace(Checkpoint(0, 0.0, 0), **changes))
    assert not opened
