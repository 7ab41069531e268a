"""`asrctl transcribe`: recordings in, text out while it is decoded, one file after another."""

import argparse
import stat
import sys
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from asrd.asrctl.arguments import STDIN, check_options, only_language
from asrd.asrctl.progress import ProgressBar
from asrd.asrctl.streams import OutputLost, check_stdout, complain, open_stdin, show
from asrd.client.attempts import JobOptions, LiveOptions
from asrd.client.client import Client, SegmentStream
from asrd.errors import AsrdError, ConnectionLost
from asrd.exitcodes import Exit, exit_code
from asrd.formats import LanguageWriter, Writer, make_writer
from asrd.wire.client_events import Transcript

# Formats of which several may follow one another on stdout.
SEVERAL = ("txt", "json", "jsonl")
# The name of the bundled model, used by workers without a configured one.
DEMO = "demo"


def transcribe(args: argparse.Namespace) -> int:
    return transcribe_files(args, prepare(args))


def prepare(args: argparse.Namespace) -> dict[str, Path]:
    """Checks the options, and returns the output file of each recording; empty for stdout. Ends
    the program for wrong usage; raises OutputLost if there is no stdout."""
    check_options(args)
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
    writer = (
        LanguageWriter(name) if only_language(args) else make_writer(args.format, name, args.layout)
    )
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
    writer = make_writer(args.format, name, args.layout)
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


def _targets(args: argparse.Namespace) -> dict[str, Path]:
    """Returns the output file of each recording; empty for stdout. Ends the program for wrong
    usage."""
    if args.output is not None and args.output.is_dir():
        args.output, args.output_dir = None, args.output
    if args.output_dir is None:
        if len(args.files) > 1 and (args.output or args.format not in SEVERAL):
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
