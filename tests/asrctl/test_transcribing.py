"""`asrctl transcribe` against a daemon that misbehaves on request."""

import dataclasses
import json
import os
import pty
import re
import signal
import subprocess
from pathlib import Path
from typing import Any, get_args

import pytest

from asrd.asrctl.cli import main
from asrd.exitcodes import Exit
from asrd.wire.options import EngineOptions
from tests.asrctl.conftest import make_recording
from tests.support.fake_daemon import PATIENCE, Behaviour, FakeDaemon, answer, begin, fail, raw
from tests.support.procfs import asleep
from tests.support.raw import wait_for
from tests.support.subprocesses import read_terminal, started

Capture = pytest.CaptureFixture[str]


def refused(*arguments: str) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["transcribe", *arguments])
    assert ended.value.code == Exit.USAGE


def test_segments_are_printed_as_lines(path: Path, recording: str, capsys: Capture) -> None:
    with FakeDaemon(path, [answer("hello", " you\x1b[2J ")]) as daemon:
        assert main(["transcribe", recording, "--audio-track", "ger"]) == Exit.OK
    assert capsys.readouterr() == ("hello\nyou\\x1b[2J\n", "")
    (job,) = daemon.jobs
    assert job.audio == b"talk.wav"
    del job.data["job_id"], job.data["audio"]
    assert job.data == {"stream": True, "audio_track": "ger"}


def test_every_option_reaches_the_daemon(path: Path, recording: str) -> None:
    arguments = (
        "--language en --task translate --model tiny --beam-size 2 --initial-prompt p "
        "--hotwords h --temperature 0,0.5 --vad-filter --word-timestamps "
        "--no-condition-on-previous-text --audio-track 1 --require-complete --channels split "
        "--prefix x --clip-timestamps 0,1.5,2 --include-tokens "
        "--timeout 9 --quiet --job-id j1 --trace-id t1"
    )
    with FakeDaemon(path, [answer("x")]) as daemon:
        assert main(["transcribe", recording, *arguments.split()]) == Exit.OK
    data = daemon.jobs[0].data
    del data["audio"]
    assert data.pop("timeout_ms") <= 9000
    assert data == {
        "job_id": "j1",
        "trace_id": "t1",
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
        "prefix": "x",
        "clip_timestamps": [0.0, 1.5, 2.0],
        "include_tokens": True,
        "stream": True,
    }


def test_every_option_of_the_engine_has_a_flag(path: Path, recording: str) -> None:
    values: dict[str, Any] = {
        "suppress_tokens": [-1, 11],
        "temperature": [0.0, 0.4],
        "languages": ["en", "de"],
        "vad_parameters": {"threshold": 0.4, "speech_pad_ms": 200},
        "window": "full",
        "prepend_punctuations": "(",
        "append_punctuations": ")",
        "log_prob_threshold": -0.5,
    }
    arguments = []
    for spec in dataclasses.fields(EngineOptions):
        flag = "--" + spec.name.replace("_", "-")
        if bool in get_args(spec.type):
            values[spec.name] = False
            arguments.append(flag.replace("--", "--no-", 1))
            continue
        value = values.setdefault(spec.name, 1)
        if isinstance(value, dict):
            value = [f"{key}={item}" for key, item in value.items()]
        text = ",".join(map(str, value)) if isinstance(value, list) else str(value)
        arguments.append(f"{flag}={text}")
    with FakeDaemon(path, [answer("x")]) as daemon:
        assert main(["transcribe", recording, *arguments]) == Exit.OK
    assert daemon.jobs[0].data.items() >= values.items()


def test_whisper_own_spelling_of_a_flag(path: Path, recording: str) -> None:
    arguments = ["--logprob-threshold", "-2", "--suppress-tokens", "-1"]
    with FakeDaemon(path, [answer("x")]) as daemon:
        assert main(["transcribe", recording, *arguments]) == Exit.OK
    assert daemon.jobs[0].data["log_prob_threshold"] == -2
    assert daemon.jobs[0].data["suppress_tokens"] == [-1]


def test_detected_language_is_printed(path: Path, recording: str, capsys: Capture) -> None:
    def behave(peer: Any, request: dict[str, Any]) -> None:
        peer.open_jobs.discard(request["job_id"])
        found = {"language": "de", "language_probability": 0.9876}
        peer.send("transcript", text="", job_id=request["job_id"], **found)

    with FakeDaemon(path, [behave, behave]):
        assert main(["transcribe", recording, "--task", "detect"]) == Exit.OK
        assert main(["transcribe", recording, "--task", "detect", "--format", "json"]) == Exit.OK
    text, json_line = capsys.readouterr().out.splitlines()
    assert text == "de 0.99"
    assert json.loads(json_line)["language"] == "de"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ("--format vtt", True),
        ("--format srt --no-word-timestamps", False),
        ("--format srt --task translate", None),
        ("--format srt --task translate --highlight-words", True),
        ("--format tsv", None),
    ],
)
def test_subtitles_ask_for_words(
    path: Path, recording: str, arguments: str, words: bool | None
) -> None:
    with FakeDaemon(path, [answer("x")]) as daemon:
        assert main(["transcribe", recording, *arguments.split()]) == Exit.OK
    assert daemon.jobs[0].data.get("word_timestamps") is words


def test_lines_of_subtitles(path: Path, recording: str, capsys: Capture) -> None:
    text = "one two three four five six seven eight nine ten eleven"
    with FakeDaemon(path, [answer(text)]):
        assert main(["transcribe", recording, "--format", "srt"]) == Exit.OK
        assert main(["transcribe", recording, "--format", "srt", "--max-line-width", "12"]) == 0
    lines = [line for line in capsys.readouterr().out.splitlines() if line[:1].isalpha()]
    assert lines == [
        *("one two three four five six", "seven eight nine ten eleven"),
        *("one two", "three four", "five six", "seven eight", "nine ten", "eleven"),
    ]


def test_raw_samples_are_sent_with_their_format(path: Path, recording: str) -> None:
    arguments = "--encoding pcm_s16le --rate 48000 --channels 2"
    with FakeDaemon(path, [answer("x")]) as daemon:
        assert main(["transcribe", recording, *arguments.split()]) == Exit.OK
    (job,) = daemon.jobs
    assert job.data["audio"] == {"encoding": "pcm_s16le", "sample_rate": 48_000, "channels": 2}
    assert job.audio == b"talk.wav"


def test_header_is_printed_even_without_segments(
    path: Path, recording: str, capsys: Capture
) -> None:
    cue = "00:00:00.000 --> 00:00:01.000\na\n\n"
    with FakeDaemon(path, [answer("a"), answer()]):
        for cues in (cue, ""):
            assert main(["transcribe", recording, "--format", "vtt"]) == Exit.OK
            assert capsys.readouterr().out == f"WEBVTT\n\n{cues}"


def test_json_is_one_line_per_file(path: Path, tmp_path: Path, capsys: Capture) -> None:
    files = [make_recording(tmp_path, name) for name in ("a.wav", "b.wav")]
    with FakeDaemon(path, [answer("A"), answer("B")]):
        assert main(["transcribe", *files, "--format", "json"]) == Exit.OK
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [(line["file"], line["text"]) for line in lines] == [(files[0], "A"), (files[1], "B")]


@pytest.mark.parametrize("arguments", [["--quiet"], ["-o", "/dev/null"]])
def test_warnings_are_lines_on_stderr(
    path: Path, recording: str, arguments: list[str], capsys: Capture
) -> None:
    def behave(peer: Any, request: dict[str, Any]) -> None:
        peer.open_jobs.discard(request["job_id"])
        texts = ("half of\nit\x1b[2J", "and more")
        warnings = [{"code": "audio-incomplete", "text": text} for text in texts]
        peer.send("transcript", text="", job_id=request["job_id"], warnings=warnings)

    with FakeDaemon(path, [behave]):
        assert main(["transcribe", recording, *arguments]) == Exit.OK
    assert capsys.readouterr() == (
        "",
        f"asrctl: {recording}: half of it\\x1b[2J\nasrctl: {recording}: and more\n",
    )


def test_output_dir_gets_one_file_per_recording(
    path: Path, tmp_path: Path, capsys: Capture
) -> None:
    files = [make_recording(tmp_path, name) for name in ("a.wav", "b.tar.wav")]
    out = tmp_path / "deep" / "out"
    with FakeDaemon(path, [answer("A"), answer("B")]):
        assert main(["transcribe", *files, "--output-dir", str(out)]) == Exit.OK
    texts = {file.name: file.read_text() for file in out.iterdir()}
    assert texts == {"a.txt": "A\n", "b.tar.txt": "B\n"}
    assert capsys.readouterr().out == ""


def test_failed_job_leaves_the_output_file_as_it_was(path: Path, recording: str) -> None:
    target = Path(recording).with_name("out.txt")
    target.write_text("old")
    with FakeDaemon(path, [fail("internal"), answer("new")]):
        assert main(["transcribe", recording, "-o", str(target)]) == Exit.FAILED
        assert target.read_text() == "old"
        assert main(["transcribe", recording, "-o", str(target)]) == Exit.OK
        assert target.read_text() == "new\n"


def test_output_file_that_cannot_be_written(path: Path, recording: str, capsys: Capture) -> None:
    with FakeDaemon(path, [answer("x")]):
        assert main(["transcribe", recording, "-o", "/dev/full"]) == Exit.OUTPUT_LOST
    assert capsys.readouterr().err == "asrctl: /dev/full: No space left on device\n"


def test_failed_file_does_not_stop_the_others(path: Path, recording: str, capsys: Capture) -> None:
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
        (fail("worker-crashed"), Exit.CRASHED),
        (raw(b"garbage\n"), Exit.FAILED),
    ],
)
def test_error_is_one_line_and_an_exit_code(
    path: Path, recording: str, behaviour: Behaviour, code: Exit, capsys: Capture
) -> None:
    with FakeDaemon(path, [behaviour]):
        assert main(["transcribe", recording]) == code
    err = capsys.readouterr().err
    assert err.startswith(f"asrctl: {recording}: ")
    assert err.count("\n") == 1


def test_unreachable_daemon_is_reported_once(path: Path, recording: str, capsys: Capture) -> None:
    assert main(["transcribe", recording, recording]) == Exit.UNREACHABLE
    assert capsys.readouterr().err.startswith("asrctl: there is no daemon: ")


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        ("a.wav b.wav -o x", "several files need --output-dir"),
        ("a.wav b.wav --format srt", "several files need --output-dir"),
        ("a.wav a.mp3 --output-dir {tmp}", "would be written to the same"),
        ("a.wav --output-dir /dev/null/x", "--output-dir: "),
        ("a.wav --temperature warm", "must be numbers separated by commas"),
        ("- -", "can be read only once"),
        ("a.wav --channels both", "must be a number or split"),
        ("a.wav --vad-parameters threshold", "must be names with numbers"),
        ("a.wav --vad-parameters x=1", "there is no 'x', but threshold, "),
        ("a.wav --channels split --encoding pcm_s16le", "must be a number for raw samples"),
        ("a.wav --rate 48000", "require the --encoding"),
        ("a.wav --max-line-count 0", "--max-line-count: must be at least 1"),
        ("a.wav --max-line-width abc", "--max-line-width: must be at least 1"),
        ("a.wav --task detect --format tsv", "--task detect: the format must be txt or json"),
        ("a.wav --task detect --format srt", "--task detect: the format must be txt or json"),
        ("a.wav b.wav --format srt", "or the format txt, json or jsonl"),
        ("a.wav --highlight-words --no-word-timestamps", "need the times of words"),
        ("a.wav --live --max-line-width 9", "can't be broken by rules"),
        ("a.wav --channels 2 --encoding file", "require the --encoding"),
    ],
)
def test_wrong_usage(arguments: str, problem: str, tmp_path: Path, capsys: Capture) -> None:
    refused(*arguments.format(tmp=tmp_path).split())
    err = capsys.readouterr().err
    assert problem in err
    # The help has the options.
    assert err.startswith("usage: asrctl transcribe [OPTION ...] FILE [FILE ...]\n")
    assert err.count("\n") == 2


def test_option_out_of_range_is_wrong_usage(recording: str, capsys: Capture) -> None:
    assert main(["transcribe", recording, "--beam-size", "0"]) == Exit.USAGE
    assert "beam_size: must be between 1 and 32" in capsys.readouterr().err


@pytest.mark.parametrize("flag", ["prepend-punctuations", "prefix", "hotwords", "model", "job-id"])
def test_text_that_is_not_utf_8_is_wrong_usage(
    flag: str, path: Path, recording: str, capsys: Capture
) -> None:
    with FakeDaemon(path, []):
        assert (
            main(["transcribe", recording, "--word-timestamps", f"--{flag}", "\udcff"])
            == Exit.USAGE
        )
    name = flag.replace("-", "_")
    problem = f"asrctl: {recording}: {name}: is not valid UTF-8\n"
    assert capsys.readouterr() == ("", problem)


@pytest.mark.parametrize("arguments", ["talk.wav -o link", "talk.txt --output-dir ."])
def test_text_never_overwrites_a_recording(
    arguments: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("talk.wav", "talk.txt"):
        make_recording(tmp_path, name)
    (tmp_path / "link").symlink_to("talk.wav")
    refused(*arguments.split())
    assert "is one of the recordings: write the text to another file" in capsys.readouterr().err
    for name in ("talk.wav", "talk.txt"):
        assert (tmp_path / name).read_text() == name


@pytest.mark.parametrize("piped", [True, False])
def test_stdin_may_be_a_pipe_or_a_file(path: Path, recording: str, piped: bool) -> None:
    with FakeDaemon(path, [answer("x")]) as daemon, open(recording, "rb") as file:
        asrctl = started("transcribe", "-", stdin=subprocess.PIPE if piped else file)
        out, err = asrctl.communicate(b"from a pipe" if piped else None, PATIENCE)
        assert (asrctl.returncode, out, err) == (Exit.OK, b"x\n", b"")
        assert daemon.jobs[0].audio == (b"from a pipe" if piped else b"talk.wav")


def test_segments_are_printed_at_once_and_ctrl_c_cancels(path: Path, recording: str) -> None:
    with FakeDaemon(path, [begin("first", "second")]) as daemon:
        asrctl = started("transcribe", recording)
        assert asrctl.stdout is not None
        assert [asrctl.stdout.readline() for _ in range(2)] == [b"first\n", b"second\n"]
        wait_for("a wait in the kernel", lambda: asleep(asrctl.pid))
        asrctl.send_signal(signal.SIGINT)
        out, err = asrctl.communicate(None, PATIENCE)
        assert (asrctl.returncode, out, err) == (Exit.INTERRUPTED, b"", b"asrctl: interrupted\n")
        daemon.wait_for_hang_up()


def test_reader_that_leaves_ends_asrctl_silently(path: Path, recording: str) -> None:
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


def test_progress_bar_on_a_terminal(path: Path, recording: str) -> None:
    terminal, other_end = pty.openpty()
    with FakeDaemon(path, [begin("a", "b")]) as daemon:
        asrctl = started("transcribe", recording, stdout=other_end, stderr=other_end)
        os.close(other_end)
        seen = read_terminal(terminal, lambda seen: "b\r\n" in seen and "[" in seen)
        daemon.wait_for("transcribe")
        assert re.search(r"talk\.wav  \[#{12}\.{12}\]  50%  0:01 / 0:02", seen)
        # The bar is removed before a line is written in its place.
        assert "\r\x1b[Kb\r\n" in seen
        wait_for("a wait in the kernel", lambda: asleep(asrctl.pid))
        asrctl.send_signal(signal.SIGINT)
        read_terminal(terminal, lambda seen: "interrupted" in seen)
        assert asrctl.wait(PATIENCE) == Exit.INTERRUPTED
    os.close(terminal)


def test_letters_that_the_locale_lacks_are_escaped(path: Path, recording: str) -> None:
    environment = {**os.environ, "PYTHONIOENCODING": "ascii"}
    with FakeDaemon(path, [answer("ñ")]):
        asrctl = started("transcribe", recording, env=environment)
        assert asrctl.communicate(None, PATIENCE) == (b"\\xf1\n", b"")


@pytest.mark.parametrize(
    ("arguments", "note"),
    [
        ("--max-line-width 20", "change only the formats srt and vtt"),
        ("--format srt --max-line-count 2", "limits nothing without --max-line-width"),
        ("--overwrite", "changes nothing without --output-dir"),
    ],
)
def test_option_that_changes_nothing_is_named(
    path: Path, recording: str, capsys: Capture, arguments: str, note: str
) -> None:
    command = ["transcribe", recording, *arguments.split()]
    with FakeDaemon(path, [answer("x")]):
        assert main(command) == Exit.OK
        assert note in capsys.readouterr().err
        assert main([*command, "--quiet"]) == Exit.OK
        assert capsys.readouterr().err == ""
