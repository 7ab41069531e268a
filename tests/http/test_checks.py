"""The checks before a request: keys, names of the host, other sites' pages, traces."""

import json
from pathlib import Path

import pytest

from asrd import errors
from asrd.errors import ConfigError
from asrd.http import tracing
from asrd.http.errors import HttpError, response
from asrd.http.guard import _is_local, _name
from asrd.http.keys import Keys
from asrd.http.log_limit import LogLimit
from asrd.http.names import Names

KEY, OTHER = "k" * 16, "o" * 16


def keys(tmp_path: Path, text: str, mode: int = 0o640) -> Keys:
    path = tmp_path / "keys"
    path.write_text(text)
    path.chmod(mode)
    return Keys(str(path))


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
        (f"alice {KEY}\nbob {KEY}", 0o600, "keys:2: the key of bob is that of alice, too"),
        (f"\nalice {KEY}ü", 0o600, "keys:2: the key has characters"),
        (f"alice {KEY}\x01", 0o600, "keys:1: the key has characters"),
    ],
)
def test_wrong_file_of_keys_is_refused(tmp_path: Path, text: str, mode: int, problem: str) -> None:
    with pytest.raises(ConfigError, match=problem):
        keys(tmp_path, text, mode)


def test_missing_file_of_keys_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read"):
        Keys(str(tmp_path / "none"))


def test_changed_file_of_keys_is_read_again(tmp_path: Path) -> None:
    found, path = keys(tmp_path, f"alice {KEY}\n"), tmp_path / "keys"
    path.write_text(f"alice {KEY}\nbob {OTHER}\n")
    found.refresh()
    assert found.user(OTHER) == "bob"
    other = tmp_path / "new"
    other.write_text(f"carol {OTHER}\n")
    other.chmod(0o600)
    other.rename(path)
    found.refresh()
    assert (found.user(OTHER), found.user(KEY)) == ("carol", None)


def test_wrong_new_file_of_keys_leaves_the_old_ones(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    found, path = keys(tmp_path, f"alice {KEY}\n"), tmp_path / "keys"
    path.write_text(f"alice {KEY}\nbob short\n")
    for _ in range(3):
        found.refresh()
    path.unlink()
    for _ in range(3):
        found.refresh()
    assert found.user(KEY) == "alice"
    texts = [record.message for record in caplog.records]
    assert len(texts) == 2 and all("the keys from before stay valid" in text for text in texts)
    assert "keys:2: the key has fewer than 16 characters" in texts[0]


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


def test_log_entries_are_few_and_count_the_rest() -> None:
    limit = LogLimit()
    assert [limit.next(now / 10) for now in range(30)] == [""] * 10 + [None] * 20
    assert [limit.next(60.0) for _ in range(2)] == ["; 20 more before were not logged", ""]


@pytest.mark.parametrize(
    ("text", "sent", "param"),
    [
        ("beam_size: must be between 1 and 32", "beam_size", "beam_size"),
        ("initial_prompt: is too long", "initial_prompt", "initial_prompt"),
        ("initial_prompt: is too long", "prompt", "prompt"),
        ("hotwords: is too long", "keywords[]", "keywords[]"),
        ("languages: is no list", "languages[0]", "languages[0]"),
        ("vad_parameters.threshold: no", "vad_parameters", "vad_parameters"),
        ("vad_parameters.threshold: no", "vad_parameters[threshold]", "vad_parameters[threshold]"),
        ("vad_parameters.threshold: no", "chunking_strategy", "chunking_strategy"),
        ("audio.encoding: no", "encoding", "encoding"),
        ("audio.encoding: no", "channels", "file"),
        ("suppress_tokens[0]: must be an integer", "suppress_tokens[]", "suppress_tokens[]"),
        ("something else", "prompt", None),
    ],
)
def test_wrong_field_is_the_param_as_the_client_wrote_it(
    text: str, sent: str, param: str | None
) -> None:
    answer = response(errors.BadRequest(text), names=Names([sent]))
    assert json.loads(bytes(answer.body))["error"]["param"] == param


@pytest.mark.parametrize(
    ("status", "kind"),
    [(400, "invalid_request_error"), (429, "requests"), (500, "server_error")],
)
def test_type_of_an_error_is_that_of_openai(status: int, kind: str) -> None:
    answer = response(HttpError(status, "x", code="x"))
    assert json.loads(bytes(answer.body))["error"]["type"] == kind
