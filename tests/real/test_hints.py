"""Hints of any length never cost the transcript (docs/performance.md has the whole table)."""

from typing import Any

import pytest

from asrd.engine.whisper import WhisperEngine
from asrd.errors import WarningCode
from asrd.wire.options import Options
from tests.support.engine_jobs import ENGLISH, transcribe
from tests.support.real.hinting import KINDS, devices
from tests.support.real.speech import Clip, joined, sentences, word_error_rate

pytestmark = [pytest.mark.real, pytest.mark.usefixtures("clips")]


@pytest.mark.parametrize(
    ("condition", "kinds"),
    [
        (True, [("device names", 20), ("device names", 4096), ("punctuation", 400)]),
        (False, [("device names", 4096)]),
    ],
)
def test_minute_of_speech_keeps_its_words(
    tiny_en: WhisperEngine, condition: bool, kinds: list[tuple[str, int]]
) -> None:
    """With faster-whisper's own prompt, each of these lost half of its words, or all."""
    audio, said = joined(sentences()[8:], 60)

    def rate(**hints: Any) -> float:
        found = transcribe(tiny_en, audio, ENGLISH, condition_on_previous_text=condition, **hints)
        return word_error_rate([(said, found.text)])

    without = rate()
    with_hints = {
        (kind, length): rate(hotwords=KINDS[kind](length), initial_prompt=KINDS[kind](length))
        for kind, length in kinds
    }
    assert max(with_hints.values()) <= 1.1 * without


def test_command_keeps_its_words(base: WhisperEngine, clips: dict[str, Clip]) -> None:
    clip = clips["goforward.wav"]
    hints: dict[str, Any] = {"hotwords": devices(1860), "initial_prompt": devices(1860)}
    found = transcribe(base, clip.audio, ENGLISH, **hints)
    assert word_error_rate([(clip.known_text, found.text)]) == 0
    assert [warning.code for warning in found.warnings] == [WarningCode.HINTS_CUT] * 2
    assert "hotwords: 111 of " in found.warnings[0].text


@pytest.mark.parametrize("field", ["hotwords", "initial_prompt"])
def test_hint_is_heard(base: WhisperEngine, clips: dict[str, Clip], field: str) -> None:
    audio = clips["hotwords.mp3"].path.read_bytes()
    assert "ComfyUI" not in transcribe(base, audio, ENGLISH).text
    hint: dict[str, Any] = {field: "ComfyUI"}
    found = transcribe(base, audio, Options(), **hint)
    assert found.text.count("ComfyUI") == 2
    assert not found.warnings
