"""`asrctl transcribe`: recordings in, text out while it is decoded, one file after another."""

import argparse
import stat
import sys
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from asrd.asrctl.options import add_engine_options, listed
from asrd.asrctl.progress import ProgressBar
from asrd.asrctl.streams import OutputLost, check_stdout, complain, open_stdin, show
from asrd.client.attempts import JobOptions, LiveOptions
from asrd.client.client import Client, SegmentStream
from asrd.errors import AsrdError, ConnectionLost
from asrd.exitcodes import EXIT_CODES, Exit, exit_code
from asrd.formats import FORMATS, LanguageWriter, Writer
from asrd.wire.client_events import Transcript

STDIN, MICROPHONE = "-", "microphone"
SPLIT = "split"
# The name of the bundled model, used by workers without a configured one.
DEMO = "demo"


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
        choices=FORMATS,
        default="txt",
        help="txt (default): a line per segment; json: a line per file; srt, vtt: subtitles",
    )
    where = parser.add_mutually_exclusive_group()
    where.add_argument(
        "-o", "--output", metavar="FILE", type=Path, help="write to this file instead of stdout"
    )
    where.add_argument(
        "--output-dir", metavar="DIR", type=Path, help="one file per recording, named after it"
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
    add("--quiet", action="store_true", help="no progress bar, no notices; warnings are printed")
    _add_live(parser)
    add_engine_options(parser)


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


def transcribe(args: argparse.Namespace) -> int:
    return transcribe_files(args, prepare(args))


def prepare(args: argparse.Namespace) -> dict[str, Path]:
    """Checks the options, and returns the output file of each recording; empty for stdout. Ends
    the program for wrong usage; raises OutputLost if there is no stdout."""
    _check_options(args)
    targets = _targets(args)
    _spare_recordings(args, targets)
    if not targets:
        check_stdout()
    return targets


def transcribe_files(args: argparse.Namespace, targets: Mapping[str, Path]) -> Exit:
    """Transcribes one file after another with the daemon at `args.socket`."""
    first_failure = Exit.OK
    models: set[str | None] = set()
    with Client(args.socket) as client:
        work = _transcribe_live if args.live else partial(_transcribe, client)
        for name in args.files:
            code = _attempt(work, name, targets.get(name), args, models)
            first_failure = first_failure or code
            if code is Exit.UNREACHABLE:
                break
    if DEMO in models and not args.quiet:
        complain(
            "this was the demo model, which knows about 80 words; to change it, see asrd.toml(5)"
        )
    return first_failure


def _attempt(
    work: Callable[[str, Path | None, argparse.Namespace], Transcript],
    name: str,
    target: Path | None,
    args: argparse.Namespace,
    models: set[str | None],
) -> Exit:
    """Transcribes a file, reports warnings or the error, and adds the model that was used."""
    try:
        transcript = work(name, target, args)
    except OutputLost as lost:
        if target is None:
            # The other files have no other place to go.
            raise
        complain(str(lost))
        return lost.code
    except AsrdError as error:
        complain(str(error) if isinstance(error, ConnectionLost) else f"{name}: {error}")
        return exit_code(error)
    except OSError as error:
        complain(f"{name}: {error.strerror or error}")
        return Exit.BAD_AUDIO
    models.add(transcript.model)
    for warning in transcript.warnings:
        complain(f"{name}: {warning.text}")
    return Exit.OK


def _transcribe(
    client: Client, name: str, target: Path | None, args: argparse.Namespace
) -> Transcript:
    options: Any = {key: vars(args)[key] for key in JobOptions.__annotations__ if key in args}
    writer = (LanguageWriter if _only_language(args) else FORMATS[args.format])(name)
    with open_stdin() if name == STDIN else open(name, "rb") as audio:
        bar = ProgressBar(sys.stderr, name)
        if not args.quiet:
            options["on_progress"] = bar.update
        try:
            if target is None:
                with client.stream(audio, **options) as stream:
                    return _print(stream, writer, bar)
            transcript = client.transcribe(audio, **options)
        finally:
            bar.clear()
    _write(target, writer.whole(transcript))
    return transcript


def _transcribe_live(name: str, target: Path | None, args: argparse.Namespace) -> Transcript:
    # Imported here: other commands start faster without an event loop.
    from asrd.asrctl.live import Shown, hear
    from asrd.asrctl.live_source import open_microphone, open_pipe

    options: Any = {key: vars(args)[key] for key in LiveOptions.__annotations__ if key in args}
    writer = FORMATS[args.format](name)
    at_once = target is None and args.final != "exact" and args.format != "json"
    format_ = options.pop("sample_rate"), options.pop("channels")
    if args.microphone is None:
        opened = open_pipe(None if name == STDIN else name, *format_)
    else:
        opened = open_microphone(args.microphone, *format_)
    with opened as source:
        shown = Shown(writer, at_once=at_once, flows=args.format == "txt", quiet=args.quiet)
        try:
            transcript = hear(args.socket, source, options, shown.update)
        finally:
            shown.end()
    if target is None:
        shown.finish(transcript)
    else:
        _write(target, writer.whole(transcript))
    return transcript


def _write(target: Path, text: str) -> None:
    """Writes a complete transcript: a failed job leaves the file as it was."""
    try:
        target.write_text(text, encoding="utf-8", errors="backslashreplace")
    except OSError as error:
        raise OutputLost(str(target), error) from error


def _print(stream: SegmentStream, writer: Writer, bar: ProgressBar) -> Transcript:
    header = writer.header
    for segment in stream:
        bar.clear()
        show(header + writer.segment(segment))
        header = ""
    bar.clear()
    show(header + writer.end(stream.transcript))
    return stream.transcript


def _only_language(args: argparse.Namespace) -> bool:
    return bool(args.task == "detect" and args.format == "txt")


def _check_options(args: argparse.Namespace) -> None:
    """Ends the program for options that exclude each other."""
    _check_live_options(args)
    if args.task == "detect" and args.format in ("srt", "vtt"):
        args.parser.error("--task detect: there are no subtitles; use the format txt or json")
    if args.files.count(STDIN) > 1:
        args.parser.error("FILE: standard input can be read only once")
    raw = args.live or args.encoding not in (None, "file")
    if args.channels == SPLIT:
        if raw:
            args.parser.error("--channels: must be a number for raw samples")
        args.channels, args.split_channels = None, True
    if not raw and (args.sample_rate or args.channels):
        args.parser.error("--rate and --channels N require the --encoding of raw samples")


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
    args.files = args.files or [STDIN if args.microphone is None else MICROPHONE]


def _targets(args: argparse.Namespace) -> dict[str, Path]:
    """Returns the output file of each recording; empty for stdout. Ends the program for wrong
    usage."""
    if args.output_dir is None:
        if len(args.files) > 1 and (args.output or args.format in ("srt", "vtt")):
            args.parser.error("several files need --output-dir, or the format txt or json")
        return {} if args.output is None else {args.files[0]: args.output}
    targets = {
        name: args.output_dir / f"{'stdin' if name == STDIN else Path(name).stem}.{args.format}"
        for name in args.files
    }
    if len(set(targets.values())) < len(args.files):
        args.parser.error("two of the files would be written to the same one in --output-dir")
    try:
        args.output_dir.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        args.parser.error(f"--output-dir: {error}")
    return targets


def _spare_recordings(args: argparse.Namespace, targets: Mapping[str, Path]) -> None:
    """Ends the program if a text would overwrite a recording."""
    recordings = {_identity(name) for name in args.files if name != STDIN} - {None}
    for target in targets.values():
        if _identity(target) in recordings:
            args.parser.error(f"{target} is one of the recordings: write the text to another file")


def _identity(path: str | Path) -> tuple[int, int] | None:
    """Returns device and inode of a regular file, otherwise None."""
    try:
        found = Path(path).stat()
    except (OSError, ValueError):
        return None
    return (found.st_dev, found.st_ino) if stat.S_ISREG(found.st_mode) else None


def _track(text: str) -> int | str:
    return int(text) if text.isdecimal() else text


def _channels(text: str) -> int | str:
    try:
        return SPLIT if text == SPLIT else int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"must be a number or {SPLIT}") from None
