"""The body of a request: multipart/form-data (RFC 7578), its recording written to a memfd.

The recording is never in this process's memory: each piece goes on to the memfd as it arrives.
"""

import os
from dataclasses import dataclass

import anyio
from python_multipart import MultipartParser
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import parse_options_header
from starlette.requests import Request

from asrd.errors import Code
from asrd.http.errors import HttpError, bad_request, busy, unready
from asrd.quota import Quota
from asrd.wire.fds import Closing, OwnedFd, new_memfd, seal

FILE = "file"
PARTS_MAX = 256
# Bytes of one field that is no file, and of all of them.
FIELD_MAX, FIELDS_MAX = 64 << 10, 256 << 10
# The longest pause in seconds, and the slowest upload in bytes a second after that time.
PAUSE_SECONDS, SLOWEST = 30.0, 1024


@dataclass
class Upload(Closing):
    """The fields that are texts, in their order, and the recording. Owns the memfd."""

    fields: list[tuple[str, str]]
    file: OwnedFd

    def close(self) -> None:
        self.file.close()


class UploadMemory:
    """The memory that one upload takes, counted with those of all users; `with` gives it back."""

    def __init__(self, quota: Quota, user: str, limit: int) -> None:
        self.limit = limit
        self._quota, self._user = quota, user
        self._taken = 0

    def take(self, size: int) -> None:
        """Raises HttpError."""
        if self._taken + size > self.limit:
            raise too_large(self.limit)
        full = self._quota.why_full(f"user {self._user}", size)
        if full is not None:
            raise busy(full, f"user {self._user}")
        self._quota.add(f"user {self._user}", size)
        self._taken += size

    def __enter__(self) -> "UploadMemory":
        return self

    def __exit__(self, *_: object) -> None:
        self._quota.add(f"user {self._user}", -self._taken)


def too_large(limit: int) -> HttpError:
    text = f"file: is larger than {limit} bytes"
    return HttpError(413, text, code=Code.TOO_LARGE, param=FILE)


async def read_upload(request: Request, memory: UploadMemory, seconds: float) -> Upload:
    """Reads the whole body, for `seconds` at most. The caller closes what it returns.

    Raises HttpError for a body that is none, too large, too slow, or has no recording or several;
    starlette's ClientDisconnect.
    """
    claimed = request.headers.get("content-length", "")
    if claimed.isdecimal() and int(claimed) > memory.limit + FIELDS_MAX + (PARTS_MAX << 10):
        raise too_large(memory.limit)
    with _Form(_boundary(request), memory) as form:
        with anyio.move_on_after(seconds) as limit:
            await _feed(form, request)
        if limit.cancelled_caught:
            text = f"the upload took more than {seconds:g} s"
            raise HttpError(408, text, code="timeout", retry=False)
        return form.finish()


def _boundary(request: Request) -> bytes:
    kind, options = parse_options_header(request.headers.get("content-type"))
    boundary = options.get(b"boundary")
    if kind != b"multipart/form-data" or not boundary:
        raise bad_request(None, "the body must be multipart/form-data, with a boundary")
    return boundary


async def _feed(form: "_Form", request: Request) -> None:
    started, received = anyio.current_time(), 0
    pieces = request.stream()
    try:
        while True:
            with anyio.fail_after(PAUSE_SECONDS):
                piece = await anext(pieces, b"")
            if not piece:
                return
            form.write(piece)
            received += len(piece)
            if anyio.current_time() - started > PAUSE_SECONDS + received / SLOWEST:
                raise TimeoutError
    except TimeoutError:
        raise HttpError(408, "the upload is too slow", code="timeout") from None


class _Form(Closing):
    """The parser's callbacks. Each raises HttpError for what is wrong."""

    def __init__(self, boundary: bytes, memory: UploadMemory) -> None:
        self._fields: list[tuple[str, str]] = []
        self._file: OwnedFd | None = None
        self._memory = memory
        self._parts = self._fields_size = 0
        self._header = (bytearray(), bytearray())
        self._name = ""
        self._text: bytearray | None = None
        self._ended = False
        try:
            self._parser = MultipartParser(
                boundary,
                {
                    "on_part_begin": self._begin,
                    "on_header_field": self._header_name,
                    "on_header_value": self._header_value,
                    "on_header_end": self._header_end,
                    "on_headers_finished": self._headers_end,
                    "on_part_data": self._data,
                    "on_part_end": self._end,
                    "on_end": self._finished,
                },
            )
        except FormParserError as error:
            raise bad_request(None, f"multipart: {error}") from None

    def write(self, piece: bytes) -> None:
        try:
            self._parser.write(piece)
        except FormParserError as error:
            raise bad_request(None, f"multipart: {error}") from None
        except OSError as error:
            # No memory is left for a memfd, or no descriptor.
            raise unready(f"no room for the recording: {error.strerror}") from None

    def finish(self) -> Upload:
        if not self._ended:
            raise bad_request(None, "multipart: ends before its last boundary")
        if self._file is None:
            raise bad_request(FILE, "is missing")
        seal(self._file)
        os.lseek(self._file.fileno(), 0, os.SEEK_SET)
        file, self._file = self._file, None
        return Upload(self._fields, file)

    def close(self) -> None:
        if self._file is not None:
            self._file.close()

    def _begin(self) -> None:
        self._parts += 1
        if self._parts > PARTS_MAX:
            raise bad_request(None, f"multipart: has more than {PARTS_MAX} parts")
        self._name, self._text = "", bytearray()

    def _header_name(self, data: bytes, start: int, end: int) -> None:
        self._header[0].extend(data[start:end])

    def _header_value(self, data: bytes, start: int, end: int) -> None:
        self._header[1].extend(data[start:end])

    def _header_end(self) -> None:
        name, value = map(bytes, self._header)
        self._header = (bytearray(), bytearray())
        if name.lower() == b"content-disposition":
            _, options = parse_options_header(value)
            self._name = options.get(b"name", b"").decode(errors="replace")

    def _headers_end(self) -> None:
        if not self._name:
            raise bad_request(None, "multipart: a part has no name")
        if self._name != FILE:
            return
        if self._file is not None:
            raise bad_request(FILE, "is given twice")
        self._text = None
        self._file = new_memfd()

    def _data(self, data: bytes, start: int, end: int) -> None:
        size = end - start
        if self._text is None and self._file is not None:
            self._memory.take(size)
            _write(self._file, memoryview(data)[start:end])
            return
        text = self._text = self._text or bytearray()
        self._fields_size += size
        if len(text) + size > FIELD_MAX or self._fields_size > FIELDS_MAX:
            raise bad_request(self._name, f"is longer than {FIELD_MAX} bytes, or all fields are")
        text += data[start:end]

    def _end(self) -> None:
        if self._text is not None:
            try:
                self._fields.append((self._name, self._text.decode()))
            except UnicodeDecodeError:
                raise bad_request(self._name, "is not UTF-8") from None

    def _finished(self) -> None:
        self._ended = True


def _write(file: OwnedFd, rest: memoryview) -> None:
    while rest:
        rest = rest[os.write(file.fileno(), rest) :]
