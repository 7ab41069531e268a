"""One model in the Hugging Face cache of this machine, laid out as the hub's own library does it.

    models--OWNER--NAME/blobs/HASH                     a file
    models--OWNER--NAME/blobs/HASH.incomplete          the part of it that has arrived
    models--OWNER--NAME/snapshots/REVISION/config.json a link to a blob
    models--OWNER--NAME/refs/main                      the revision that a name stands for

`refs/main` is written last, so a model is found by its name only when it is complete.
"""

import fcntl
import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from asrd.engine.fetching.files import LARGEST, digest, is_digest
from asrd.errors import AsrdError
from asrd.stdio import say
from asrd.wire.fds import OwnedFd


def _lock(fd: int) -> None:
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        say("asrd: another process is fetching this model: waiting for it")
        fcntl.flock(fd, fcntl.LOCK_EX)


@contextmanager
def locked_directory(path: Path) -> Iterator[None]:
    """Makes a directory that no other user can enter, and no other process in this way until the
    block ends. The block may remove it. Raises AsrdError if another user may have made it."""
    while (directory := _open_locked(path)) is None:
        pass
    with directory:
        yield


def _open_locked(path: Path) -> OwnedFd | None:
    """Makes, opens and locks the directory. Returns None if its last holder has removed it
    meanwhile."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with suppress(FileExistsError):
        path.mkdir(mode=0o700)
    with ExitStack() as stack, suppress(FileNotFoundError):
        fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        directory = stack.enter_context(OwnedFd(fd))
        _check_private(path, os.fstat(fd))
        _lock(fd)
        if os.path.samestat(os.fstat(fd), path.lstat()):
            stack.pop_all()
            return directory
    return None


def _check_private(path: Path, found: os.stat_result) -> None:
    """Raises AsrdError for a directory in which another user may have put links: files of this user
    would be overwritten through them."""
    if found.st_uid != os.geteuid() or found.st_mode & 0o077:
        raise AsrdError(f"{path} is not private to this user: remove it, or choose another place")


class Cache:
    def __init__(self, root: Path, repository: str) -> None:
        self.root = root
        self._name = "models--" + repository.replace("/", "--")
        self.folder = root / self._name
        self._blobs = self.folder / "blobs"
        self._main = self.folder / "refs" / "main"

    def snapshot(self, revision: str) -> Path:
        return self.folder / "snapshots" / revision

    def revision(self) -> str | None:
        """Returns the revision that the model's name stands for here, None without one."""
        try:
            return self._main.read_text().strip() or None
        except OSError:
            return None

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Keeps other processes from fetching the same model at the same time."""
        if self.root.is_dir() and not os.access(self.root, os.W_OK):
            # Then this process can only read the cache.
            yield
            return
        path = self.root / ".locks" / self._name / "asrd.lock"
        path.parent.mkdir(parents=True, exist_ok=True)
        # Other users can't open it, or they could hold it as long as they like.
        flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
        with OwnedFd(os.open(path, flags, 0o600)) as file:
            _lock(file.fileno())
            yield

    def names(self, revision: str) -> list[str]:
        return [name for name in LARGEST if (self.snapshot(revision) / name).is_file()]

    def stored_hash(self, revision: str, name: str) -> str | None:
        """Returns the hash under which a file is stored, None if its name is no hash."""
        link = self.snapshot(revision) / name
        hash_ = link.readlink().name if link.is_symlink() else None
        return hash_ if is_digest(hash_) else None

    def has(self, revision: str, name: str, expected: str | None) -> bool:
        """Returns True if the file is here and has the expected hash (by default the one that it is
        stored under). Removes a damaged file, and links a good one that another revision has."""
        link = self.snapshot(revision) / name
        expected = expected or self.stored_hash(revision, name)
        blob = link if expected is None else self._blobs / expected
        found = link if link.is_file() else blob
        if not found.is_file():
            return False
        if expected is not None and digest(found, expected) != expected:
            say(f"asrd: {name} in the cache is damaged and is fetched again")
            link.unlink(missing_ok=True)
            blob.unlink(missing_ok=True)
            return False
        if found is not link and expected is not None:
            self._link(revision, name, expected)
        return True

    def partial(self, key: str) -> Path:
        """Returns the path for the part of a file that has arrived."""
        self._blobs.mkdir(parents=True, exist_ok=True)
        return self._blobs / f"{key}.incomplete"

    def keep(self, revision: str, name: str, file: Path, hash_: str) -> None:
        """Moves a verified file into its place."""
        self._blobs.mkdir(parents=True, exist_ok=True)
        file.replace(self._blobs / hash_)
        self._link(revision, name, hash_)

    def publish(self, revision: str) -> Path:
        """Lets the model's name stand for this revision, and returns its directory."""
        if self.revision() != revision:
            self._main.parent.mkdir(parents=True, exist_ok=True)
            temporary = self._main.with_name(f"main.{os.getpid()}")
            temporary.write_text(revision)
            temporary.replace(self._main)
        return self.snapshot(revision)

    def _link(self, revision: str, name: str, hash_: str) -> None:
        link = self.snapshot(revision) / name
        link.parent.mkdir(parents=True, exist_ok=True)
        temporary = link.with_name(f"{name}.{os.getpid()}")
        temporary.unlink(missing_ok=True)
        temporary.symlink_to(Path("..", "..", "blobs", hash_))
        temporary.replace(link)
