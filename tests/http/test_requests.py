"""Requests that are wrong, large, slow or given up, and questions about the state."""

from pathlib import Path
from typing import Any

import openai
import pytest

from asrd.prometheus import OPENMETRICS_TYPE, TEXT_TYPE
from tests.support.daemons import descriptors
from tests.support.fake_daemon import READY, STATUS, FakeDaemon, answer, never
from tests.support.http import (
    BOUNDARY,
    FORM,
    HttpProgram,
    field,
    file,
    form,
    head,
    official,
    whole,
)
from tests.support.raw import wait_for
from tests.support.turns_of_speakers import CONVERSATION

MIB = 1 << 20


@pytest.fixture
def fake(daemon: Path) -> Any:
    with FakeDaemon(daemon, [answer("yes")]) as running:
        yield running


@pytest.mark.parametrize("path", ["/v1/audio/transcriptions", "/audio/transcriptions"])
def test_recording_and_options_arrive_at_the_daemon(
    program: HttpProgram, fake: FakeDaemon, path: str
) -> None:
    parts = field("beam_size", "3"), file(b"a\r\n--b" * 50_000), field("language", "en-GB")
    assert program.post(*parts, path=path).json["text"] == "yes"
    (job,) = fake.jobs
    assert job.audio == b"a\r\n--b" * 50_000
    assert job.data["audio"]["encoding"] == "file"
    assert (job.data["beam_size"], job.data["language"]) == (3, "en-GB")


@pytest.mark.parametrize("path", ["/v1/audio/translations", "/audio/translations"])
def test_translation(program: HttpProgram, fake: FakeDaemon, path: str) -> None:
    assert program.post(file(), path=path).status == 200
    assert fake.jobs[0].data["task"] == "translate"


def test_user_of_the_socket_is_the_user_of_the_job(program: HttpProgram, fake: FakeDaemon) -> None:
    program.post(file())
    form_ = form(file())
    program.get_tcp("/v1/audio/transcriptions", "POST", form_, content_type=FORM)
    users = [job.data["user"] for job in fake.jobs]
    assert users[0].startswith("uid:") and users[1] == "address:127.0.0.1"


def test_trace_is_passed_on_and_comes_back(program: HttpProgram, fake: FakeDaemon) -> None:
    trace = "4bf92f3577b34da6a3ce929d0e0e4736"
    found = program.post(file(), traceparent=f"00-{trace}-00f067aa0ba902b7-01")
    assert fake.jobs[0].data["trace_id"] == trace
    assert found.headers["traceparent"].startswith(f"00-{trace}-")
    assert found.headers["x-request-id"] == fake.jobs[0].data["job_id"]
    assert f"trace_id={trace}" in program.log


def test_unknown_fields_are_named_in_a_header(program: HttpProgram, fake: FakeDaemon) -> None:
    found = program.post(file(), field("seed", "1"), field("zügig\n", "2"))
    assert found.status == 200
    assert found.headers["x-ignored-fields"] == "seed, z\\xfcgig\\n"


@pytest.mark.parametrize("stream", [False, True])
def test_speakers_come_from_a_job_of_their_own(
    program: HttpProgram, daemon: Path, stream: bool
) -> None:
    with FakeDaemon(daemon, CONVERSATION) as fake, official(program) as client:
        create: Any = client.audio.transcriptions.create
        audio = ("a.wav", b"speech")
        options = {"response_format": "diarized_json", "extra_body": {"num_speakers": 2}}
        found = create(model="whisper-1", file=audio, stream=stream, **options)
        events = [e for e in found if e.type.endswith("segment")] if stream else found.segments
    assert [(each.speaker, each.text) for each in events] == [("A", " one two"), ("B", " three")]
    search, words = fake.jobs
    assert search.audio == words.audio == b"speech"
    assert (search.data["task"], search.data["num_speakers"]) == ("speakers", 2)
    assert (words.data["word_timestamps"], "num_speakers" in words.data) == (True, False)
    assert search.data["user"] == words.data["user"]


# --- broken bodies --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("parts", "status", "param", "problem"),
    [
        ([], 400, "file", "file: is missing"),
        ([field("model", "whisper-1")], 400, "file", "file: is missing"),
        ([file(name="audio")], 400, "file", "file: is missing"),
        ([file(), file()], 400, "file", "given twice"),
        ([file(), field("prompt", "p" * 65_537)], 400, "prompt", "longer than"),
        ([file(), *[field(f"f{i}", "x" * 60_000) for i in range(6)]], 400, "f4", "all fields"),
        ([field("x", "1")] * 300, 400, None, "more than 256 parts"),
        ([file(), field("prompt", b"\xff")], 400, "prompt", "not UTF-8"),
        ([b"Content-Type: text/plain\r\n\r\nx"], 400, None, "has no name"),
        ([b"X: " + b"y" * 10_000 + b"\r\n\r\nx"], 400, None, "multipart: "),
        ([file(), field("beam_size", "0")], 400, "beam_size", "between 1 and 32"),
        ([file(), field("vad_parameters[threshold]", "2")], 400, "vad_parameters[threshold]", ""),
        ([file(bytes(MIB + 1))], 413, "file", "larger than 1048576 bytes"),
    ],
)
def test_wrong_form_is_refused_with_its_field(
    program: HttpProgram,
    fake: FakeDaemon,
    parts: list[bytes],
    status: int,
    param: str | None,
    problem: str,
) -> None:
    found = program.post(*parts)
    assert (found.status, found.error["param"]) == (status, param)
    assert problem in found.error["message"]
    assert found.error["type"] == "invalid_request_error"
    assert not fake.jobs


@pytest.mark.parametrize(
    ("kind", "body", "problem"),
    [
        ("application/json", b"{}", "must be multipart/form-data"),
        ("multipart/form-data", form(file()), "with a boundary"),
        (f"multipart/form-data; boundary={'b' * 300}", form(file()), "Boundary"),
        (FORM, b"nonsense", "multipart: "),
        (FORM, form(file())[:-10], "ends before its last boundary"),
        (FORM, b"", "ends before its last boundary"),
    ],
)
def test_body_that_is_no_form_is_refused(
    program: HttpProgram, fake: FakeDaemon, kind: str, body: bytes, problem: str
) -> None:
    found = program.get("/v1/audio/transcriptions", "POST", body, content_type=kind)
    assert found.status == 400 and problem in found.error["message"]
    assert not fake.jobs


def test_too_long_upload_is_refused_before_it_is_sent(program: HttpProgram) -> None:
    with program.connect() as sock:
        sock.sendall(head(1 << 40))
        assert sock.recv(100).startswith(b"HTTP/1.1 413 ")


def test_body_that_is_shorter_than_promised_starts_no_job(
    program: HttpProgram, fake: FakeDaemon
) -> None:
    before = descriptors(program.process.pid)
    with program.connect() as sock:
        sock.sendall(head(10_000) + form(file())[:-10])
    wait_for("the upload to be dropped", lambda: descriptors(program.process.pid) <= before)
    assert not fake.jobs


def test_upload_of_unknown_length(program: HttpProgram, fake: FakeDaemon) -> None:
    body = form(file(b"abc" * 10_000))
    with program.connect() as sock:
        sock.sendall(head(None))
        for start in range(0, len(body), 999):
            piece = body[start : start + 999]
            sock.sendall(b"%x\r\n%b\r\n" % (len(piece), piece))
        sock.sendall(b"0\r\n\r\n")
        assert sock.recv(12) == b"HTTP/1.1 200"
    assert fake.jobs[0].audio == b"abc" * 10_000


def test_client_that_waits_for_permission_is_refused_before_it_sends(
    program: HttpProgram, fake: FakeDaemon
) -> None:
    expecting = "Expect: 100-continue"
    with program.connect() as sock:
        sock.sendall(head(1 << 40, expecting))
        assert sock.recv(12) == b"HTTP/1.1 413"
    body = form(file())
    with program.connect() as sock:
        sock.sendall(head(len(body), expecting))
        assert sock.recv(100).startswith(b"HTTP/1.1 100")
        sock.sendall(body)
        assert sock.recv(100).startswith(b"HTTP/1.1 200")


def test_memory_for_all_uploads_is_bounded_and_comes_back(
    program: HttpProgram, fake: FakeDaemon
) -> None:
    start = b"--%b\r\n%b" % (BOUNDARY, file(bytes(1_000_000)))
    waiting = [program.connect() for _ in range(2)]
    for sock in waiting:
        # More follows, and never comes.
        sock.sendall(head(len(start) + 1000) + start)
    wait_for("the third to be refused", lambda: program.post(file(bytes(200_000))).status >= 429)
    refused = program.post(file(bytes(200_000)))
    # One user may have half of the memory, and at least one upload of the largest size.
    assert refused.status in (429, 503) and refused.headers["retry-after-ms"] == "1000"
    for sock in waiting:
        sock.close()
    wait_for("the memory to be free", lambda: program.post(file(bytes(MIB))).status == 200)


# --- clients that leave ---------------------------------------------------------------------------


@pytest.mark.parametrize("stream", ["false", "true"])
def test_client_that_hangs_up_cancels_its_job(
    program: HttpProgram, daemon: Path, stream: str
) -> None:
    with FakeDaemon(daemon, [never]) as fake:
        with program.connect() as sock:
            sock.sendall(whole(file(), field("stream", stream)))
            fake.wait_for("transcribe")
        fake.wait_for_hang_up()
    wait_for("the log entry", lambda: "the client hung up" in program.log)


def test_uploads_that_are_given_up_do_not_fill_the_log(tmp_path: Path) -> None:
    with HttpProgram(tmp_path, str(tmp_path / "asrd.sock"), "drain_seconds = 0") as program:
        before = descriptors(program.process.pid)
        for _ in range(30):
            with program.connect() as sock:
                sock.sendall(head(10_000) + form(file())[:-10])
        # All of them were accepted.
        assert program.get("/nowhere").status == 404
        wait_for("the end of all", lambda: descriptors(program.process.pid) <= before)
        wait_for("a log entry", lambda: "the client hung up" in program.log)
        # Ten in a minute, and a minute may begin meanwhile.
        assert program.log.count("the client hung up") <= 20


def test_client_that_times_out_cancels_its_job(program: HttpProgram, daemon: Path) -> None:
    with FakeDaemon(daemon, [never]) as fake, official(program) as client:
        with pytest.raises(openai.APITimeoutError):
            client.audio.transcriptions.create(model="whisper-1", file=b"a", timeout=0.2)
        fake.wait_for_hang_up()


# --- models and state -----------------------------------------------------------------------------


def test_models_are_those_of_the_workers_and_their_other_names(
    program: HttpProgram, fake: FakeDaemon
) -> None:
    with official(program) as client:
        names = [model.id for model in client.models.list()]
        assert names[:2] == ["demo", "whisper-1"]
        model = client.models.retrieve("whisper-1")
        assert (model.object, model.owned_by) == ("model", "asrd")
        with pytest.raises(openai.NotFoundError) as caught:
            client.models.retrieve("Systran/faster-whisper-base")
    assert caught.value.code == "model_not_found"
    assert program.get("/models").status == 200


@pytest.mark.parametrize(
    ("status", "code", "text"),
    [
        ({"workers": [{"name": "0", "state": "ready"}], "queue": {"max": 1}}, 200, "ready"),
        ({"workers": [{"name": "0", "state": "asleep"}], "queue": {"max": 1}}, 200, "ready"),
        ({"workers": [{"name": "0", "state": "loading"}]}, 503, "no worker is ready"),
        (
            {"workers": [{"name": "0", "state": "ready", "speakers": True}]},
            503,
            "no worker is ready",
        ),
        (
            {"workers": [{"name": "0", "state": "busy"}], "queue": {"depth": 1, "max": 1}},
            503,
            "the queue is full",
        ),
    ],
)
def test_readiness(
    program: HttpProgram, daemon: Path, status: dict[str, Any], code: int, text: str
) -> None:
    others: Any = {"status": lambda peer, data: peer.send("status", **{**STATUS, **status})}
    with FakeDaemon(daemon, others=others):
        found = program.get("/readyz")
        assert (found.status, found.body.decode().strip()) == (code, text)
        assert program.get("/healthz").status == 200


def test_full_memory_for_uploads_is_not_ready(program: HttpProgram, daemon: Path) -> None:
    """A load balancer would send more, and nothing but refusals would come back."""
    start = b"--%b\r\n%b" % (BOUNDARY, file(bytes(1_000_000)))
    with FakeDaemon(daemon, others=READY):
        assert program.get("/readyz").status == 200
        with program.connect() as one, program.connect_tcp() as two:
            for sock in (one, two):
                sock.sendall(head(len(start) + 1000) + start)
            wait_for("it to be unready", lambda: program.get("/readyz").status == 503)
            assert program.get("/readyz").body == b"the memory for recordings is full\n"
        wait_for("it to be ready", lambda: program.get("/readyz").status == 200)


def test_status_hides_the_jobs_of_others(program: HttpProgram, daemon: Path) -> None:
    job = {"job_id": "secret", "age_ms": 5, "audio_seconds": 3.0, "audio_seconds_done": 1.0}
    workers = [{"name": "0", "state": "busy", "jobs": [job]}]
    others: Any = {
        "status": lambda peer, data: peer.send("status", **{**STATUS, "workers": workers})
    }
    with FakeDaemon(daemon, others=others):
        found = program.get("/status").json
    assert found["workers"][0]["jobs"] == [
        {"job_id": None, "age_ms": 5, "audio_seconds": None, "audio_seconds_done": None}
    ]


def test_metrics_are_those_of_asrctl(program: HttpProgram, fake: FakeDaemon) -> None:
    found = program.get("/metrics")
    assert (found.headers["content-type"], found.headers["vary"]) == (TEXT_TYPE, "Accept")
    assert b'asrd_state{state="ok"} 1' in found.body
    assert b'asrd_http_responses_total{code="500"} 0' in found.body
    assert b"# EOF" not in found.body
    found = program.get("/metrics", accept="application/openmetrics-text;q=0.9, text/plain;q=0.5")
    assert found.headers["content-type"] == OPENMETRICS_TYPE
    assert found.body.endswith(b"\n# EOF\n")


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("GET", "/nowhere", 404, "unknown_url"),
        ("GET", "/v1/audio/transcriptions", 405, "method_not_supported"),
        ("POST", "/status", 405, "method_not_supported"),
    ],
)
def test_wrong_path_or_method_is_an_error_of_the_api(
    program: HttpProgram, method: str, path: str, status: int, code: str
) -> None:
    found = program.get(path, method)
    assert (found.status, found.error["code"]) == (status, code)
    assert path in found.error["message"]
    assert status == 404 or found.headers["allow"]


# --- browsers and other hosts ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 400),
        ({"sec_fetch_site": "same-origin"}, 400),
        ({"sec_fetch_site": "cross-site"}, 403),
        ({"sec_fetch_site": "same-site"}, 403),
        ({"origin": "http://localhost", "host": "localhost"}, 400),
        ({"origin": "http://evil.example", "host": "localhost"}, 403),
        ({"origin": "null", "host": "localhost"}, 403),
        ({"host": "evil.example"}, 403),
        ({"host": "localhost.evil.example"}, 403),
        ({"host": "["}, 403),
        ({"origin": "http://[", "host": "localhost"}, 403),
        ({"host": "127.0.0.1:8000"}, 400),
    ],
)
def test_pages_of_other_sites_are_refused(
    program: HttpProgram, headers: dict[str, str], status: int
) -> None:
    found = program.get_tcp("/v1/audio/transcriptions", "POST", b"x", **headers)
    assert found.status == status, found.body


@pytest.mark.parametrize("name", ["asr.example", "["])
def test_any_name_is_good_on_a_unix_socket(program: HttpProgram, name: str) -> None:
    assert program.get("/nowhere", host=name).status == 404


# --- floods ---------------------------------------------------------------------------------------


def test_many_requests_at_once_get_an_answer_each(program: HttpProgram, fake: FakeDaemon) -> None:
    socks = [program.connect() for _ in range(60)]
    for sock in socks:
        sock.sendall(whole(file()))
    statuses = {sock.recv(12) for sock in socks}
    for sock in socks:
        sock.close()
    assert statuses == {b"HTTP/1.1 200"}
    assert len(fake.jobs) == 60
