"""Which answer belongs to which call, without a socket."""

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
from asrd.wire.frames import Frame


def heard(conversation: Conversation, kind: str, /, **data: Any) -> None:
    conversation.receive(Frame(kind, data))


def answers(call: Call) -> list[Answer]:
    found = []
    while (answer := call.take()) is not None:
        found.append(answer)
    return found


def test_jobs_are_told_apart_by_their_ids() -> None:
    conversation = Conversation()
    a, b = conversation.open("transcript", "a"), conversation.open("transcript", "b")
    heard(conversation, "accepted", job_id="b")
    heard(conversation, "accepted", job_id="a")
    heard(conversation, "transcript", job_id="b", text="B")
    assert answers(b) == [Accepted("b"), Transcript("B", "b")]
    assert answers(a) == [Accepted("a")]
    assert (a.over, b.over, conversation.idle) == (False, True, False)
    heard(conversation, "transcript", job_id="a", text="A")
    assert answers(a) == [Transcript("A", "a")]
    assert conversation.idle


def test_answers_without_an_id_go_to_the_oldest_call_of_their_kind() -> None:
    conversation = Conversation()
    first, second = conversation.open("pong"), conversation.open("pong")
    status = conversation.open("status")
    heard(conversation, "status", state="ok")
    heard(conversation, "pong", text="1")
    heard(conversation, "pong", text="2")
    assert answers(first) == [Pong("1")]
    assert answers(second) == [Pong("2")]
    assert answers(status) == [{"state": "ok"}]
    assert conversation.idle


def test_cancelling_another_connections_job() -> None:
    conversation = Conversation()
    call = conversation.open("cancelled", "j")
    heard(conversation, "cancelled", job_id="j", jobs=1)
    assert answers(call) == [CancelAnswer("j", 1)]


def test_an_error_with_an_id_is_that_jobs_alone() -> None:
    conversation = Conversation()
    a, b = conversation.open("transcript", "a"), conversation.open("transcript", "b")
    heard(
        conversation, "error", job_id="a", trace_id="t", text="full", code="busy", retry_after_ms=7
    )
    with pytest.raises(Busy, match="full") as caught:
        a.take()
    assert (caught.value.job_id, caught.value.trace_id) == ("a", "t")
    assert caught.value.retry_after_ms == 7
    assert b.take() is None
    assert not b.over


def test_the_phase_of_a_deadline_reaches_the_caller() -> None:
    conversation = Conversation()
    call = conversation.open("transcript", "a")
    heard(conversation, "error", job_id="a", text="late", code="deadline-exceeded", phase="queue")
    with pytest.raises(DeadlineExceeded) as caught:
        call.take()
    assert caught.value.phase == "queue"


def test_a_code_of_a_newer_daemon_is_not_lost() -> None:
    conversation = Conversation()
    call = conversation.open("transcript", "a")
    heard(conversation, "error", job_id="a", text="it rains", code="weather")
    with pytest.raises(InternalError, match=r"it rains \(weather\)"):
        call.take()


def test_an_error_without_an_id_ends_the_conversation() -> None:
    conversation = Conversation()
    job, ping = conversation.open("transcript", "a"), conversation.open("pong")
    heard(conversation, "error", text="too many connections", code="busy")
    for call in (job, ping):
        assert call.over
        with pytest.raises(Busy, match="too many"):
            call.take()
    assert not conversation.idle
    with pytest.raises(Busy, match="too many"):
        conversation.open("pong")


def test_callers_do_not_share_one_exception() -> None:
    conversation = Conversation()
    calls = [conversation.open("pong"), conversation.open("pong")]
    conversation.fail(ConnectionLost("gone"))
    raised = []
    for call in calls:
        with pytest.raises(ConnectionLost, match="gone") as caught:
            call.take()
        raised.append(caught.value)
    assert raised[0] is not raised[1]


def test_only_the_first_failure_counts() -> None:
    conversation = Conversation()
    conversation.fail(ProtocolError("the cause"))
    conversation.fail(ConnectionLost("the consequence"))
    with pytest.raises(ProtocolError, match="the cause"):
        conversation.open("pong")


def test_a_wrong_field_is_named() -> None:
    conversation = Conversation()
    call = conversation.open("transcript", "a")
    heard(conversation, "transcript", job_id="a", text=5)
    with pytest.raises(ProtocolError, match="'transcript' is malformed: text: must be a string"):
        call.take()


def test_what_nobody_waits_for_is_dropped() -> None:
    conversation = Conversation()
    call = conversation.open("transcript", "a")
    heard(conversation, "transcript", job_id="b", text="x")
    heard(conversation, "pong")
    heard(conversation, "a-new-event", job_id="a")
    heard(conversation, "status", job_id=["not", "an", "id"])
    assert call.take() is None
    assert conversation.error is None


def test_an_answer_after_the_last_is_dropped() -> None:
    conversation = Conversation()
    call = conversation.open("transcript", "a")
    heard(conversation, "transcript", job_id="a", text="one")
    heard(conversation, "transcript", job_id="a", text="two")
    assert answers(call) == [Transcript("one", "a")]


def test_an_id_is_free_again_once_its_job_is_over() -> None:
    conversation = Conversation()
    conversation.open("transcript", "a")
    with pytest.raises(ValueError, match="'a' is still open"):
        conversation.open("transcript", "a")
    heard(conversation, "transcript", job_id="a", text="")
    conversation.open("transcript", "a")


def test_the_shell_is_woken_for_each_answer() -> None:
    conversation = Conversation()
    call = conversation.open("transcript", "a")
    woken: list[int] = []
    call.wake = lambda: woken.append(1)
    heard(conversation, "accepted", job_id="a")
    conversation.fail(ConnectionLost("gone"))
    assert len(woken) == 2


def test_descriptors_that_a_daemon_sends_are_closed() -> None:
    class Fd:
        closed = False

        def close(self) -> None:
            self.closed = True

    fd = Fd()
    Conversation().receive(Frame("pong", {}, fds=[fd]))
    assert fd.closed


def test_reprs() -> None:
    conversation = Conversation()
    call = conversation.open("transcript", "a")
    conversation.open("pong")
    assert repr(conversation) == "<Conversation open jobs=1 others=1>"
    heard(conversation, "accepted", job_id="a")
    assert repr(call) == "<Call a untaken=1>"
    conversation.fail(ConnectionLost("gone"))
    assert repr(conversation) == "<Conversation over jobs=0 others=0>"


_scalar = st.sampled_from([None, True, 0, -1, 1.5, float("nan"), "a", "x y", ""])
_json = _scalar | st.lists(_scalar, max_size=2) | st.fixed_dictionaries({"id": _scalar})
_fields = st.sampled_from(
    ["job_id", "text", "code", "segments", "segment", "index", "jobs", "queue_depth", "state"]
)


@given(
    st.lists(
        st.tuples(
            st.sampled_from([*TO_CLIENT, "status", "info", "other"]),
            st.dictionaries(_fields, _json, max_size=6),
        ),
        max_size=6,
    )
)
def test_whatever_a_daemon_says_is_an_answer_or_an_asrd_error(
    said: list[tuple[str, dict[str, Any]]],
) -> None:
    conversation = Conversation()
    calls = [conversation.open("transcript", "a"), conversation.open("status")]
    for kind, data in said:
        conversation.receive(Frame(kind, data))
    conversation.fail(ConnectionLost("the end"))
    for call in calls:
        assert call.over
        try:
            answers(call)
        except AsrdError as error:
            assert str(error)
