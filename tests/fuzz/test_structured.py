"""Tests of the check of running daemons: it must find each fault and name the burst."""

import os
import random
from collections import Counter
from typing import Any

import pytest

from asrd.wire import frames
from asrd.wire.client_events import TO_CLIENT
from tests.fuzz import structured
from tests.fuzz.structured import Listener, fuzz


class Ourselves:
    """This process as a daemon, which fails in its third burst."""

    def __init__(self, wrong: str) -> None:
        self.pid = os.getpid()
        self.slack_kib = 1 << 20
        self.answers: Counter[str] = Counter()
        self.log = "serving"
        self.bursts: list[float] = []
        self._wrong = wrong
        self._left_open: list[int] = []

    def burst(self, chance: random.Random) -> int:
        self.bursts.append(chance.random())
        if len(self.bursts) == 3 and self._wrong == "a descriptor":
            self._left_open.append(os.open("/dev/null", os.O_RDONLY))
        if len(self.bursts) == 3 and self._wrong == "a traceback":
            self.log += "\nTraceback (most recent call last):"
        return 1

    def look(self) -> None:
        assert len(self.bursts) < 3 or self._wrong != "an answer", "no answer"

    def __enter__(self) -> "Ourselves":
        return self

    def __exit__(self, *problem: Any) -> None:
        while self._left_open:
            os.close(self._left_open.pop())


@pytest.mark.parametrize(
    ("wrong", "problem"),
    [("a descriptor", "descriptors"), ("a traceback", "logged"), ("an answer", "no answer")],
)
def test_problem_is_reported_with_its_burst(
    wrong: str, problem: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(structured, "ANSWER_SECONDS", 0)
    with Ourselves(wrong) as daemon, pytest.raises(AssertionError) as caught:
        fuzz(daemon, 7, 0, 10)
    assert "seed 7, burst 2" in str(caught.value)
    assert problem in str(caught.value)


def test_single_burst_can_be_repeated() -> None:
    with Ourselves("nothing") as all_of_them, Ourselves("nothing") as one:
        assert fuzz(all_of_them, 7, 0, 5).messages == 5
        fuzz(one, 7, 0, 0, burst=3)
    assert one.bursts == all_of_them.bursts[3:4]


@pytest.mark.parametrize(
    ("kind", "data", "error"),
    [
        ("pong", {"text": 5}, "text: must be a string"),
        ("error", {"text": "no", "code": "bad-request", "job_id": "a b"}, "job_id: must be"),
        ("hello", {}, "it sent hello"),
    ],
)
def test_answer_must_match_its_declaration(kind: str, data: dict[str, Any], error: str) -> None:
    listener = Listener(TO_CLIENT)
    with pytest.raises(AssertionError, match=error):
        listener.receive(memoryview(frames.encode(kind, data)), [], lambda event: None)
    listener.close()
