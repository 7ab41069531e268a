"""The options of `asrctl transcribe`, and which of them exclude each other."""

import argparse
from collections.abc import Callable
from functools import partial
from pathlib import Path

from asrd.asrctl import colors
from asrd.asrctl.options import add_engine_options, listed
from asrd.asrctl.streams import complain
from asrd.exitcodes import EXIT_CODES
from asrd.formats import FORMATS, SUBTITLES
from asrd.subtitles import (
    LINE_WIDTH,
    LINES,
    LONGEST,
    SHORTEST,
    Layout,
    Readable,
    Rules,
    WhisperRules,
    Whole,
)

STDIN, MICROPHONE = "-", "microphone"
SPLIT = "split"


def add_arguments(
    parser: argparse.ArgumentParser, model: str = "a model that a worker has loaded"
) -> None:
    """Adds all options; those of a job have the names of JobOptions. `model`: the help of --model,
    which `asrd transcribe` gives another meaning."""
    # Otherwise it names all options, and fills the screen before an error of usage.
    parser.usage = "%(prog)s [OPTION ...] FILE [FILE ...]"
    parser.epilog = EXIT_CODES
    add = parser.add_argument
    add("files", nargs="*", metavar="FILE", help="audio or video; - is stdin")
    add(
        "--format",
        dest="formats",
        type=_formats,
        default=("txt",),
        metavar="FORMAT[,FORMAT...]",
        help="txt (default), tsv, lrc, jsonl: a line per segment; json: a line per file; srt, vtt: "
        "subtitles; several, or all, with --output-dir",
    )
    add(
        "--color",
        action="store_true",
        help="txt on a terminal: words that may be wrong are yellow, less likely ones red",
    )
    where = parser.add_mutually_exclusive_group()
    where.add_argument(
        "-o", "--output", metavar="FILE", type=Path, help="write to this file instead of stdout"
    )
    where.add_argument(
        "--output-dir", metavar="DIR", type=Path, help="a file for each recording and format"
    )
    add(
        "-r",
        "--recursive",
        action="store_true",
        help="FILE may be a folder: all recordings in it; --output-dir gets the same folders",
    )
    add(
        "--watch",
        metavar="DIR",
        type=Path,
        help="transcribe what is in this folder and what arrives there, until Ctrl-C",
    )
    add(
        "--overwrite",
        action="store_true",
        help="repeat recordings whose texts in --output-dir are newer than they are",
    )
    add(
        "--language",
        metavar="LANG",
        help="the spoken language: en, de, German, zh-CN …; auto, the default, detects it",
    )
    add(
        "--task",
        choices=("transcribe", "translate", "detect"),
        help="translate: into English; detect: only the language",
    )
    add("--model", metavar="NAME", help=model)
    add("--initial-prompt", metavar="TEXT", help="context: text that precedes the recording")
    add("--hotwords", metavar="TEXT", help="words that may occur in the recording")
    add("--prefix", metavar="TEXT", help="the beginning of the transcript")
    add("--word-timestamps", action=argparse.BooleanOptionalAction, help="times of each word")
    add(
        "--clip-timestamps",
        type=listed(float),
        metavar="START,END,...",
        help="only these parts of the recording, in seconds; the last END may be left out",
    )
    add(
        "--include-tokens",
        action="store_true",
        default=None,
        help="json: each segment with the model's tokens",
    )
    add(
        "--audio-track",
        type=_track,
        metavar="N|LANG",
        help="the track of a file with several: its number from 0, or its language (de, ger)",
    )
    add(
        "--require-complete",
        action="store_true",
        default=None,
        help="fail if the recording is incomplete, instead of printing a warning",
    )
    add(
        "--timeout",
        type=float,
        metavar="SECONDS",
        help="per file, for everything; default: 60 s to be accepted, no limit on the run",
    )
    add("--job-id", metavar="ID", help="the id of the jobs, in status and log")
    add("--trace-id", metavar="ID", help="appears in every log line of the jobs")
    add(
        "--encoding",
        choices=("file", "pcm_s16le", "pcm_f32le"),
        help="raw samples instead of a container (file, the default)",
    )
    add(
        "--rate", dest="sample_rate", type=int, metavar="HZ", help="of raw samples (default: 16000)"
    )
    add(
        "--channels",
        type=_channels,
        metavar="N|split",
        help="N: of raw samples (default: 1); split: transcribe each channel of a file by itself",
    )
    parser.set_defaults(split_channels=None)
    add(
        "--speakers",
        action="store_true",
        help="tell speakers apart; requires a worker with a model for that",
    )
    add(
        "--num-speakers",
        type=_positive,
        metavar="N",
        help="with --speakers: how many there are, if that is known",
    )
    add("--quiet", action="store_true", help="no progress bar, no notices; warnings are printed")
    _add_line_rules(parser)
    _add_live(parser)
    add_engine_options(parser)


def _add_line_rules(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument_group(
        "lines of subtitles",
        f"Whisper's rules for srt and vtt. Without one: at most {LINES} lines of {LINE_WIDTH} "
        f"characters, {SHORTEST:g} to {LONGEST:g} seconds, broken where the sense allows it.",
    ).add_argument
    add("--max-line-width", type=_positive, metavar="N", help="characters in a line")
    add(
        "--max-line-count",
        type=_positive,
        metavar="N",
        help="lines in a cue; with --max-line-width, cues go on past the end of a segment",
    )
    add("--max-words-per-line", type=_positive, metavar="N", help="words in a cue")
    add("--highlight-words", action="store_true", help="underline each word as it is spoken")


def _add_live(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument_group(
        "live text", "The text while somebody speaks, from a pipe; Ctrl-C ends the audio."
    ).add_argument
    add(
        "--live",
        action="store_true",
        help="FILE, or stdin without one, is 16-bit samples, raw or WAV, as from arecord or ffmpeg",
    )
    add(
        "--microphone",
        metavar="DEVICE",
        nargs="?",
        const="",
        help="live text of this microphone: its number or a part of its name; requires sounddevice",
    )
    add(
        "--live-step-ms",
        type=int,
        metavar="MS",
        help="decode after so much new audio (default: 1000)",
    )
    add(
        "--final",
        choices=("live", "exact"),
        help="live (default): the transcript is the live text; exact: decode everything again",
    )
    add(
        "--end-of-speech-ms",
        type=int,
        metavar="MS",
        help="so much silence after speech ends the audio",
    )


def check_options(args: argparse.Namespace) -> None:
    """Ends the program for options that exclude each other; chooses the subtitles' layout."""
    if args.output is not None and args.output.is_dir():
        args.output, args.output_dir = None, args.output
    if args.watch is not None:
        _check_watch_options(args)
    _check_live_options(args)
    _check_speakers(args)
    if args.task == "detect" and not {"txt", "json"}.issuperset(args.formats):
        args.parser.error("--task detect: the format must be txt or json")
    args.layout = _choose_layout(args)
    if args.overwrite and args.output_dir is None and not args.quiet:
        complain("--overwrite changes nothing without --output-dir")
    if args.files.count(STDIN) > 1:
        args.parser.error("FILE: standard input can be read only once")
    raw = args.live or args.encoding not in (None, "file")
    if args.channels == SPLIT:
        if raw:
            args.parser.error("--channels: must be a number for raw samples")
        args.channels, args.split_channels = None, True
    if not raw and (args.sample_rate or args.channels):
        args.parser.error("--rate and --channels N require the --encoding of raw samples")


def _check_watch_options(args: argparse.Namespace) -> None:
    folder = str(args.watch)
    if args.files not in ([], [folder]) or args.live or args.microphone is not None:
        args.parser.error("--watch: there can be no FILE and no live text as well")
    if args.output_dir is None:
        args.parser.error("--watch needs --output-dir")
    if not args.watch.is_dir():
        args.parser.error(f"--watch: {folder} is no folder")
    args.files, args.recursive = [folder], True


def _check_live_options(args: argparse.Namespace) -> None:
    error = args.parser.error
    args.live = args.live or args.microphone is not None
    if not args.live:
        if not args.files:
            error("the following arguments are required: FILE")
        for name in ("live_step_ms", "final", "end_of_speech_ms"):
            if vars(args)[name] is not None:
                error(f"--{name.replace('_', '-')} requires --live")
        return
    if args.microphone is not None and args.files:
        error("--microphone: there can be no FILE as well")
    if len(args.files) > 1:
        error("--live takes one FILE")
    if args.encoding not in (None, "pcm_s16le"):
        error("--live: the samples must have 16 bits (--encoding pcm_s16le)")
    if args.task == "detect":
        error("--task detect is not possible with --live")
    if len(args.formats) > 1 or args.recursive:
        error("--live: writes one format of one recording")
    if args.color:
        error("--color: live text has no probabilities")
    args.files = args.files or [STDIN if args.microphone is None else MICROPHONE]


def _check_speakers(args: argparse.Namespace) -> None:
    args.speakers = args.speakers or args.num_speakers is not None
    if not args.speakers:
        return
    for name, given in (
        ("--live", args.live),
        ("--task detect", args.task == "detect"),
        ("--channels split", args.channels == SPLIT),
    ):
        if given:
            args.parser.error(f"--speakers is not possible with {name}")
    # A translation's words have no reliable times.
    if args.word_timestamps is None and args.task != "translate":
        args.word_timestamps = True


def _choose_layout(args: argparse.Namespace) -> Callable[[], Layout]:
    """Returns the layout of subtitles, and asks for the words that it needs."""
    rules = Rules(
        args.max_line_width, args.max_line_count, args.max_words_per_line, args.highlight_words
    )
    ruled = rules != Rules()
    if args.live:
        if ruled:
            args.parser.error("--live: the lines of subtitles can't be broken by rules")
        return Whole
    if ruled and args.word_timestamps is False:
        args.parser.error("--no-word-timestamps: the rules for lines need the times of words")
    if args.color and args.word_timestamps is None and colors.wanted():
        args.word_timestamps = True
    subtitles = set(SUBTITLES).intersection(args.formats)
    if ruled and not args.quiet:
        if not subtitles:
            complain("the rules for lines change only the formats srt and vtt")
        elif rules.count and not rules.width:
            complain("--max-line-count limits nothing without --max-line-width")
    # A translation's words have no reliable times.
    if subtitles and args.word_timestamps is None:
        args.word_timestamps = True if ruled or args.task != "translate" else None
    return partial(WhisperRules, rules) if ruled else Readable


def _formats(text: str) -> tuple[str, ...]:
    names = tuple(FORMATS) if text == "all" else tuple(dict.fromkeys(text.split(",")))
    if unknown := [name for name in names if name not in FORMATS]:
        known = ", ".join(FORMATS)
        raise argparse.ArgumentTypeError(f"there is no {unknown[0]!r}, but {known} and all")
    return names


def _track(text: str) -> int | str:
    return int(text) if text.isdecimal() else text


def _channels(text: str) -> int | str:
    try:
        return SPLIT if text == SPLIT else int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"must be a number or {SPLIT}") from None


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError("must be at least 1")
    return int(text)
