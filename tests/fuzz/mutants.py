"""Almost valid messages, as bytes and descriptors, from a seeded random."""

import json
import os
import random
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

from asrd.wire import fdsocket, frames
from tests.fuzz.almost import Maker, Source, anything, record
from tests.support.raw import memfd

# The share of messages that are wrong at each layer. Most must pass the codec: otherwise the code
# behind it is never tested.
_HEADER_WRONG = 0.08
_DATA_WRONG = 0.05
_BYTES_WRONG = 0.05
_CUT_SHORT = 0.02
_UNKNOWN_TYPE = 0.05
_AUDIO_WRONG = 0.1


def source_of(chance: random.Random, size: int = 256) -> Source:
    """A source whose bytes are mostly zero, so that mostly valid values are made of it."""
    share = chance.choice((0, 0.02, 0.1, 1))
    return Source(bytes(b if chance.random() < share else 0 for b in chance.randbytes(size)))


class Message:
    """A message; the caller must close it."""

    def __init__(self, raw: bytes, fds: list[int]) -> None:
        self.raw = raw
        self.fds = fds

    def send(self, sock: socket.socket, chance: random.Random) -> None:
        """Sends it whole or in two pieces, the descriptors with the first. Raises OSError."""
        cut = chance.choice((len(self.raw), chance.randint(1, len(self.raw))))
        sent = fdsocket.send(sock, [self.raw[:cut]], self.fds)
        sock.sendall(self.raw[sent:])

    def close(self) -> None:
        for fd in self.fds:
            os.close(fd)


class Mutants:
    """Messages of one side; `touch` may make an event's data more plausible."""

    def __init__(
        self,
        chance: random.Random,
        classes: dict[type, float],
        with_audio: type | None,
        with_payload: bool,
        audio: bytes,
        home: Path,
        touch: Callable[[type, dict[str, Any]], None] = lambda cls, data: None,
    ) -> None:
        """`classes` have weights. Events of `with_audio` have a descriptor, or bytes if
        `with_payload` is set, as all others may have then; some have audio that they must not."""
        self._chance = chance
        self._classes = classes
        self._makers: dict[type, Maker] = {cls: record(cls) for cls in classes}
        self._with_audio = with_audio
        self._with_payload = with_payload
        self._audio = audio
        self._home = home
        self._touch = touch

    def message(self) -> Message:
        chance = self._chance
        cls = chance.choices([*self._classes], [*self._classes.values()])[0]
        data = self._makers[cls](source_of(chance))
        self._touch(cls, data)
        payload, fds = self._audio_of(cls)
        kind = cls.TYPE if chance.random() > _UNKNOWN_TYPE else "x" * chance.randint(0, 70)  # type: ignore[attr-defined]
        raw = self._frame(kind, data, payload, len(fds))
        return Message(raw, fds)

    def _audio_of(self, cls: type) -> tuple[bytes, list[int]]:
        chance = self._chance
        payload = self._audio[: chance.choice((0, 1, 2, 1000, len(self._audio)))]
        if chance.random() < _AUDIO_WRONG:
            return payload, [self._descriptor() for _ in range(chance.randint(0, 6))]
        if cls is self._with_audio and chance.random() < (0.5 if self._with_payload else 0.95):
            return b"", [self._descriptor()]
        return (payload if self._with_payload else b""), []

    def _descriptor(self) -> int:
        return self._chance.choice(_DESCRIPTORS)(self._audio, self._home)

    def _frame(self, kind: str, data: dict[str, Any], payload: bytes, fds: int) -> bytes:
        chance = self._chance
        body = json.dumps(data, ensure_ascii=chance.random() < 0.5).encode("utf-8", "replace")
        if chance.random() < _DATA_WRONG:
            body = chance.choice(_SPOILERS)(body)
        header: dict[str, Any] = {
            "type": kind,
            "data_length": len(body),
            "payload_length": len(payload),
            "fds": fds,
        }
        if chance.random() < _HEADER_WRONG:
            key = chance.choice([*header, "data"])
            near = [value + 1 for value in (header.get(key),) if isinstance(value, int)]
            header[key] = chance.choice([*near, anything(source_of(chance))])
        raw = json.dumps(header).encode() + b"\n" + body + payload
        if chance.random() < _BYTES_WRONG:
            raw = self._damaged(raw)
        return raw[: chance.randint(1, len(raw))] if chance.random() < _CUT_SHORT else raw

    def _damaged(self, raw: bytes) -> bytes:
        start = self._chance.randrange(len(raw))
        end = min(len(raw), start + self._chance.randint(1, 9))
        middle = self._chance.choice(
            (b"", self._chance.randbytes(end - start), 2 * raw[start:end], b"\n", b" " * 20_000)
        )
        return raw[:start] + middle + raw[end:] or b"\n"


_SPOILERS: tuple[Callable[[bytes], bytes], ...] = (
    lambda body: body[:-1],
    lambda body: body + b" ",
    lambda body: body[:-1] + b', "text": NaN}',
    lambda body: body[:-1] + b', "job_id": "a", "job_id": "b"}',
    lambda body: b'{"deep": ' + b"[" * 5000 + b"]" * 5000 + b"}",
    lambda body: b"[" + body + b"]",
    lambda body: body.replace(b'"', b"\xff", 1),
    lambda body: b'{"text": "' + b"x" * frames.MAX_DATA + b'"}',
)


def _memfd(data: bytes, home: Path) -> int:
    return memfd(data).take()


def _write_only(data: bytes, home: Path) -> int:
    return os.open(home / "written", os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)


def _pipe(data: bytes, home: Path) -> int:
    end, other = os.pipe()
    os.close(other)
    return end


def _socket(data: bytes, home: Path) -> int:
    with socket.socket(socket.AF_UNIX) as sock:
        return os.dup(sock.fileno())


_DESCRIPTORS: tuple[Callable[[bytes, Path], int], ...] = (
    *(_memfd,) * 6,
    lambda audio, home: _memfd(b"", home),
    lambda audio, home: _memfd(audio[:1001], home),
    lambda audio, home: os.open(home, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC),
    lambda audio, home: os.open("/dev/zero", os.O_RDONLY | os.O_CLOEXEC),
    lambda audio, home: os.open(home, os.O_PATH | os.O_CLOEXEC),
    lambda audio, home: os.eventfd(1, os.EFD_CLOEXEC),
    _write_only,
    _pipe,
    _socket,
)
