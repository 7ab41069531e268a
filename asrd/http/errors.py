"""Errors as the OpenAI API sends them: a status, a body, and headers that say when to try again.

The official client retries 408, 409, 429 and 5xx, unless `x-should-retry` says otherwise, after
`retry-after-ms` (openai/_base_client.py, `_should_retry` and `_parse_retry_after_header`).
"""

import re

from starlette.responses import JSONResponse

from asrd import errors
from asrd.errors import AsrdError, Code, JobError
from asrd.http.names import Names

_STATUS = {
    Code.BUSY: 503,
    Code.UNAVAILABLE: 503,
    Code.DEADLINE_EXCEEDED: 503,
    # The recording killed each worker that had it: nobody else should try.
    Code.WORKER_CRASHED: 422,
    Code.CANCELLED: 409,
    Code.BAD_REQUEST: 400,
    Code.BAD_AUDIO: 400,
    Code.TOO_LARGE: 413,
    Code.MODEL_NOT_FOUND: 404,
    Code.OUT_OF_MEMORY: 503,
    Code.SHUTTING_DOWN: 503,
    Code.INTERNAL: 500,
}
# Codes for which OpenAI has a name of its own.
_NAMES = {Code.MODEL_NOT_FOUND: "model_not_found"}
# The field of a request that an error text begins with (`asrd.errors.FieldError`).
_FIELD = re.compile(r"([a-z_]+(?:\.[a-z_]+)?)[\w.\[\]]*: ")
_ABOUT_THE_FILE = {Code.BAD_AUDIO, Code.TOO_LARGE, Code.WORKER_CRASHED}


class HttpError(AsrdError):
    """A refusal by asrd-http itself: `status` and the parts of the body. `retry` is False where the
    same request can't succeed later, though its status says so."""

    def __init__(
        self,
        status: int,
        message: str,
        *,
        code: str,
        param: str | None = None,
        retry: bool | None = None,
        retry_after_ms: int | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.param = param
        self.retry = retry
        self.retry_after_ms = retry_after_ms


def bad_request(param: str | None, problem: str) -> HttpError:
    """Returns the error for a field, or with None for the request as a whole."""
    text = problem if param is None else f"{param}: {problem}"
    return HttpError(400, text, code=Code.BAD_REQUEST, param=param)


def busy(text: str, user: str) -> HttpError:
    """Returns the error for a full bound, by the text of `asrd.quota`, which names its user as
    `user` does (`user alice`, `address 192.0.2.1`)."""
    status, code = _busy(text, user)
    return HttpError(status, text, code=code, retry=True, retry_after_ms=1000)


def _busy(text: str, user: str) -> tuple[int, str]:
    return (429, "rate_limit_exceeded") if f"{user} " in text else (503, Code.BUSY)


def unready(text: str, code: Code = Code.BUSY) -> HttpError:
    """Returns the error for what this machine can't do just now."""
    return HttpError(503, text, code=code, retry=True, retry_after_ms=1000)


def response(error: AsrdError, user: str = "", names: Names | None = None) -> JSONResponse:
    """Returns the answer; a bound of the user itself is 429, one of the machine 503."""
    names = names or Names()
    match error:
        case HttpError():
            param = error.param and names.sent(error.param)
            return _answer(
                error.status, str(error), error.code, param, error.retry, error.retry_after_ms
            )
        case JobError():
            return _of_job(error, user, names)
        case errors.ConnectionLost():
            return _answer(503, str(error), Code.UNAVAILABLE, None, True, 1000)
        case _:
            return _answer(502, str(error), Code.INTERNAL, None, False, None)


def _of_job(error: JobError, user: str, names: Names) -> JSONResponse:
    status, retry = _STATUS[error.code], error.retryable
    code: str = _NAMES.get(error.code, error.code)
    if error.code is Code.BUSY:
        status, code = _busy(error.text, f"user {user}")
    if error.phase == "run":
        status, retry = 504, False
    return _answer(status, error.text, code, _param(error, names), retry, error.retry_after_ms)


def _param(error: JobError, names: Names) -> str | None:
    if error.code in _ABOUT_THE_FILE:
        return names.sent("file")
    if error.code is Code.MODEL_NOT_FOUND:
        return names.sent("model")
    field = _FIELD.match(error.text) if error.code is Code.BAD_REQUEST else None
    return None if field is None else names.sent(field[1])


def _answer(
    status: int,
    message: str,
    code: str,
    param: str | None,
    retry: bool | None,
    retry_after_ms: int | None,
) -> JSONResponse:
    headers = {}
    if retry is not None:
        headers["x-should-retry"] = str(retry).lower()
    if retry_after_ms is not None:
        headers["retry-after-ms"] = str(retry_after_ms)
        # Whole seconds, rounded up, for all who know only RFC 9110.
        headers["retry-after"] = str(-(-retry_after_ms // 1000))
    if status == 401:
        headers["www-authenticate"] = "Bearer"
    return JSONResponse({"error": body(status, message, code, param)}, status, headers)


def body(status: int, message: str, code: str, param: str | None = None) -> dict[str, str | None]:
    """Returns the object under `error`."""
    if status == 429:
        kind = "requests"
    else:
        kind = "server_error" if status >= 500 else "invalid_request_error"
    return {"message": message, "type": kind, "param": param, "code": code}
