"""The match of answers to calls, without a socket."""

import os
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asrd.client.conversation import Answer, Call, Conversation
from asrd.errors import (
    AsrdError,
    Busy,
    ConnectionLost,
    DeadlineExceeded,
    InternalError,
    ProtocolError,
)
from asrd.wire.client_events import TO_CLIENT, Accepted, CancelAnswer, Pong, Transcript
from asrd.wire.fds import OwnedFd
from asrd.wire.frames import Frame


class Heard(Conversation):
    """A conversation whose daemon is the test."""

    def __init__(self) -> None:
        super().__init__("/a.sock")

    def job(self, job_id: str) -> Call:
        return self.open("transcribe", {"job_id": job_id})

    def hear(self, kind: str, /, **data: Any) -> None:
        self.receive(Frame(kind, data))


@pytest.fixture
def conversation() -> Heard:
    return Heard()


def answers(call: Call) -> list[Answer]:
    found = []
    while (answer := call.take()) is not None:
        found.append(answer)
    return found


def test_answer_with_an_id_goes_to_that_job(conversation: Heard) -> None:
    a, b = conversation.job("a"), conversation.job("b")
    conversation.hear("accepted", job_id="b")
    conversation.hear("accepted", job_id="a")
    conversation.hear("transcript", job_id="b", text="B")
    assert answers(b) == [Accepted("b"), Transcript("B", "b")]
    assert answers(a) == [Accepted("a")]
    assert (a.over, b.over, conversation.idle) == (False, True, False)
    conversation.hear("transcript", job_id="a", text="A")
    assert answers(a) == [Transcript("A", "a")]
    assert conversation.idle


def test_answer_without_an_id_goes_to_the_oldest_call(conversation: Heard) -> None:
    first, second = conversation.open("ping", {}), conversation.open("ping", {})
    status = conversation.open("status", {})
    conversation.hear("status", state="ok")
    conversation.hear("pong", text="1")
    conversation.hear("pong", text="2")
    assert answers(first) == [Pong("1")]
    assert answers(second) == [Pong("2")]
    assert answers(status) == [{"state": "ok"}]
    assert conversation.idle


def test_cancel_is_answered_by_its_id(conversation: Heard) -> None:
    call = conversation.open("cancel", {"job_id": "j"})
    conversation.hear("cancelled", job_id="j", jobs=1)
    assert answers(call) == [CancelAnswer("j", 1)]


def test_error_with_an_id_is_that_jobs_answer(conversation: Heard) -> None:
    a, b, c = conversation.job("a"), conversation.job("b"), conversation.job("c")
    conversation.hear("error", job_id="a", trace_id="t", text="full", code="busy", retry_after_ms=7)
    conversation.hear("error", job_id="b", text="late", code="deadline-exceeded", phase="queue")
    with pytest.raises(Busy, match="full") as busy:
        a.take()
    assert (busy.value.job_id, busy.value.trace_id, busy.value.retry_after_ms) == ("a", "t", 7)
    with pytest.raises(DeadlineExceeded) as late:
        b.take()
    assert late.value.phase == "queue"
    assert c.take() is None
    assert not c.over


def test_unknown_error_code_is_named_in_the_text(conversation: Heard) -> None:
    call = conversation.job("a")
    conversation.hear("error", job_id="a", text="it rains", code="weather")
    with pytest.raises(InternalError, match=r"it rains \(weather\)"):
        call.take()


def test_error_without_an_id_ends_the_conversation(conversation: Heard) -> None:
    raised = []
    calls = [conversation.job("a"), conversation.open("ping", {})]
    conversation.hear("error", text="too many connections", code="busy")
    for call in calls:
        assert call.over
        with pytest.raises(Busy, match="too many") as caught:
            call.take()
        raised.append(caught.value)
    assert raised[0] is not raised[1], "exceptions that tasks share would share a traceback"
    assert not conversation.idle
    with pytest.raises(Busy, match="too many"):
        conversation.open("ping", {})


def test_first_failure_is_the_one_reported(conversation: Heard) -> None:
    conversation.fail(ProtocolError("the cause"))
    conversation.fail(ConnectionLost("the consequence"))
    with pytest.raises(ProtocolError, match="the cause"):
        conversation.open("ping", {})


def test_malformed_field_is_named(conversation: Heard) -> None:
    call = conversation.job("a")
    conversation.hear("transcript", job_id="a", text=5)
    with pytest.raises(ProtocolError, match="'transcript' is malformed: text: must be a string"):
        call.take()


def test_answer_without_an_open_call_is_dropped(conversation: Heard) -> None:
    call = conversation.job("a")
    conversation.hear("transcript", job_id="b", text="x")
    # Its descriptor is closed, or the test leaks it.
    conversation.receive(Frame("pong", {}, fds=[OwnedFd(os.eventfd(0))]))
    conversation.hear("a-new-event", job_id="a")
    conversation.hear("status", job_id=["not", "an", "id"])
    assert call.take() is None
    assert conversation.error is None
    conversation.hear("transcript", job_id="a", text="one")
    conversation.hear("transcript", job_id="a", text="two")
    assert answers(call) == [Transcript("one", "a")]


def test_id_can_be_reused_after_its_job(conversation: Heard) -> None:
    conversation.job("a")
    with pytest.raises(ValueError, match="'a' is still open"):
        conversation.job("a")
    conversation.hear("transcript", job_id="a", text="")
    conversation.job("a")


def test_each_answer_wakes_the_caller(conversation: Heard) -> None:
    call = conversation.job("a")
    woken: list[int] = []
    call.wake = lambda: woken.append(1)
    conversation.hear("accepted", job_id="a")
    conversation.fail(ConnectionLost("gone"))
    assert len(woken) == 2


def test_repr_counts_open_calls_and_untaken_answers(conversation: Heard) -> None:
    call = conversation.job("a")
    conversation.open("ping", {})
    conversation.hear("accepted", job_id="a")
    assert repr(call) == "<Call a untaken=1>"
    assert repr(conversation).endswith("open jobs=1 others=1>")
    conversation.fail(ConnectionLost("gone"))
    assert repr(conversation).endswith("over jobs=0 others=0>")


_scalar = st.sampled_from([None, True, 0, -1, 1.5, float("nan"), "a", "x y", ""])
_json = _scalar | st.lists(_scalar, max_size=2) | st.fixed_dictionaries({"id": _scalar})
_fields = st.sampled_from(
    ["job_id", "text", "code", "segments", "segment", "index", "jobs", "queue_depth", "state"]
)
_kinds = st.sampled_from([*TO_CLIENT, "status", "info", "other"])


@given(st.lists(st.tuples(_kinds, st.dictionaries(_fields, _json, max_size=6)), max_size=6))
def test_any_answers_are_taken_or_an_asrd_error(said: list[tuple[str, dict[str, Any]]]) -> None:
    conversation = Heard()
    calls = [conversation.job("a"), conversation.open("status", {})]
    for kind, data in said:
        conversation.receive(Frame(kind, data))
    conversation.fail(ConnectionLost("the end"))
    for call in calls:
        assert call.over
        try:
            answers(call)
        except AsrdError as error:
            assert str(error)
