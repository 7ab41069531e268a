"""The options of Whisper's programs, as docs/whisper.md lists them."""

import re
from pathlib import Path

import pytest

from asrd.asrctl.cli import build_parser
from asrd.asrctl.spelling import Unsupported, translated
from tests.support import peers
from tests.support.paths import ROOT

pytestmark = pytest.mark.peers

_VALUES = {
    "--output_format": "srt",
    "--task": "translate",
    "--language": "German",
    "--vad_max_speech_duration_s": "5",
    "--vad_min_silence_duration_ms": "5",
    "--vad_min_speech_duration_ms": "5",
    "--vad_threshold": "0.5",
}
_SWITCHES = "batched condition_on_previous_text highlight_words multilingual suppress_blank"
_SWITCHES += " vad_filter verbose word_timestamps"


def outcome(option: str) -> str:
    """Returns what becomes of an option: accepted, ignored or refused."""
    value = "True" if option[2:] in _SWITCHES.split() else _VALUES.get(option, "1")
    try:
        found, notes = translated(["a.mp3", option, value])
    except Unsupported:
        return "refused"
    # Ends the program for an option that it does not know.
    build_parser().parse_args(["transcribe", *found])
    return "ignored" if notes else "accepted"


def test_page_lists_every_option_of_both_and_what_becomes_of_it(programs: Path) -> None:
    text = (ROOT / "docs" / "whisper.md").read_text()
    rows = dict(re.findall(r"^\| `(--\w+)` \| [\w -]+ \| (\w+)", text, re.MULTILINE))
    whisper = peers.options(programs / "whisper" / "transcribe.py")
    ctranslate2 = peers.options(programs / "whisper_ctranslate2" / "commandline.py")
    assert len(whisper) > 30
    assert len(ctranslate2) > 50
    assert rows == {option: outcome(option) for option in whisper | ctranslate2}
