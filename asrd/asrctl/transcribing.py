"""`asrctl transcribe`: files in, text out as it comes, one file after another."""

import argparse
import stat
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO

from asrd.asrctl.formats import FORMATS, render
from asrd.asrctl.progress import ProgressBar
from asrd.asrctl.streams import OutputLost, check_stdout, complain, open_stdin, show
from asrd.client.attempts import JobOptions
from asrd.client.client import Client
from asrd.client.source import Audio
from asrd.errors import AsrdError, ConnectionLost
from asrd.exitcodes import EXIT_CODES, Exit, exit_code
from asrd.wire.client_events import Transcript

STDIN = "-"
SPLIT = "split"
# What workers without a configured model call the one that comes with asrd.
DEMO = "demo"
_OPTIONS = (
    "language",
    "task",
    "model",
    "beam_size",
    "initial_prompt",
    "hotwords",
    "temperature",
    "vad_filter",
    "word_timestamps",
    "condition_on_previous_text",
    "audio_track",
    "require_complete",
    "split_channels",
    "timeout",
    "job_id",
    "trace_id",
    "encoding",
    "sample_rate",
    "channels",
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.epilog = EXIT_CODES
    parser.add_argument("files", nargs="+", metavar="FILE", help="audio or video; - is stdin")
    parser.add_argument(
        "--format",
        choices=FORMATS,
        default="txt",
        help="txt (default): a line per segment; json: a line per file; srt, vtt: subtitles",
    )
    where = parser.add_mutually_exclusive_group()
    where.add_argument("-o", "--output", metavar="FILE", type=Path, help="instead of stdout")
    where.add_argument(
        "--output-dir", metavar="DIR", type=Path, help="a file for each, named after it"
    )
    parser.add_argument(
        "--language",
        metavar="LANG",
        help="what is spoken: en, de, German, zh-CN …; auto, the default, detects it",
    )
    parser.add_argument("--task", choices=("transcribe", "translate"))
    parser.add_argument("--model", metavar="NAME", help="one that a worker has loaded")
    parser.add_argument("--beam-size", type=int, metavar="N")
    parser.add_argument("--initial-prompt", metavar="TEXT")
    parser.add_argument("--hotwords", metavar="TEXT")
    parser.add_argument(
        "--temperature", type=_temperatures, metavar="T[,T...]", help="tried in this order"
    )
    for name in ("--vad-filter", "--word-timestamps", "--condition-on-previous-text"):
        parser.add_argument(name, action=argparse.BooleanOptionalAction)
    parser.add_argument(
        "--audio-track",
        type=_track,
        metavar="N|LANG",
        help="of a file with several: a number from 0, or a language (de, ger)",
    )
    parser.add_argument(
        "--require-complete",
        action="store_true",
        default=None,
        help="a recording that was broken off is an error, not a warning",
    )
    parser.add_argument(
        "--timeout",
        type=float,
        metavar="SECONDS",
        help="per file, over everything; default: 60 s to be accepted, no limit on the run",
    )
    parser.add_argument("--job-id", metavar="ID", help="the jobs' name in status and log")
    parser.add_argument("--trace-id", metavar="ID", help="goes into every log line of the jobs")
    parser.add_argument(
        "--encoding",
        choices=("file", "pcm_s16le", "pcm_f32le"),
        help="raw samples instead of a container (file, the default)",
    )
    parser.add_argument(
        "--rate", dest="sample_rate", type=int, metavar="HZ", help="of raw samples: 16000"
    )
    parser.add_argument(
        "--channels",
        type=_channels,
        metavar="N|split",
        help="N: of raw samples: 1; split: transcribe each channel of a file by itself",
    )
    parser.set_defaults(split_channels=None)
    parser.add_argument(
        "--quiet", action="store_true", help="no progress bar, no notices; warnings are printed"
    )


def transcribe(args: argparse.Namespace) -> int:
    _check_options(args)
    targets = _targets(args)
    _spare_recordings(args, targets)
    if not targets:
        check_stdout()
    options: Any = {name: getattr(args, name) for name in _OPTIONS}
    first_failure = Exit.OK
    models: set[str | None] = set()
    with Client(args.socket) as client:
        for name in args.files:
            code = _attempt(client, name, targets.get(name), args, options, models)
            first_failure = first_failure or code
            if code is Exit.UNREACHABLE:
                break
    if DEMO in models and not args.quiet:
        complain("that was the demo model, which knows about 80 words: see asrd.toml(5)")
    return first_failure


def _attempt(
    client: Client,
    name: str,
    target: Path | None,
    args: argparse.Namespace,
    options: JobOptions,
    models: set[str | None],
) -> Exit:
    try:
        audio = _open(name)
    except OSError as error:
        complain(f"{name}: {error.strerror}")
        return Exit.BAD_AUDIO
    bar = ProgressBar(sys.stderr, name)
    if not args.quiet:
        options = {**options, "on_progress": bar.update}
    try:
        try:
            with audio:
                if target is None:
                    done = _to_stdout(client, audio, name, args.format, bar, options)
                else:
                    done = _to_file(client, audio, name, args.format, target, options)
        finally:
            bar.clear()
    except OutputLost as lost:
        if target is None:
            # The other files have no other place to go.
            raise
        complain(str(lost))
        return lost.code
    except (AsrdError, OSError) as error:
        return _failed(name, error)
    models.add(done.model)
    for warning in done.warnings:
        complain(f"{name}: {warning.text}")
    return Exit.OK


def _failed(name: str, error: AsrdError | OSError) -> Exit:
    match error:
        case ConnectionLost():
            complain(str(error))
        case AsrdError():
            complain(f"{name}: {error}")
        case _:
            complain(f"{name}: {error.strerror or error}")
            return Exit.BAD_AUDIO
    return exit_code(error)


def _open(name: str) -> BinaryIO:
    return open_stdin() if name == STDIN else open(name, "rb")


def _to_stdout(
    client: Client, audio: Audio, name: str, format: str, bar: ProgressBar, options: JobOptions
) -> Transcript:
    writer = FORMATS[format](name)
    with client.stream(audio, **options) as stream:
        begun = False
        for segment in stream:
            bar.clear()
            show(("" if begun else writer.begin()) + writer.segment(segment))
            begun = True
        bar.clear()
        show(("" if begun else writer.begin()) + writer.end(stream.transcript))
        return stream.transcript


def _to_file(
    client: Client, audio: Audio, name: str, format: str, target: Path, options: JobOptions
) -> Transcript:
    # Only once the transcript is whole: a job that failed leaves the file as it was.
    transcript = client.transcribe(audio, **options)
    text = render(format, name, transcript)
    try:
        with open(target, "w", encoding="utf-8", errors="backslashreplace") as file:
            file.write(text)
    except OSError as error:
        raise OutputLost(str(target), error) from error
    return transcript


def _check_options(args: argparse.Namespace) -> None:
    """Ends the program for arguments that do not go together."""
    if args.files.count(STDIN) > 1:
        args.parser.error("FILE: standard input can be read only once")
    raw = args.encoding not in (None, "file")
    if args.channels == SPLIT:
        if raw:
            args.parser.error("--channels: of raw samples it must be their number")
        args.channels, args.split_channels = None, True
    if not raw and (args.sample_rate or args.channels):
        args.parser.error("--rate and --channels are of raw samples: say their --encoding")


def _targets(args: argparse.Namespace) -> dict[str, Path]:
    """Where each file's text goes; nothing for stdout. Ends the program for a wrong usage."""
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
    """Ends the program where a text would take the place of a recording."""
    recordings = {_identity(name) for name in args.files if name != STDIN} - {None}
    for target in targets.values():
        if _identity(target) in recordings:
            args.parser.error(f"{target} is one of the recordings: write the text to another file")


def _identity(path: str | Path) -> tuple[int, int] | None:
    """None if it is no regular file."""
    try:
        found = Path(path).stat()
    except (OSError, ValueError):
        return None
    return (found.st_dev, found.st_ino) if stat.S_ISREG(found.st_mode) else None


def _temperatures(text: str) -> tuple[float, ...]:
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError:
        raise argparse.ArgumentTypeError("must be numbers with commas between") from None


def _track(text: str) -> int | str:
    return int(text) if text.isdecimal() else text


def _channels(text: str) -> int | str:
    try:
        return SPLIT if text == SPLIT else int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"must be a number or {SPLIT}") from None
