"""The list of codes and its exceptions."""

from collections.abc import Callable

import pytest

from asrd.errors import (
    AsrdError,
    Code,
    ConfigError,
    ConnectionLost,
    FieldError,
    InternalError,
    JobError,
    LoadError,
    Poisoned,
    ProtocolError,
    job_error_type,
)
from tests.support.copying import COPIES

RETRYABLE = {Code.BUSY, Code.DEADLINE_EXCEEDED, Code.OUT_OF_MEMORY, Code.SHUTTING_DOWN}


@pytest.mark.parametrize("code", Code)
def test_every_code_has_its_own_exception(code: Code) -> None:
    kind = job_error_type(code.value)
    assert kind.code is code
    assert [cls for cls in JobError.__subclasses__() if cls.code is code] == [kind]
    error = kind("why", job_id="j", trace_id="t", retry_after_ms=5, phase="run")
    assert (str(error), error.text, error.retryable) == ("why", "why", code in RETRYABLE)
    assert (error.job_id, error.trace_id, error.retry_after_ms, error.phase) == ("j", "t", 5, "run")


def test_unknown_code_is_an_internal_error() -> None:
    assert job_error_type("tired") is InternalError
    assert not InternalError("").retryable


def test_field_error_names_its_field() -> None:
    error = FieldError("audio.channels", "must be an integer")
    assert (str(error), error.field) == ("audio.channels: must be an integer", "audio.channels")


def instances() -> list[AsrdError]:
    named = {"job_id": "j", "trace_id": "t", "retry_after_ms": 5, "phase": "run"}
    jobs: list[AsrdError] = [job_error_type(code)("why", **named) for code in Code]  # type: ignore[arg-type]
    plain = [ConfigError, ProtocolError, ConnectionLost, LoadError, Poisoned]
    return [*jobs, *(kind("why") for kind in plain), FieldError("audio.channels", "is odd")]


@pytest.mark.parametrize("error", instances(), ids=lambda error: type(error).__name__)
@pytest.mark.parametrize("copied", COPIES)
def test_copy_of_an_error_is_complete(
    error: AsrdError, copied: Callable[[AsrdError], AsrdError]
) -> None:
    error.add_note("noted")
    found = copied(error)
    assert type(found) is type(error)
    assert (str(found), found.args, vars(found)) == (str(error), error.args, vars(error))


def test_every_error_is_copied_above() -> None:
    def below(kind: type[AsrdError]) -> set[type[AsrdError]]:
        return {kind}.union(*map(below, kind.__subclasses__()))

    ours = {kind for kind in below(AsrdError) if kind.__module__ == "asrd.errors"}
    assert ours - {type(error) for error in instances()} == {AsrdError, JobError}
