"""Whisper's spelling of options."""

from pathlib import Path

import pytest

from asrd.asrctl.cli import main
from asrd.asrctl.spelling import Unsupported, translated
from asrd.exitcodes import Exit
from tests.support.fake_daemon import FakeDaemon, answer

Capture = pytest.CaptureFixture[str]


@pytest.mark.parametrize(
    ("whisper", "ours"),
    [
        ("a_b.mp3 --beam_size=3", "a_b.mp3 --beam-size=3"),
        ("--word_timestamps True", "--word-timestamps"),
        ("--condition_on_previous_text False a", "--no-condition-on-previous-text a"),
        ("--highlight_words False --vad_filter true", "--vad-filter"),
        ("--word-timestamps a.mp3", "--word-timestamps a.mp3"),
        ("-f srt", "--format srt --output-dir . --overwrite"),
        ("--output_format srt -o out", "--format srt --output-dir out --overwrite"),
        ("--output_dir out --output_format=srt", "--output-dir out --format srt --overwrite"),
        ("--verbose False --verbose True --verbose", "--quiet --verbose"),
        ("--best_of None --max_line_width None", "--best-of 1"),
        ("--vad_threshold 0.4 --vad_min_silence_duration_ms 9", "--vad-parameters "
         "threshold=0.4,min_silence_duration_ms=9"),
        ("--temperature_increment_on_fallback 0.2", "--temperature 0,0.2,0.4,0.6,0.8,1"),
        ("--temperature 0.5 --temperature_increment_on_fallback None", "--temperature=0.5"),
        ("--batched True", "--batch-size 8"),
        ("--batched True --batch_size 4", "--batch-size 4"),
        ("--batched True --batch_size=16", "--batch-size=16"),
        ("a.mp3 --output_dir out", "a.mp3 --output-dir out --format all --overwrite"),
        ("a.mp3 --output_dir=out --format srt", "a.mp3 --output-dir=out --format srt --overwrite"),
        ("a.mp3 --output-dir out", "a.mp3 --output-dir out"),
        ("--live --output_dir out", "--live --output-dir out --overwrite"),
        ("--carry_initial_prompt False", ""),
        ("--speaker_num 2 --speaker_num=3", "--num-speakers 2 --num-speakers=3"),
        ("-- --a_b True", "-- --a_b True"),
    ],
)  # fmt: skip
def test_each_way_of_spelling(whisper: str, ours: str) -> None:
    assert translated(whisper.split()) == (ours.split(), [])


def test_options_of_the_worker_are_ignored_with_a_note() -> None:
    found, notes = translated(["--fp16", "False", "--device=cpu", "a"])
    assert found == ["a"]
    assert [note.split(":")[0] for note in notes] == ["--fp16 is ignored", "--device is ignored"]
    assert translated(["--device", "cpu"], frozenset({"--device"})) == (["--device", "cpu"], [])


def test_token_of_the_hub_asks_for_speakers() -> None:
    found, [note] = translated(["--hf_token", "x", "a"])
    assert found == ["--speakers", "a"]
    assert note == "--hf-token is ignored: the worker's model is on its machine"


@pytest.mark.parametrize(
    "arguments",
    [
        "--carry_initial_prompt True",
        "--speaker_name Ann",
        "--version",
        "--word_timestamps=yes",
        "--logprob_threshold None",
        "--temperature_increment_on_fallback 0",
        "--temperature warm --temperature_increment_on_fallback 0.2",
    ],
)
def test_option_that_asrd_lacks_is_named(arguments: str, capsys: Capture) -> None:
    with pytest.raises(Unsupported, match="--"):
        translated(arguments.split())
    assert main(["transcribe", "a.wav", *arguments.split()]) == Exit.USAGE
    assert capsys.readouterr().err.count("\n") == 1


def test_script_of_whisper_runs_unchanged(
    path: Path, recording: str, tmp_path: Path, capsys: Capture
) -> None:
    out = tmp_path / "out"
    arguments = "--model tiny.en --language English --output_format srt --word_timestamps True "
    arguments += f"--output_dir {out} --max_line_width 20 --fp16 False --verbose False"
    with FakeDaemon(path, [answer("hello")]) as daemon:
        assert main(["transcribe", recording, *arguments.split()]) == Exit.OK
    data = daemon.jobs[0].data
    assert (data["language"], data["name"], data["word_timestamps"]) == ("English", "tiny.en", True)
    assert (out / "talk.srt").read_text().endswith("\nhello\n\n")
    assert "--fp16 is ignored" in capsys.readouterr().err


def test_output_that_is_a_directory_gets_a_file(path: Path, recording: str, tmp_path: Path) -> None:
    with FakeDaemon(path, [answer("hello")]):
        assert main(["transcribe", recording, "-o", str(tmp_path)]) == Exit.OK
    assert (tmp_path / "talk.txt").read_text() == "hello\n"
