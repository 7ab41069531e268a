"""Files that would end the process in sherpa-onnx, and what is said of them."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asrd.engine.model_check import Facts, check
from asrd.engine.speaker_files import EMBEDDING, SEGMENTATION
from asrd.errors import LoadError

GOOD = {
    SEGMENTATION: {
        **{"sample_rate": "16000", "num_speakers": "3", "num_classes": "7"},
        **{"powerset_max_classes": "2", "window_size": "160000"},
    },
    EMBEDDING: {"sample_rate": "16000", "framework": "3d-speaker", "output_dim": "192"},
}


def number(value: int) -> bytes:
    """Returns protobuf's encoding of an integer."""
    found = bytearray()
    while value > 0x7F:
        found.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*found, value])


def field(at: int, content: bytes) -> bytes:
    return number(8 * at + 2) + number(len(content)) + content


def onnx(metadata: dict[str, str]) -> bytes:
    """Returns an ONNX model whose graph is nothing but bytes."""
    entries = (field(1, key.encode()) + field(2, text.encode()) for key, text in metadata.items())
    version = number(8 * 1) + number(9)
    return version + field(7, bytes(300)) + b"".join(field(14, entry) for entry in entries)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    for name, metadata in GOOD.items():
        (tmp_path / name).write_bytes(onnx(metadata))
    return tmp_path


def problem(path: Path) -> str:
    with pytest.raises(LoadError) as raised:
        check(path)
    return str(raised.value)


def test_good_models_know_no_language(path: Path) -> None:
    assert check(path) == Facts(False, False, (), speakers=True)


@pytest.mark.parametrize("name", GOOD)
def test_missing_file_is_named(path: Path, name: str) -> None:
    (path / name).unlink()
    assert problem(path) == f"the model in {path} has no {name}: to tell speakers apart takes both"


@pytest.mark.parametrize("name", GOOD)
@pytest.mark.parametrize("content", [b"", b"version https://git-lfs.github.com/spec/v1\n", b"\xff"])
def test_file_that_is_no_model_is_named(path: Path, name: str, content: bytes) -> None:
    (path / name).write_bytes(content)
    assert problem(path).startswith(f"{path / name} is damaged, cut off or no ONNX model (")


def test_model_of_another_program_is_named(path: Path) -> None:
    (path / SEGMENTATION).write_bytes(onnx({"sample_rate": "16000", "num_classes": "7"}))
    assert problem(path) == (
        f"{path / SEGMENTATION} was not made for sherpa-onnx: its metadata lack num_speakers, "
        "powerset_max_classes, window_size"
    )
    (path / SEGMENTATION).write_bytes(onnx(GOOD[SEGMENTATION] | {"sample_rate": "8000"}))
    assert problem(path) == f"{path / SEGMENTATION} takes 8000 Hz, and asrd has 16000"


@pytest.mark.parametrize(
    ("name", "key", "value"),
    [
        (EMBEDDING, "framework", "xyz"),
        (EMBEDDING, "output_dim", "0"),
        (SEGMENTATION, "window_size", "000000"),
        (SEGMENTATION, "num_speakers", "-3"),
        (SEGMENTATION, "num_classes", "seven"),
    ],
)
def test_metadata_that_would_end_the_process_are_named(
    path: Path, name: str, key: str, value: str
) -> None:
    (path / name).write_bytes(onnx(GOOD[name] | {key: value}))
    assert problem(path) == (
        f"{path / name} is none that sherpa-onnx knows: in its metadata, {key} is {value!r}"
    )


@given(st.data())
def test_cut_or_changed_file_is_never_more_than_an_error(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    path = tmp_path_factory.getbasetemp()
    content = bytearray(onnx(GOOD[EMBEDDING]))
    at = data.draw(st.integers(0, len(content) - 1))
    content[at] = data.draw(st.integers(0, 255))
    (path / SEGMENTATION).write_bytes(onnx(GOOD[SEGMENTATION]))
    (path / EMBEDDING).write_bytes(content[: data.draw(st.integers(0, len(content)))])
    try:
        check(path)
    except LoadError as error:
        assert str(path / EMBEDDING) in str(error)
    finally:
        (path / EMBEDDING).unlink()
        (path / SEGMENTATION).unlink()
