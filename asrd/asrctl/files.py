"""The recordings of a command, and the files for their texts."""

import argparse
import errno
import os
import shutil
import stat
import threading
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from functools import cache
from pathlib import Path

from asrd.asrctl.arguments import STDIN
from asrd.asrctl.streams import OutputLost, complain

# The files of a recording's text, by format.
Targets = Mapping[str, Path]

# Formats of which several may follow one another on stdout.
_SEVERAL = ("txt", "json", "jsonl")
# Errors of a directory that takes no new file; the old one may still be writable.
_NO_NEW_FILE = (errno.EACCES, errno.EPERM, errno.EBUSY, errno.EXDEV, errno.EROFS)
# A folder's other files are no recordings. A file that is named is one in any case.
_SUFFIXES = frozenset(
    f".{name}"
    for names in (
        "3gp aac ac3 aif aiff amr ape avi caf flac flv m4a m4b m4v mka mkv mov mp2 mp3 mp4 mpeg",
        "mpg oga ogg ogv opus sph spx ts wav webm wma wmv",
    )
    for name in names.split()
)


class WrongUsage(Exception):
    """The texts have no place."""


def choose(args: argparse.Namespace) -> dict[str, Targets]:
    """Returns the recordings and the files for their texts; without --output-dir and --output
    there are none. Raises WrongUsage."""
    within = _recordings(args)
    names = list(within)
    if args.output_dir is None:
        several = len(names) > 1 or args.recursive
        if several and (args.output or args.formats[0] not in _SEVERAL):
            raise WrongUsage("several files need --output-dir, or the format txt, json or jsonl")
        if len(args.formats) > 1:
            raise WrongUsage("several formats need --output-dir")
        found: dict[str, Targets] = {name: {} for name in names}
        if args.output:
            found = {name: {args.formats[0]: args.output} for name in names}
    else:
        found = _in_directory(args, within)
    _spare_recordings(found)
    return found


def is_done(name: str, targets: Targets) -> bool:
    """Returns True if all texts of a recording are newer than it. An interrupted command leaves
    no unfinished ones."""
    if name == STDIN or not targets:
        return False
    try:
        recorded = Path(name).stat().st_mtime_ns
        return all(
            target.is_file() and target.stat().st_mtime_ns >= recorded
            for target in targets.values()
        )
    except OSError:
        return False


def version(name: str) -> tuple[int, int] | None:
    """Returns size and time of change of a regular file."""
    with suppress(OSError, ValueError):
        found = Path(name).stat()
        if name != STDIN and stat.S_ISREG(found.st_mode):
            return found.st_size, found.st_mtime_ns
    return None


def outdate(targets: Targets) -> None:
    """Makes the texts older than any recording, so that theirs is not done."""
    for target in targets.values():
        with suppress(OSError):
            os.utime(target, ns=(0, 0))


def write(target: Path, text: str) -> None:
    """Writes a file whole or not at all: under another name first, where the directory allows
    that. Raises OutputLost."""
    data = text.encode("utf-8", errors="backslashreplace")
    try:
        if target.exists() and not target.is_file():
            # A device or a pipe can't be replaced.
            target.write_bytes(data)
            return
        # A link stays, and what it names is replaced.
        whole = target.resolve()
        try:
            _replace(whole, data)
        except OSError as error:
            if error.errno not in _NO_NEW_FILE or not whole.exists():
                raise
            whole.write_bytes(data)
    except OSError as error:
        raise OutputLost(str(target), error) from error


def _replace(whole: Path, data: bytes) -> None:
    part = whole.with_name(f".asrctl-{os.getpid()}-{threading.get_ident()}.part")
    try:
        with open(part, "xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        if whole.exists():
            shutil.copymode(whole, part)
        part.replace(whole)
    finally:
        with suppress(OSError):
            part.unlink(missing_ok=True)


def _recordings(args: argparse.Namespace) -> dict[str, Path]:
    """Returns each recording with its path in the output directory."""
    found: dict[str, Path] = {}
    for name in args.files:
        if args.recursive and Path(name).is_dir():
            found |= {str(path): path.relative_to(name) for path in media(Path(name))}
        else:
            found[name] = Path("stdin" if name == STDIN else Path(name).name)
    return found


def media(directory: Path) -> Iterator[Path]:
    """Yields the recordings in a folder and those below it, in order, without hidden ones."""
    for folder, folders, names in os.walk(directory, onerror=_report):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(names):
            path = Path(folder, name)
            hidden = name.startswith(".")
            if not hidden and path.suffix.lower() in _SUFFIXES and _may_be_recording(path):
                yield path


def _may_be_recording(path: Path) -> bool:
    """Returns False for a pipe, whose reader would wait endlessly, and for a socket or a device."""
    try:
        return stat.S_ISREG(path.stat().st_mode)
    except OSError:
        # The reason is reported when it is opened.
        return True


def _report(error: OSError) -> None:
    _report_once(f"{error.filename}: {error.strerror}")


@cache
def _report_once(message: str) -> None:
    # A watched folder is looked at every second.
    complain(message)


def _in_directory(args: argparse.Namespace, within: Mapping[str, Path]) -> dict[str, Targets]:
    paths = set(within.values())
    stems = Counter(path.with_suffix("") for path in within.values())
    found: dict[str, Targets] = {}
    for name, path in within.items():
        # Of a folder's talk.mp3 and talk.wav, both keep their whole names; talk.mp3.wav does, too.
        alone = stems[path.with_suffix("")] == 1 and path.with_suffix("") not in paths
        stem = path.stem if alone or name in args.files else path.name
        folder = args.output_dir / path.parent
        found[name] = {format_: folder / f"{stem}.{format_}" for format_ in args.formats}
    everything = [target for targets in found.values() for target in targets.values()]
    if len(set(everything)) < len(everything):
        raise WrongUsage("two of the files would be written to the same one in --output-dir")
    try:
        for folder in {args.output_dir, *(target.parent for target in everything)}:
            folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise WrongUsage(f"--output-dir: {error}") from error
    return found


def _spare_recordings(found: Mapping[str, Targets]) -> None:
    """Raises WrongUsage if a text would overwrite a recording."""
    recordings = set(_identities(name for name in found if name != STDIN))
    for targets in found.values():
        for target in targets.values():
            if recordings.intersection(_identities([target])):
                raise WrongUsage(
                    f"{target} is one of the recordings: write the text to another file"
                )


def _identities(paths: Iterable[str | Path]) -> Iterator[tuple[int, int]]:
    """Yields device and inode of each regular file."""
    for path in paths:
        with suppress(OSError, ValueError):
            found = Path(path).stat()
            if stat.S_ISREG(found.st_mode):
                yield found.st_dev, found.st_ino
