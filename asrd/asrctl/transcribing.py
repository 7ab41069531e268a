"""`asrctl transcribe`: files in, text out as it comes, one file after another."""

import argparse
import sys
from pathlib import Path
from typing import Any, BinaryIO

from asrd.asrctl.exitcode import EXIT_CODES, Exit, exit_code
from asrd.asrctl.formats import FORMATS, render
from asrd.asrctl.progress import ProgressBar
from asrd.client.attempts import JobOptions
from asrd.client.client import Client
from asrd.client.source import Audio
from asrd.errors import AsrdError, ConnectionLost
from asrd.events import Transcript
from asrd.plaintext import one_line

STDIN = "-"
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
    parser.add_argument("--language", metavar="CODE", help="en, de …; default: it is detected")
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
    parser.add_argument("--channels", type=int, metavar="N", help="of raw samples: 1")
    parser.add_argument("--quiet", action="store_true", help="no progress bar, no notices")


def transcribe(args: argparse.Namespace) -> int:
    if args.encoding in (None, "file") and (args.sample_rate or args.channels):
        args.parser.error("--rate and --channels are of raw samples: say their --encoding")
    targets = _targets(args)
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
        with audio:
            if target is None:
                done = _to_stdout(client, audio, name, args.format, bar, options)
            else:
                done = _to_file(client, audio, name, args.format, target, options)
            models.add(done.model)
    except (AsrdError, OSError) as error:
        bar.clear()
        return _failed(name, error)
    finally:
        bar.clear()
    return Exit.OK


def _failed(name: str, error: AsrdError | OSError) -> Exit:
    match error:
        case ConnectionLost():
            complain(str(error))
        case AsrdError():
            complain(f"{name}: {error}")
        case BrokenPipeError():
            raise error
        case _:
            complain(f"{error.filename or name}: {error.strerror or error}")
            return Exit.FAILED
    return exit_code(error)


def _open(name: str) -> BinaryIO:
    return sys.stdin.buffer if name == STDIN else open(name, "rb")


def _to_stdout(
    client: Client, audio: Audio, name: str, format: str, bar: ProgressBar, options: JobOptions
) -> Transcript:
    writer = FORMATS[format](name)
    with client.stream(audio, **options) as stream:
        begun = False
        for segment in stream:
            bar.clear()
            _write("" if begun else writer.begin(), writer.segment(segment))
            begun = True
        bar.clear()
        _write("" if begun else writer.begin(), writer.end(stream.transcript))
        return stream.transcript


def _to_file(
    client: Client, audio: Audio, name: str, format: str, target: Path, options: JobOptions
) -> Transcript:
    # Only once the transcript is whole: a job that failed leaves the file as it was.
    transcript = client.transcribe(audio, **options)
    text = render(format, name, transcript)
    with open(target, "w", encoding="utf-8", errors="backslashreplace") as file:
        file.write(text)
    return transcript


def _write(*parts: str) -> None:
    sys.stdout.write("".join(parts))
    sys.stdout.flush()


def complain(sentence: str) -> None:
    sys.stderr.write(f"asrctl: {one_line(sentence)}\n")


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


def _temperatures(text: str) -> tuple[float, ...]:
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError:
        raise argparse.ArgumentTypeError("must be numbers with commas between") from None
