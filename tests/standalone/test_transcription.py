"""The options of `asrd transcribe`."""

import pytest

from asrd.exitcodes import Exit
from asrd.main import main

Capture = pytest.CaptureFixture[str]


def test_whisper_spelling_is_accepted(capsys: Capture) -> None:
    """The file is missing, so no daemon is needed."""
    arguments = "--compute_type int8 --threads 2 --word_timestamps True --fp16 False --best_of 2"
    assert main(["transcribe", "/no/file", *arguments.split()]) == Exit.BAD_AUDIO
    note, error = capsys.readouterr().err.splitlines()
    assert note.startswith("asrd: --fp16 is ignored")
    assert error.startswith("asrd: /no/file: ")


def test_option_of_whisper_that_asrd_lacks_is_wrong_usage(capsys: Capture) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["transcribe", "a.wav", "--speaker_name", "Ann"])
    assert ended.value.code == Exit.USAGE
    assert capsys.readouterr().err.startswith("asrd: --speaker-name: ")
