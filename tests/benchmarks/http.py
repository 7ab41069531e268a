"""Latency that HTTP adds to the daemon's socket, next to a plain ASGI application with the engine
in a thread, as speaches and faster-whisper-server are built.

    python -m tests.benchmarks.http [--model M] [--seconds S] [--starts N] [--lengths L ...]

All ways take turns with the same model, one thread, beam 1, English, temperature 0, and the same
WAV file. Over HTTP each sends the file as a form through a connection that stays open, and gets the
text. The servers are started N times; the table shows the median of the starts' medians, the
difference to the socket within each round, and the lowest and highest start.
"""

import argparse
import contextlib
import http.client
import io
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from asrd import Client
from tests.benchmarks import measure
from tests.support.http import FORM, field, file, form
from tests.support.raw import unix_socket
from tests.support.sounds import wav

_BASE, _SOCKET = "in process", "asrd, socket (bytes)"
_START_SECONDS = 60.0
# uvicorn closes a connection that was idle for 5 s, as while the others work on a slow machine.
_IDLE_SECONDS = 4.0
# The seconds that each way took, by its name.
Times = dict[str, list[float]]


def main() -> None:
    made = measure.parser(__doc__, 120, "tiny.en")
    made.add_argument("--lengths", type=float, nargs="*", default=[1, 5, 30])
    made.add_argument("--starts", type=int, default=3, help="default: %(default)s")
    made.add_argument("--plain", metavar="SOCKET", help=argparse.SUPPRESS)
    arguments = made.parse_args()
    measure.use_worker_environment()
    if arguments.plain:
        _serve_plainly(arguments.model, arguments.plain)
        return
    print(measure.machine())
    print(", ".join(f"{name} {measure.version(name)}" for name in ("starlette", "uvicorn")))
    base = arguments.model.library()
    share = arguments.seconds / arguments.starts / len(arguments.lengths)
    starts = []
    for _ in range(arguments.starts):
        with _servers(arguments.model) as servers:
            starts.append([servers.measure(length, share, base) for length in arguments.lengths])
    for length, *times in zip(arguments.lengths, *starts, strict=True):
        _report(length, times)


def _report(length: float, times: list[Times]) -> None:
    rows = []
    for name in times[0]:
        taken = statistics.median(measure.median_ms(start[name]) for start in times)
        added = [statistics.median(measure.differences(s[name], s[_SOCKET])) for s in times]
        shown = ["", ""]
        if name != _SOCKET:
            middle = statistics.median(added)
            shown = [f"{middle:+.2f}", f"{min(added):+.2f} … {max(added):+.2f}"]
        rows.append([name, f"{taken:.2f}", *shown])
    rounds = sum(len(start[_SOCKET]) for start in times)
    header = ["way", "p50 ms", "beside the socket, paired p50", "of each start"]
    measure.table(f"{length:g} s of audio, {rounds} rounds in {len(times)} starts", header, rows)


class _Servers:
    def __init__(self, model: measure.Model, client: Client, *paths: str) -> None:
        self._model, self._client = model, client
        names = ("asrd-http, Unix socket", "plain ASGI, engine in a thread")
        self._posts = {name: _Poster(path) for name, path in zip(names, paths, strict=True)}

    def measure(self, length: float, seconds: float, base: Callable[[Any], None]) -> Times:
        audio = self._model.speech(length)
        content = wav(measure.pcm(audio))
        ways: dict[str, Callable[[], object]] = {
            _BASE: lambda: base(io.BytesIO(content)),
            _SOCKET: partial(self._client.transcribe, content, **measure.ASKED),
            **{name: partial(post.ask, content) for name, post in self._posts.items()},
        }
        return measure.interleave(ways, seconds, warm=3, least=3)

    def close(self) -> None:
        for post in self._posts.values():
            post.close()


class _Poster:
    """A client of one server, over a connection that it keeps while the server does."""

    def __init__(self, path: str) -> None:
        self._connection = http.client.HTTPConnection("localhost")
        self._path, self._used_at = path, -_IDLE_SECONDS

    def ask(self, content: bytes) -> str:
        # In brackets, since a bare 0 lets other temperatures be tried, too.
        asked = {**measure.ASKED, "temperature": "[0.0]"}
        fields = [field(name, str(value)) for name, value in asked.items()]
        body = form(*fields, file(content))
        if time.monotonic() - self._used_at >= _IDLE_SECONDS:
            self._connection.close()
            self._connection.sock = unix_socket(self._path)
        self._connection.request("POST", "/v1/audio/transcriptions", body, {"content-type": FORM})
        answer = self._connection.getresponse().read()
        self._used_at = time.monotonic()
        text: str = json.loads(answer)["text"]
        return text

    def close(self) -> None:
        self._connection.close()


@contextmanager
def _servers(model: measure.Model) -> Iterator[_Servers]:
    with contextlib.ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        daemon = stack.enter_context(measure.daemon(model=model.path))
        (directory / "asrd.toml").write_text("[http]\ndrain_seconds = 0\n")
        ours, plain = str(directory / "http.sock"), str(directory / "plain.sock")
        own = ["asrd.http.main", "--config", str(directory / "asrd.toml")]
        stack.enter_context(_running(ours, *own, "--socket", daemon, "--listen", f"unix:{ours}"))
        names = ["tests.benchmarks.http", "--model", str(model.path), "--plain", plain]
        stack.enter_context(_running(plain, *names))
        client = stack.enter_context(Client(daemon))
        yield stack.enter_context(contextlib.closing(_Servers(model, client, ours, plain)))


@contextmanager
def _running(path: str, *arguments: str) -> Iterator[None]:
    process = subprocess.Popen([sys.executable, "-m", *arguments], stderr=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + _START_SECONDS
        while True:
            try:
                unix_socket(path).close()
                break
            except OSError:
                if time.monotonic() > deadline or process.poll() is not None:
                    raise
                time.sleep(0.05)
        yield
    finally:
        process.terminate()
        process.wait()


def _serve_plainly(model: measure.Model, path: str) -> None:
    """The published approach: starlette's form, whose file is spooled, and the engine in a thread
    of the server's own process."""
    import uvicorn
    from faster_whisper import WhisperModel
    from starlette.applications import Starlette
    from starlette.concurrency import run_in_threadpool
    from starlette.requests import Request
    from starlette.responses import JSONResponse
    from starlette.routing import Route

    engine = WhisperModel(
        str(model.path), device="cpu", cpu_threads=1, compute_type=measure.COMPUTE_TYPE
    )

    def transcribe(recording: Any) -> str:
        segments, _ = engine.transcribe(recording, beam_size=1, **measure.OPTIONS)
        return "".join(segment.text for segment in segments)

    async def endpoint(request: Request) -> JSONResponse:
        async with request.form() as found:
            upload: Any = found["file"]
            return JSONResponse({"text": await run_in_threadpool(transcribe, upload.file)})

    route = Route("/v1/audio/transcriptions", endpoint, methods=["POST"])
    uvicorn.run(Starlette(routes=[route]), uds=path, log_level="error", access_log=False)


if __name__ == "__main__":
    main()
