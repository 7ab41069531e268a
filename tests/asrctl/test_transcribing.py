"""`asrctl transcribe` against a daemon that misbehaves on request."""

import json
import os
import pty
import re
import signal
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from asrd.asrctl.cli import main
from asrd.exitcodes import Exit
from tests.support.fake_daemon import (
    PATIENCE,
    Behaviour,
    FakeDaemon,
    Peer,
    answer,
    begin,
    fail,
    raw,
)
from tests.support.subprocesses import read_terminal, started


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "asrd.sock"
    monkeypatch.setenv("ASRD_SOCKET", str(path))
    return path


@pytest.fixture
def recording(tmp_path: Path) -> str:
    return make_recording(tmp_path, "talk.wav")


def make_recording(directory: Path, name: str) -> str:
    path = directory / name
    path.write_bytes(name.encode())
    return str(path)


def test_segments_are_lines_of_text(
    path: Path, recording: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with FakeDaemon(path, [answer("hello", " you\x1b[2J ")]) as daemon:
        assert main(["transcribe", recording]) == Exit.OK
    out, err = capsys.readouterr()
    assert out == "hello\nyou\\x1b[2J\n"
    assert err == ""
    (job,) = daemon.jobs
    assert job.audio == b"talk.wav"
    assert job.data["stream"]


def test_every_option_reaches_the_daemon(path: Path, recording: str) -> None:
    arguments = (
        "--language en --task translate --model tiny --beam-size 2 --initial-prompt p "
        "--hotwords h --temperature 0,0.5 --vad-filter --word-timestamps "
        "--no-condition-on-previous-text --audio-track 1 --require-complete --channels split "
        "--timeout 9 --quiet"
    )
    with FakeDaemon(path, [answer("x")]) as daemon:
        assert main(["transcribe", recording, *arguments.split()]) == Exit.OK
    data = daemon.jobs[0].data
    del data["job_id"], data["audio"]
    assert data.pop("timeout_ms") <= 9000
    assert data == {
        "language": "en",
        "task": "translate",
        "name": "tiny",
        "beam_size": 2,
        "initial_prompt": "p",
        "hotwords": "h",
        "temperature": [0.0, 0.5],
        "vad_filter": True,
        "word_timestamps": True,
        "condition_on_previous_text": False,
        "audio_track": 1,
        "require_complete": True,
        "split_channels": True,
        "stream": True,
    }


def test_raw_samples_and_the_names_of_the_job(path: Path, recording: str) -> None:
    arguments = "--job-id j1 --trace-id t1 --encoding pcm_s16le --rate 48000 --channels 2"
    with FakeDaemon(path, [answer("x")]) as daemon:
        assert main(["transcribe", recording, *arguments.split()]) == Exit.OK
    (job,) = daemon.jobs
    assert (job.data["job_id"], job.data["trace_id"]) == ("j1", "t1")
    assert job.data["audio"] == {"encoding": "pcm_s16le", "sample_rate": 48_000, "channels": 2}
    assert job.audio == b"talk.wav"


def test_a_track_may_be_named_by_its_language(path: Path, recording: str) -> None:
    with FakeDaemon(path, [answer("x")]) as daemon:
        assert main(["transcribe", recording, "--audio-track", "ger"]) == Exit.OK
    (job,) = daemon.jobs
    assert job.data["audio_track"] == "ger"
    assert not {"require_complete", "split_channels"} & job.data.keys()


@pytest.mark.parametrize("arguments", ["--rate 48000", "--channels 2 --encoding file"])
def test_a_rate_is_of_raw_samples_alone(
    recording: str, arguments: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        main(["transcribe", recording, *arguments.split()])
    assert "say their --encoding" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("format", "written"),
    [
        ("srt", "1\n00:00:00,000 --> 00:00:01,000\na\n\n2\n00:00:01,000 --> 00:00:02,000\nb\n\n"),
        (
            "vtt",
            "WEBVTT\n\n00:00:00.000 --> 00:00:01.000\na\n\n00:00:01.000 --> 00:00:02.000\nb\n\n",
        ),
    ],
)
def test_subtitles(
    path: Path, recording: str, format: str, written: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with FakeDaemon(path, [answer("a", "b")]):
        assert main(["transcribe", recording, "--format", format]) == Exit.OK
    assert capsys.readouterr().out == written


def test_subtitles_of_silence_are_still_a_file(
    path: Path, recording: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with FakeDaemon(path, [answer()]):
        assert main(["transcribe", recording, "--format", "vtt"]) == Exit.OK
    assert capsys.readouterr().out == "WEBVTT\n\n"


def test_json_is_a_line_per_file(
    path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    files = [make_recording(tmp_path, name) for name in ("a.wav", "b.wav")]
    with FakeDaemon(path, [answer("A"), answer("B")]):
        assert main(["transcribe", *files, "--format", "json"]) == Exit.OK
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [(line["file"], line["text"]) for line in lines] == [(files[0], "A"), (files[1], "B")]
    assert lines[0]["segments"][0]["text"] == "A"


def answer_in_full(*segments: dict[str, Any], warnings: Sequence[str] = ()) -> Behaviour:
    def behave(peer: Peer, request: dict[str, Any]) -> None:
        job_id = request["job_id"]
        peer.open_jobs.discard(job_id)
        for index, segment in enumerate(segments):
            peer.send("segment", job_id=job_id, index=index, segment=segment)
        found = [{"code": "audio-incomplete", "text": text} for text in warnings]
        peer.send("transcript", text="", job_id=job_id, segments=segments, warnings=found)

    return behave


@pytest.mark.parametrize("to_file", [False, True])
@pytest.mark.parametrize("quiet", [False, True])
def test_warnings_are_lines_on_stderr(
    path: Path,
    recording: str,
    to_file: bool,
    quiet: bool,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    arguments = ["-o", str(tmp_path / "out.txt")] * to_file + ["--quiet"] * quiet
    with FakeDaemon(path, [answer_in_full(warnings=["half of\nit\x1b[2J", "and more"])]):
        assert main(["transcribe", recording, *arguments]) == Exit.OK
    assert capsys.readouterr() == (
        "",
        f"asrctl: {recording}: half of it\\x1b[2J\nasrctl: {recording}: and more\n",
    )


def test_split_channels_are_written_in_the_order_of_time(
    path: Path, recording: str, capsys: pytest.CaptureFixture[str]
) -> None:
    segments = [
        {"id": 0, "start": 1.0, "end": 3.0, "text": "later", "channel": 0},
        {"id": 1, "start": 0.0, "end": 2.0, "text": "first", "channel": 1},
    ]
    with FakeDaemon(path, [answer_in_full(*segments)]):
        assert main(["transcribe", recording, "--channels", "split"]) == Exit.OK
    assert capsys.readouterr().out == "[channel 2] first\n[channel 1] later\n"


def test_a_file_for_each(path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    files = [make_recording(tmp_path, name) for name in ("a.wav", "b.tar.wav")]
    out = tmp_path / "deep" / "out"
    with FakeDaemon(path, [answer("A"), answer("B")]):
        assert main(["transcribe", *files, "--output-dir", str(out)]) == Exit.OK
    assert {file.name: file.read_text() for file in out.iterdir()} == {
        "a.txt": "A\n",
        "b.tar.txt": "B\n",
    }
    assert capsys.readouterr().out == ""


def test_a_failed_job_leaves_the_file_as_it_was(path: Path, recording: str, tmp_path: Path) -> None:
    target = tmp_path / "out.txt"
    target.write_text("old")
    with FakeDaemon(path, [fail("internal"), answer("new")]):
        assert main(["transcribe", recording, "-o", str(target)]) == Exit.FAILED
        assert target.read_text() == "old"
        assert main(["transcribe", recording, "-o", str(target)]) == Exit.OK
        assert target.read_text() == "new\n"


def test_a_file_that_cannot_be_written(
    path: Path, recording: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with FakeDaemon(path, [answer("x")]):
        assert main(["transcribe", recording, "-o", "/nowhere/out.txt"]) == Exit.OUTPUT_LOST
    assert capsys.readouterr().err == "asrctl: /nowhere/out.txt: No such file or directory\n"


def test_one_that_fails_does_not_stop_the_others(
    path: Path, recording: str, capsys: pytest.CaptureFixture[str]
) -> None:
    behaviours = [fail("bad-audio", "is not audio"), fail("internal"), answer("x")]
    with FakeDaemon(path, behaviours):
        code = main(["transcribe", "/no/file", recording, recording, recording])
    assert code == Exit.BAD_AUDIO
    out, err = capsys.readouterr()
    assert out == "x\n"
    assert err.splitlines() == [
        "asrctl: /no/file: No such file or directory",
        f"asrctl: {recording}: is not audio",
        f"asrctl: {recording}: as asked",
    ]


@pytest.mark.parametrize(
    ("behaviour", "code"),
    [
        (fail("busy", retry_after_ms=60_000), Exit.BUSY),
        (fail("shutting-down", retry_after_ms=60_000), Exit.BUSY),
        (fail("deadline-exceeded"), Exit.DEADLINE),
        (fail("worker-crashed"), Exit.CRASHED),
        (fail("cancelled"), Exit.CANCELLED),
        (fail("unavailable"), Exit.UNAVAILABLE),
        (fail("model-not-found"), Exit.NO_MODEL),
        (fail("out-of-memory"), Exit.OUT_OF_MEMORY),
        (fail("too-large"), Exit.TOO_LARGE),
        (fail("bad-request"), Exit.USAGE),
        (raw(b"garbage\n"), Exit.FAILED),
    ],
)
def test_exit_codes(
    path: Path,
    recording: str,
    behaviour: Behaviour,
    code: Exit,
    capsys: pytest.CaptureFixture[str],
) -> None:
    with FakeDaemon(path, [behaviour]):
        assert main(["transcribe", recording]) == code
    err = capsys.readouterr().err
    assert err.startswith(f"asrctl: {recording}: ")
    assert err.count("\n") == 1


def test_unreachable_is_told_once_for_all_files(
    path: Path, recording: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["transcribe", recording, recording]) == Exit.UNREACHABLE
    assert capsys.readouterr().err == (
        f"asrctl: there is no daemon: the socket {path} is missing\n"
    )


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (["a.wav", "b.wav", "-o", "x"], "several files need --output-dir"),
        (["a.wav", "b.wav", "--format", "srt"], "several files need --output-dir"),
        (["a.wav", "a.mp3", "--output-dir", "{tmp}"], "would be written to the same"),
        (["a.wav", "--output-dir", "/dev/null/x"], "--output-dir: "),
        (["a.wav", "--temperature", "warm"], "must be numbers with commas between"),
        (["a.wav", "--format", "doc"], "invalid choice"),
        (["-", "-"], "can be read only once"),
        (["a.wav", "--channels", "both"], "must be a number or split"),
        (["a.wav", "--channels", "split", "--encoding", "pcm_s16le"], "must be their number"),
        ([], "FILE"),
    ],
)
def test_wrong_usage(
    arguments: list[str], problem: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["transcribe", *(word.format(tmp=tmp_path) for word in arguments)])
    assert ended.value.code == Exit.USAGE
    assert problem in capsys.readouterr().err


def test_an_option_out_of_range_is_wrong_usage(
    recording: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["transcribe", recording, "--beam-size", "0"]) == Exit.USAGE
    assert "beam_size: must be between 1 and 32" in capsys.readouterr().err


@pytest.mark.parametrize("piped", [True, False])
def test_stdin(path: Path, recording: str, piped: bool) -> None:
    with FakeDaemon(path, [answer("x")]) as daemon:
        if piped:
            asrctl = started("transcribe", "-", stdin=subprocess.PIPE)
            out, err = asrctl.communicate(b"from a pipe", PATIENCE)
        else:
            with open(recording, "rb") as file:
                asrctl = started("transcribe", "-", stdin=file)
                out, err = asrctl.communicate(None, PATIENCE)
        assert (asrctl.returncode, out, err) == (Exit.OK, b"x\n", b"")
        assert daemon.jobs[0].audio == (b"from a pipe" if piped else b"talk.wav")


def test_segments_are_there_before_the_job_is_done(path: Path, recording: str) -> None:
    """And Ctrl-C cancels it."""
    with FakeDaemon(path, [begin("first", "second")]) as daemon:
        asrctl = started("transcribe", recording)
        assert asrctl.stdout is not None
        assert [asrctl.stdout.readline() for _ in range(2)] == [b"first\n", b"second\n"]
        asrctl.send_signal(signal.SIGINT)
        out, err = asrctl.communicate(None, PATIENCE)
        assert (asrctl.returncode, out, err) == (Exit.INTERRUPTED, b"", b"asrctl: interrupted\n")
        daemon.wait_for_hang_up()


def test_a_reader_that_leaves_is_no_news(path: Path, recording: str) -> None:
    many = [f"segment {number}" for number in range(20_000)]
    with FakeDaemon(path, [answer(*many)]) as daemon:
        asrctl = started("transcribe", recording)
        assert asrctl.stdout is not None
        asrctl.stdout.readline()
        asrctl.stdout.close()
        assert asrctl.stderr is not None
        assert asrctl.stderr.read() == b""
        asrctl.stderr.close()
        assert asrctl.wait(PATIENCE) == Exit.BROKEN_PIPE
        daemon.wait_for_hang_up()


def test_a_progress_bar_on_a_terminal(path: Path, recording: str) -> None:
    terminal, other_end = pty.openpty()
    with FakeDaemon(path, [begin("a", "b")]) as daemon:
        asrctl = started("transcribe", recording, stdout=other_end, stderr=other_end)
        os.close(other_end)
        seen = read_terminal(terminal, lambda seen: "b\r\n" in seen and "[" in seen)
        daemon.wait_for("transcribe")
        assert re.search(r"talk\.wav  \[#{12}\.{12}\]  50%  0:01 / 0:02", seen)
        # The bar is taken away before a line is written in its place.
        assert "\r\x1b[Kb\r\n" in seen
        asrctl.send_signal(signal.SIGINT)
        read_terminal(terminal, lambda seen: "interrupted" in seen)
        assert asrctl.wait(PATIENCE) == Exit.INTERRUPTED
    os.close(terminal)


def test_what_the_locale_cannot_show_is_escaped(path: Path, recording: str) -> None:
    environment = {**os.environ, "PYTHONIOENCODING": "ascii"}
    with FakeDaemon(path, [answer("ñ")]):
        asrctl = started("transcribe", recording, env=environment)
        assert asrctl.communicate(None, PATIENCE) == (b"\\xf1\n", b"")


@pytest.mark.parametrize(
    "arguments",
    [["talk.wav", "-o", "link"], ["talk.txt", "--output-dir", "."]],
)
def test_a_recording_is_never_overwritten_by_a_text(
    path: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("talk.wav", "talk.txt"):
        make_recording(tmp_path, name)
    (tmp_path / "link").symlink_to("talk.wav")
    with pytest.raises(SystemExit) as refused:
        main(["transcribe", *arguments])
    assert refused.value.code == Exit.USAGE
    assert "is one of the recordings: write the text to another file" in capsys.readouterr().err
    for name in ("talk.wav", "talk.txt"):
        assert (tmp_path / name).read_text() == name
