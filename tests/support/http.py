"""The program asrd-http as a process of its own, at a Unix socket and a port of the loopback, and
the official client for both."""

import http.client
import io
import json
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from email.message import Message
from pathlib import Path
from typing import Any, Self

import httpx2
import openai

from asrd.demo import SAMPLES
from tests.support.daemons import environment, started_with
from tests.support.raw import PATIENCE, SHORT, unix_socket, wait_for
from tests.support.subprocesses import LoggedProgram

BOUNDARY = b"a-boundary"


@dataclass
class Answer:
    status: int
    headers: Message
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def error(self) -> dict[str, Any]:
        found: dict[str, Any] = self.json["error"]
        return found


class HttpProgram(LoggedProgram):
    """asrd-http with both sockets passed as systemd would pass them. `settings` are lines of
    [http]."""

    def __init__(
        self, tmp: Path, daemon: str, settings: str = "", module: str = "asrd.http.main"
    ) -> None:
        self.tmp = tmp
        self.path = str(tmp / "http.sock")
        (tmp / "http.toml").write_text(f"[http]\nsocket = '{daemon}'\n{settings}\n")
        unix = socket.socket(socket.AF_UNIX)
        unix.bind(self.path)
        tcp = socket.create_server(("127.0.0.1", 0))
        self.port: int = tcp.getsockname()[1]
        with unix, tcp:
            unix.listen(64)
            numbers = [unix.fileno(), tcp.fileno()]
            command = [*started_with(numbers), "-m", module, "--config", str(tmp / "http.toml")]
            super().__init__(command, tmp / "http-log", env=environment(tmp), pass_fds=numbers)

    def connect(self) -> socket.socket:
        return unix_socket(self.path)

    def connect_tcp(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.port), PATIENCE)

    def get(self, path: str, method: str = "GET", body: bytes = b"", **headers: str) -> Answer:
        """One request over the Unix socket; `_` in the names of headers stands for `-`."""
        return ask(self.connect(), path, method, body, **headers)

    def get_tcp(self, path: str, method: str = "GET", body: bytes = b"", **headers: str) -> Answer:
        return ask(self.connect_tcp(), path, method, body, **headers)

    def post(self, *parts: bytes, path: str = "/v1/audio/transcriptions", **more: str) -> Answer:
        return self.get(path, "POST", form(*parts), content_type=FORM, **more)

    def __enter__(self) -> Self:
        # The sockets listen already: the answer comes when the program is there.
        assert self.get("/nowhere").status in (401, 404), self.log
        return self

    def __exit__(self, *_: object) -> None:
        super().__exit__()
        for word in ("ResourceWarning", "Traceback", "never retrieved"):
            assert word not in self.log, self.log


def read(sock: socket.socket) -> bytes:
    """All that comes until the connection ends."""
    sock.settimeout(PATIENCE)
    found = b""
    with suppress(ConnectionResetError):
        while data := sock.recv(1 << 16):
            found += data
    return found


def parsed(answer: bytes) -> Answer:
    """An answer that came with `read`."""
    start, _, rest = answer.partition(b"\r\n")
    with io.BytesIO(rest) as file:
        headers = http.client.parse_headers(file)
        return Answer(int(start.split()[1]), headers, file.read())


def ask(sock: socket.socket, path: str, method: str, body: bytes, **headers: str) -> Answer:
    connection = http.client.HTTPConnection("localhost", timeout=PATIENCE)
    connection.sock = sock
    names = {name.replace("_", "-"): value for name, value in headers.items()}
    try:
        connection.request(method, path, body or None, names)
        found = connection.getresponse()
        return Answer(found.status, found.headers, found.read())
    finally:
        connection.close()


FORM = f"multipart/form-data; boundary={BOUNDARY.decode()}"


def field(name: str, value: str | bytes) -> bytes:
    text = value.encode() if isinstance(value, str) else value
    return b'Content-Disposition: form-data; name="%b"\r\n\r\n%b' % (name.encode(), text)


def file(content: bytes = b"audio", name: str = "file") -> bytes:
    head = f'Content-Disposition: form-data; name="{name}"; filename="a.wav"\r\n\r\n'
    return head.encode() + content


def head(length: int | None, *more: str, version: str = "1.1") -> bytes:
    """The head of a request for a transcript, with None of a chunked one; `more` are lines."""
    size = "Transfer-Encoding: chunked" if length is None else f"Content-Length: {length}"
    lines = [f"POST /v1/audio/transcriptions HTTP/{version}", "Host: localhost"]
    return "\r\n".join([*lines, f"Content-Type: {FORM}", size, *more, "", ""]).encode()


def whole(*parts: bytes, version: str = "1.1") -> bytes:
    """A request for a transcript as its bytes."""
    body = form(*parts)
    return head(len(body), version=version) + body


def form(*parts: bytes) -> bytes:
    return b"".join(b"--%b\r\n%b\r\n" % (BOUNDARY, p) for p in parts) + b"--%b--\r\n" % BOUNDARY


def sample(name: str = SHORT) -> bytes:
    return (SAMPLES / name).read_bytes()


@contextmanager
def official(
    program: HttpProgram, *, tcp: bool = False, key: str = "unused", retries: int = 0
) -> Iterator[openai.OpenAI]:
    """The official client, over the Unix socket or over TCP."""
    transport = httpx2.HTTPTransport() if tcp else httpx2.HTTPTransport(uds=program.path)
    where = f"127.0.0.1:{program.port}" if tcp else "asrd"
    with (
        httpx2.Client(transport=transport, timeout=PATIENCE) as http_client,
        openai.OpenAI(
            base_url=f"http://{where}/v1",
            api_key=key,
            http_client=http_client,
            max_retries=retries,
        ) as client,
    ):
        yield client


def wait_until_ready(program: HttpProgram) -> None:
    wait_for("asrd-http to be ready", lambda: program.get("/readyz").status == 200)


@contextmanager
def serving(directory: Path, daemon: str, *settings: str) -> Iterator[HttpProgram]:
    """asrd-http in front of a real daemon, once it would serve a request."""
    with HttpProgram(directory, daemon, "\n".join(["drain_seconds = 0", *settings])) as program:
        wait_until_ready(program)
        yield program
