"""The file of API keys: a line `NAME KEY` for each user; empty lines and `#` lines are comments."""

import hashlib
import hmac
import os
import stat
from pathlib import Path

from asrd.errors import ConfigError, FieldError
from asrd.wire.fields import identifier

# A shorter key could be guessed over the network.
KEY_MIN = 16
_get_name = identifier(64)


class Keys:
    """The users by their keys, of which only hashes are kept."""

    def __init__(self, users: dict[bytes, str]) -> None:
        self._users = users

    @classmethod
    def read(cls, path: str) -> "Keys":
        """Raises ConfigError, also for a file that other users can read."""
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
                name, key = _checked(words, f"http.api_keys: {path}:{number}")
                users[_hash(key)] = name
        if not users:
            raise ConfigError(f"http.api_keys: {path}: has no key: nobody could do anything")
        return cls(users)

    def user(self, key: str) -> str | None:
        """Returns the name of the key's user. The time that it takes depends on no key."""
        given, found = _hash(key), None
        for known, name in self._users.items():
            if hmac.compare_digest(given, known):
                found = name
        return found


def _checked(words: list[str], where: str) -> tuple[str, str]:
    if len(words) != 2:
        raise ConfigError(f"{where}: must be NAME KEY")
    name, key = words
    if len(key) < KEY_MIN:
        raise ConfigError(f"{where}: the key has fewer than {KEY_MIN} characters")
    try:
        return str(_get_name("NAME", name)), key
    except FieldError as error:
        raise ConfigError(f"{where}: {error}") from None


def _hash(key: str) -> bytes:
    return hashlib.sha256(key.encode(errors="surrogatepass")).digest()
