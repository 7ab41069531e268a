"""Clients of several hosts under load: OpenAI's official one and the wyoming package's. They count
the tries that failed, and try again."""

import asyncio
import statistics
import threading
import time
import wave
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx2
import openai
from wyoming.asr import Transcribe, Transcript
from wyoming.audio import wav_to_chunks
from wyoming.client import AsyncTcpClient

from tests.support.raw import PATIENCE, wait_for

TRIES = 5
_PAUSE = 0.5


class Counting(httpx2.HTTPTransport):
    """Reports each answer that is no success, each lost connection, and the host of the others."""

    def __init__(self, failed: Callable[[str], None], served: Callable[[str], None]) -> None:
        super().__init__()
        self._failed, self._served = failed, served

    def handle_request(self, request: httpx2.Request) -> httpx2.Response:
        try:
            answer = super().handle_request(request)
        except httpx2.TransportError as error:
            self._failed(type(error).__name__)
            raise
        if answer.status_code == 200:
            self._served(answer.headers["x-asrd-host"])
        else:
            self._failed(str(answer.status_code))
        return answer


def http_client(
    port: int,
    transport: httpx2.BaseTransport | None = None,
    retries: int = 0,
    key: str = "unused",
) -> openai.OpenAI:
    return openai.OpenAI(
        base_url=f"http://127.0.0.1:{port}/v1",
        api_key=key,
        http_client=httpx2.Client(transport=transport, timeout=PATIENCE),
        max_retries=retries,
    )


def transcribe(client: openai.OpenAI, path: Path) -> str:
    found: Any = client.audio.transcriptions.create(model="whisper-1", file=path, language="en")
    return str(found.text).strip()


def speak(port: int, path: Path) -> str:
    """Returns the transcript of a Wyoming client. Raises OSError or ValueError if there is none."""
    return asyncio.run(_speak(port, path)).strip()


async def _speak(port: int, path: Path) -> str:
    async with AsyncTcpClient("127.0.0.1", port) as client:
        await client.write_event(Transcribe(language="en").event())
        with wave.open(str(path)) as file:
            for chunk in wav_to_chunks(file, 1024, start_event=True, stop_event=True):
                await client.write_event(chunk.event())
        event = await asyncio.wait_for(client.read_event(), PATIENCE)
        if event is None or not Transcript.is_type(event.type):
            raise ValueError("no transcript" if event is None else f"{event.type} {event.data}")
        return str(Transcript.from_event(event).text)


class Background(threading.Thread):
    """A call in a thread."""

    def __init__(self, call: Callable[..., str], *arguments: Any) -> None:
        super().__init__()
        self._call, self._arguments = call, arguments
        self._result: str | Exception = AssertionError("no answer")
        self.start()

    def run(self) -> None:
        try:
            self._result = self._call(*self._arguments)
        except Exception as error:
            self._result = error

    def result(self) -> str | Exception:
        """Returns what the call returned or raised."""
        self.join(PATIENCE)
        return self._result


class Load:
    """Clients that ask again and again for `texts`: recordings, and their transcripts.

    Attributes: failed (the tries of all clients); lost (requests without the right answer); hosts
    (answers over HTTP of each).
    """

    def __init__(self, http: int, wyoming: int, texts: dict[Path, str]) -> None:
        self._ports = {"http": http, "wyoming": wyoming}
        self._texts = texts
        self._stop = threading.Event()
        self._seconds: dict[str, list[float]] = {"http": [], "wyoming": []}
        self.failed: list[str] = []
        self.lost: list[str] = []
        self.hosts: Counter[str] = Counter()

    @contextmanager
    def running(self, *, http: int, wyoming: int) -> Iterator[None]:
        threads = [threading.Thread(target=self._http) for _ in range(http)]
        threads += [threading.Thread(target=self._wyoming) for _ in range(wyoming)]
        for thread in threads:
            thread.start()
        try:
            yield
        finally:
            self._stop.set()
            for thread in threads:
                thread.join(2 * PATIENCE)

    def wait_for_answers(self, count: int) -> None:
        """Waits for so many more answers at each door."""
        goals = {door: len(seconds) + count for door, seconds in self._seconds.items()}
        wait_for(
            f"{count} answers at each door",
            lambda: self.lost or all(len(self._seconds[door]) >= goals[door] for door in goals),
        )

    def summary(self, seconds: float) -> str:
        parts = [f"{seconds:.0f} s, answers over HTTP by host: {dict(self.hosts)}"]
        for door, found in self._seconds.items():
            parts.append(
                f"{door}: {len(found)} requests, median {statistics.median(found):.2f} s, "
                f"longest {max(found):.2f} s"
            )
        return "\n".join(parts)

    def _http(self) -> None:
        counting = Counting(self.failed.append, self._served)
        with http_client(self._ports["http"], counting, TRIES - 1) as client:
            self._ask("http", lambda path: transcribe(client, path))

    def _wyoming(self) -> None:
        self._ask("wyoming", self._speak)

    def _speak(self, path: Path) -> str:
        for _ in range(TRIES - 1):
            try:
                return speak(self._ports["wyoming"], path)
            except (OSError, ValueError) as error:
                self.failed.append(f"wyoming: {error}")
                time.sleep(_PAUSE)
        return speak(self._ports["wyoming"], path)

    def _ask(self, door: str, ask: Callable[[Path], str]) -> None:
        while not self._stop.is_set():
            for path, text in self._texts.items():
                start = time.monotonic()
                try:
                    heard = ask(path)
                except Exception as error:
                    self.lost.append(f"{door}: {error!r}")
                    return
                if heard != text:
                    self.lost.append(f"{door}: {heard!r} instead of {text!r}")
                self._seconds[door].append(time.monotonic() - start)

    def _served(self, host: str) -> None:
        self.hosts[host] += 1
