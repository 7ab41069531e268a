"""Live streams without a model: audio whose samples say the words, and a worker that reads them.

Each word lasts half a second. Its samples are the word's number, plus 100 for every other word, so
that the same word can come twice. The worker hears what a perfect recognizer would, but for a word
that has not ended yet.
"""

import array
import itertools
import os
import socket
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from asrd.wire import frames
from asrd.wire.frames import Frame
from tests.support.daemons import Daemon
from tests.support.raw import HELLO, wait_for
from tests.support.users import START, User, Users

RATE = 16_000
WORD_SECONDS = 0.5
VOCABULARY = "no yes one two three four five six seven eight nine ten".split()  # noqa: SIM905
# The resolution of the worker's ears, in seconds.
_GRAIN = 0.01
_NOT_ENDED = "hmm"


def speech(text: str, parity: int = 0) -> bytes:
    numbers = [
        VOCABULARY.index(word) + 1 + 100 * ((i + parity) % 2) for i, word in enumerate(text.split())
    ]
    return b"".join(
        array.array("h", [number]).tobytes() * int(RATE * WORD_SECONDS) for number in numbers
    )


def silence(seconds: float) -> bytes:
    return bytes(2 * int(RATE * seconds))


def runs(audio: bytes, rate: int, channels: int) -> Iterator[tuple[int, float, float]]:
    """Number, start and end of each run of equal samples."""
    step = max(1, round(rate * _GRAIN))
    samples = array.array("h", audio[: len(audio) // 2 * 2])[:: channels * step]
    place = 0
    for number, run in itertools.groupby(samples):
        length = len(list(run))
        yield number, place * step / rate, (place + length) * step / rate
        place += length


def heard(job: dict[str, Any], audio: bytes) -> list[dict[str, Any]]:
    """The segments that answer a job: one for each four words."""
    rate, channels = job["audio"]["sample_rate"], job["audio"]["channels"]
    spoken = [each for each in runs(audio, rate, channels) if each[0]]
    if job["options"].get("task") == "speech":
        return [
            {"id": i, "start": start, "end": end, "text": ""}
            for i, (_, start, end) in enumerate(spoken, 1)
        ]
    words = []
    for number, start, end in spoken:
        whole = end - start > 0.9 * WORD_SECONDS
        text = VOCABULARY[number % 100 - 1] if whole else _NOT_ENDED
        words.append({"start": start, "end": end, "word": f" {text}", "probability": 1.0})
    return [
        segment(number, words[place : place + 4])
        for number, place in enumerate(range(0, len(words), 4), 1)
    ]


def segment(number: int, words: list[dict[str, Any]]) -> dict[str, Any]:
    return {
        "id": number,
        "start": words[0]["start"],
        "end": words[-1]["end"],
        "text": "".join(word["word"] for word in words),
        "words": words,
    }


class Recognizer:
    """A worker that a test plays. `jobs` are those that it got, `seconds` the longest audio."""

    def __init__(self, made: Users, name: str = "0", **hello: Any) -> None:
        self.jobs: list[dict[str, Any]] = []
        self.seconds = 0.0
        self.answer: Callable[[dict[str, Any], bytes], list[dict[str, Any]]] = heard
        self.peer = made.play_worker(name)
        self.peer.send("hello", {**HELLO, "slots": 4, **hello})

    async def serve(self, count: int = 10**9) -> None:
        """Answers so many jobs."""
        while count:
            if (found := await self.take()) is not None:
                self.done(*found)
                count -= 1

    async def take(self) -> tuple[dict[str, Any], bytes] | None:
        """Returns the next job and its audio; None if the next event was none."""
        with_fd = await self.peer.event()
        try:
            return self._job(with_fd)
        finally:
            with_fd.close()

    def _job(self, event: Frame) -> tuple[dict[str, Any], bytes] | None:
        if event.type != "job":
            key = event.data.get("key")
            failed = {"key": key, "code": "cancelled", "text": "cancelled"}
            self.peer.send("failed", failed) if self._open(key) else None
            return None
        self.jobs.append(event.data)
        # Not from the offset, which all owners share.
        audio = os.pread(event.fds[0].fileno(), event.data["size"], 0)
        frame = 2 * event.data["audio"]["channels"]
        seconds = len(audio) / frame / event.data["audio"]["sample_rate"]
        self.seconds = max(self.seconds, seconds)
        return event.data, audio

    def _open(self, key: Any) -> bool:
        return any(job["key"] == key and not job.get("answered") for job in self.jobs)

    def done(self, job: dict[str, Any], audio: bytes) -> None:
        segments = self.answer(job, audio)
        job["answered"] = True
        self.peer.send(
            "done",
            {
                "key": job["key"],
                "text": "".join(each["text"] for each in segments),
                "audio_seconds": len(audio) / 32_000,
                "run_seconds": 0.0,
                "language": "en",
                "language_probability": 1.0,
                "segments": segments,
            },
        )

    async def die(self) -> None:
        """Ends the connection, and waits until the front has noticed."""
        self.peer.sock.shutdown(socket.SHUT_WR)
        while not await self.peer.at_end():
            pass


class Speaker:
    """A client that streams, and keeps what it gets."""

    def __init__(self, made: Users, uid: int) -> None:
        self.made = made
        self.user: User = made.connect(uid)
        # As the library's: a transcript of 20 minutes has many words.
        self.user.decoder = frames.Decoder(frames.FrameLimits(data=1 << 24, strict=False))
        self.text = ""
        self.chunks: list[dict[str, Any]] = []
        self.kinds: list[str] = []
        self.errors: list[dict[str, Any]] = []
        self.transcripts: list[dict[str, Any]] = []

    def begin(self, **options: Any) -> None:
        self.user.send("transcribe", {"live": True, **options})
        self.user.send("audio-start", START)

    async def say(self, audio: bytes, seconds: float = 0.5) -> None:
        size = int(2 * RATE * seconds)
        for place in range(0, len(audio), size):
            self.user.send("audio-chunk", START, audio[place : place + size])
            # The kernel takes no more at once.
            await self.ping()

    async def hear(self, *kinds: str) -> dict[str, Any]:
        """Returns the first event of these kinds; keeps the text that comes before."""
        while True:
            event = await self.user.event()
            if event.type != "pong":
                self.kinds.append(event.type)
            if event.type == "transcript-chunk":
                self.chunks.append(event.data)
                self.text += event.data["text"]
            if event.type == "error":
                self.errors.append(event.data)
            if event.type == "transcript":
                self.transcripts.append(event.data)
            if event.type in kinds:
                return event.data

    async def ping(self) -> None:
        """The front has handled all that was sent."""
        self.user.send("ping")
        await self.hear("pong")

    async def failed(self) -> dict[str, Any]:
        """Waits for an error; there is only one."""
        if not self.errors:
            await self.hear("error")
        [error] = self.errors
        return error

    async def end(self) -> dict[str, Any]:
        self.user.send("audio-stop")
        answer = await self.hear("transcript", "error")
        assert self.kinds[-1] == "transcript", answer
        await self.hear("transcript-stop")
        return answer


@dataclass
class Found:
    """A live stream as its client saw it."""

    text: str
    transcript: dict[str, Any]


def _idle(status: dict[str, Any]) -> bool:
    """Steps are not among the jobs, but keep their worker busy; none waits for one that is not."""
    return all(worker["state"] == "ready" for worker in status["workers"])


def live_text(
    daemon: Daemon, audio: bytes, kill_at: tuple[int, ...] = (), worker: str = "0", **options: Any
) -> Found:
    """Streams second by second, as fast as the daemon decodes; the worker is killed, in a step if
    there is one, when so many seconds have been sent (past the end: in the last job)."""
    text, seconds = "", 0
    with daemon.connect() as client:
        client.send("transcribe", {"live": True, "job_id": "a", **options})
        client.send("audio-start", START)
        for place in range(0, len(audio), 32_000):
            before = daemon.status()["live_steps"]
            client.send("audio-chunk", START, audio[place : place + 32_000])
            seconds += 1
            if seconds in kill_at:
                wait_for("a step", lambda before=before: daemon.status()["live_steps"] > before)
                daemon.kill(worker)
            wait_for("the end of the step", lambda: _idle(daemon.status()))
        client.send("audio-stop")
        if max(kill_at, default=0) > seconds:
            daemon.kill(worker)
        while (event := client.receive()) is not None and event.type != "transcript":
            assert event.type in ("transcript-start", "transcript-chunk", "accepted"), event.data
            text += event.data.get("text", "")
        assert event is not None
        if options.get("live", True) and options.get("final") != "exact":
            assert text == event.data["text"]
            client.expect("transcript-stop")
    return Found(event.data["text"], event.data)
