"""Journal entries, read back by a parser of the native protocol, and lines on stderr."""

import logging
import os
import socket
import struct
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from asrd.journal import (
    MAX_VALUE,
    JournalHandler,
    LineFormatter,
    encode_entry,
    setup_logging,
    stderr_is_the_journal,
)
from tests.support.subprocesses import run_python


def decode(datagram: bytes) -> dict[str, str]:
    """Parses the native protocol's two forms of a field."""
    entry = {}
    while datagram:
        line, _, rest = datagram.partition(b"\n")
        name, equals, value = line.partition(b"=")
        if not equals:
            (size,) = struct.unpack_from("<Q", rest)
            value, rest = rest[8 : 8 + size], rest[8 + size + 1 :]
        entry[name.decode()] = value.decode()
        datagram = rest
    return entry


@pytest.fixture
def journald(tmp_path: Path) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as server:
        server.bind(str(tmp_path / "journal"))
        server.setblocking(False)
        yield server


@pytest.fixture
def handler(journald: socket.socket) -> Iterator[JournalHandler]:
    handler = JournalHandler("asrd", journald.getsockname())
    yield handler
    handler.close()


def record(
    message: str, *args: object, level: int = logging.INFO, **fields: object
) -> logging.LogRecord:
    made = logging.LogRecord("asrd.front.front", level, __file__, 1, message, args, None)
    made.fields = fields
    return made


def with_traceback() -> logging.LogRecord:
    made = record("it broke", level=logging.ERROR)
    try:
        raise ValueError("first\nMESSAGE=forged")
    except ValueError:
        made.exc_info = sys.exc_info()
    return made


def test_entry_has_message_priority_identifier_and_fields(
    journald: socket.socket, handler: JournalHandler
) -> None:
    handler.emit(record("done in %d ms", 7, ASRD_JOB_ID="j1", ASRD_PEER_UID=1000, ASRD_TRACE=None))
    assert decode(journald.recv(65536)) == {
        "MESSAGE": "done in 7 ms",
        "PRIORITY": "6",
        "SYSLOG_IDENTIFIER": "asrd",
        "LOGGER": "asrd.front.front",
        "ASRD_JOB_ID": "j1",
        "ASRD_PEER_UID": "1000",
    }


def test_text_of_a_client_cannot_forge_a_field(
    journald: socket.socket, handler: JournalHandler
) -> None:
    handler.emit(record("job %s", "x\nPRIORITY=0", ASRD_JOB_ID="j\n_UID=0"))
    entry = decode(journald.recv(65536))
    assert entry["MESSAGE"] == r"job x\nPRIORITY=0"
    assert entry["PRIORITY"] == "6"
    assert entry["ASRD_JOB_ID"] == "j\n_UID=0"
    assert "_UID" not in entry


def test_traceback_is_one_entry_of_many_lines(
    journald: socket.socket, handler: JournalHandler
) -> None:
    handler.emit(with_traceback())
    message = decode(journald.recv(65536))["MESSAGE"]
    assert message.startswith("it broke\nTraceback")
    assert message.endswith("MESSAGE=forged")


def test_dropped_entries_are_counted_in_the_next_one(
    journald: socket.socket, handler: JournalHandler
) -> None:
    sent = 0
    while not handler._dropped:
        handler.emit(record("flood"))
        sent += 1
    handler.emit(record("lost too"))
    for _ in range(sent - 1):
        assert "ASRD_DROPPED" not in decode(journald.recv(65536))
    handler.emit(record("room again"))
    handler.emit(record("and again"))
    assert decode(journald.recv(65536))["ASRD_DROPPED"] == "2"
    assert "ASRD_DROPPED" not in decode(journald.recv(65536))


def test_missing_journal_is_no_error(tmp_path: Path) -> None:
    handler = JournalHandler("asrd", str(tmp_path / "nobody"))
    handler.emit(record("into the void"))
    handler.close()


def test_long_value_is_cut_so_that_the_entry_fits() -> None:
    assert len(decode(encode_entry({"MESSAGE": "x" * 10 * MAX_VALUE}))["MESSAGE"]) == MAX_VALUE


def test_line_has_the_fields_as_key_value_pairs() -> None:
    line = LineFormatter("asrd").format(
        record("done", ASRD_JOB_ID='a "b" c', ASRD_PEER_UID=0, ASRD_TRACE_ID=None, ASRD_EMPTY="")
    )
    assert line.endswith(r'info asrd: done job_id="a \"b\" c" peer_uid=0 empty=""')


def test_line_with_a_traceback_is_one_line() -> None:
    line = LineFormatter("asrd").format(with_traceback())
    assert "\n" not in line
    assert r"it broke\nTraceback" in line


def test_stderr_is_the_journal_only_if_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("JOURNAL_STREAM", raising=False)
    assert not stderr_is_the_journal()
    found = os.fstat(2)
    monkeypatch.setenv("JOURNAL_STREAM", f"{found.st_dev}:{found.st_ino}")
    assert stderr_is_the_journal()
    monkeypatch.setenv("JOURNAL_STREAM", f"{found.st_dev}:{found.st_ino + 1}")
    assert not stderr_is_the_journal()


@pytest.fixture
def root_logging() -> Iterator[logging.Logger]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    root.handlers[:] = []
    yield root
    for handler in root.handlers:
        handler.close()
    root.handlers[:] = handlers
    root.setLevel(level)


def test_setup_chooses_journal_or_stderr(
    root_logging: logging.Logger, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("JOURNAL_STREAM", raising=False)
    setup_logging("warning", "asrd")
    (handler,) = root_logging.handlers
    assert isinstance(handler.formatter, LineFormatter)
    assert root_logging.level == logging.WARNING
    found = os.fstat(2)
    monkeypatch.setenv("JOURNAL_STREAM", f"{found.st_dev}:{found.st_ino}")
    setup_logging("info", "asrd")
    (handler,) = root_logging.handlers
    assert isinstance(handler, JournalHandler)


def test_asrd_debug_selects_modules() -> None:
    code = (
        "import logging; from asrd.journal import setup_logging; setup_logging('info', 'asrd');"
        "[logging.getLogger(n).debug(n) for n in ('asrd.front.spool', 'asrd.front.front', 'asrd')]"
    )
    done = run_python(code, ASRD_DEBUG="front.spool, wire")
    assert done.stderr.count("\n") == 1
    assert done.stderr.endswith("debug asrd: asrd.front.spool\n")
