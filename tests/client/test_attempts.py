"""One job over all its attempts, with the tests' own clock."""

from collections.abc import Callable
from dataclasses import fields
from typing import Any, get_args, get_origin

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asrd import AsyncClient, Client
from asrd.client.attempts import (
    BUSY_TIMEOUT_SECONDS,
    GRACE_SECONDS,
    RETURN_SECONDS,
    Attempts,
    AudioHint,
    JobOptions,
)
from asrd.client.jobs import Jobs
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
from asrd.wire.options import Options
from asrd.wire.records import AudioFormat, Segment

AUDIO = AudioFormat("file")
NOON = 1000.0


def begun(
    options: JobOptions | None = None,
    jitter: float = 0.0,
    stream: bool = False,
    jobs: Jobs | None = None,
) -> Attempts:
    return Attempts(options or {}, NOON, jobs or Jobs(), stream=stream, jitter=lambda: jitter)


def submitted(
    options: JobOptions | None = None, jitter: float = 0.0, stream: bool = False
) -> Attempts:
    attempts = begun(options, jitter, stream)
    attempts.request(AUDIO, NOON)
    return attempts


def decoded(index: int, text: str) -> SegmentDecoded:
    return SegmentDecoded("j", index, Segment(index, 0.0, 1.0, text))


def test_request_has_the_given_options_only() -> None:
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


def test_job_keeps_its_generated_id() -> None:
    one, other = begun(), begun()
    assert one.job_id != other.job_id
    assert one.request(AUDIO, NOON)["job_id"] == one.request(AUDIO, NOON)["job_id"] == one.job_id


def test_progress_is_requested_for_a_listener_only() -> None:
    assert not begun().request(AUDIO, NOON)["stream"]
    assert begun(stream=True).request(AUDIO, NOON)["stream"]
    heard: list[Progress] = []
    attempts = begun({"on_progress": heard.append})
    assert attempts.request(AUDIO, NOON)["stream"]
    attempts.take(Progress("j", 1.0, 2.0), NOON)
    assert heard == [Progress("j", 1.0, 2.0)]


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"beam_size": 0}, "beam_size: must be between 1 and 32"),
        ({"job_id": "a b"}, "job_id: must be"),
        ({"job_id": "\udcff"}, "job_id: is not valid UTF-8"),
        ({"trace_id": "\ud800"}, "trace_id: is not valid UTF-8"),
        ({"model": "\udcff"}, "model: is not valid UTF-8"),
        ({"prepend_punctuations": "\udcff"}, "prepend_punctuations: is not valid UTF-8"),
        ({"append_punctuations": "\udcff"}, "append_punctuations: is not valid UTF-8"),
        ({"initial_prompt": "\ud800"}, "initial_prompt: is not valid UTF-8"),
        ({"hotwords": "a \udcff"}, "hotwords: is not valid UTF-8"),
        ({"prefix": "\udcff"}, "prefix: is not valid UTF-8"),
        ({"prefix": "\x00"}, "prefix: must not contain control characters"),
        ({"language": "\udcff"}, "language: "),
        ({"languages": ["\ud800"]}, r"languages\[0\]: "),
        ({"audio_track": "\udcff"}, "audio_track: "),
        ({"timeout": 0}, "timeout: must be over 0"),
        ({"timeout": float("nan")}, "timeout: must be over 0"),
        ({"timeout": 1e9}, "timeout: must be over 0 and up to 86400 seconds"),
    ],
)
def test_option_out_of_range_is_named(options: JobOptions, problem: str) -> None:
    with pytest.raises(BadRequest, match=problem):
        begun(options)


def test_unknown_option_is_a_type_error() -> None:
    options: Any = {"langauge": "en"}
    with pytest.raises(TypeError, match="unexpected keyword argument 'langauge'"):
        begun(options)


def test_unknown_vad_parameter_is_a_type_error() -> None:
    with pytest.raises(TypeError, match=r"argument 'vad_parameters\.treshold'"):
        begun({"vad_parameters": {"treshold": 0.4}})
    with pytest.raises(BadRequest, match=r"vad_parameters\.threshold: must be between"):
        begun({"vad_parameters": {"threshold": 2}})


def test_every_option_of_a_job_can_be_given_with_its_type() -> None:
    own = JobOptions.__annotations__
    for spec in fields(Options):
        wanted, given = (set(get_args(kind) or (kind,)) for kind in (spec.type, own[spec.name]))
        if spec.name == "vad_parameters":
            assert given == {dict[str, float], type(None)}
            continue
        lists = {list[get_args(kind)[0]] for kind in wanted if get_origin(kind) is tuple}  # type: ignore[misc]
        assert given == wanted | lists, spec.name


def given_texts(attempts: Attempts) -> list[str]:
    texts = []
    while (segment := attempts.next_segment()) is not None:
        texts.append(segment.text)
    return texts


def resubmitted(stream: bool = True) -> Attempts:
    """A job that was lost after the segments a and b, and begins anew."""
    attempts = submitted(stream=stream)
    for answer in (decoded(0, "a"), decoded(1, "b")):
        attempts.take(answer, NOON)
    attempts.failed(ConnectionLost("gone"), NOON)
    attempts.request(AUDIO, NOON)
    return attempts


def test_job_that_begins_anew_gives_no_segment_twice() -> None:
    attempts = resubmitted()
    for answer in (decoded(0, "a"), decoded(1, "b"), decoded(2, "c"), Transcript("a b c")):
        attempts.take(answer, NOON)
    assert given_texts(attempts) == ["a", "b", "c"]
    assert attempts.result().text == "a b c"


@pytest.mark.parametrize("answers", [[decoded(0, "x")], [decoded(0, "a"), Transcript("a")]])
def test_job_that_begins_anew_gives_no_mixture(answers: list[Any]) -> None:
    attempts = resubmitted()
    with pytest.raises(ConnectionLost, match="after 2 segments, and the repeated job gave others"):
        for answer in answers:
            attempts.take(answer, NOON)
    assert given_texts(attempts) == ["a", "b"]


def test_whole_transcript_may_be_another_one_when_the_job_begins_anew() -> None:
    attempts = resubmitted(stream=False)
    for answer in (decoded(0, "x"), Transcript("x")):
        attempts.take(answer, NOON)
    assert given_texts(attempts) == []
    assert attempts.result().text == "x"


@pytest.mark.parametrize(
    ("error", "timeout"),
    [
        (BadAudio("no"), None),
        (OutOfMemory("no"), None),
        (ProtocolError("no"), None),
        (DeadlineExceeded("ran", phase="run"), None),
        (DeadlineExceeded("waited", phase="queue"), 100.0),
    ],
)
def test_other_errors_are_raised_at_once(error: AsrdError, timeout: float | None) -> None:
    jobs = Jobs()
    begun(jobs=jobs).request(AUDIO, NOON)
    attempts = begun({"timeout": timeout}, jobs=jobs)
    attempts.request(AUDIO, NOON)
    with pytest.raises(type(error)):
        attempts.failed(error, NOON)


@pytest.mark.parametrize(
    ("asked_ms", "jitter", "pause"),
    [(2000, 0.0, 2.0), (2000, 0.5, 2.5), (2000, 1.0, 3.0), (0, 0.0, 0.01)],
)
def test_pause_is_at_least_as_long_as_asked(asked_ms: int, jitter: float, pause: float) -> None:
    attempts = submitted({"timeout": 100.0}, jitter)
    attempts.failed(Busy("full", retry_after_ms=asked_ms), NOON)
    assert attempts.pause == pause


def test_pause_without_advice_grows_exponentially() -> None:
    attempts, pauses = submitted({"timeout": 100.0}, jitter=1.0), []
    # So often that the power of two alone would be no float.
    for _ in range(1100):
        attempts.failed(ShuttingDown("draining"), NOON)
        pauses.append(attempts.pause)
    assert pauses == [0.1, 0.2, 0.4, 0.8, 1.6, 3.2, *[5.0] * 1094]


@pytest.mark.parametrize(
    ("timeout", "last"), [(10.0, NOON + 10.0), (None, NOON + BUSY_TIMEOUT_SECONDS)]
)
def test_refusal_is_raised_if_the_next_attempt_is_too_late(
    timeout: float | None, last: float
) -> None:
    attempts = submitted({"timeout": timeout})
    attempts.failed(Busy("full", retry_after_ms=1000), NOON)
    attempts.failed(Busy("full", retry_after_ms=1000), last - 1.1)
    with pytest.raises(Busy):
        attempts.failed(Busy("full", retry_after_ms=1000), last - 0.9)


def test_accepted_job_resets_the_busy_timeout() -> None:
    attempts = submitted()
    attempts.failed(Busy("full", retry_after_ms=1000), NOON)
    attempts.request(AUDIO, NOON + 1)
    attempts.take(Accepted("j"), NOON + 1)
    later = NOON + 3600
    attempts.failed(ConnectionLost("restarted"), later)
    attempts.request(AUDIO, later)
    attempts.failed(Busy("full", retry_after_ms=1000), later)
    assert attempts.pause == 1.0


def test_daemon_that_was_never_there_is_reported_at_once() -> None:
    with pytest.raises(ConnectionLost):
        begun({"timeout": 100.0}).failed(ConnectionLost("missing"), NOON)


def test_job_is_submitted_three_times_at_most() -> None:
    attempts = submitted({"timeout": 100.0})
    for _ in range(2):
        attempts.failed(ConnectionLost("gone"), NOON)
        attempts.request(AUDIO, NOON)
    with pytest.raises(ConnectionLost):
        attempts.failed(ConnectionLost("gone"), NOON)


def test_lost_daemon_may_return_within_ten_seconds() -> None:
    attempts = submitted()
    attempts.failed(ConnectionLost("gone"), NOON)
    attempts.failed(ConnectionLost("refused"), NOON + 1)
    with pytest.raises(ConnectionLost, match="missing"):
        attempts.failed(ConnectionLost("missing"), NOON + RETURN_SECONDS)


def test_request_has_the_rest_of_the_timeout() -> None:
    attempts = begun({"timeout": 10.0, "job_id": "j", "trace_id": "t"})
    assert attempts.limit == NOON + 10.0 + GRACE_SECONDS
    assert attempts.request(AUDIO, NOON)["timeout_ms"] == 10_000
    assert attempts.request(AUDIO, NOON + 9.9999)["timeout_ms"] == 1
    with pytest.raises(DeadlineExceeded, match="no answer within 10 s") as caught:
        attempts.request(AUDIO, NOON + 10)
    assert (caught.value.job_id, caught.value.trace_id) == ("j", "t")
    with pytest.raises(DeadlineExceeded, match="no answer within 10 s"):
        attempts.failed(TimeoutError(), NOON + 12)
    unlimited = begun()
    assert unlimited.limit is None
    assert "timeout_ms" not in unlimited.request(AUDIO, NOON + 1e6)


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
def test_no_history_continues_after_the_timeout(
    history: list[tuple[AsrdError, bool]], timeout: float | None, jitter: float
) -> None:
    attempts = begun({"timeout": timeout}, jitter)
    now, end = NOON, NOON + (timeout or BUSY_TIMEOUT_SECONDS + 2 * RETURN_SECONDS)
    with pytest.raises((Busy, ShuttingDown, ConnectionLost)):
        for error, connects in history * 1000:
            if connects or not isinstance(error, ConnectionLost):
                attempts.request(AUDIO, now)
            attempts.failed(error, now)
            assert attempts.pause >= 0.01
            now += attempts.pause
            assert now < end
        pytest.fail("it never gave up")


def test_without_a_busy_timeout_a_refusal_is_the_answer() -> None:
    for error in (Busy("full", retry_after_ms=5), DeadlineExceeded("late", phase="queue")):
        attempts = Attempts({"user": "alice"}, NOON, Jobs(), stream=False, busy_timeout=0)
        assert attempts.request(AUDIO, NOON)["user"] == "alice"
        with pytest.raises(type(error)):
            attempts.failed(error, NOON)


def test_timeout_takes_precedence_over_the_busy_timeout() -> None:
    attempts = Attempts({"timeout": 10.0}, NOON, Jobs(), stream=False, busy_timeout=0)
    attempts.request(AUDIO, NOON)
    attempts.failed(Busy("full", retry_after_ms=5), NOON)
    assert attempts.pause > 0


@pytest.mark.parametrize("client", [Client, AsyncClient])
def test_busy_timeout_has_no_second_name(client: Callable[..., object]) -> None:
    """`patience` is Whisper's option of a job."""
    with pytest.raises(TypeError, match="unexpected keyword argument 'patience'"):
        client(patience=0)
    assert begun({"patience": 1.5}).request(AUDIO, NOON)["patience"] == 1.5
