"""The options of Whisper's programs, as docs/whisper.md lists them."""

import re
from pathlib import Path

import pytest

from asrd.asrctl.cli import build_parser
from asrd.asrctl.spelling import Unsupported, translated
from asrd.formats import FORMATS
from tests.support import peers
from tests.support.completions import options
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
    whisper = peers.options(programs / peers.OPTIONS["whisper"])
    ctranslate2 = peers.options(programs / peers.OPTIONS["whisper-ctranslate2"])
    assert len(whisper) > 30
    assert len(ctranslate2) > 50
    assert rows == {option: outcome(option) for option in whisper | ctranslate2}


def test_programs_side_by_side_have_what_the_page_says(programs: Path) -> None:
    known = {name: set(peers.options(programs / file)) for name, file in peers.OPTIONS.items()}
    known["asrctl transcribe"] = {
        option for command, option in options() if command == "transcribe"
    }
    (page,) = re.findall(
        r"^## Side by side\n(.*)",
        (ROOT / "docs" / "whisper.md").read_text(),
        re.MULTILINE | re.DOTALL,
    )
    names, _, formats, *rows = (
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in re.findall(r"^\|.*\|$", page, re.MULTILINE)
    )
    assert names[1:] == [*known]
    assert len(rows) == 20
    for what, *cells in rows:
        said = [re.findall(r"`(--[\w-]+)`", cell) for cell in cells]
        for named, mine in zip(said, known.values(), strict=True):
            assert set(named) <= mine, what
            if not named:
                # Nor has it the option by the name that another program gives it.
                others = {option.replace("-", "_") for each in said for option in each}
                assert not others & {option.replace("-", "_") for option in mine}, what
    for cell, file in zip(formats[1:], peers.OPTIONS.values(), strict=False):
        choices = peers.options(programs / file)["--output_format"]
        assert set(cell.split()) == choices - {"all"}
    assert formats[-1].split() == [*FORMATS]
