"""Log records as the journal wants them: one entry an event, with fields that journalctl matches.

    log.info("done", extra={"fields": {"ASRD_JOB_ID": job_id, "ASRD_PEER_UID": uid}})
    journalctl -u asrd ASRD_JOB_ID=...

Under systemd the entries go by the journal's native protocol (systemd.io/JOURNAL_NATIVE_PROTOCOL),
elsewhere to stderr, a line each. What a peer says can't forge an entry or a line: control
characters are escaped, and a field's value is framed by its length.
"""

import logging
import os
import socket
import struct
import sys
from collections.abc import Mapping

from asrd import stdio

JOURNAL_SOCKET = "/run/systemd/journal/socket"
# One entry must fit a datagram (net.core.wmem_default, 208 KiB) beside its fields.
MAX_VALUE = 32 * 1024
_LENGTH = struct.Struct("<Q")
_PRIORITIES = ((logging.CRITICAL, 2), (logging.ERROR, 3), (logging.WARNING, 4), (logging.INFO, 6))
_DEBUG = 7


def setup_logging(level: str, identifier: str) -> None:
    """Send the root logger's records of `level` (`info`) and above to the journal or to stderr.

    `ASRD_DEBUG=front.session,worker` in the environment turns on debugging of that module and that
    package alone.
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
    """Whether JOURNAL_STREAM (systemd.exec(5)) names what stderr really is: it is inherited by
    processes whose stderr went elsewhere."""
    try:
        found = os.fstat(2)
    except OSError:
        return False
    return os.environ.get("JOURNAL_STREAM") == f"{found.st_dev}:{found.st_ino}"


class JournalHandler(logging.Handler):
    """Never waits for journald: an entry that it can't take at once is dropped, and the next one
    that it takes says how many were (in ASRD_DROPPED)."""

    def __init__(self, identifier: str, path: str = JOURNAL_SOCKET) -> None:
        super().__init__()
        self._identifier = identifier
        self._path = path
        self._dropped = 0
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.setblocking(False)

    def emit(self, record: logging.LogRecord) -> None:
        try:
            entry = encode_entry(self._entry(record))
        except Exception:
            self.handleError(record)
            return
        try:
            # By path and not connected: the socket may be a new one after journald's restart.
            self._socket.sendto(entry, self._path)
            self._dropped = 0
        except OSError:
            self._dropped += 1

    def close(self) -> None:
        self._socket.close()
        super().close()

    def _entry(self, record: logging.LogRecord) -> dict[str, object]:
        return {
            "MESSAGE": _message(record, "\n"),
            "PRIORITY": priority(record.levelno),
            "SYSLOG_IDENTIFIER": self._identifier,
            "LOGGER": record.name,
            "ASRD_DROPPED": self._dropped or None,
            **_fields(record),
        }


class StderrHandler(logging.Handler):
    """Never raises because of stderr, and never waits for whoever reads it: a line for which there
    is no room is lost, and the next one that goes through says how many were (`dropped=`)."""

    def __init__(self) -> None:
        super().__init__()
        self._stream = sys.stderr
        self._dropped = 0

    def emit(self, record: logging.LogRecord) -> None:
        try:
            line = self.format(record)
        except Exception:
            self.handleError(record)
            return
        if self._dropped:
            line = f"{line} dropped={self._dropped}"
        self._dropped = 0 if stdio.write_line(self._stream, line) else self._dropped + 1


class LineFormatter(logging.Formatter):
    """`2026-01-31 12:00:00,000 info asrd: the message job_id=...`, one line whatever happens."""

    def __init__(self, identifier: str) -> None:
        super().__init__()
        self._identifier = identifier

    def format(self, record: logging.LogRecord) -> str:
        start = f"{self.formatTime(record)} {record.levelname.lower()} {self._identifier}:"
        pairs = (
            f"{name.removeprefix('ASRD_').lower()}={_quoted(escape(str(value)))}"
            for name, value in _fields(record).items()
            if value is not None
        )
        return " ".join([start, _message(record, "\\n"), *pairs])


def priority(level: int) -> int:
    """syslog's number for a level of the logging module."""
    return next((number for floor, number in _PRIORITIES if level >= floor), _DEBUG)


def encode_entry(entry: Mapping[str, object]) -> bytes:
    """One datagram of the native protocol; a field that is None is left out."""
    return b"".join(
        _encode_field(name, str(value)) for name, value in entry.items() if value is not None
    )


def escape(text: str) -> str:
    """`text` with each character that is not printable as a Python escape."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)


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


def _quoted(value: str) -> str:
    if value and not any(c in value for c in ' "='):
        return value
    return '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'
