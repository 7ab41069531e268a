"""`asrctl transcribe`: recordings in, text out while it is decoded, one file after another."""

import argparse
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Any, BinaryIO

from asrd.asrctl import colors, files
from asrd.asrctl.arguments import STDIN, check_options
from asrd.asrctl.files import Targets
from asrd.asrctl.parallel import attempt_all, workers
from asrd.asrctl.progress import FilesBar, ProgressBar
from asrd.asrctl.streams import OutputLost, check_stdout, complain, open_stdin, show
from asrd.asrctl.watching import watch
from asrd.client.attempts import AudioHint, JobOptions, LiveOptions
from asrd.client.client import Client, SegmentStream
from asrd.client.source import open_source
from asrd.client.speakers import Speakers, options_after, search_options
from asrd.errors import AsrdError, ConnectionLost
from asrd.exitcodes import Exit, exit_code
from asrd.formats import LanguageWriter, Writer, make_writer
from asrd.model_names import DEMO
from asrd.wire.client_events import Transcript


def transcribe(args: argparse.Namespace) -> int:
    return run(args, prepare(args))


def run(args: argparse.Namespace, found: Mapping[str, Targets]) -> Exit:
    """Transcribes what `prepare` found, or what arrives in the watched folder."""
    if args.watch is None:
        return transcribe_files(args, found)

    def arrived(names: list[str]) -> dict[str, Exit]:
        try:
            found = _not_done(args)
        except files.WrongUsage as error:
            complain(str(error))
            return {}
        args.skipped = 0
        codes = _attempt_files(args, {name: found[name] for name in names if name in found})
        return {name: Exit.OK for name in names if name not in found} | dict(codes)

    return watch(args.watch, arrived)


def prepare(args: argparse.Namespace) -> dict[str, Targets]:
    """Checks the options, and returns the recordings that are not done yet, with the files for
    their texts. Ends the program for wrong usage; raises OutputLost if there is no stdout."""
    check_options(args)
    try:
        found = _not_done(args)
    except files.WrongUsage as error:
        args.parser.error(str(error))
    if args.output is None and args.output_dir is None:
        check_stdout()
    if not found and not args.skipped and args.watch is None:
        complain("there are no recordings in these folders")
    return found


def _not_done(args: argparse.Namespace) -> dict[str, Targets]:
    """Raises WrongUsage."""
    found = files.choose(args)
    args.skipped = 0
    if args.output_dir is not None and not args.overwrite:
        done = {name for name, targets in found.items() if files.is_done(name, targets)}
        args.skipped = len(done)
        found = {name: targets for name, targets in found.items() if name not in done}
    return found


def transcribe_files(args: argparse.Namespace, found: Mapping[str, Targets]) -> Exit:
    """Transcribes the files with the daemon at `args.socket`; returns the first failure's code."""
    return next((code for _, code in _attempt_files(args, found) if code), Exit.OK)


def _attempt_files(
    args: argparse.Namespace, found: Mapping[str, Targets]
) -> list[tuple[str, Exit]]:
    """Transcribes one file after another to stdout, else as many at once as there are workers.
    Returns the codes of those that were attempted."""
    models: set[str | None] = set()
    # A name may be given twice where there are no output files.
    names = list(found) if args.output_dir is not None or args.recursive else args.files
    with Client(args.socket) as client:
        into_files = args.output_dir is not None and len(names) > 1
        count = min(workers(client), len(names)) if into_files else 1
        bar = FilesBar(sys.stderr, len(names))
        # Bars of several files would overwrite one another.
        work = partial(_transcribe, client, bar if count > 1 else None)

        def attempt(name: str) -> Exit:
            try:
                made = _transcribe_live if args.live else work
                return _attempt(made, name, found[name], args, models, bar.say)
            finally:
                bar.end(name)

        try:
            codes = attempt_all(attempt, names, count)
        finally:
            bar.close()
    if DEMO in models and not args.quiet:
        complain(
            "this was the demo model, which knows about 80 words; to change it, see asrd.toml(5)"
        )
    # Of one recording only that it was skipped: otherwise nothing would show why it is silent.
    if args.output_dir is not None and (len(names) > 1 or args.skipped) and not args.quiet:
        _summarize(codes, len(names), args.skipped)
    # Without those that were left out at the end, after the daemon could not be reached.
    return list(zip(names, codes, strict=False))


def _summarize(codes: list[Exit], wanted: int, skipped: int) -> None:
    done = codes.count(Exit.OK)
    parts = [f"{done} done"]
    if skipped:
        parts.append(f"{skipped} skipped (done before; --overwrite repeats them)")
    if wanted > done:
        parts.append(f"{wanted - done} failed")
    complain(", ".join(parts))


def _attempt(
    work: Callable[[str, Targets, argparse.Namespace], Transcript],
    name: str,
    targets: Targets,
    args: argparse.Namespace,
    models: set[str | None],
    say: Callable[[str], None],
) -> Exit:
    """Transcribes a file, says warnings or the error, and adds the model that was used."""
    try:
        transcript = work(name, targets, args)
    except OutputLost as lost:
        if not targets:
            # The other files have no other place to go.
            raise
        say(str(lost))
        return lost.code
    except AsrdError as error:
        say(str(error) if isinstance(error, ConnectionLost) else f"{name}: {error}")
        return exit_code(error)
    except OSError as error:
        say(f"{name}: {error.strerror or error}")
        return Exit.BAD_AUDIO
    models.add(transcript.model)
    for warning in transcript.warnings:
        say(f"{name}: {warning.text}")
    return Exit.OK


def _transcribe(
    client: Client, of_all: FilesBar | None, name: str, targets: Targets, args: argparse.Namespace
) -> Transcript:
    """`of_all`: the bar of several files at once; a single one has its own."""
    options: Any = {key: vars(args)[key] for key in JobOptions.__annotations__ if key in args}
    count = options.pop("num_speakers")
    version = files.version(name)
    with _opened(name, twice=args.speakers) as audio:
        speakers = None
        if args.speakers:
            shown = not args.quiet and of_all is None
            speakers, options = _find_speakers(client, shown, name, audio, options, count)
        bar = ProgressBar(sys.stderr, name)
        if not args.quiet:
            options["on_progress"] = partial(of_all.update, name) if of_all else bar.update
        try:
            if not targets:
                writer = _writer(args.formats[0], name, args, printed=True)
                with client.stream(audio, **options) as stream:
                    return _print(stream, writer, bar, speakers)
            transcript = client.transcribe(audio, **options)
        finally:
            bar.clear()
    if speakers is not None:
        transcript = speakers.transcript(transcript)
    _write(targets, name, transcript, args)
    if files.version(name) not in (version, None):
        say = complain if of_all is None else of_all.say
        say(f"{name}: changed while it was transcribed; its text is taken for an old one")
        files.outdate(targets)
    return transcript


def _find_speakers(
    client: Client, shown: bool, name: str, audio: BinaryIO, options: JobOptions, count: int | None
) -> tuple[Speakers, JobOptions]:
    """Returns the recording's speakers, and the options for what is left of the time."""
    began = time.monotonic()
    search = search_options(options, count)
    bar = ProgressBar(sys.stderr, f"{name} (speakers)")
    if shown:
        search["on_progress"] = bar.update
    try:
        turns = client.transcribe(audio, **search).segments
    finally:
        bar.clear()
    return Speakers(turns), options_after(options, time.monotonic() - began)


@contextmanager
def _opened(name: str, twice: bool) -> Iterator[BinaryIO]:
    """Opens a recording; a pipe that is read `twice` is copied into memory. Raises OSError."""
    with open_stdin() if name == STDIN else open(name, "rb") as audio:
        if not twice or audio.seekable():
            yield audio
            return
        with (
            open_source(audio, AudioHint()).fd as fd,
            open(fd.fileno(), "rb", closefd=False) as copy,
        ):
            copy.seek(0)
            yield copy


def _transcribe_live(name: str, targets: Targets, args: argparse.Namespace) -> Transcript:
    # Imported here: other commands start faster without an event loop.
    from asrd.asrctl.live import Shown, hear
    from asrd.asrctl.live_source import open_microphone, open_pipe

    options: Any = {key: vars(args)[key] for key in LiveOptions.__annotations__ if key in args}
    format_name = args.formats[0]
    writer = _writer(format_name, name, args)
    at_once = not targets and args.final != "exact" and format_name != "json"
    format_ = options.pop("sample_rate"), options.pop("channels")
    if args.microphone is None:
        opened = open_pipe(None if name == STDIN else name, *format_)
    else:
        opened = open_microphone(args.microphone, *format_)
    with opened as source:
        shown = Shown(writer, at_once=at_once, flows=format_name == "txt", quiet=args.quiet)
        try:
            transcript = hear(args.socket, source, options, shown.update)
        finally:
            shown.end()
    if not targets:
        shown.finish(transcript)
    else:
        _write(targets, name, transcript, args)
    return transcript


def _write(targets: Targets, name: str, transcript: Transcript, args: argparse.Namespace) -> None:
    """Writes a complete transcript in all formats: a failed job leaves the files as they were."""
    for format_, target in targets.items():
        files.write(target, _writer(format_, name, args).whole(transcript))


def _writer(format_: str, name: str, args: argparse.Namespace, printed: bool = False) -> Writer:
    """`printed`: on stdout."""
    if args.task == "detect" and format_ == "txt":
        return LanguageWriter(name)
    if args.color and format_ == "txt" and printed and colors.wanted():
        return colors.ColorWriter(name)
    return make_writer(format_, name, args.layout)


def _print(
    stream: SegmentStream, writer: Writer, bar: ProgressBar, speakers: Speakers | None
) -> Transcript:
    header = writer.header
    for segment in stream:
        bar.clear()
        parts = [segment] if speakers is None else speakers.label(segment)
        show(header + "".join(map(writer.segment, parts)))
        header = ""
    bar.clear()
    transcript = stream.transcript
    if speakers is not None:
        transcript = speakers.transcript(transcript)
    show(header + writer.end(transcript))
    return transcript
