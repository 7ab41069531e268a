"""Live text with real processes and the demo model: a killed worker costs a step and no word."""

import fcntl
import os
import signal
import socket
import struct
import termios
from collections.abc import Iterator
from pathlib import Path

import anyio
import pytest
from wyoming.asr import Transcribe, Transcript, TranscriptChunk, TranscriptStop
from wyoming.audio import AudioChunk, AudioStart
from wyoming.client import AsyncClient

from asrd.errors import Code
from asrd.wire import frames
from tests.support.daemons import Daemon
from tests.support.live import live_text
from tests.support.raw import LONG, SHORT, TEXTS, wait_for
from tests.support.sounds import s16, sample, silence
from tests.support.users import START


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    with Daemon(tmp_path_factory.mktemp("d")) as running:
        running.wait_until_ready()
        yield running


def test_text_outlives_every_worker(daemon: Daemon) -> None:
    """It is killed in a step, in one behind a cut of the tail, and in the last job."""
    audio = s16(sample(LONG)).tobytes()[: 20 * 32_000]
    found = live_text(daemon, audio, kill_at=(2, 18, 99), language="en")
    *words, _cut_off = found.text.split()
    assert len(words) > 15
    assert words == TEXTS[LONG].split()[: len(words)]
    assert "".join(each["text"] for each in found.transcript["segments"]) == found.text
    assert daemon.workers()["0"]["restarts"] == 3
    assert daemon.status()["jobs"]["failed"] == {}


def test_speech_ends_before_the_audio_does(daemon: Daemon) -> None:
    daemon.wait_until_ready()
    audio = s16(sample(SHORT)).tobytes()
    padded = audio + s16(silence(3)).tobytes()
    found = live_text(daemon, padded, live=False, end_of_speech_ms=800, language="en")
    assert found.text == TEXTS[SHORT]
    assert found.transcript["duration_ms"] < len(padded) / 32 - 1000


def test_speech_ends_in_the_middle_of_a_chunk(daemon: Daemon) -> None:
    """The rest of the chunk hurts nobody, also if the job has to start once more."""
    daemon.wait_until_ready()
    audio = s16(sample(SHORT)).tobytes() + bytes(2 * 32_000)
    with daemon.connect() as client:
        # Stopped, so that the end is found when half of the second chunk has arrived.
        pid = daemon.pid_of()
        os.kill(pid, signal.SIGSTOP)
        try:
            asked = {"job_id": "a", "end_of_speech_ms": 800, "language": "en"}
            client.send("transcribe", asked)
            client.send("audio-start", START)
            client.send("audio-chunk", START, audio)
            chunk = frames.encode("audio-chunk", START, 3200) + bytes(3200)
            client.send_raw(chunk[:-1001])
            wait_for("the front to have read it", lambda: not _unread(client.sock))
        finally:
            os.kill(pid, signal.SIGCONT)
        client.expect("accepted")
        os.kill(pid, signal.SIGKILL)
        client.send_raw(chunk[-1001:])
        client.send("audio-stop")
        client.send("ping")
        answers = {
            event.type: event.data for event in (client.receive(), client.receive()) if event
        }
    assert answers.keys() == {"pong", "transcript"}
    assert answers["transcript"]["text"] == TEXTS[SHORT]
    assert answers["transcript"]["duration_ms"] < len(audio) / 32 + 100


def _unread(sock: socket.socket) -> int:
    """Bytes that the peer has not read (SIOCOUTQ, unix(7))."""
    (count,) = struct.unpack("i", fcntl.ioctl(sock, termios.TIOCOUTQ, bytes(4)))
    return int(count)


def test_silence_has_no_text(daemon: Daemon) -> None:
    found = live_text(daemon, s16(silence(20)).tobytes(), language="en")
    assert (found.text, found.transcript["segments"]) == ("", [])


def test_wyoming_client_gets_text_and_an_end_unchanged(tmp_path: Path) -> None:
    """It never sends the audio-stop, as a voice assistant does: silence ends its words."""
    settings = "[front]\nwyoming_live = true\nwyoming_end_of_speech_ms = 800\n"

    async def converse(path: str) -> tuple[str, str, list[str]]:
        kinds, text = [], ""
        async with AsyncClient.from_uri(f"unix://{path}") as client:
            await client.write_event(Transcribe(language="en").event())
            await client.write_event(AudioStart(16_000, 2, 1).event())
            audio = s16(sample(SHORT)).tobytes() + bytes(3 * 32_000)
            for place in range(0, len(audio), 8000):
                chunk = AudioChunk(16_000, 2, 1, audio[place : place + 8000])
                await client.write_event(chunk.event())
            while (event := await client.read_event()) is not None:
                kinds.append(event.type)
                if TranscriptChunk.is_type(event.type):
                    text += TranscriptChunk.from_event(event).text
                if Transcript.is_type(event.type):
                    transcript = Transcript.from_event(event).text
                if TranscriptStop.is_type(event.type):
                    break
        return transcript, text, kinds

    with Daemon(tmp_path, config=settings) as daemon:
        daemon.wait_until_ready()
        transcript, text, kinds = anyio.run(converse, daemon.socket)
    assert transcript == text == TEXTS[SHORT]
    assert (kinds[0], kinds[-2:]) == ("transcript-start", ["transcript", "transcript-stop"])


def test_stopping_daemon_ends_a_live_stream(tmp_path: Path) -> None:
    with Daemon(tmp_path) as daemon:
        daemon.wait_until_ready()
        with daemon.connect() as client:
            client.send("transcribe", {"live": True, "job_id": "a"})
            client.send("audio-start", {"rate": 16_000, "width": 2, "channels": 1})
            client.expect("transcript-start")
            daemon.stop()
            assert client.answer("a").data["code"] == Code.SHUTTING_DOWN
