"""Log records as journal entries: one entry for each event, with fields that journalctl matches.

    log.info("done", extra={"fields": {"ASRD_JOB_ID": job_id, "ASRD_PEER_UID": uid}})
    journalctl -u asrd ASRD_JOB_ID=...

Under systemd the entries use the journal's native protocol (systemd.io/JOURNAL_NATIVE_PROTOCOL);
elsewhere each is a line on stderr. No text of a peer can forge an entry or a line: control
characters are escaped, and the length of each field's value is sent with it.
"""

import logging
import os
import socket
import struct
import sys
from abc import ABC, abstractmethod
from collections.abc import Mapping

from asrd import stdio
from asrd.safe_text import escape, quoted

JOURNAL_SOCKET = "/run/systemd/journal/socket"
# An entry with all its fields must fit a datagram (net.core.wmem_default, 208 KiB).
MAX_VALUE = 32 * 1024
_LENGTH = struct.Struct("<Q")
# The priorities of syslog(3).
_PRIORITIES = {
    logging.CRITICAL: 2,
    logging.ERROR: 3,
    logging.WARNING: 4,
    logging.INFO: 6,
    logging.DEBUG: 7,
}


def setup_logging(level: str, identifier: str) -> None:
    """Sends the root logger's records of `level` (`info`) and above to the journal or to stderr.

    `ASRD_DEBUG=front.session,worker` in the environment turns on the debug messages of that module
    and that package alone.
    """
    handler: logging.Handler
    if stderr_is_the_journal():
        handler = JournalHandler(identifier)
    else:
        handler = StderrHandler()
        handler.setFormatter(LineFormatter(identifier))
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)
    for module in filter(None, os.environ.get("ASRD_DEBUG", "").split(",")):
        logging.getLogger(f"asrd.{module.strip()}").setLevel(logging.DEBUG)


def stderr_is_the_journal() -> bool:
    """Returns True if JOURNAL_STREAM (systemd.exec(5)) names our stderr. A process whose stderr
    was redirected inherits the variable, too."""
    try:
        found = os.fstat(2)
    except OSError:
        return False
    return os.environ.get("JOURNAL_STREAM") == f"{found.st_dev}:{found.st_ino}"


class _DroppingHandler(logging.Handler, ABC):
    """A handler that never waits and never raises: it drops a record that can't be written at
    once, and the next record that is written reports how many were dropped."""

    _dropped = 0

    def emit(self, record: logging.LogRecord) -> None:
        try:
            written = self._write(record)
        except Exception:
            self.handleError(record)
            return
        self._dropped = 0 if written else self._dropped + 1

    @abstractmethod
    def _write(self, record: logging.LogRecord) -> bool:
        """Returns False if the record was dropped."""


class JournalHandler(_DroppingHandler):
    """Sends entries to journald; the field ASRD_DROPPED counts the dropped ones."""

    def __init__(self, identifier: str, path: str = JOURNAL_SOCKET) -> None:
        super().__init__()
        self._identifier = identifier
        self._path = path
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.setblocking(False)

    def _write(self, record: logging.LogRecord) -> bool:
        entry = {
            "MESSAGE": _message(record, "\n"),
            "PRIORITY": _PRIORITIES.get(record.levelno, 6),
            "SYSLOG_IDENTIFIER": self._identifier,
            "LOGGER": record.name,
            "ASRD_DROPPED": self._dropped or None,
            **_fields(record),
        }
        try:
            # By path and not connected: after a restart of journald the socket is a new one.
            self._socket.sendto(encode_entry(entry), self._path)
        except OSError:
            return False
        return True

    def close(self) -> None:
        self._socket.close()
        super().close()


class StderrHandler(_DroppingHandler):
    """Writes lines to stderr; `dropped=` at the end of a line counts the dropped ones."""

    def __init__(self) -> None:
        super().__init__()
        self._stream = sys.stderr

    def _write(self, record: logging.LogRecord) -> bool:
        dropped = f" dropped={self._dropped}" if self._dropped else ""
        return stdio.write_line(self._stream, self.format(record) + dropped)


class LineFormatter(logging.Formatter):
    """`2026-01-31 12:00:00,000 info asrd: the message job_id=...`, always on one line."""

    def __init__(self, identifier: str) -> None:
        super().__init__()
        self._identifier = identifier

    def format(self, record: logging.LogRecord) -> str:
        start = f"{self.formatTime(record)} {record.levelname.lower()} {self._identifier}:"
        pairs = (
            f"{name.removeprefix('ASRD_').lower()}={_value(str(value))}"
            for name, value in _fields(record).items()
            if value is not None
        )
        return " ".join([start, _message(record, "\\n"), *pairs])


def encode_entry(entry: Mapping[str, object]) -> bytes:
    """Returns a datagram of the native protocol, without the fields that are None."""
    return b"".join(
        _encode_field(name, str(value)) for name, value in entry.items() if value is not None
    )


def _encode_field(name: str, value: str) -> bytes:
    data = value.encode("utf-8", "backslashreplace")[:MAX_VALUE]
    if b"\n" in data:
        return b"%b\n%b%b\n" % (name.encode(), _LENGTH.pack(len(data)), data)
    return b"%b=%b\n" % (name.encode(), data)


def _fields(record: logging.LogRecord) -> Mapping[str, object]:
    fields: Mapping[str, object] = getattr(record, "fields", {})
    return fields


def _message(record: logging.LogRecord, newline: str) -> str:
    lines = [record.getMessage()]
    if record.exc_info:
        lines += logging.Formatter().formatException(record.exc_info).splitlines()
    return newline.join(escape(line) for line in lines)


def _value(text: str) -> str:
    return quoted(text) if not text or any(c in text for c in ' "=') else escape(text)
