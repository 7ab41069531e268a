"""asrd-http with real weights and real speech, asked by the official client."""

import os
import signal
from collections.abc import Iterator
from typing import Any

import openai
import pytest

from asrd import Client
from tests.support.http import HttpProgram, official
from tests.support.real.daemon import RealDaemon
from tests.support.real.speech import Clip, joined, sentences, word_error_rate
from tests.support.sounds import encoded

pytestmark = pytest.mark.real

COUNT = 6


@pytest.fixture(scope="module")
def program(daemon: RealDaemon, tmp_path_factory: pytest.TempPathFactory) -> Iterator[HttpProgram]:
    settings = "drain_seconds = 0"
    with HttpProgram(tmp_path_factory.mktemp("h"), daemon.process.socket, settings) as running:
        yield running


@pytest.fixture
def client(program: HttpProgram) -> Iterator[openai.OpenAI]:
    with official(program) as made:
        yield made


def transcribe(client: openai.OpenAI, audio: bytes, **more: Any) -> Any:
    create: Any = client.audio.transcriptions.create
    return create(**{"model": "tiny.en", "file": audio, "language": "en", **more})


def test_text_and_numbers_are_those_of_the_socket(
    client: openai.OpenAI, daemon: RealDaemon
) -> None:
    both: Any = {"response_format": "verbose_json", "timestamp_granularities": ["word", "segment"]}
    own: Any = {"language": "en", "word_timestamps": True, "include_tokens": True}
    for clip in sentences()[:COUNT]:
        audio = clip.path.read_bytes()
        found = transcribe(client, audio, **both)
        with Client(daemon.process.socket) as library:
            same = library.transcribe(audio, model="tiny.en", **own)
        assert found.text == same.text
        assert [s.tokens for s in found.segments] == [list(s.tokens or ()) for s in same.segments]
        words = [word for segment in same.segments for word in segment.words or ()]
        assert [(w.word, w.start, w.end) for w in found.words] == [
            (w.word.strip(), w.start, w.end) for w in words
        ]
        assert found.duration == same.duration_ms / 1000


def test_error_rate_over_http(client: openai.OpenAI) -> None:
    pairs = [
        (clip.known_text, transcribe(client, clip.path.read_bytes()).text)
        for clip in sentences()[:COUNT]
    ]
    assert word_error_rate(pairs) < 0.15


def test_stream_whose_worker_is_killed_has_every_word_once(
    client: openai.OpenAI, daemon: RealDaemon
) -> None:
    samples, _ = joined(sentences(), 100)
    audio = encoded(samples, "flac")
    text = transcribe(client, audio).text
    worker = daemon.worker_of("tiny.en")
    # The daemon is that of all files in this process, and test_live.py kills the same worker three
    # times. With several processes the load decides which files come before.
    before = daemon.process.workers()[worker]["restarts"]
    stream = iter(transcribe(client, audio, stream=True))
    events = [next(stream)]
    os.kill(daemon.process.pid_of(worker), signal.SIGKILL)
    events += stream
    deltas = "".join(event.delta for event in events if event.type.endswith("delta"))
    assert deltas == events[-1].text == text
    assert daemon.process.workers()[worker]["restarts"] == before + 1


def test_translation_into_english(program: HttpProgram, clips: dict[str, Clip]) -> None:
    with official(program) as client, pytest.warns(DeprecationWarning):
        create: Any = client.audio.translations.create
        audio = clips["french.aiff"].path.read_bytes()
        found = create(model="base", file=audio, response_format="verbose_json")
    assert found.language == "english"
    assert " the " in found.text
