"""`asrctl transcribe --live`: its sources, and what it shows."""

import io
import json
import os
import pty
import signal
import sys
import types
import wave
from pathlib import Path
from typing import Any

import pytest

from asrd.asrctl.cli import main
from asrd.asrctl.live_source import open_microphone, open_pipe
from asrd.asrctl.live_view import LiveView, wrapped
from asrd.errors import BadAudio
from asrd.exitcodes import Exit
from asrd.wire.client_events import TranscriptChunk
from tests.support.fake_daemon import PATIENCE, FakeDaemon, Peer, fail, hang_up, segment
from tests.support.live_daemon import LiveDaemon, begin, finish, ignore
from tests.support.subprocesses import read_terminal, started

Capture = pytest.CaptureFixture[str]
SAMPLES = bytes(range(256)) * 100


def hear_once(peer: Peer, request: dict[str, Any]) -> None:
    job_id = request["job_id"]
    peer.send("transcript-chunk", text="hello", job_id=job_id, start=0, end=1, pending=" wor")


def heard(path: Path) -> LiveDaemon:
    return LiveDaemon(path, start=begin, stop=finish)


def sent(daemon: FakeDaemon) -> bytes:
    return b"".join(each.audio or b"" for each in daemon.requests if each.type == "audio-chunk")


@pytest.fixture
def raw(tmp_path: Path) -> str:
    file = tmp_path / "talk.pcm"
    file.write_bytes(SAMPLES)
    return str(file)


# --- sources --------------------------------------------------------------------------------------


def wav(*, rate: int = 8000, channels: int = 2, width: int = 2, size: int | None = None) -> bytes:
    """A WAV file; `size` is what its header states."""
    file = io.BytesIO()
    with wave.open(file, "wb") as writer:
        writer.setparams((channels, width, rate, 0, "NONE", ""))
        writer.writeframes(SAMPLES)
    data = bytearray(file.getvalue())
    if size is not None:
        data[40:44] = size.to_bytes(4, "little")
    return bytes(data)


def read_pipe(data: bytes, rate: int | None = None, channels: int | None = None) -> Any:
    """Rate, channels and audio of a pipe."""
    out, into = os.pipe()
    with open(into, "wb") as writer:
        writer.write(data)
    with open(out, "rb"), open_pipe(f"/dev/fd/{out}", rate, channels) as source:
        return source.rate, source.channels, b"".join(iter(source.read, b""))


@pytest.mark.parametrize("size", [None, 0, 0x7FFF_0000, 0xFFFF_FFFF])
def test_wav_header_states_the_format(size: int | None) -> None:
    """Programs that write to a pipe don't know the length: they state 0, or the most."""
    assert read_pipe(wav(size=size), 44_100, 1) == (8000, 2, SAMPLES)


def test_what_follows_the_samples_of_a_wav_file_is_no_audio() -> None:
    assert read_pipe(wav() + b"LIST....") == (8000, 2, SAMPLES)


def test_chunks_before_the_samples_are_skipped() -> None:
    data = wav()
    listed = data[:36] + b"LIST\3\0\0\0abc\0" + data[36:]
    assert read_pipe(listed) == (8000, 2, SAMPLES)


@pytest.mark.parametrize("data", [SAMPLES, b"", b"\1\2"])
def test_raw_samples_have_the_format_of_the_options(data: bytes) -> None:
    assert read_pipe(data) == (16_000, 1, data)
    assert read_pipe(data, 44_100, 2) == (44_100, 2, data)


@pytest.mark.parametrize(
    ("data", "problem"),
    [
        (wav(width=1), "no WAV audio of 16 bits; ffmpeg converts it"),
        (wav()[:30], "the WAV header is incomplete"),
        (wav()[:12] + b"data" + bytes(4), "the WAV header states no format"),
        (wav()[:12] + b"fmt \xff\xff\xff\xff", "the WAV header is damaged"),
        (b"OggS" + bytes(100), "no raw or WAV audio"),
        (b"\0\0\0\x20ftypisom" + bytes(100), "no raw or WAV audio"),
    ],
)
def test_other_audio_is_refused(data: bytes, problem: str) -> None:
    with pytest.raises(BadAudio, match=problem):
        read_pipe(data)


class FakeSounddevice(types.ModuleType):
    """The part of sounddevice that asrctl uses; no machine of the tests has a microphone."""

    class PortAudioError(Exception):
        pass

    def __init__(self) -> None:
        super().__init__("sounddevice")
        self.asked: dict[str, Any] = {}
        self.RawInputStream = self._open

    def _open(self, **asked: Any) -> "FakeSounddevice":
        self.asked = asked
        if asked["device"] == "none":
            raise ValueError("No input device matching 'none'")
        if asked["device"] == 7:
            raise self.PortAudioError("Error querying device 7")
        return self

    def __enter__(self) -> "FakeSounddevice":
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def read(self, frames: int) -> tuple[memoryview, bool]:
        return memoryview(bytes(2 * frames)), True


@pytest.fixture
def sounddevice(monkeypatch: pytest.MonkeyPatch) -> FakeSounddevice:
    fake = FakeSounddevice()
    monkeypatch.setitem(sys.modules, "sounddevice", fake)
    return fake


def test_microphone_is_read_a_tenth_of_a_second_at_a_time(
    sounddevice: FakeSounddevice, capsys: Capture
) -> None:
    with open_microphone("USB", 48_000, None) as source:
        assert source.read() == bytes(2 * 4800)
    assert sounddevice.asked == {
        "samplerate": 48_000,
        "channels": 1,
        "dtype": "int16",
        "device": "USB",
    }
    assert "some audio was lost" in capsys.readouterr().err


@pytest.mark.parametrize("device", ["none", "7"])
def test_missing_microphone_is_an_error(
    sounddevice: FakeSounddevice, capsys: Capture, device: str
) -> None:
    assert main(["transcribe", "--microphone", device]) == Exit.BAD_AUDIO
    assert "lists the devices" in capsys.readouterr().err


def test_missing_package_is_an_error(monkeypatch: pytest.MonkeyPatch, capsys: Capture) -> None:
    monkeypatch.setitem(sys.modules, "sounddevice", None)
    assert main(["transcribe", "--microphone"]) == Exit.BAD_AUDIO
    assert "pip install 'asrd[microphone]'" in capsys.readouterr().err


# --- the view -------------------------------------------------------------------------------------


def test_text_is_broken_at_spaces_where_there_are_some() -> None:
    assert wrapped("one two three", 7) == ["one two", "three"]
    assert wrapped("one two three", 20) == ["one two three"]
    assert wrapped("unbreakable x", 5) == ["unbre", "akabl", "e x"]
    assert wrapped("日本語です", 5) == ["日本", "語で", "す"]


def test_final_words_flow_and_pending_ones_are_dim() -> None:
    written: list[str] = []
    view = LiveView(written.append, lambda: 13)
    view.update(TranscriptChunk("", pending="hel"))
    view.update(TranscriptChunk("Hello", pending=" my \x1b[2J friend"))
    view.update(TranscriptChunk(" my old friend"))
    view.end()
    assert written == [
        "\r\x1b[K\x1b[2mhel\x1b[22m",
        "\r\x1b[KHello\x1b[2m my \\x1\x1b[22m",
        "\r\x1b[KHello my old\nfriend",
        "\r\x1b[Kfriend\n",
    ]


# --- the command ----------------------------------------------------------------------------------


def test_live_text_has_a_line_for_each_piece(path: Path, raw: str, capsys: Capture) -> None:
    with LiveDaemon(path, start=begin, stop=finish) as daemon:
        assert main(["transcribe", "--live", raw]) == Exit.OK
        assert sent(daemon) == SAMPLES
        assert daemon.jobs[0].data["live"] is True
    assert capsys.readouterr() == ("world\n", "")


def test_every_option_of_live_text_reaches_the_daemon(path: Path, raw: str) -> None:
    arguments = "--live-step-ms 500 --final exact --end-of-speech-ms 700 --language en --timeout 9"
    format_ = ["--rate", "8000", "--channels", "2"]
    with heard(path) as daemon:
        assert main(["transcribe", "--live", raw, *format_, *arguments.split()]) == Exit.OK
    asked = daemon.jobs[0].data
    del asked["job_id"]
    assert asked == {
        "live": True,
        "live_step_ms": 500,
        "final": "exact",
        "end_of_speech_ms": 700,
        "language": "en",
        "timeout_ms": 9000,
    }
    assert {"rate": 8000, "width": 2, "channels": 2} in [each.data for each in daemon.requests]


@pytest.mark.parametrize(
    ("arguments", "output"),
    [
        (["--format", "srt"], "1\n00:00:01,000 --> 00:00:02,000\nworld\n\n"),
        (["--format", "vtt"], "WEBVTT\n\n00:00:01.000 --> 00:00:02.000\nworld\n\n"),
        (["--final", "exact"], "hello\nworld\n"),
    ],
)
def test_other_forms_of_the_text(
    path: Path, raw: str, capsys: Capture, arguments: list[str], output: str
) -> None:
    """With `exact`, only the text that is exact is printed."""
    with heard(path):
        assert main(["transcribe", "--live", raw, *arguments]) == Exit.OK
    assert capsys.readouterr().out == output


def test_json_and_files_have_the_whole_transcript(
    path: Path, raw: str, capsys: Capture, tmp_path: Path
) -> None:
    with heard(path):
        assert main(["transcribe", "--live", raw, "--format", "json"]) == Exit.OK
        assert main(["transcribe", "--live", raw, "-o", str(tmp_path / "text")]) == Exit.OK
    out, err = capsys.readouterr()
    assert json.loads(out)["segments"] == [segment(0, "hello"), segment(1, "world")]
    assert (tmp_path / "text").read_text() == "hello\nworld\n"
    assert err == ""


def test_interrupt_ends_the_audio_and_the_rest_still_comes(path: Path) -> None:
    """The pipe stays open; a terminal shows pending text, and removes it."""
    terminal, other_end = pty.openpty()
    audio, into = os.pipe()
    with LiveDaemon(path, start=begin, chunk=hear_once, stop=finish) as daemon:
        asrctl = started("transcribe", "--live", stdin=audio, stdout=other_end, stderr=other_end)
        os.close(other_end)
        os.close(audio)
        os.write(into, SAMPLES[:12])
        read_terminal(terminal, lambda seen: "hello\x1b[2m wor\x1b[22m" in seen)
        asrctl.send_signal(signal.SIGINT)
        read_terminal(terminal, lambda seen: "\r\x1b[Khello world\r\n" in seen)
        assert asrctl.wait(PATIENCE) == Exit.OK
        assert sent(daemon) == SAMPLES[:12]
    os.close(terminal)
    os.close(into)


def test_second_interrupt_ends_the_program(path: Path) -> None:
    audio, into = os.pipe()
    with LiveDaemon(path, start=begin) as daemon:
        asrctl = started("transcribe", "--live", stdin=audio)
        os.write(into, SAMPLES[:12])
        daemon.wait_for("audio-chunk")
        asrctl.send_signal(signal.SIGINT)
        daemon.wait_for("audio-stop")
        asrctl.send_signal(signal.SIGINT)
        assert asrctl.communicate(None, PATIENCE) == (b"", b"asrctl: interrupted\n")
        assert asrctl.returncode == Exit.INTERRUPTED
        daemon.wait_for_hang_up()
    os.close(audio)
    os.close(into)


@pytest.mark.parametrize(
    ("chunk", "code", "message"),
    [
        (fail("bad-audio", "audio: too long"), Exit.BAD_AUDIO, "talk.pcm: audio: too long"),
        (hang_up, Exit.UNREACHABLE, "closed the connection before it answered"),
    ],
)
def test_error_is_one_line_and_a_code(
    path: Path, raw: str, capsys: Capture, chunk: Any, code: Exit, message: str
) -> None:
    with LiveDaemon(path, start=begin, chunk=chunk):
        assert main(["transcribe", "--live", raw]) == code
    out, err = capsys.readouterr()
    assert (out, err.count("\n")) == ("", 1)
    assert message in err


def test_daemon_that_is_too_old_is_named(path: Path, raw: str, capsys: Capture) -> None:
    with LiveDaemon(path, start=ignore):
        assert main(["transcribe", "--live", raw]) != Exit.OK
    assert "the daemon is too old for live text: update asrd" in capsys.readouterr().err


def test_terminal_as_input_is_an_error(path: Path) -> None:
    terminal, other_end = pty.openpty()
    asrctl = started("transcribe", "--live", stdin=other_end)
    _, err = asrctl.communicate(None, PATIENCE)
    assert b"pipe audio into it" in err
    assert asrctl.returncode == Exit.BAD_AUDIO
    os.close(terminal)
    os.close(other_end)


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        ([], "required: FILE"),
        (["a", "--final", "exact"], "--final requires --live"),
        (["a", "--live-step-ms", "500"], "--live-step-ms requires --live"),
        (["a", "--end-of-speech-ms", "500"], "--end-of-speech-ms requires --live"),
        (["--live", "a", "b"], "takes one FILE"),
        (["a", "--microphone"], "no FILE"),
        (["--live", "--encoding", "file"], "16 bits"),
        (["--live", "--task", "detect"], "not possible with --live"),
        (["--live", "--channels", "split"], "must be a number"),
    ],
)
def test_options_that_do_not_fit_are_wrong_usage(
    capsys: Capture, arguments: list[str], problem: str
) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["transcribe", *arguments])
    assert ended.value.code == Exit.USAGE
    assert problem in capsys.readouterr().err
