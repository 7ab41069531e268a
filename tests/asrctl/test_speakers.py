"""`asrctl transcribe --speakers`: two jobs for one recording."""

import io
import json
import sys
from pathlib import Path

import pytest

from asrd.asrctl.cli import main
from asrd.exitcodes import Exit
from tests.support.fake_daemon import FakeDaemon, fail
from tests.support.turns_of_speakers import CONVERSATION, TURNS

Capture = pytest.CaptureFixture[str]


@pytest.mark.parametrize(
    ("format_", "shown"),
    [
        ("txt", "[speaker 1] one two\n[speaker 2] three\n"),
        ("tsv", "start\tend\ttext\n0\t3000\t[speaker 1] one two\n4000\t5000\t[speaker 2] three\n"),
        ("lrc", "[00:00.00][speaker 1] one two\n[00:04.00][speaker 2] three\n"),
        (
            "srt",
            "1\n00:00:01,000 --> 00:00:03,000\n[speaker 1] one two\n\n"
            "2\n00:00:04,000 --> 00:00:05,000\n[speaker 2] three\n\n",
        ),
        (
            "vtt",
            "WEBVTT\n\n00:00:01.000 --> 00:00:03.000\n<v Speaker 1>one two\n\n"
            "00:00:04.000 --> 00:00:05.000\n<v Speaker 2>three\n\n",
        ),
    ],
)
@pytest.mark.parametrize("into_file", [False, True])
def test_speakers_are_labelled(
    path: Path, recording: str, capsys: Capture, format_: str, shown: str, into_file: bool
) -> None:
    target = Path(recording).with_name("out")
    where = ["--output", str(target)] if into_file else []
    with FakeDaemon(path, CONVERSATION) as daemon:
        arguments = ["transcribe", recording, "--speakers", "--format", format_, *where]
        assert main(arguments) == Exit.OK
    assert (target.read_text() if into_file else capsys.readouterr().out) == shown
    search, words = daemon.jobs
    assert search.audio == words.audio == b"talk.wav"
    assert search.data["task"] == "speakers" and "word_timestamps" not in search.data
    assert words.data["word_timestamps"] is True and "task" not in words.data


def test_json_has_the_speakers_of_segments_and_words(
    path: Path, recording: str, capsys: Capture
) -> None:
    with FakeDaemon(path, CONVERSATION) as daemon:
        arguments = ["--num-speakers", "2", "--format", "json", "--language", "en"]
        assert main(["transcribe", recording, *arguments]) == Exit.OK
    first, second = json.loads(capsys.readouterr().out)["segments"]
    assert (first["id"], first["speaker"], second["id"], second["speaker"]) == (1, 0, 2, 1)
    assert [word["speaker"] for word in first["words"] + second["words"]] == [0, 0, 1]
    search, words = daemon.jobs
    assert (search.data["num_speakers"], "language" in search.data) == (2, False)
    assert ("num_speakers" in words.data, words.data["language"]) == (False, "en")


def test_rules_for_lines_never_join_speakers(path: Path, recording: str, capsys: Capture) -> None:
    rules = ["--max-line-width", "40", "--max-line-count", "2", "--highlight-words"]
    with FakeDaemon(path, CONVERSATION):
        assert main(["transcribe", recording, "--speakers", "--format", "srt", *rules]) == Exit.OK
    lines = capsys.readouterr().out.splitlines()
    assert {line for line in lines if line.startswith("[")} == {
        "[speaker 1] <u>one</u> two",
        "[speaker 1] one <u>two</u>",
        "[speaker 2] <u>three</u>",
    }


def test_pipe_is_sent_twice(path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    class Pipe(io.BytesIO):
        def seekable(self) -> bool:
            return False

    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(Pipe(b"speech")))
    with FakeDaemon(path, CONVERSATION) as daemon:
        assert main(["transcribe", "-", "--speakers"]) == Exit.OK
    assert [job.audio for job in daemon.jobs] == [b"speech", b"speech"]


def test_failed_search_is_the_answer(path: Path, recording: str, capsys: Capture) -> None:
    text = "task: speakers: no worker has a model that tells speakers apart"
    with FakeDaemon(path, [fail("bad-request", text), TURNS]) as daemon:
        assert main(["transcribe", recording, "--speakers"]) == Exit.USAGE
    assert f"{recording}: {text}" in capsys.readouterr().err
    assert len(daemon.jobs) == 1


@pytest.mark.parametrize(
    "arguments", [["--live"], ["--task", "detect"], ["--channels", "split"]], ids=str
)
def test_speakers_exclude(recording: str, capsys: Capture, arguments: list[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["transcribe", recording, "--speakers", *arguments])
    assert ended.value.code == Exit.USAGE
    assert f"--speakers is not possible with {' '.join(arguments)}" in capsys.readouterr().err
