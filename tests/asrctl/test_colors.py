"""`asrctl transcribe --color`: colours by probability, on terminals alone."""

import os
import pty
from pathlib import Path
from typing import Any

import pytest

from asrd.asrctl.cli import main
from asrd.asrctl.colors import ColorWriter
from asrd.exitcodes import Exit
from asrd.wire.records import Segment, Word
from tests.support.fake_daemon import PATIENCE, FakeDaemon, Peer, segment, transcript
from tests.support.subprocesses import read_terminal, started

RED, YELLOW, END = "\x1b[31m", "\x1b[33m", "\x1b[39m"


def words(**probabilities: float) -> tuple[Word, ...]:
    return tuple(Word(0, 1, f" {word}", value) for word, value in probabilities.items())


def unsure(peer: Peer, request: dict[str, Any]) -> None:
    said = {**segment(0, "hello"), "avg_logprob": -3.0}
    peer.send("accepted", job_id=request["job_id"], queue_depth=0)
    peer.send("segment", job_id=request["job_id"], index=0, segment=said)
    peer.open_jobs.discard(request["job_id"])
    peer.send("transcript", **{**transcript(request, []), "segments": [said]})


def test_words_are_coloured_by_their_probability() -> None:
    made = ColorWriter("a")
    segment = Segment(1, 0, 1, " sure so low", words=words(sure=0.9, so=0.69, low=0.39))
    assert made.segment(segment) == f"sure {YELLOW}so{END} {RED}low{END}\n"


def test_segment_without_words_is_coloured_as_a_whole() -> None:
    made = ColorWriter("a")
    for mean, expected in ((-0.1, "a b"), (-0.5, f"{YELLOW}a b{END}"), (-2.0, f"{RED}a b{END}")):
        assert made.segment(Segment(1, 0, 1, " a b", avg_logprob=mean)) == f"{expected}\n"
    assert made.segment(Segment(1, 0, 1, " a b")) == "a b\n"


def test_words_can_write_no_escape_sequences() -> None:
    segment = Segment(1, 0, 1, "x", words=(Word(0, 1, "\x1b[2J", 0.1), Word(0, 1, " ", 0.1)))
    assert ColorWriter("a").segment(segment) == f"{RED}\\x1b[2J{END} \n"


@pytest.mark.parametrize("variables", [{}, {"NO_COLOR": "1"}, {"TERM": "dumb"}], ids=str)
def test_only_a_terminal_gets_colours(
    path: Path, recording: str, variables: dict[str, str]
) -> None:
    terminal, other_end = pty.openpty()
    environment = {**os.environ, "TERM": "xterm", **variables}
    with FakeDaemon(path, [unsure]) as daemon:
        asrctl = started(
            *("transcribe", "--color", "--quiet", recording),
            **dict.fromkeys(("stdout", "stderr"), other_end),
            env=environment,
        )
        os.close(other_end)
        expected = "hello\r\n" if variables else f"{RED}hello{END}\r\n"
        assert read_terminal(terminal, lambda seen: "\n" in seen) == expected
        assert asrctl.wait(PATIENCE) == Exit.OK
    os.close(terminal)
    # The times of words take time, which is lost where no colour is shown.
    assert ("word_timestamps" in daemon.jobs[0].data) == (not variables)


def test_a_pipe_gets_no_colours(
    path: Path, recording: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with FakeDaemon(path, [unsure]):
        assert main(["transcribe", "--color", recording]) == Exit.OK
    assert capsys.readouterr().out == "hello\n"


def test_live_text_has_no_colours() -> None:
    with pytest.raises(SystemExit):
        main(["transcribe", "--live", "--color"])
