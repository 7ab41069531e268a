"""Programs of the Wyoming project, unchanged, against the door over TCP with real weights. They are
in the extra `wyoming`."""

import asyncio
import contextlib
import importlib.util
import json
import re
import socket
import subprocess
import sys
import urllib.error
import urllib.request
import wave
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from wyoming.asr import Transcribe, Transcript
from wyoming.audio import wav_to_chunks
from wyoming.client import AsyncTcpClient
from wyoming.info import Describe, Info, SelectProgram

from tests.support.daemons import Daemon
from tests.support.raw import wait_for
from tests.support.real.speech import Clip

pytestmark = pytest.mark.real

SPOKEN = "spk1_snt1.wav"
CONFIG = "[worker]\ncpu_threads = 1\n"


@pytest.fixture(scope="module")
def door(
    model_path: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[int]:
    """The port of an `asrd run --wyoming`."""
    model = ("--model", str(model_path("tiny.en")))
    directory = tmp_path_factory.mktemp("door")
    with Daemon(directory, "--wyoming", "127.0.0.1:0", *model, config=CONFIG) as daemon:
        daemon.wait_until_ready()
        found = re.search(r"anybody who reaches 127\.0\.0\.1:(\d+) may transcribe", daemon.log)
        assert found is not None, daemon.log
        yield int(found[1])


def needs(*modules: str) -> pytest.MarkDecorator:
    missing = [name for name in modules if importlib.util.find_spec(name) is None]
    return pytest.mark.skipif(bool(missing), reason=f"{missing}: pip install -e '.[real]'")


def plain(text: str) -> str:
    return re.sub(r"[^a-z ]", "", text.lower()).strip()


@pytest.mark.parametrize("language", ["en", "en-US", "EN", "auto", "", None])
def test_client_of_the_wyoming_package(door: int, clips: dict[str, Clip], language: str) -> None:
    async def converse() -> tuple[Info, Transcript]:
        async with AsyncTcpClient("127.0.0.1", door) as client:
            await client.write_event(Describe().event())
            event = await client.read_event()
            assert event is not None
            info = Info.from_event(event)
            await client.write_event(SelectProgram(info.asr[0].name).event())
            hints = ["Anne"]
            await client.write_event(Transcribe(language=language, transcript_names=hints).event())
            with wave.open(str(clips[SPOKEN].path)) as file:
                for chunk in wav_to_chunks(file, 1024, start_event=True, stop_event=True):
                    await client.write_event(chunk.event())
            event = await client.read_event()
            assert event is not None
            return info, Transcript.from_event(event)

    info, transcript = asyncio.run(converse())
    (program,) = info.asr
    assert program.models[0].languages == ["en"]
    assert program.requires_external_vad
    assert not program.prefers_auto_gain_enabled
    assert plain(transcript.text) == clips[SPOKEN].text


@needs("wyoming_faster_whisper")
def test_health_check_of_wyoming_faster_whisper(door: int) -> None:
    check = [sys.executable, "-m", "wyoming_faster_whisper.health_check", "--uri"]
    done = subprocess.run(
        [*check, f"tcp://127.0.0.1:{door}"], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    refused = subprocess.run([*check, f"tcp://127.0.0.1:{port}"], capture_output=True, check=False)
    assert refused.returncode == 1


@needs("flask", "swagger_ui")
def test_http_bridge_of_the_wyoming_package(
    door: int, clips: dict[str, Clip], tmp_path: Path
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    base = f"http://127.0.0.1:{port}/api"
    bridge = [sys.executable, "-m", "wyoming.http.asr_server", "--port", str(port)]
    bridge += ["--host", "127.0.0.1", "--uri", f"tcp://127.0.0.1:{door}"]
    with (tmp_path / "bridge").open("wb") as log, subprocess.Popen(bridge, stderr=log) as process:
        try:
            wait_for("the bridge", lambda: _get(f"{base}/info"))
            assert json.loads(_get(f"{base}/info"))["asr"][0]["name"] == "asrd"
            request = urllib.request.Request(
                f"{base}/speech-to-text?language=en-GB&transcript_terms=child",
                clips[SPOKEN].path.read_bytes(),
                {"Content-Type": "audio/wav"},
            )
            with urllib.request.urlopen(request, timeout=60) as response:
                assert plain(json.load(response)["text"]) == clips[SPOKEN].text
        finally:
            process.terminate()


def _get(url: str) -> bytes:
    with contextlib.suppress(urllib.error.URLError):
        with urllib.request.urlopen(url, timeout=10) as response:
            body: bytes = response.read()
            return body
    return b""
