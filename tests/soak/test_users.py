"""Tests of the campaign's clients: each breach that only a client can see must be found."""

import random
import time
from collections.abc import Callable
from dataclasses import replace
from types import SimpleNamespace
from typing import Any
from unittest.mock import MagicMock

import pytest

from asrd.wire import frames
from tests.soak import hostile
from tests.soak.clips import Clips
from tests.soak.fairness import turns, unfair
from tests.soak.honest import Context, Line
from tests.soak.ledger import Ledger
from tests.soak.oracle import Kind
from tests.support.judging import LIMITS, strike

NONE = Clips([], [])

# --- streams -------------------------------------------------------------------------------------


def segment(index: int, attempt: int = 1, text: str = " yes") -> dict[str, Any]:
    record = {"id": index, "start": index, "end": index + 1, "text": text}
    return {"index": index, "attempt": attempt, "segment": record}


@pytest.fixture
def found(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[str]]:
    """Returns what a client finds wrong with these segments and the transcript of `kept`."""

    def ask(*segments: dict[str, Any], kept: list[int], stream: bool = True) -> list[str]:
        peer = MagicMock()
        monkeypatch.setattr(Context, "connect", lambda self: peer)
        line = Line(Context(random.Random(1), ledger, NONE, ""))
        records = [segments[number]["segment"] for number in kept]
        text = "".join(record["text"] for record in records).strip()
        job = ledger.open(Kind.INNOCENT, "payload", text)
        line.ask(job, {}, stream=stream)
        answer = {"text": text, "segments": records, "attempts": 2}
        for kind, data in [
            ("accepted", {}),
            *[("segment", each) for each in segments],
            ("transcript", answer),
        ]:
            event = frames.Frame(kind, {"job_id": job.id, **data})
            line._check(job, event)
        return ledger.failures

    return ask


def test_stream_that_goes_on_after_a_death_is_right(found: Callable[..., list[str]]) -> None:
    assert not found(segment(0), segment(1, 2), segment(2, 2), kept=[0, 1, 2])


@pytest.mark.parametrize(
    ("segments", "kept", "problem"),
    [
        ([segment(0), segment(0, 2)], [0], "segment 0 of attempt 2 after 1 segments"),
        ([segment(0), segment(2)], [0, 1], "segment 2 of attempt 1 after 1 segments"),
        ([segment(0, 2), segment(1, 1)], [0, 1], "segment 1 of attempt 1 after 1 segments"),
        # A mixture: the transcript has another attempt's segment.
        ([segment(0), segment(1), segment(2)], [0, 2], "were streamed"),
    ],
)
def test_repeated_missing_and_mixed_segments_are_found(
    found: Callable[..., list[str]], segments: list[Any], kept: list[int], problem: str
) -> None:
    assert problem in found(*segments, kept=kept)[0]


def test_segments_that_nobody_asked_for_are_found(found: Callable[..., list[str]]) -> None:
    assert "nobody asked for" in found(segment(0), kept=[0], stream=False)[0]


# --- several users --------------------------------------------------------------------------------


def done(second: float, uid: int, waited: float, name: str, audio: float = 1) -> str:
    return (
        f"2026-01-31 12:00:{second:06.3f} asrd[7]: done: {audio:.1f} s of audio, "
        f"waited {waited:.3f} s, ran 0.500 s on worker 0 job_id={name} peer_uid={uid}\n"
    ).replace(".", ",", 1)


FLOOD = [done(10 + n / 2, 1000, 2.0, f"j{n}") for n in range(8)]
LOST = (
    "2026-01-31 12:00:11,000 asrd[7]: worker 0: lost: it broke, running job mine (1 s) "
    "worker_pid=7 job_id=mine\n"
)


@pytest.mark.parametrize(
    ("log", "found"),
    [
        (
            [done(14.0, 1001, 4.0, "mine")],
            ["user 1000 was served 7 times while job mine of user 1001 waited 4.0 s"],
        ),
        ([done(11.2, 1001, 1.0, "mine")], []),
        # The log of a job that ran twice has only its second start.
        ([LOST, done(14.0, 1001, 4.0, "mine")], []),
        ([done(14.0, 1001, 4.0, "twice")], []),
        # Long recordings have other places.
        ([done(14.0, 1001, 4.0, "mine", audio=60)], []),
    ],
)
def test_user_served_many_times_before_another_is_unfair(log: list[str], found: list[str]) -> None:
    assert unfair(turns([*FLOOD, *log], retried={"twice"}), 1001, 3) == found


@pytest.fixture
def as_user(ledger: Ledger) -> Context:
    """The context of user 1000, for a test that plays the daemon."""
    return Context(random.Random(1), ledger, NONE, "", uid=1000)


@pytest.mark.parametrize("ended", [0, 1])
def test_cancel_of_another_users_job_is_found(
    as_user: Context, monkeypatch: pytest.MonkeyPatch, ended: int
) -> None:
    theirs = as_user.ledger.open(Kind.INNOCENT, "payload", "yes", uid=1001)
    client = MagicMock()
    cancel = client.return_value.__enter__.return_value.cancel
    cancel.return_value = ended
    monkeypatch.setattr("asrd.Client", client)
    hostile.meddle(as_user)
    assert len(as_user.ledger.failures) == ended
    cancel.assert_called_once_with(theirs.id)


@pytest.mark.parametrize(("owner", "seen"), [(1000, 0), (1001, 1)])
def test_view_of_another_users_job_is_found(
    as_user: Context, monkeypatch: pytest.MonkeyPatch, owner: int, seen: int
) -> None:
    peer = MagicMock()
    status = {"workers": [{"last_death": f"killed, running job j5u{owner} (1 s)"}]}
    peer.connect.return_value.__enter__.return_value.receive.side_effect = [
        SimpleNamespace(data=status),
        None,
    ]
    monkeypatch.setattr(hostile, "Peer", peer)
    hostile.spy(as_user)
    assert len(as_user.ledger.failures) == seen


@pytest.mark.parametrize(
    ("fault", "overdue"),
    [("SIGSTOP to front", False), ("SIGKILL to front", True), ("SIGSTOP to worker 0", True)],
)
def test_stalled_client_may_stay_longer_while_front_is_stopped(
    as_user: Context, fault: str, overdue: bool
) -> None:
    as_user.ledger.limits = replace(LIMITS, frame=0.5, grace=0.5, slow_death=60)
    begun = time.monotonic() - 2
    assert not hostile._overdue(as_user, begun + 2)
    assert hostile._overdue(as_user, begun)
    strike(as_user.ledger, fault)
    assert hostile._overdue(as_user, begun) == overdue
