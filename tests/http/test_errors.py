"""Errors of the daemon, as the official client raises them: its class, body and retries."""

import contextlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import openai
import pytest

from tests.support.fake_daemon import (
    Behaviour,
    FakeDaemon,
    answer,
    begin,
    busy,
    fail,
    hang_up,
    hang_up_after,
    raw,
)
from tests.support.http import HttpProgram, field, file, official


def transcribe(client: openai.OpenAI, **more: Any) -> Any:
    return client.audio.transcriptions.create(model="whisper-1", file=b"audio", **more)


def two(*behaviours: Behaviour) -> Behaviour:
    """Plays them one after the other."""

    def behave(peer: Any, request: dict[str, Any]) -> None:
        for each in behaviours:
            each(peer, request)

    return behave


@pytest.mark.parametrize(
    ("behaviour", "raised", "status", "code", "param"),
    [
        (fail("bad-request", "language: no"), openai.BadRequestError, 400, None, "language"),
        (fail("bad-audio"), openai.BadRequestError, 400, None, "file"),
        (fail("too-large"), openai.APIStatusError, 413, None, "file"),
        (fail("model-not-found"), openai.NotFoundError, 404, "model_not_found", "model"),
        (fail("worker-crashed"), openai.UnprocessableEntityError, 422, None, "file"),
        (fail("cancelled"), openai.ConflictError, 409, None, None),
        (fail("unavailable"), openai.InternalServerError, 503, None, None),
        (fail("internal"), openai.InternalServerError, 500, None, None),
        (fail("deadline-exceeded", phase="run"), openai.InternalServerError, 504, None, None),
        (raw(b"nonsense\n" * 9000), openai.InternalServerError, 502, "internal", None),
    ],
)
def test_error_that_no_retry_can_change_is_asked_once(
    program: HttpProgram,
    daemon: Path,
    behaviour: Behaviour,
    raised: type[openai.APIStatusError],
    status: int,
    code: str | None,
    param: str | None,
) -> None:
    with FakeDaemon(daemon, [behaviour]) as fake, official(program, retries=2) as client:
        with pytest.raises(raised) as caught:
            transcribe(client)
        assert len(fake.jobs) == 1
        job_id = fake.jobs[0].data["job_id"]
    error = caught.value
    assert (error.status_code, error.param, error.request_id) == (status, param, job_id)
    assert code is None or error.code == code


@pytest.mark.parametrize(
    "refusal",
    [
        busy(1),
        fail("busy", "the limit for user uid:0 of user 0 is reached", retry_after_ms=1),
        fail("out-of-memory", retryable=True, retry_after_ms=1),
        fail("shutting-down", retry_after_ms=1),
        fail("deadline-exceeded", phase="queue", retry_after_ms=1),
    ],
)
def test_refusal_is_answered_at_once_and_retried_by_the_client(
    program: HttpProgram, daemon: Path, refusal: Behaviour
) -> None:
    with FakeDaemon(daemon, [refusal, refusal, answer("yes")]) as fake:
        with official(program, retries=2) as client:
            assert transcribe(client).text == "yes"
        assert len(fake.jobs) == 3
        assert len({job.connection for job in fake.jobs}) == 3


@pytest.mark.parametrize(
    ("text", "raised", "code"),
    [
        ("the limit for all clients is reached", openai.InternalServerError, "busy"),
        (
            "2 jobs of user {} of user 0 are unanswered",
            openai.RateLimitError,
            "rate_limit_exceeded",
        ),
    ],
)
def test_bound_of_the_machine_is_503_and_of_the_user_429(
    program: HttpProgram,
    daemon: Path,
    text: str,
    raised: type[openai.APIStatusError],
    code: str,
) -> None:
    def refuse(peer: Any, request: dict[str, Any]) -> None:
        fail("busy", text.format(request["user"]), retry_after_ms=1500)(peer, request)

    with FakeDaemon(daemon, [refuse]), official(program) as client:
        with pytest.raises(raised) as caught:
            transcribe(client)
    headers = caught.value.response.headers
    assert caught.value.code == code
    assert (headers["retry-after-ms"], headers["retry-after"]) == ("1500", "2")
    assert headers["x-should-retry"] == "true"


def test_no_daemon_is_503(program: HttpProgram) -> None:
    with official(program) as client, pytest.raises(openai.InternalServerError) as caught:
        transcribe(client)
    assert caught.value.status_code == 503
    assert "there is no daemon" in caught.value.message
    assert program.get("/healthz").status == program.get("/readyz").status == 503
    assert program.get("/status").error["code"] == "unavailable"


def test_metrics_go_on_without_the_daemon(program: HttpProgram, daemon: Path) -> None:
    """The refusals are of interest just then."""
    found = program.get("/metrics")
    assert found.status == 200 and b"\nasrd_up 0\n" in found.body
    assert b'\nasrd_http_responses_total{code="503"} ' in found.body
    assert b"asrd_state" not in found.body
    with FakeDaemon(daemon):
        assert b"\nasrd_up 1\n" in program.get("/metrics").body


def test_daemon_that_was_restarted_gets_the_job_again(program: HttpProgram, daemon: Path) -> None:
    with FakeDaemon(daemon, [hang_up, answer("yes")]) as fake, official(program) as client:
        assert transcribe(client).text == "yes"
        assert [job.audio for job in fake.jobs] == [b"audio", b"audio"]


# --- streams --------------------------------------------------------------------------------------


def events(client: openai.OpenAI, **more: Any) -> list[Any]:
    return list(transcribe(client, stream=True, **more))


@pytest.mark.parametrize("format_", ["json", "text"])
def test_stream_has_exactly_the_official_events(
    program: HttpProgram, daemon: Path, format_: str
) -> None:
    with FakeDaemon(daemon, [answer("one", "two")]), official(program) as client:
        found = events(client, response_format=format_)
    assert [event.type for event in found] == [
        "transcript.text.delta",
        "transcript.text.delta",
        "transcript.text.done",
    ]
    assert found[-1].text == "one two"


def test_stream_ends_with_done(program: HttpProgram, daemon: Path) -> None:
    with FakeDaemon(daemon, [answer("one")]):
        found = program.post(file(), field("stream", "true"))
    assert found.headers["content-type"] == "text/event-stream; charset=utf-8"
    lines = found.body.decode().split("\n\n")
    assert lines[-2:] == ["data: [DONE]", ""]
    assert all(line.startswith('data: {"type": "transcript.text.') for line in lines[:-2])


def test_refusal_before_the_first_event_is_a_status(program: HttpProgram, daemon: Path) -> None:
    with FakeDaemon(daemon, [busy(1)]), official(program) as client:
        with pytest.raises(openai.InternalServerError) as caught:
            events(client)
    assert caught.value.status_code == 503


def test_failure_behind_a_segment_without_text_is_a_status(
    program: HttpProgram, daemon: Path
) -> None:
    """No event was sent yet, so the status says whether to try again."""
    behaviour = two(begin(" "), fail("worker-crashed", "it died"))
    with FakeDaemon(daemon, [behaviour]), official(program) as client:
        with pytest.raises(openai.UnprocessableEntityError, match="it died"):
            events(client)


def test_error_after_the_first_event_is_raised_by_the_client(
    program: HttpProgram, daemon: Path
) -> None:
    behaviour = two(begin("one"), fail("worker-crashed", "it died"))
    with FakeDaemon(daemon, [behaviour]), official(program) as client:
        stream = transcribe(client, stream=True)
        assert next(stream).delta == "one"
        with pytest.raises(openai.APIError, match="it died"):
            list(stream)


def test_stream_goes_on_after_a_restart_without_a_word_twice(
    program: HttpProgram, daemon: Path
) -> None:
    behaviours = [hang_up_after("one", "two"), answer("one", "two", "three")]
    with FakeDaemon(daemon, behaviours) as fake, official(program) as client:
        deltas = [event.delta for event in events(client) if event.type.endswith("delta")]
        assert len(fake.jobs) == 2
    assert deltas == ["one", "two", "three"]


@pytest.mark.parametrize("make", [lambda: fail("internal"), lambda: answer("one")])
def test_nothing_is_left_open_at_the_daemon(
    program: HttpProgram, daemon: Path, make: Callable[[], Behaviour]
) -> None:
    with FakeDaemon(daemon, [make()]) as fake, official(program) as client:
        for _ in range(3):
            with contextlib.suppress(openai.APIStatusError):
                transcribe(client)
        assert sorted(fake.wait_for_hang_up(3)) == [0, 1, 2]
