"""The kept inputs of the fuzzers, run through the same functions without a fuzzer, and proof that
they find bugs."""

import contextlib
import os
import random
from pathlib import Path
from typing import Any

import pytest

from asrd import config
from asrd.engine.audio import containers
from asrd.wire import fields, frames, strict_json, worker_events
from tests.fuzz import targets
from tests.fuzz.guided import CORPUS
from tests.fuzz.mutants import Mutants
from tests.fuzz.targets import TARGETS


def inputs(target: str) -> list[bytes]:
    return [path.read_bytes() for path in sorted((CORPUS / target).iterdir())]


@pytest.fixture(autouse=True)
def _no_settings_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in os.environ:
        if variable.startswith("ASRD_"):
            monkeypatch.delenv(variable)


@pytest.mark.parametrize("target", TARGETS)
def test_corpus_finds_no_bug(target: str) -> None:
    found = inputs(target)
    assert found
    for data in found:
        TARGETS[target](data)


def test_corpus_fed_byte_by_byte_finds_no_bug(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(targets, "_PIECES", 1 << 20)
    for data in inputs("codec"):
        targets.codec(data)


# --- each of these bugs is found by the corpus alone ----------------------------------------------


def _forgets_descriptors(decoder: frames.Decoder) -> None:
    decoder._pending = memoryview(b"")
    decoder._fds.clear()


def _knows_only_whole_lines(decoder: frames.Decoder) -> bytes | None:
    line, end, _ = bytes(decoder._pending).partition(b"\n")
    decoder._take(len(line) + len(end))
    return line if end else None


def _raises(*_: object) -> None:
    raise LookupError


BUGS: dict[str, tuple[str, Any, str, Any]] = {
    "descriptors are left open": ("codec", frames.Decoder, "_drop", _forgets_descriptors),
    "only whole lines": ("codec", frames.Decoder, "_take_line", _knows_only_whole_lines),
    "a length is another exception": ("codec", frames, "_length", _raises),
    "a field is another exception": ("events", fields, "parse", _raises),
    "infinity is a number": ("json", strict_json, "_finite", float),
    "a wrong key is another exception": ("settings", config, "_line", _raises),
    "a damaged file is another exception": ("recordings", containers, "reason", _raises),
}


@pytest.mark.parametrize("bug", BUGS)
def test_corpus_finds_bug(bug: str, monkeypatch: pytest.MonkeyPatch) -> None:
    target, owner, name, broken = BUGS[bug]
    monkeypatch.setattr(owner, name, broken)
    with pytest.raises((AssertionError, LookupError)):
        for data in inputs(target):
            TARGETS[target](data)


def test_same_seed_makes_same_messages(tmp_path: Path) -> None:
    def messages(seed: int) -> list[bytes]:
        mutants = Mutants(
            random.Random(seed), {worker_events.StartJob: 1.0}, None, True, b"audio", tmp_path
        )
        with contextlib.ExitStack() as stack:
            return [
                stack.enter_context(contextlib.closing(mutants.message())).raw for _ in range(50)
            ]

    assert messages(1) == messages(1) != messages(2)
