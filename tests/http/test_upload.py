"""The parser of forms: any body, in any pieces."""

import itertools
import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asrd.http.errors import HttpError
from asrd.http.service import Service
from asrd.http.upload import Upload, _Form
from asrd.settings import HttpSettings
from tests.support.http import BOUNDARY, field, file, form

# What looks like the end of a part, and is none.
ALMOST = st.sampled_from(
    [b"\r\n", b"\r\n--", b"--" + BOUNDARY, b"\r\n--" + BOUNDARY[:-1], b"\r", b"-"]
)
CONTENT = st.lists(st.one_of(st.binary(max_size=8), ALMOST), max_size=20).map(b"".join)
TEXT = st.text(max_size=30)


def parse(body: bytes, cuts: list[int]) -> Upload:
    service = Service(HttpSettings())
    with service.request("alice") as memory, _Form(BOUNDARY, memory) as parser:
        edges = sorted({0, len(body), *(cut % (len(body) + 1) for cut in cuts)})
        for start, end in itertools.pairwise(edges):
            parser.write(body[start:end])
        return parser.finish()


@given(CONTENT, TEXT, TEXT, st.lists(st.integers(0, 10_000), max_size=30))
def test_pieces_of_a_form_are_the_form(
    content: bytes, before: str, after: str, cuts: list[int]
) -> None:
    # A line that begins with the boundary would be the end indeed.
    content = content.replace(b"\r\n--" + BOUNDARY, b"")
    if content.startswith(b"--" + BOUNDARY):
        content = b"x" + content
    body = form(field("prompt", before), file(content), field("prompt", after))
    with parse(body, cuts) as upload:
        assert upload.fields == [("prompt", before), ("prompt", after)]
        fd = upload.file.fileno()
        assert os.read(fd, len(content) + 1) == content
        with pytest.raises(PermissionError):
            os.write(fd, b"sealed")


@given(st.one_of(st.binary(max_size=300), CONTENT), st.lists(st.integers(0, 300), max_size=10))
def test_any_bytes_are_a_form_or_a_refusal(body: bytes, cuts: list[int]) -> None:
    for start in (b"", b"--" + BOUNDARY + b"\r\n", form(file())[:-4]):
        try:
            parse(start + body, cuts).close()
        except HttpError as error:
            assert error.status == 400
