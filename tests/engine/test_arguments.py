"""The options against faster-whisper's own, and on their way to it."""

import dataclasses
import inspect
from typing import Any

import pytest
from faster_whisper import WhisperModel
from faster_whisper.tokenizer import Tokenizer
from faster_whisper.transcribe import get_suppressed_tokens
from faster_whisper.vad import VadOptions

from asrd.engine.arguments import Arguments, completed
from asrd.engine.model_check import Facts
from asrd.engine.whisper import WhisperEngine
from asrd.errors import BadRequest
from asrd.settings import WorkerSettings
from asrd.wire.options import EngineOptions, Options, VadParameters
from tests.support.engine_jobs import ENGLISH, GREEDY, SETTINGS, transcribe
from tests.support.sounds import sample, silence

# Parameters of WhisperModel.transcribe that are no option of asrd.
LEFT_OUT = {
    "self": "",
    "audio": "the recording, which is an event's payload or descriptor",
    "log_progress": "a progress bar on the worker's stderr; asrd has the event `progress`",
}
# Options that asrd implements itself, because faster-whisper needs the whole recording for them.
ASRDS_OWN_WAY = {
    "initial_prompt",
    "hotwords",
    "vad_filter",
    "vad_parameters",
    "clip_timestamps",
    "multilingual",
    "language_detection_threshold",
    "language_detection_segments",
}
# Options that WhisperModel.transcribe does not have.
ASRDS_OWN = {
    "audio_track",
    "require_complete",
    "split_channels",
    "include_tokens",
    "num_speakers",
    "languages",
    "batch_size",  # of faster-whisper's BatchedInferencePipeline
    "window",
}
# One value of each option, other than faster-whisper's default; `word_timestamps` lets some of
# them have an effect.
VALUES: dict[str, Any] = {
    "language": "es",
    "task": "translate",
    "beam_size": 3,
    "best_of": 2,
    "patience": 1.5,
    "length_penalty": 0.5,
    "repetition_penalty": 1.25,
    "no_repeat_ngram_size": 7,
    "temperature": (0.0, 0.5),
    "compression_ratio_threshold": 2.0,
    "log_prob_threshold": -0.5,
    "no_speech_threshold": 0.5,
    "condition_on_previous_text": False,
    "prompt_reset_on_temperature": 0.25,
    "prefix": "red",
    "suppress_blank": False,
    "suppress_tokens": (7,),
    "without_timestamps": True,
    "max_initial_timestamp": 2.0,
    "word_timestamps": True,
    "prepend_punctuations": "(",
    "append_punctuations": ")",
    "max_new_tokens": 99,
    "chunk_length": 20,
    "hallucination_silence_threshold": 3.0,
}
FACTS = Facts(multilingual=True, word_timestamps=True, languages=("en", "es", "de"))


def parameters(function: Any) -> set[str]:
    return set(inspect.signature(function).parameters)


def names(cls: Any) -> set[str]:
    return {spec.name for spec in dataclasses.fields(cls)}


def test_every_option_of_faster_whisper_is_one_of_asrd() -> None:
    """A failure after an upgrade of faster-whisper shows what is new: add it, or say why not."""
    theirs = parameters(WhisperModel.transcribe)
    assert theirs - LEFT_OUT.keys() == names(Options) - ASRDS_OWN
    assert VALUES.keys() == theirs - LEFT_OUT.keys() - ASRDS_OWN_WAY
    assert names(VadParameters) == names(VadOptions)


def arguments(engine: WhisperEngine, settings: WorkerSettings, facts: Facts = FACTS) -> Arguments:
    return Arguments(engine._model.hf_tokenizer, settings, facts)


@pytest.mark.parametrize("name", VALUES)
def test_option_arrives_from_the_request_and_from_the_settings(
    name: str, engine: WhisperEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    given: list[dict[str, Any]] = []

    def spy(model: Any, audio: Any, **arguments: Any) -> Any:
        given.append(dict(arguments))
        raise Arrived

    def ask(asked: Options, **changes: Any) -> None:
        with pytest.raises(Arrived):
            transcribe(engine, silence(1), asked, **changes)

    monkeypatch.setattr(WhisperModel, "transcribe", spy)
    value = VALUES[name]
    expected = [value]
    asked = Options(language="en", word_timestamps=name != "word_timestamps")
    ask(asked, **{name: value})
    ask(asked)
    if name in names(WorkerSettings):
        expected += [value, other(value)]
        configured = dataclasses.replace(SETTINGS, **{name: value})
        monkeypatch.setattr(engine, "_arguments", arguments(engine, configured))
        asked = Options(word_timestamps=True) if name == "language" else asked
        ask(asked)
        ask(dataclasses.replace(asked, **{name: other(value)}))
    found = [plain(each.get(name)) for each in given]
    assert found.pop(1) != value
    assert found == expected


class Arrived(Exception):
    """The arguments are known, and no text is needed."""


def plain(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def other(value: Any) -> Any:
    match value:
        case bool():
            return not value
        case "es" | "(" | ")":
            return {"es": "de", "(": "[", ")": "]"}[value]
        case tuple():
            return value[:1] if len(value) > 1 else (8,)
    return value / 2 if isinstance(value, float) else value + 1


def test_absent_options_are_left_to_faster_whisper(engine: WhisperEngine) -> None:
    found = arguments(engine, WorkerSettings())
    given = found.of(found.merged(Options()))
    assert {name: value for name, value in given.items() if name != "suppress_tokens"} == {
        "task": "transcribe",
        "beam_size": 5,
        "condition_on_previous_text": True,
        "prefix": None,
    }
    # The same as the default of faster-whisper, which would be looked up for every job.
    for language in "en", "de":
        tokenizer = Tokenizer(
            engine._model.hf_tokenizer, multilingual=True, task="transcribe", language=language
        )
        own = given["suppress_tokens"][:]
        assert get_suppressed_tokens(tokenizer, own) == get_suppressed_tokens(tokenizer, [-1])
    # A list of each job's own: faster-whisper extends it.
    assert found.of(found.merged(Options()))["suppress_tokens"] is not given["suppress_tokens"]


def test_every_default_is_used_where_the_request_has_none() -> None:
    values = dict(VALUES, vad_filter=True, languages=("en",), window="full", batch_size=2)
    engine = {name: value for name, value in values.items() if name in names(EngineOptions)}
    settings = WorkerSettings(**engine, language="de")
    job = completed(Options(task="translate"), settings)
    assert {name: getattr(job, name) for name in engine} == engine
    assert (job.language, job.task) == ("de", "translate")
    assert completed(Options(languages=(), beam_size=1), settings).languages == ()
    assert completed(Options(), WorkerSettings()).language is None


def test_vad_parameters_are_combined_one_by_one() -> None:
    settings = WorkerSettings(vad_parameters=VadParameters(threshold=0.3, speech_pad_ms=100))
    asked = Options(vad_parameters=VadParameters(threshold=0.6, min_silence_duration_ms=500))
    assert completed(asked, settings).vad_parameters == VadParameters(
        threshold=0.6, min_silence_duration_ms=500, speech_pad_ms=100
    )
    assert completed(asked, WorkerSettings()).vad_parameters == asked.vad_parameters
    assert completed(Options(), settings).vad_parameters == settings.vad_parameters


@pytest.mark.parametrize(
    ("wrong", "text"),
    [
        ({"temperature": ()}, "temperature: the list is empty"),
        ({"temperature": (0.0, 1e-40)}, "temperature: must be 0, or at least 0.01"),
        ({"patience": 0.4, "beam_size": 2}, "patience: must be at least 1 / beam_size"),
        ({"suppress_tokens": (1, 1 << 20)}, "suppress_tokens: this model's tokens end at "),
        ({"prefix": "green " * 300}, r"prefix: has \d+ tokens, the most are 223"),
        ({"prefix": "go <|endoftext|>"}, "prefix: contains one of Whisper's special tokens"),
        ({"hallucination_silence_threshold": 2.0}, "hallucination_silence_threshold: has no effe"),
        ({"append_punctuations": "."}, "append_punctuations: has no effect without word_timesta"),
        ({"prepend_punctuations": ""}, "prepend_punctuations: has no effect without word_times"),
        ({"language": "fr"}, "language: this model does not know 'fr'"),
    ],
)
def test_option_that_cannot_be_followed_is_named(
    engine: WhisperEngine, wrong: dict[str, Any], text: str
) -> None:
    with pytest.raises(BadRequest, match=f"^{text}"):
        arguments(engine, SETTINGS).merged(dataclasses.replace(ENGLISH, **wrong))


def test_settings_that_no_request_can_follow_are_an_error(engine: WhisperEngine) -> None:
    settings = WorkerSettings(batch_size=4, vad_parameters=VadParameters(speech_pad_ms=20_000))
    with pytest.raises(BadRequest, match="speech_pad_ms: half of the longest speech or more"):
        arguments(engine, settings)


def test_english_only_model_is_not_multilingual(engine: WhisperEngine) -> None:
    facts = Facts(multilingual=False, word_timestamps=True)
    with pytest.raises(BadRequest, match="multilingual: this is an English-only model"):
        arguments(engine, SETTINGS, facts).merged(Options(multilingual=True))
    with pytest.raises(BadRequest, match="multilingual: "):
        arguments(engine, WorkerSettings(multilingual=True), facts)


def test_defaults_never_make_a_request_fail(engine: WhisperEngine) -> None:
    """Settings for words have no effect without words; a patience is for the settings' beams."""
    settings = WorkerSettings(hallucination_silence_threshold=2.0, patience=0.5, beam_size=4)
    job = arguments(engine, settings).merged(dataclasses.replace(GREEDY, beam_size=1))
    assert (job.hallucination_silence_threshold, job.patience) == (2.0, 1.0)


def test_segments_carry_tokens_on_request(engine: WhisperEngine) -> None:
    audio = sample("en-several.wav")
    found = transcribe(engine, audio, include_tokens=True).segments
    decode = Tokenizer(engine._model.hf_tokenizer, True, task="transcribe", language="en").decode
    assert [decode(each.tokens) for each in found] == [each.text for each in found]
    assert found[0].seek == 0
    assert all(each.tokens is None is each.seek for each in transcribe(engine, audio).segments)


def test_max_new_tokens_is_bounded_by_what_fits(engine: WhisperEngine) -> None:
    audio = sample("en-4.wav")
    whole = transcribe(engine, audio).text
    assert transcribe(engine, audio, max_new_tokens=448, prefix="go").text
    assert transcribe(engine, audio, max_new_tokens=448, hotwords="green").text == whole
    assert len(transcribe(engine, audio, max_new_tokens=10).text) < len(whole)


def test_chunk_length_is_that_of_one_job(engine: WhisperEngine) -> None:
    audio = sample("en-minute.flac")
    whole = transcribe(engine, audio, include_tokens=True).segments
    parts = transcribe(engine, audio, include_tokens=True, chunk_length=10).segments
    assert len({each.seek for each in parts}) > len({each.seek for each in whole})
    assert transcribe(engine, audio, include_tokens=True).segments == whole
