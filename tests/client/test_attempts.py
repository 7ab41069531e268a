"""One job over all its attempts, on a clock that the tests turn."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asrd.client.attempts import (
    GRACE_SECONDS,
    PATIENCE_SECONDS,
    RETURN_SECONDS,
    Attempts,
    AudioHint,
    JobOptions,
)
from asrd.errors import (
    AsrdError,
    BadAudio,
    BadRequest,
    Busy,
    ConnectionLost,
    DeadlineExceeded,
    OutOfMemory,
    ProtocolError,
    ShuttingDown,
)
from asrd.wire.client_events import Accepted, Progress, SegmentDecoded, Transcript
from asrd.wire.records import AudioFormat, Segment

AUDIO = AudioFormat("file")
NOON = 1000.0


def begun(options: JobOptions | None = None, jitter: float = 0.0, **kwargs: Any) -> Attempts:
    return Attempts(options or {}, NOON, stream=kwargs.pop("stream", False), jitter=lambda: jitter)


def submitted(options: JobOptions | None = None, jitter: float = 0.0) -> Attempts:
    attempts = begun(options, jitter)
    attempts.request(AUDIO, NOON)
    return attempts


def decoded(index: int, text: str) -> SegmentDecoded:
    return SegmentDecoded("j", index, Segment(index, 0.0, 1.0, text))


def test_the_request_holds_what_was_given_and_nothing_else() -> None:
    attempts = begun(
        {
            "language": "en",
            "model": "tiny",
            "temperature": (0.0, 0.5),
            "initial_prompt": None,
            "job_id": "j",
            "trace_id": "t",
            "sample_rate": 8000,
            "encoding": "pcm_s16le",
        }
    )
    assert attempts.hint == AudioHint("pcm_s16le", 8000, 1)
    assert attempts.request(AudioFormat("pcm_s16le", 8000, 1), NOON) == {
        "language": "en",
        "name": "tiny",
        "temperature": (0.0, 0.5),
        "job_id": "j",
        "trace_id": "t",
        "stream": False,
        "audio": {"encoding": "pcm_s16le", "sample_rate": 8000, "channels": 1},
    }


def test_a_job_without_an_id_gets_one_that_it_keeps() -> None:
    one, other = begun(), begun()
    assert one.job_id != other.job_id
    assert one.request(AUDIO, NOON)["job_id"] == one.request(AUDIO, NOON)["job_id"] == one.job_id


def test_progress_is_asked_for_only_if_somebody_listens() -> None:
    assert not begun().request(AUDIO, NOON)["stream"]
    assert begun(stream=True).request(AUDIO, NOON)["stream"]
    heard: list[Progress] = []
    attempts = begun({"on_progress": heard.append})
    assert attempts.request(AUDIO, NOON)["stream"]
    attempts.take(Progress("j", 1.0, 2.0))
    assert heard == [Progress("j", 1.0, 2.0)]


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"beam_size": 0}, "beam_size: must be between 1 and 32"),
        ({"task": "sing"}, "task: must be one of transcribe, translate"),
        ({"job_id": "a b"}, "job_id: must be"),
        ({"timeout": 0}, "timeout: must be over 0"),
        ({"timeout": float("nan")}, "timeout: must be over 0"),
        ({"timeout": 1e9}, "timeout: must be over 0 and up to 86400 seconds"),
    ],
)
def test_an_option_out_of_range_is_named(options: JobOptions, problem: str) -> None:
    with pytest.raises(BadRequest, match=problem):
        begun(options)


def test_an_unknown_option_is_a_type_error_as_for_any_function() -> None:
    options: Any = {"langauge": "en"}
    with pytest.raises(TypeError, match="unexpected keyword argument 'langauge'"):
        begun(options)


def test_segments_come_once_each_whatever_is_repeated() -> None:
    attempts = submitted()
    for answer in (decoded(0, "a"), decoded(1, "b"), decoded(0, "a"), decoded(1, "b")):
        attempts.take(answer)
    attempts.failed(ConnectionLost("gone"), NOON)
    for answer in (decoded(0, "a"), decoded(1, "b"), decoded(2, "c")):
        attempts.take(answer)
    texts = []
    while (segment := attempts.next_segment()) is not None:
        texts.append(segment.text)
    assert texts == ["a", "b", "c"]


def test_the_transcript_ends_it() -> None:
    attempts = submitted()
    attempts.take(Accepted("j"))
    with pytest.raises(RuntimeError, match="after the last segment"):
        attempts.result()
    attempts.take(Transcript("hello"))
    assert attempts.result() == Transcript("hello")


@pytest.mark.parametrize(
    "error", [BadAudio("no"), OutOfMemory("no"), DeadlineExceeded("no"), ProtocolError("no")]
)
def test_what_waiting_does_not_mend_is_the_answer(error: AsrdError) -> None:
    attempts = submitted({"timeout": 100.0})
    with pytest.raises(type(error)):
        attempts.failed(error, NOON)


@pytest.mark.parametrize("jitter", [0.0, 0.5, 1.0])
def test_busy_waits_at_least_as_long_as_asked(jitter: float) -> None:
    attempts = submitted({"timeout": 100.0}, jitter)
    attempts.failed(Busy("full", retry_after_ms=2000), NOON)
    assert attempts.pause == 2.0 * (1 + jitter / 2)


def test_a_daemon_that_says_at_once_is_not_taken_at_its_word() -> None:
    attempts = submitted()
    attempts.failed(Busy("full", retry_after_ms=0), NOON)
    assert attempts.pause == 0.01


def test_refusals_without_advice_are_asked_about_less_and_less_often() -> None:
    attempts, pauses = submitted({"timeout": 100.0}, jitter=1.0), []
    for _ in range(8):
        attempts.failed(ShuttingDown("draining"), NOON)
        pauses.append(attempts.pause)
    assert pauses == [0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 5.0, 5.0]


def test_busy_is_raised_once_the_next_attempt_would_come_too_late() -> None:
    attempts = submitted({"timeout": 10.0})
    attempts.failed(Busy("full", retry_after_ms=4000), NOON)
    with pytest.raises(Busy):
        attempts.failed(Busy("full", retry_after_ms=4000), NOON + 6.0)


def test_without_a_timeout_a_refusal_is_waited_out_for_a_minute() -> None:
    attempts = submitted()
    attempts.failed(Busy("full", retry_after_ms=1000), NOON)
    attempts.failed(Busy("full", retry_after_ms=1000), NOON + PATIENCE_SECONDS - 1.1)
    with pytest.raises(Busy):
        attempts.failed(Busy("full", retry_after_ms=1000), NOON + PATIENCE_SECONDS - 0.9)


def test_the_minute_begins_anew_with_a_job_that_was_accepted() -> None:
    attempts = submitted()
    attempts.failed(Busy("full", retry_after_ms=1000), NOON)
    attempts.request(AUDIO, NOON + 1)
    attempts.take(Accepted("j"))
    later = NOON + 3600
    attempts.failed(ConnectionLost("restarted"), later)
    attempts.request(AUDIO, later)
    attempts.failed(Busy("full", retry_after_ms=1000), later)
    assert attempts.pause == 1.0


def test_no_daemon_at_first_is_told_at_once() -> None:
    with pytest.raises(ConnectionLost):
        begun({"timeout": 100.0}).failed(ConnectionLost("missing"), NOON)


def test_a_job_is_submitted_three_times_at_most() -> None:
    attempts = submitted({"timeout": 100.0})
    for _ in range(2):
        attempts.failed(ConnectionLost("gone"), NOON)
        attempts.request(AUDIO, NOON)
    with pytest.raises(ConnectionLost):
        attempts.failed(ConnectionLost("gone"), NOON)


def test_a_daemon_that_was_there_may_be_gone_for_a_while() -> None:
    attempts = submitted()
    attempts.failed(ConnectionLost("gone"), NOON)
    attempts.failed(ConnectionLost("refused"), NOON + 1)
    with pytest.raises(ConnectionLost, match="missing"):
        attempts.failed(ConnectionLost("missing"), NOON + RETURN_SECONDS)


def test_the_daemon_is_told_how_much_time_is_left() -> None:
    attempts = begun({"timeout": 10.0, "job_id": "j", "trace_id": "t"})
    assert attempts.limit == NOON + 10.0 + GRACE_SECONDS
    assert attempts.request(AUDIO, NOON)["timeout_ms"] == 10_000
    assert attempts.request(AUDIO, NOON + 7.5)["timeout_ms"] == 2500
    assert attempts.request(AUDIO, NOON + 9.9999)["timeout_ms"] == 1
    with pytest.raises(DeadlineExceeded, match="no answer within 10 s") as caught:
        attempts.request(AUDIO, NOON + 10)
    assert (caught.value.job_id, caught.value.trace_id) == ("j", "t")


def test_without_a_timeout_nothing_is_limited() -> None:
    attempts = begun()
    assert attempts.limit is None
    assert "timeout_ms" not in attempts.request(AUDIO, NOON + 1e6)


_failures = st.sampled_from(
    [
        Busy("full"),
        Busy("full", retry_after_ms=200),
        ShuttingDown("draining"),
        ConnectionLost("gone"),
    ]
)


@given(
    st.lists(st.tuples(_failures, st.booleans()), min_size=1, max_size=5),
    st.none() | st.floats(0.5, 30),
    st.floats(0, 1),
)
def test_no_history_goes_on_past_the_timeout(
    history: list[tuple[AsrdError, bool]], timeout: float | None, jitter: float
) -> None:
    attempts = begun({"timeout": timeout}, jitter)
    now, end = NOON, NOON + (timeout or PATIENCE_SECONDS + 2 * RETURN_SECONDS)
    with pytest.raises((Busy, ShuttingDown, ConnectionLost)):
        for error, connects in history * 1000:
            if connects or not isinstance(error, ConnectionLost):
                attempts.request(AUDIO, now)
            attempts.failed(error, now)
            assert attempts.pause >= 0.01
            now += attempts.pause
            assert now < end
        pytest.fail("it never gave up")
