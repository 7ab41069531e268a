"""Real models that tell real speakers apart, up to every way in."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from asrd import Client, Speakers, search_options
from asrd.engine.audio.reader import RATE
from asrd.engine.model_check import check
from asrd.engine.speaker_files import EMBEDDING, SEGMENTATION
from asrd.engine.speakers import SpeakerEngine, load_engine
from asrd.errors import BadRequest, LoadError, TooLarge
from asrd.settings import WorkerSettings
from asrd.wire.client_events import Transcript
from asrd.wire.options import Options
from tests.support.engine_jobs import Listener, transcribe
from tests.support.http import HttpProgram, official
from tests.support.raw import wait_for
from tests.support.real import speaker_models
from tests.support.real.conversation import Conversation, conversation, wrong_share
from tests.support.real.daemon import RealDaemon, real_daemon
from tests.support.real.speech import Clip
from tests.support.real.weights import Missing
from tests.support.sounds import encoded, silence

pytestmark = pytest.mark.real

SEARCH = Options(task="speakers")


@pytest.fixture(scope="session")
def models() -> Path:
    try:
        return speaker_models.directory()
    except Missing as error:
        pytest.fail(f"models of speakers: {error}", pytrace=False)


@pytest.fixture(scope="session")
def engine(models: Path) -> SpeakerEngine:
    return load_engine(WorkerSettings(model=str(models), cpu_threads=1), models)


@pytest.fixture(scope="session")
def talk(clips: dict[str, Clip]) -> Conversation:
    """`clips` fails without recordings."""
    return conversation()


@pytest.mark.parametrize("number", [None, 3])
def test_each_speaker_has_a_number(
    engine: SpeakerEngine, talk: Conversation, number: int | None
) -> None:
    listener = Listener()
    options = Options(task="speakers", num_speakers=number)
    found = transcribe(engine, talk.samples, options, listener)
    assert {turn.speaker for turn in found.segments} == {0, 1, 2}
    # The clips have silence at their ends.
    assert wrong_share(talk, found.segments) < 0.25
    assert tuple(listener.segments) == found.segments
    assert (found.text, found.language) == ("", None)


def test_known_number_decides(engine: SpeakerEngine, talk: Conversation) -> None:
    for number in (1, 2):
        options = Options(task="speakers", num_speakers=number)
        found = transcribe(engine, talk.samples, options)
        assert {turn.speaker for turn in found.segments} == set(range(number))


def test_silence_has_no_speaker(engine: SpeakerEngine) -> None:
    assert transcribe(engine, silence(12), SEARCH).segments == ()


def test_recording_of_a_moment_has_an_answer(engine: SpeakerEngine, talk: Conversation) -> None:
    for seconds in (0.01, 0.3):
        found = transcribe(engine, talk.samples[: round(seconds * RATE)], SEARCH)
        assert found.audio_seconds == pytest.approx(seconds)


def test_options_about_text_are_refused(engine: SpeakerEngine, talk: Conversation) -> None:
    for options, field in (
        (Options(task="speakers", language="en"), "language: has no effect with task speakers"),
        (Options(task="transcribe"), "task: transcribe: this worker does nothing but speakers"),
    ):
        with pytest.raises(BadRequest, match=field):
            transcribe(engine, talk.samples, options)


def test_longest_recording(
    engine: SpeakerEngine, talk: Conversation, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("asrd.engine.speakers._LONGEST_SECONDS", 5.0)
    with pytest.raises(TooLarge):
        transcribe(engine, talk.samples, SEARCH)


def test_search_lets_other_threads_run(engine: SpeakerEngine, talk: Conversation) -> None:
    """The worker's main thread serves the front and the watchdog meanwhile."""
    seen: list[float] = []
    ended = threading.Event()

    def tick() -> None:
        while not ended.wait(0.01):
            seen.append(time.monotonic())

    thread = threading.Thread(target=tick)
    thread.start()
    try:
        transcribe(engine, talk.samples, SEARCH)
    finally:
        ended.set()
        thread.join()
    pauses = np.diff(seen)
    assert len(seen) > 50 and pauses.max() < 1.0


@pytest.mark.parametrize("name", [SEGMENTATION, EMBEDDING])
def test_damaged_model_is_an_error_of_loading(tmp_path: Path, models: Path, name: str) -> None:
    """sherpa-onnx would end the process for it."""
    for each in (SEGMENTATION, EMBEDDING):
        content = (models / each).read_bytes()
        (tmp_path / each).write_bytes(content[: len(content) // 2] if each == name else content)
    with pytest.raises(LoadError, match=f"{name} is damaged, cut off"):
        check(tmp_path)


# --- a daemon -------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def two(model_path: Any, models: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A daemon with a worker for text and one for speakers."""
    found = {"tiny.en": model_path("tiny.en"), "speakers": models}
    with real_daemon(tmp_path_factory.mktemp("speakers"), found) as running:
        yield running


@pytest.fixture
def recording(tmp_path: Path, talk: Conversation) -> Path:
    path = tmp_path / "talk.flac"
    path.write_bytes(encoded(talk.samples, "flac"))
    return path


def by_part(talk: Conversation, found: list[tuple[float, float, Any]]) -> list[Any]:
    """Returns for each part of the talk the speaker of most segments in it."""
    return [
        Counter(
            who for start, end, who in found if start < part_end and end > part_start
        ).most_common(1)[0][0]
        for part_start, part_end, _ in talk.parts
    ]


def asrctl(two: RealDaemon, *arguments: str) -> str:
    command = [sys.executable, "-m", "asrd.asrctl.cli", "--socket", two.process.socket]
    done = subprocess.run([*command, *arguments], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_asrctl_names_who_says_what(two: RealDaemon, recording: Path, talk: Conversation) -> None:
    out = asrctl(two, "transcribe", str(recording), "--speakers", "--format", "json")
    segments = json.loads(out)["segments"]
    found = [(each["start"], each["end"], each["speaker"]) for each in segments]
    assert by_part(talk, found) == [who for _, _, who in talk.parts]
    shown = asrctl(two, "transcribe", str(recording), "--num-speakers", "3").splitlines()
    assert {line.split("]")[0] for line in shown} == {f"[speaker {n}" for n in (1, 2, 3)}


def test_official_client_gets_speakers(
    two: RealDaemon, recording: Path, talk: Conversation, tmp_path: Path
) -> None:
    settings = "drain_seconds = 0"
    with (
        HttpProgram(tmp_path, two.process.socket, settings) as program,
        official(program) as client,
    ):
        create: Any = client.audio.transcriptions.create
        options = {"model": "gpt-4o-transcribe-diarize", "response_format": "diarized_json"}
        found = create(file=recording, **options)
        stream = create(file=recording, stream=True, **options)
        events = [event for event in stream if event.type == "transcript.text.segment"]
        models = [each.id for each in client.models.list()]
    expected = ["ABC"[who] for _, _, who in talk.parts]
    for segments in (found.segments, events):
        assert by_part(talk, [(s.start, s.end, s.speaker) for s in segments]) == expected
    # It is no model of text.
    assert not [name for name in models if "speakers" in name]


def test_text_never_goes_to_the_worker_of_speakers(two: RealDaemon, recording: Path) -> None:
    for worker in ("0", "1"):
        with Client(two.process.socket) as client:
            found = client.transcribe(recording, task="speakers" if worker == "1" else "transcribe")
        assert found.worker == worker
    with Client(two.process.socket) as client:
        with pytest.raises(BadRequest, match="tells speakers apart and writes no text"):
            client.transcribe(recording, model=str(two.models["speakers"]))
        with pytest.raises(BadRequest, match="no worker has a model that tells speakers apart"):
            client.transcribe(recording, model=str(two.models["tiny.en"]), task="speakers")


@pytest.fixture
def long(talk: Conversation, tmp_path: Path) -> Path:
    path = tmp_path / "long.flac"
    path.write_bytes(encoded(np.concatenate([talk.samples] * 5), "flac"))
    return path


class Searching:
    """A search in a thread of its own; `answer` is its transcript or its error."""

    def __init__(self, two: RealDaemon, path: Path) -> None:
        self.answer: Transcript | Exception | None = None
        self._socket, self._path = two.process.socket, path
        self._thread = threading.Thread(target=self._run)

    def _run(self) -> None:
        try:
            with Client(self._socket) as client:
                self.answer = client.transcribe(self._path, **search_options({"job_id": "long"}, 3))
        except Exception as error:
            self.answer = error

    def __enter__(self) -> "Searching":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._thread.join()


def running(two: RealDaemon) -> bool:
    return bool(two.process.workers()["1"]["jobs"])


@pytest.mark.parametrize("way", [signal.SIGKILL, signal.SIGTERM])
def test_search_outlives_its_worker(two: RealDaemon, long: Path, way: signal.Signals) -> None:
    with Searching(two, long) as search:
        wait_for("the job", lambda: running(two))
        time.sleep(1)
        os.kill(two.process.pid_of("1"), way)
    assert isinstance(search.answer, Transcript), search.answer
    assert len({turn.speaker for turn in search.answer.segments}) == 3


def test_cancelled_search_ends_soon(two: RealDaemon, long: Path) -> None:
    with Searching(two, long) as search:
        wait_for("the job", lambda: running(two))
        began = time.monotonic()
        with Client(two.process.socket) as client:
            assert client.cancel("long") == 1
    assert time.monotonic() - began < 5
    assert getattr(search.answer, "code", None) == "cancelled"
    # The library can't be stopped: the worker ends itself, and the next one serves.
    with Client(two.process.socket) as client:
        assert client.transcribe(long, **search_options({"timeout": 120})).segments


def test_library_joins_words_and_speakers(
    two: RealDaemon, recording: Path, talk: Conversation
) -> None:
    """The lines of docs/speakers.md."""
    options: Any = {"language": "en", "word_timestamps": True}
    with Client(two.process.socket) as client:
        turns = client.transcribe(recording, **search_options(options))
        transcript = client.transcribe(recording, **options)
    found = Speakers(turns.segments).transcript(transcript)
    words = [word for segment in found.segments for word in segment.words or ()]
    right = [
        word.speaker == who
        for word in words
        for start, end, who in talk.parts
        if start <= (word.start + word.end) / 2 < end
    ]
    assert len(right) > 50 and right.count(True) / len(right) > 0.95
