"""A request, and the data of its answers."""

import re
from types import SimpleNamespace
from typing import Any

import orjson
import pytest

from asrd.errors import BadAudio, Code, TooLarge
from asrd.front.request import Request, error, make_request, transcript, with_hints
from asrd.front.scheduling.actions import Failure
from asrd.front.scheduling.job import Needs
from asrd.wire.client_events import TO_CLIENT, Error, Transcribe, Transcript
from asrd.wire.fields import dump, parse
from asrd.wire.options import Options
from asrd.wire.peer import Peer
from asrd.wire.records import AudioFormat, Checkpoint, JobWarning
from asrd.wire.worker_events import Done, JobWindow

PCM = AudioFormat("pcm_s16le")


def made(
    asked: Transcribe, format_: AudioFormat = PCM, size: int = 64_000, options: Any = None
) -> Request:
    client: Any = SimpleNamespace(peer=Peer(pid=7, uid=1000, gid=100))
    audio: Any = SimpleNamespace(size=size)
    return make_request(
        client, asked, options or Options(), format_, audio, now=50.0, max_audio_seconds=10.0
    )


def test_request_has_the_job_that_the_scheduler_sees() -> None:
    options = Options(language="de", task="translate", word_timestamps=True, multilingual=True)
    asked = Transcribe(name="tiny", job_id="j", trace_id="t", timeout_ms=1500)
    request = made(asked, options=options)
    job = request.job
    assert (job.user, job.arrival, job.needs) == (1000, 50.0, Needs("tiny", "de", True, True, True))
    assert (job.size, job.seconds, job.timeout) == (64_000, 2.0, 1.5)
    assert job.request is request
    assert request.log_fields == {
        "ASRD_JOB_ID": "j",
        "ASRD_PEER_UID": 1000,
        "ASRD_PEER_PID": 7,
        "ASRD_TRACE_ID": "t",
    }


def test_task_speech_is_a_need() -> None:
    needs = made(Transcribe(), options=Options(task="speech")).job.needs
    assert needs == Needs(speech=True)


def test_task_speakers_is_a_need() -> None:
    needs = made(Transcribe(), options=Options(task="speakers", num_speakers=2)).job.needs
    assert needs == Needs(speakers=True)


def test_request_without_an_id_gets_a_fresh_one() -> None:
    request = made(Transcribe())
    assert re.fullmatch("[0-9a-f]{16}", request.job_id)
    assert "ASRD_TRACE_ID" not in request.log_fields
    data = transcript(request, Done(9, "", 2, 1, "en", 1), None, 52.0)
    assert "trace_id" not in orjson.loads(data)
    assert request.job.timeout is None


@pytest.mark.parametrize(
    ("asked", "plain"),
    [
        (Transcribe(), True),
        (Transcribe(name="tiny", trace_id="t"), True),
        (Transcribe(job_id="j"), False),
        (Transcribe(stream=True), False),
        (Transcribe(audio=PCM), False),
    ],
)
def test_request_with_wyomings_fields_only_is_plain(asked: Transcribe, plain: bool) -> None:
    assert made(asked).plain == plain


def test_length_is_checked_against_format_and_limit() -> None:
    assert made(Transcribe(), size=320_000).job.seconds == 10.0
    with pytest.raises(TooLarge, match="audio: 11 s are over the limit of 10 s"):
        made(Transcribe(), size=352_000)
    with pytest.raises(BadAudio, match=r"audio: is 3 bytes, not a multiple of 2"):
        made(Transcribe(), size=3)
    with pytest.raises(BadAudio, match="audio: is empty"):
        made(Transcribe(), size=0)
    # The worker finds out the length of a file.
    job = made(Transcribe(), AudioFormat("file"), size=3).job
    assert (job.seconds, job.size) == (0.0, 3)


def test_wyomings_hints_become_hotwords() -> None:
    asked = Transcribe(transcript_names=("Ada", "Grace"), transcript_terms=("COBOL",))
    assert with_hints(asked, Options()).hotwords == "Ada, Grace, COBOL"
    own = Options(hotwords="mine")
    assert with_hints(asked, own) is own
    assert with_hints(Transcribe(transcript_names=("",)), Options()).hotwords is None


def test_only_whole_hints_become_hotwords() -> None:
    many = Transcribe(transcript_terms=tuple(f"{n} " + "x" * 100 for n in range(1000)))
    hotwords = with_hints(many, Options()).hotwords or ""
    assert 4096 - 110 < len(hotwords) <= 4096
    assert hotwords.split(", ") == list(many.transcript_terms[: hotwords.count(",") + 1])


def test_data_of_a_transcript() -> None:
    request = made(Transcribe(job_id="j", trace_id="t"))
    job = request.job
    job.started_at, job.worker, job.attempts = 50.25, "0", 2
    segments = [{"id": n, "start": 0.0, "end": 2.0, "text": f" é{n}"} for n in (1, 2, 3)]
    warning = JobWarning("hints-cut", "hotwords: cut to 20 of 60 tokens")
    # Two windows and the rest; the second window has no text.
    request.finished.add(" é1 é2", segments[:2])
    request.finished.add("", ())
    request.finished.add(" é3", segments[2:])
    done = Done(9, " é3", 2.0, 1.0, "en", 0.5, (segments[2],), (warning,))
    data = orjson.loads(transcript(request, done, "tiny", now=52.0))
    assert data == {
        "text": "é1 é2 é3",
        "language": "en",
        "job_id": "j",
        "trace_id": "t",
        "language_probability": 0.5,
        "duration_ms": 2000,
        "queue_ms": 250,
        "run_ms": 1750,
        "worker": "0",
        "attempts": 2,
        "model": "tiny",
        "segments": segments,
        "warnings": [{"code": warning.code, "text": warning.text}],
    }
    read = parse(Transcript, data)
    assert (read.text, read.attempts) == ("é1 é2 é3", 2)
    assert "".join(segment.text for segment in read.segments).strip() == read.text


@pytest.mark.parametrize(
    ("sent", "frame", "wrong"),
    [
        (3, 3000, None),
        # Two windows may begin at one place: the first had nothing that lasts.
        (3, 2000, None),
        (3, 1999, "checkpoint.frame: 1999 is before the last one"),
        (2, 3000, "checkpoint.segments: 2, but 3 were sent"),
        (4, 3000, "checkpoint.segments: 4, but 3 were sent"),
    ],
)
def test_window_must_follow_the_last_one(sent: int, frame: int, wrong: str | None) -> None:
    request = made(Transcribe())
    first = JobWindow(1, Checkpoint(2000, 20.0, 2), "", ({}, {}))
    assert request.why_wrong(first) is None
    request.finished.add(first.text, first.segments)
    request.checkpoint = first.checkpoint
    assert request.why_wrong(JobWindow(1, Checkpoint(frame, 30.0, sent), "", ({},))) == wrong


@pytest.mark.parametrize("code", Code)
def test_error_has_its_code_and_retryability(code: Code) -> None:
    data = dump(error(Failure(code, "why"), "j"))
    assert data == {"text": "why", "code": code, "job_id": "j", "retryable": code.retryable}
    assert parse(TO_CLIENT["error"], data) == Error("why", code, "j", None, code.retryable)


def test_error_has_phase_and_retry_time_and_a_limited_text() -> None:
    failure = Failure(Code.DEADLINE_EXCEEDED, "x" * 5000, phase="run", retry_after_ms=70)
    made = error(failure, None, "t")
    assert (made.phase, made.retry_after_ms, made.trace_id) == ("run", 70, "t")
    assert (len(made.text), made.job_id) == (4096, None)
