"""The program: its flags, keys, time limits, and its end."""

import resource
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import openai
import pytest

from asrd.http.main import _allow_descriptors, build_parser, main
from asrd.http.service import descriptors
from asrd.settings import HttpSettings
from tests.support.daemons import descriptors as open_descriptors
from tests.support.daemons import environment
from tests.support.fake_daemon import READY, FakeDaemon, answer
from tests.support.http import (
    FORM,
    HttpProgram,
    ask,
    field,
    file,
    form,
    head,
    official,
    parsed,
    read,
    whole,
)
from tests.support.raw import PATIENCE, unix_socket, wait_for


def run(tmp: Path, *arguments: str, settings: str = "") -> subprocess.CompletedProcess[str]:
    (tmp / "http.toml").write_text(settings)
    return subprocess.run(
        [sys.executable, "-m", "asrd.http.main", "--config", str(tmp / "http.toml"), *arguments],
        env=environment(tmp),
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )


@pytest.mark.parametrize(
    ("arguments", "settings", "problem"),
    [
        (["--listen", "8000"], "", "must be unix:PATH, HOST:PORT"),
        (["--listen", "localhost:99999"], "", "must be unix:PATH, HOST:PORT"),
        (["--listen", "192.0.2.1:8000"], "", "cannot listen at 192.0.2.1:8000"),
        (["--listen", "unix:/nowhere/http.sock"], "", "cannot listen at /nowhere/http.sock"),
        ([], "[http]\napi_keys = '/nowhere/keys'", "http.api_keys: /nowhere/keys: cannot be read"),
        ([], "[http]\nkeys = 1", "unknown key 'keys'"),
    ],
)
def test_wrong_settings_end_it_with_their_name(
    tmp_path: Path, arguments: list[str], settings: str, problem: str
) -> None:
    done = run(tmp_path, *arguments, settings=settings)
    assert done.returncode == 78
    assert done.stderr.startswith("asrd-http: ") and problem in done.stderr


def test_missing_libraries_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "starlette.applications", None)
    monkeypatch.delitem(sys.modules, "asrd.http.app", raising=False)
    monkeypatch.setenv("ASRD_CONFIG", str(tmp_path / "none.toml"))
    assert main([]) == 78
    assert "pip install 'asrd[http]'" in capsys.readouterr().err


def test_too_few_descriptors_are_said(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda kind: (1024, 1024))
    monkeypatch.setattr(resource, "setrlimit", lambda kind, limits: None)
    _allow_descriptors(1024)
    assert not caplog.records
    _allow_descriptors(descriptors(HttpSettings()))
    assert "at most 1024 descriptors can be open" in caplog.text


def test_help_has_every_option() -> None:
    assert "--socket PATH" in build_parser().format_help()


@pytest.mark.parametrize("where", ["unix", "tcp"])
def test_it_listens_where_it_is_told(tmp_path: Path, where: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    path = tmp_path / "own.sock"
    listen = f"unix:{path}" if where == "unix" else f"127.0.0.1:{port}"
    (tmp_path / "http.toml").write_text("[http]\ndrain_seconds = 0")
    with FakeDaemon(tmp_path / "asrd.sock", others=READY) as daemon:
        process = subprocess.Popen(
            [
                *(sys.executable, "-m", "asrd.http.main", "--socket", daemon.path),
                *("--listen", listen, "--config", str(tmp_path / "http.toml")),
            ],
            env=environment(tmp_path),
            stderr=subprocess.PIPE,
        )

        def connect() -> socket.socket:
            if where == "tcp":
                return socket.create_connection(("127.0.0.1", port))
            return unix_socket(str(path))

        def ready() -> bool:
            try:
                return ask(connect(), "/readyz", "GET", b"").status == 200
            except OSError:
                return False

        try:
            wait_for("asrd-http to answer", ready)
            assert where == "tcp" or path.stat().st_mode & 0o777 == 0o660
        finally:
            process.terminate()
            _, log = process.communicate(timeout=PATIENCE)
    assert process.returncode == 0
    assert not path.exists()
    assert (b"everybody who can connect may transcribe" in log) is (where == "tcp")


# --- keys -----------------------------------------------------------------------------------------

KEY, NEW = "sk-0123456789abcdef", "sk-fedcba9876543210"


@pytest.fixture(scope="module")
def with_keys(tmp_path_factory: pytest.TempPathFactory) -> Iterator[HttpProgram]:
    tmp = tmp_path_factory.mktemp("h")
    keys = tmp / "keys"
    keys.write_text(f"alice {KEY}\n")
    keys.chmod(0o600)
    settings = f"api_keys = '{keys}'\ndrain_seconds = 0\nhosts = ['asr.example']"
    with HttpProgram(tmp, str(tmp / "asrd.sock"), settings) as program:
        yield program


@pytest.mark.parametrize("tcp", [False, True])
def test_key_is_the_user_of_the_job(with_keys: HttpProgram, tcp: bool) -> None:
    with FakeDaemon(with_keys.tmp / "asrd.sock", [answer("yes")]) as fake:
        with official(with_keys, tcp=tcp, key=KEY) as client:
            client.audio.transcriptions.create(model="whisper-1", file=b"a")
        assert fake.jobs[0].data["user"] == "alice"


def test_wrong_key_is_refused_before_the_upload(with_keys: HttpProgram) -> None:
    with official(with_keys, key="sk-wrong") as client:
        with pytest.raises(openai.AuthenticationError) as caught:
            client.audio.transcriptions.create(model="whisper-1", file=b"a")
    assert caught.value.code == "invalid_api_key"
    assert caught.value.response.headers["www-authenticate"] == "Bearer"


def test_only_the_page_and_health_need_no_key(with_keys: HttpProgram) -> None:
    with FakeDaemon(with_keys.tmp / "asrd.sock", others=READY):
        for path in ("/", "/healthz", "/readyz"):
            assert with_keys.get(path).status == 200
        for path in ("/status", "/metrics", "/v1/models", "/nowhere"):
            assert with_keys.get(path).status == 401
            assert with_keys.get(path, authorization=f"bearer {KEY}").status in (200, 404)


def test_new_key_is_valid_without_a_restart(with_keys: HttpProgram) -> None:
    keys = with_keys.tmp / "keys"
    before = keys.read_text()
    assert with_keys.get("/nowhere", authorization=f"Bearer {NEW}").status == 401
    keys.write_text(f"{before}bob {NEW}\n")
    try:
        wait_for(
            "the new key",
            lambda: with_keys.get("/nowhere", authorization=f"Bearer {NEW}").status == 404,
        )
        assert with_keys.get("/nowhere", authorization=f"Bearer {KEY}").status == 404
    finally:
        keys.write_text(before)
    wait_for(
        "the end of the key",
        lambda: with_keys.get("/nowhere", authorization=f"Bearer {NEW}").status == 401,
    )


def test_strangers_are_in_the_log_and_in_the_metrics(tmp_path: Path) -> None:
    with (
        FakeDaemon(tmp_path / "asrd.sock", others=READY) as fake,
        HttpProgram(tmp_path, fake.path, "drain_seconds = 0") as program,
    ):
        for _ in range(3):
            assert program.get_tcp("/v1/models", host="evil.example").status == 403
        assert b'asrd_http_responses_total{code="403"} 3\n' in program.get("/metrics").body
        assert "answered 403 to address 127.0.0.1: GET /v1/models" in program.log


def test_name_of_the_settings_is_a_name_of_the_host(with_keys: HttpProgram) -> None:
    assert with_keys.get_tcp("/", host="ASR.example:8000").status == 200
    assert with_keys.get_tcp("/", host="evil.example").status == 403


# --- time limits ----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def impatient(tmp_path_factory: pytest.TempPathFactory) -> Iterator[HttpProgram]:
    tmp = tmp_path_factory.mktemp("h")
    program = HttpProgram(
        tmp, str(tmp / "asrd.sock"), "drain_seconds = 0", module="tests.support.impatient"
    )
    with program:
        yield program


def test_upload_that_stops_is_given_up(impatient: HttpProgram) -> None:
    with impatient.connect() as sock:
        sock.sendall(head(1000))
        sock.sendall(form(file())[:50])
        assert sock.recv(12) == b"HTTP/1.1 408"


def test_upload_has_a_time_in_all(tmp_path: Path) -> None:
    settings = "drain_seconds = 0\nupload_max_seconds = 0.2"
    with HttpProgram(tmp_path, str(tmp_path / "asrd.sock"), settings) as program:
        with program.connect() as sock:
            sock.sendall(head(1000, "Connection: close") + form(file())[:50])
            found = parsed(read(sock))
    assert (found.status, found.error["message"]) == (408, "the upload took more than 0.2 s")
    assert found.headers["x-should-retry"] == "false"


@pytest.mark.parametrize("start", [b"", b"GET /healthz HTT", b"GET /healthz HTTP/1.1\r\nA: "])
def test_connection_without_a_request_is_closed(impatient: HttpProgram, start: bytes) -> None:
    with impatient.connect() as sock:
        sock.sendall(start)
        assert sock.recv(100) == b""


def test_rest_of_a_refused_upload_has_no_time_without_end(impatient: HttpProgram) -> None:
    with impatient.connect() as sock:
        sock.sendall(
            f"POST /v1/audio/transcriptions HTTP/1.1\r\nHost: a\r\nContent-Type: {FORM}\r\n"
            f"Content-Length: {1 << 50}\r\n\r\n".encode()
        )
        assert sock.recv(4096).startswith(b"HTTP/1.1 413")
        with pytest.raises(OSError):
            while True:
                sock.sendall(bytes(1 << 16))


def test_client_that_does_not_read_is_cut_off(impatient: HttpProgram) -> None:
    words = ["word " * 2000] * 500
    before = open_descriptors(impatient.process.pid)
    with FakeDaemon(impatient.tmp / "asrd.sock", [answer(*words)]) as fake:
        with impatient.connect() as sock:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            sock.sendall(whole(file(), field("stream", "true")))
            fake.wait_for_hang_up()
            wait_for("the log entry", lambda: "does not read its answer" in impatient.log)
            wait_for("no descriptor", lambda: open_descriptors(impatient.process.pid) <= before)


def test_answer_that_is_not_read_is_dropped(impatient: HttpProgram) -> None:
    before = open_descriptors(impatient.process.pid)
    with FakeDaemon(impatient.tmp / "asrd.sock", [answer("word " * 1_000_000)]):
        with impatient.connect() as sock:
            sock.sendall(whole(file()))
            wait_for("the answer", lambda: "answered 200" in impatient.log)
            wait_for("no descriptor", lambda: open_descriptors(impatient.process.pid) <= before)


def test_slow_reader_does_not_hold_up_the_end(tmp_path: Path) -> None:
    settings = "drain_seconds = 0\nstop_seconds = 0.1"
    words = "word " * 1_000_000
    with (
        FakeDaemon(tmp_path / "asrd.sock", [answer(words)]) as fake,
        HttpProgram(tmp_path, fake.path, settings, module="tests.support.impatient") as program,
        program.connect() as sock,
    ):
        sock.sendall(whole(file()))
        wait_for("the answer", lambda: "answered 200" in program.log)
        program.terminate()
        found = 0
        while data := sock.recv(1 << 15):
            found += len(data)
            # Fast enough for a client that has its time.
            time.sleep(0.03)
        assert program.process.wait(PATIENCE) == 0
    assert found < len(words)
