"""The official client, asrd-http, a real daemon and the demo model: the whole way.

Each of the ten complaints that users of similar servers have most often is a case here.
"""

import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import openai
import pytest

from asrd.demo import SAMPLES
from asrd.engine.audio.reader import RATE
from asrd.http.errors import _STATUS
from asrd.prometheus import HTTP_STATUSES
from tests.support.daemons import Daemon, crashing_model
from tests.support.http import HttpProgram, field, file, official, sample, serving
from tests.support.paths import ROOT
from tests.support.raw import LONG, PATIENCE, SHORT, TEXTS, wait_for
from tests.support.sounds import encoded
from tests.support.speech import load

TEXT = TEXTS[SHORT]
FORM = {"model": "whisper-1", "language": "en"}


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    with Daemon(tmp_path_factory.mktemp("d"), "--spares", "1") as running:
        yield running


@pytest.fixture(scope="module")
def program(daemon: Daemon, tmp_path_factory: pytest.TempPathFactory) -> Iterator[HttpProgram]:
    with serving(tmp_path_factory.mktemp("h"), daemon.socket) as running:
        yield running


@pytest.fixture
def client(program: HttpProgram) -> Iterator[openai.OpenAI]:
    with official(program) as made:
        yield made


@pytest.fixture(scope="module")
def long_text(program: HttpProgram) -> str:
    """The text of the longest recording when nothing happens to it."""
    text: str = program.post(file(sample(LONG)), field("language", "en")).json["text"]
    assert len(text.split()) > 50
    return text


def transcribe(client: openai.OpenAI, audio: bytes | None = None, **more: Any) -> Any:
    recording = ("talk.wav", audio or sample())
    return client.audio.transcriptions.create(**{**FORM, "file": recording, **more})


# --- the ten complaints ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("granularities", "words", "segments"),
    [(None, False, True), ([], False, True), (["word"], True, False), (["segment"], False, True)],
)
def test_1_granularities(
    client: openai.OpenAI, granularities: Any, words: bool, segments: bool
) -> None:
    more = {} if granularities is None else {"timestamp_granularities": granularities}
    found = transcribe(client, response_format="verbose_json", **more)
    assert (bool(found.words), bool(found.segments)) == (words, segments)
    assert transcribe(client, **more).text == TEXT


def test_2_names_of_models(client: openai.OpenAI) -> None:
    for name in ("whisper-1", "gpt-4o-transcribe", "gpt-transcribe", "demo"):
        assert transcribe(client, model=name).text == TEXT
    with pytest.raises(openai.NotFoundError) as caught:
        transcribe(client, model="Systran/faster-whisper-large-v3")
    assert (caught.value.code, caught.value.param) == ("model_not_found", "model")


def test_3_every_format_is_whole(client: openai.OpenAI) -> None:
    assert transcribe(client, response_format="text") == TEXT + "\n"
    srt = transcribe(client, response_format="srt")
    assert re.fullmatch(rf"1\n00:00:00,\d+ --> 00:00:03,\d+\n{TEXT}\n\n", srt)
    vtt = transcribe(client, response_format="vtt")
    assert re.fullmatch(rf"WEBVTT\n\n00:00:00\.\d+ --> 00:00:03\.\d+\n{TEXT}\n\n", vtt)
    verbose = transcribe(
        client, response_format="verbose_json", timestamp_granularities=["word", "segment"]
    )
    assert verbose.text == TEXT and verbose.language == "english"
    assert [word.word for word in verbose.words] == TEXT.split()
    assert verbose.segments[0].tokens and verbose.segments[0].seek == 0
    assert verbose.segments[0].avg_logprob < 0


def test_4_events_are_official_and_done_has_the_text(client: openai.OpenAI, long_text: str) -> None:
    events = list(transcribe(client, sample(LONG), stream=True))
    kinds = [event.type for event in events]
    assert kinds[:-1] == ["transcript.text.delta"] * (len(kinds) - 1)
    assert kinds[-1] == "transcript.text.done" and len(kinds) > 2
    assert "".join(event.delta for event in events[:-1]) == events[-1].text == long_text


@pytest.mark.parametrize(
    ("container", "codec", "name"),
    [("webm", "libopus", "blob"), ("mp4", "aac", "a.m4a"), ("ogg", "libopus", "a.oga")],
)
def test_5_containers_of_browsers(
    client: openai.OpenAI, container: str, codec: str, name: str
) -> None:
    audio = encoded(load(SAMPLES / SHORT), container, codec, 48_000)
    assert transcribe(client, file=(name, audio, "audio/webm")).text == TEXT


def test_6_no_small_limit_and_duration_is_a_number(client: openai.OpenAI) -> None:
    """26 MB and eleven minutes: over the limits of OpenAI and of vLLM."""
    pause = bytes(2 * RATE * 660)
    found = transcribe(
        client,
        pause + sample()[44:] + bytes(5 << 20),
        response_format="verbose_json",
        extra_body={"encoding": "pcm_s16le", "vad_filter": True},
    )
    assert found.text == TEXT
    assert isinstance(found.duration, float) and found.duration > 660


def test_7_vad_and_its_parameters_and_hotwords(client: openai.OpenAI) -> None:
    silent = bytes(2 * RATE * 5) + sample()[44:]
    body = {"encoding": "pcm_s16le", "vad_filter": True, "hotwords": "server"}
    body["vad_parameters"] = {"threshold": 0.4, "speech_pad_ms": 200}
    found = transcribe(client, silent, response_format="verbose_json", extra_body=body)
    assert found.text == TEXT and found.segments[0].start > 4
    with pytest.raises(openai.BadRequestError) as caught:
        transcribe(client, extra_body={"vad_parameters": {"threshold": 7}})
    assert caught.value.param == "vad_parameters[threshold]"
    assert transcribe(client, keywords=["server", "lights"]).text == TEXT
    chosen = {"type": "server_vad", "threshold": 0.4}
    assert transcribe(client, chunking_strategy=chosen).text == TEXT


@pytest.mark.parametrize("format_", ["json", "verbose_json"])
def test_8_usage_is_the_duration(client: openai.OpenAI, format_: str) -> None:
    usage = transcribe(client, response_format=format_).usage
    assert (usage.type, usage.seconds) == ("duration", 3.314)


def test_9_paths_with_and_without_v1(program: HttpProgram) -> None:
    for path in ("/v1/audio/transcriptions", "/audio/transcriptions"):
        found = program.post(file(sample()), field("model", "whisper-1"), path=path)
        assert found.json["text"] == TEXT


def test_10_subtitles_can_be_made_of_verbose_json(client: openai.OpenAI) -> None:
    """LiteLLM makes them of start, end and text of each segment."""
    verbose = transcribe(client, sample(LONG), response_format="verbose_json")
    srt = transcribe(client, sample(LONG), response_format="srt")
    assert srt.count(" --> ") == len(verbose.segments)
    for segment in verbose.segments:
        assert segment.text.strip() in srt


# --- other promises -------------------------------------------------------------------------------


def test_tcp_and_languages(program: HttpProgram) -> None:
    with official(program, tcp=True) as client:
        found = transcribe(client, languages=["en", "de"], language=openai.omit)
        assert found.text == TEXT and found.languages[0].code == "en"
        with pytest.raises(openai.BadRequestError) as caught:
            transcribe(client, language="klingon")
        assert caught.value.param == "language"


def test_translation(client: openai.OpenAI) -> None:
    # The client's own warning: OpenAI ends this model.
    with pytest.warns(DeprecationWarning):
        found: Any = client.audio.translations.create(
            model="whisper-1", file=sample(), response_format="verbose_json"
        )
    assert found.language == "english" and found.model_extra["task"] == "translate"


@pytest.mark.parametrize("audio", [b"no recording at all", b"RIFF"])
def test_no_recording_is_400(client: openai.OpenAI, audio: bytes) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        transcribe(client, audio)
    assert (caught.value.code, caught.value.param) == ("bad-audio", "file")


def test_damaged_recording_has_a_warning(client: openai.OpenAI) -> None:
    found = transcribe(client, sample()[:-20_000])
    assert found.model_extra["warnings"][0]["code"] == "audio-incomplete"


def test_killed_worker_costs_a_stream_no_word(
    client: openai.OpenAI, daemon: Daemon, long_text: str
) -> None:
    stream = iter(transcribe(client, sample(LONG), stream=True))
    deltas = [next(stream).delta]
    busy = next(w for w in daemon.workers().values() if w["state"] == "busy")
    os.kill(busy["pid"], signal.SIGKILL)
    events = list(stream)
    deltas += [event.delta for event in events[:-1]]
    assert "".join(deltas) == events[-1].text == long_text


def test_restarted_front_costs_a_request_only_time(
    client: openai.OpenAI, daemon: Daemon, long_text: str
) -> None:
    texts: list[str] = []
    thread = threading.Thread(target=lambda: texts.append(transcribe(client, sample(LONG)).text))
    front = daemon.front_pid()
    thread.start()
    wait_for("the job", lambda: any(w["jobs"] for w in daemon.workers().values()))
    os.kill(front, signal.SIGKILL)
    thread.join(PATIENCE)
    assert texts == [long_text]


def test_recording_that_kills_workers_is_422_and_never_tried_again(tmp_path: Path) -> None:
    config = f"[worker]\nmodel = '{crashing_model(tmp_path)}'\ncheck_model = false\n"
    directory = tmp_path / "d"
    directory.mkdir()
    with (
        Daemon(directory, config=config) as daemon,
        serving(tmp_path, daemon.socket) as program,
        official(program, retries=2) as client,
    ):
        with pytest.raises(openai.UnprocessableEntityError) as caught:
            transcribe(
                client,
                response_format="verbose_json",
                timestamp_granularities=["word"],
            )
        assert caught.value.code == "worker-crashed"
        assert daemon.status()["jobs"]["accepted"] == 1


# --- docs/http.md ---------------------------------------------------------------------------------

PAGE = (ROOT / "docs" / "http.md").read_text()
SHELL = re.findall(r"```sh\n(.*?)```", PAGE, re.S)


@pytest.fixture
def here(tmp_path: Path) -> Path:
    (tmp_path / "talk.mp3").write_bytes(sample())
    return tmp_path


def run(argv: list[str], here: Path) -> str:
    done = subprocess.run(argv, cwd=here, capture_output=True, text=True, timeout=PATIENCE)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("block", SHELL, ids=range(len(SHELL)))
def test_commands_of_the_page(program: HttpProgram, here: Path, block: str) -> None:
    block = block.replace("/run/asrd/http.sock", program.path)
    block = block.replace("curl ", "curl --silent --show-error --fail-with-body ")
    out = run(["sh", "-ec", block], here)
    assert TEXT in out or '"whisper-1"' in out


def test_answer_of_the_page_is_the_answer(program: HttpProgram) -> None:
    (shown,) = re.findall(r"```json\n(.*?)```", PAGE, re.S)
    assert program.post(file(sample()), field("model", "whisper-1")).body.decode() == shown.strip()


def test_python_of_the_page(program: HttpProgram, here: Path) -> None:
    (code,) = re.findall(r"```python\n(.*?)```", PAGE, re.S)
    code = code.replace("/run/asrd/http.sock", program.path)
    assert run([sys.executable, "-c", code], here).strip() == TEXT


def test_page_and_metrics_name_every_status_that_errors_have() -> None:
    named = {int(status) for status in re.findall(r"^\| (\d{3}) \|", PAGE, re.M)}
    assert named | {200} == set(HTTP_STATUSES)
    assert set(_STATUS.values()) <= named
