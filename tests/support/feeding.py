"""A decoder that tests feed, and a check that each descriptor and sink has one owner."""

from asrd.errors import ProtocolError
from asrd.wire import frames


class Fd:
    """A descriptor that counts how often it was closed."""

    def __init__(self) -> None:
        self.closed = 0

    def close(self) -> None:
        self.closed += 1


class BytesSink:
    """A sink that keeps the payload, and counts how often it was closed."""

    def __init__(self) -> None:
        self.data = bytearray()
        self.closed = 0

    def write(self, data: memoryview) -> None:
        self.data += data

    def close(self) -> None:
        self.closed += 1


class Feed:
    """A decoder under test; `close` checks that each descriptor and sink has exactly one owner."""

    def __init__(self, limits: frames.FrameLimits | None = None) -> None:
        self.decoder = frames.Decoder(limits or frames.FrameLimits(payload=1 << 20), self._open)
        self.events: list[frames.Frame] = []
        self.error: ProtocolError | None = None
        self._fds: list[Fd] = []
        self._sinks: list[BytesSink] = []

    def _open(self, event: frames.Frame) -> frames.Sink:
        self._sinks.append(BytesSink())
        return self._sinks[-1]

    def receive(self, data: bytes | memoryview, fds: int = 0) -> None:
        """One read, and all events that it completes."""
        came = [Fd() for _ in range(fds)]
        self._fds += came
        self.decoder.receive(data, came)
        self._take()

    def receive_eof(self) -> None:
        self.decoder.receive_eof()
        self._take()

    def _take(self) -> None:
        try:
            while (event := self.decoder.next_frame()) is not None:
                self.events.append(event)
        except ProtocolError as error:
            self.error = self.error or error
            assert error is self.error

    def close(self) -> None:
        self.decoder.close()
        taken = [fd for event in self.events for fd in event.fds]
        payloads = [event.payload for event in self.events]
        assert len(taken) == len({id(fd) for fd in taken}), "handed out twice"
        for fd in self._fds:
            assert fd.closed == (not any(fd is one for one in taken))
        for sink in self._sinks:
            assert sink.closed == (not any(sink is one for one in payloads))


def payload_of(event: frames.Frame) -> bytes:
    if event.payload is None:
        return b""
    assert isinstance(event.payload, BytesSink)
    return bytes(event.payload.data)
