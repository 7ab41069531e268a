"""The rights of the daemon's users to files, by the files' modes.

The worker's user exists only while it runs (DynamicUser=), so its rights can't be tried out.
"""

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Reader:
    """A user of the daemon; `name` is for people. Without `uid` it owns no file."""

    name: str
    uid: int | None = None
    gids: frozenset[int] = frozenset()

    def may_read(self, path: Path) -> bool:
        """Returns True if the mode lets it read a file, or list and enter a directory. Access
        control lists are not considered. Raises OSError."""
        found = path.stat()
        shift = 6 if found.st_uid == self.uid else 3 if found.st_gid in self.gids else 0
        wanted = 0o5 if path.is_dir() else 0o4
        return found.st_mode >> shift & wanted == wanted

    def closed(self, paths: Iterable[Path]) -> list[Path]:
        """Returns those that it may not read. Raises OSError."""
        return [path for path in dict.fromkeys(paths) if not self.may_read(path)]


def parts(path: Path) -> Iterator[Path]:
    """Yields the directories on the way to a path, from the top, and the path itself, without
    symbolic links."""
    real = Path(os.path.realpath(path))
    yield from reversed(real.parents)
    yield real
