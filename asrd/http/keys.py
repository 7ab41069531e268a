"""The file of API keys: a line `NAME KEY` for each user; empty lines and `#` lines are comments."""

import hashlib
import hmac
import logging
import os
import stat
from pathlib import Path

from asrd.errors import ConfigError, FieldError
from asrd.wire.fields import identifier

log = logging.getLogger(__name__)

# A shorter key could be guessed over the network.
KEY_MIN = 16
_get_name = identifier(64)


class Keys:
    """The users by their keys, of which only hashes are kept."""

    def __init__(self, path: str) -> None:
        """Raises ConfigError, also for a file that other users can read."""
        self._path = path
        self._seen = _identity(path)
        self._users = _read(path)

    def refresh(self) -> None:
        """Reads the file again if it was changed. The old keys stay if it is wrong now, and the
        log says so once."""
        identity = _identity(self._path)
        if identity == self._seen:
            return
        self._seen = identity
        try:
            self._users = _read(self._path)
        except ConfigError as error:
            log.error("%s; the keys from before stay valid", error)
        else:
            log.info("read %d keys from %s", len(self._users), self._path)

    def user(self, key: str) -> str | None:
        """Returns the name of the key's user. The time that it takes depends on no key."""
        given, found = _hash(key), None
        for known, name in self._users.items():
            if hmac.compare_digest(given, known):
                found = name
        return found


def _identity(path: str) -> tuple[int, ...] | None:
    """Returns what changes with each change of the file; None if there is none."""
    try:
        found = Path(path).stat()
    except OSError:
        return None
    # `ctime` is also that of a chmod, which may be what was missing.
    return found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns


def _read(path: str) -> dict[bytes, str]:
    """Raises ConfigError."""
    try:
        with Path(path).open(encoding="utf-8") as file:
            mode = os.fstat(file.fileno()).st_mode
            lines = file.read().splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"http.api_keys: {path}: cannot be read: {error}") from None
    if mode & (stat.S_IWGRP | stat.S_IRWXO):
        raise ConfigError(f"http.api_keys: {path}: other users have access: chmod 640 {path}")
    users: dict[bytes, str] = {}
    for number, line in enumerate(lines, 1):
        words = line.split()
        if words and not words[0].startswith("#"):
            where = f"http.api_keys: {path}:{number}"
            name, key = _checked(words, where)
            other = users.setdefault(_hash(key), name)
            if other != name:
                raise ConfigError(f"{where}: the key of {name} is that of {other}, too")
    if not users:
        raise ConfigError(f"http.api_keys: {path}: has no key: nobody could do anything")
    return users


def _checked(words: list[str], where: str) -> tuple[str, str]:
    if len(words) != 2:
        raise ConfigError(f"{where}: must be NAME KEY")
    name, key = words
    if len(key) < KEY_MIN:
        raise ConfigError(f"{where}: the key has fewer than {KEY_MIN} characters")
    # A header with others arrives as something else, or not at all.
    if not (key.isascii() and key.isprintable()):
        raise ConfigError(f"{where}: the key has characters that are not printable ASCII")
    try:
        return str(_get_name("NAME", name)), key
    except FieldError as error:
        raise ConfigError(f"{where}: {error}") from None


def _hash(key: str) -> bytes:
    return hashlib.sha256(key.encode(errors="surrogatepass")).digest()
