"""The checks before a request: keys, names of the host, other sites' pages, traces."""

from pathlib import Path

import pytest

from asrd import errors
from asrd.errors import ConfigError
from asrd.http import tracing
from asrd.http.errors import response
from asrd.http.guard import _is_local, _name
from asrd.http.keys import Keys

KEY, OTHER = "k" * 16, "o" * 16


def keys(tmp_path: Path, text: str, mode: int = 0o640) -> Keys:
    path = tmp_path / "keys"
    path.write_text(text)
    path.chmod(mode)
    return Keys.read(str(path))


def test_key_names_its_user(tmp_path: Path) -> None:
    found = keys(tmp_path, f"# ours\n\nalice {KEY}\n  bob\t{OTHER} \n")
    assert [found.user(key) for key in (KEY, OTHER, KEY[:-1], "", "ü\udc80")] == [
        "alice",
        "bob",
        None,
        None,
        None,
    ]


@pytest.mark.parametrize(
    ("text", "mode", "problem"),
    [
        (f"alice {KEY}", 0o644, "chmod 640"),
        (f"alice {KEY}", 0o660, "chmod 640"),
        ("alice", 0o600, "keys:1: must be NAME KEY"),
        (f"# x\nalice {KEY} more", 0o600, "keys:2: must be NAME KEY"),
        ("alice short", 0o600, "fewer than 16 characters"),
        (f"{'a' * 65} {KEY}", 0o600, "NAME: "),
        ("# nobody\n", 0o600, "has no key"),
    ],
)
def test_wrong_file_of_keys_is_refused(tmp_path: Path, text: str, mode: int, problem: str) -> None:
    with pytest.raises(ConfigError, match=problem):
        keys(tmp_path, text, mode)


def test_missing_file_of_keys_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read"):
        Keys.read(str(tmp_path / "none"))


@pytest.mark.parametrize(
    ("host", "name", "local"),
    [
        ("localhost:8000", "localhost", True),
        ("LOCALHOST.", "localhost", True),
        ("asrd.localhost", "asrd.localhost", True),
        ("127.0.0.1:80", "127.0.0.1", True),
        ("[::1]:80", "::1", True),
        ("[2001:db8::1]", "2001:db8::1", True),
        ("evil.example:80", "evil.example", False),
        ("localhost.evil.example", "localhost.evil.example", False),
        ("127.0.0.1.evil.example", "127.0.0.1.evil.example", False),
        ("", "", False),
    ],
)
def test_name_of_a_host(host: str, name: str, local: bool) -> None:
    assert _name(host) == name
    assert _is_local(name) is local


TRACE, PARENT = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"


def test_trace_goes_on_with_a_part_of_our_own() -> None:
    trace, ours = tracing.read(f"00-{TRACE}-{PARENT}-01")
    assert trace == TRACE and ours is not None
    version, same, part, flags = ours.split("-")
    assert (version, same, flags) == ("00", TRACE, "01")
    assert part != PARENT and len(part) == 16


@pytest.mark.parametrize(
    "header",
    [
        "",
        f"00-{TRACE}-{PARENT}",
        f"00-{TRACE}-{PARENT}-01-more",
        f"ff-{TRACE}-{PARENT}-01",
        f"00-{'0' * 32}-{PARENT}-01",
        f"00-{TRACE}-{'0' * 16}-01",
        f"00-{TRACE.upper()}-{PARENT}-01",
    ],
)
def test_invalid_trace_is_ignored(header: str) -> None:
    assert tracing.read(header) == (None, None)


def test_later_version_of_traces_may_have_more_parts() -> None:
    trace, ours = tracing.read(f"01-{TRACE}-{PARENT}-03-more")
    assert trace == TRACE and ours is not None and ours.endswith("-01")


@pytest.mark.parametrize(
    ("error", "status", "retry"),
    [
        (errors.Busy("the limit for all clients is reached"), 503, "true"),
        (errors.Busy("4 jobs of user alice of user 998 are unanswered"), 429, "true"),
        (errors.Busy("4 jobs of user bob of user 998 are unanswered"), 503, "true"),
        (errors.Unavailable("x"), 503, "false"),
        (errors.DeadlineExceeded("x", phase="queue"), 503, "true"),
        (errors.DeadlineExceeded("x", phase="run"), 504, "false"),
        (errors.WorkerCrashed("x"), 422, "false"),
        (errors.Cancelled("x"), 409, "false"),
        (errors.BadRequest("x"), 400, "false"),
        (errors.BadAudio("x"), 400, "false"),
        (errors.TooLarge("x"), 413, "false"),
        (errors.ModelNotFound("x"), 404, "false"),
        (errors.OutOfMemory("x"), 503, "true"),
        (errors.ShuttingDown("x"), 503, "true"),
        (errors.InternalError("x"), 500, "false"),
        (errors.ConnectionLost("x"), 503, "true"),
        (errors.ProtocolError("x"), 502, "false"),
    ],
    ids=lambda value: getattr(value, "code", None),
)
def test_status_of_every_error(error: errors.AsrdError, status: int, retry: str) -> None:
    answer = response(error, "alice")
    assert (answer.status_code, answer.headers["x-should-retry"]) == (status, retry)


def test_every_code_has_a_status() -> None:
    for code in errors.Code:
        assert response(errors.job_error_type(code)("x")).status_code >= 400


@pytest.mark.parametrize(
    ("text", "param"),
    [
        ("beam_size: must be between 1 and 32", "beam_size"),
        ("initial_prompt: is too long", "prompt"),
        ("vad_parameters.threshold: must be a number", "vad_parameters"),
        ("suppress_tokens[0]: must be an integer", "suppress_tokens"),
        ("something else", None),
    ],
)
def test_wrong_field_is_the_param(text: str, param: str | None) -> None:
    body = bytes(response(errors.BadRequest(text)).body).decode()
    assert f'"param":{"null" if param is None else chr(34) + param + chr(34)}' in body
