"""The closed list of codes and its exceptions."""

import pytest

from asrd.errors import Busy, Code, FieldError, InternalError, JobError, job_error_type

RETRYABLE = {Code.BUSY, Code.DEADLINE_EXCEEDED, Code.OUT_OF_MEMORY, Code.SHUTTING_DOWN}


@pytest.mark.parametrize("code", Code)
def test_every_code_has_one_exception_of_its_own(code: Code) -> None:
    kind = job_error_type(code.value)
    assert kind.code is code
    assert [cls for cls in JobError.__subclasses__() if cls.code is code] == [kind]
    error = kind("why", job_id="j", trace_id="t", retry_after_ms=5, phase="run")
    assert (str(error), error.text, error.retryable) == ("why", "why", code in RETRYABLE)
    assert (error.job_id, error.trace_id, error.retry_after_ms, error.phase) == ("j", "t", 5, "run")


def test_a_code_of_a_newer_daemon_is_internal() -> None:
    assert job_error_type("tired") is InternalError
    assert not InternalError("").retryable


def test_what_is_not_known_is_none() -> None:
    error = Busy("full")
    assert (error.job_id, error.trace_id, error.retry_after_ms, error.phase) == (None,) * 4


def test_a_field_error_names_its_field() -> None:
    error = FieldError("audio.channels", "must be an integer")
    assert (str(error), error.field) == ("audio.channels: must be an integer", "audio.channels")
