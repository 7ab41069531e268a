"""The faults of a model's files, named before the model is loaded."""

import json
import os
import re
import shutil
import struct
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asrd.demo import MODEL
from asrd.engine.model_check import Facts, check
from asrd.errors import LoadError
from asrd.wire.languages import NAMES
from tests.support.engine_jobs import edit


def fault(path: Path) -> str:
    with pytest.raises(LoadError) as caught:
        check(path)
    text = str(caught.value)
    assert "\n" not in text
    return text


def test_demo_model_has_no_fault() -> None:
    assert check(MODEL) == Facts(True, True, tuple(NAMES))


# --- missing, cut off, or something else --------------------------------------------------------


@pytest.mark.parametrize("name", ["config.json", "model.bin", "tokenizer.json"])
def test_missing_file_is_named(model: Path, name: str) -> None:
    (model / name).unlink()
    assert fault(model).startswith(f"the model in {model} has no {name}: ")


def test_vocabulary_may_be_a_text_file(model: Path) -> None:
    tokens = json.loads((model / "vocabulary.json").read_text())
    (model / "vocabulary.json").unlink()
    assert "has no vocabulary.json or vocabulary.txt" in fault(model)
    (model / "vocabulary.txt").write_text("\n".join(tokens) + "\n")
    assert check(model) == check(MODEL)
    (model / "vocabulary.txt").write_bytes(b"\xff")
    assert "vocabulary.txt can't be read" in fault(model)


@pytest.mark.parametrize(
    ("name", "content", "text"),
    [
        ("model.bin", "version https://git-lfs.github.com/spec/v1\n", "is only a pointer of Git"),
        ("model.bin", "", "is empty"),
        ("model.bin", "<html>404</html>" * 99, "is damaged or no CTranslate2 model: binary ver"),
        ("model.bin", "\0" * 1000, "is damaged or no CTranslate2 model: binary version 0"),
        ("tokenizer.json", '{"a": "b', "is cut off"),
        ("config.json", "{", "can't be read"),
        ("config.json", "[]", "is not a JSON object"),
        ("vocabulary.json", "[1]", "is not a list of tokens"),
        ("vocabulary.json", '{"a": 1}', "is not a list of tokens"),
        ("preprocessor_config.json", "[]", "is not a JSON object"),
    ],
)
def test_damaged_file_is_named(model: Path, name: str, content: str, text: str) -> None:
    (model / name).write_text(content)
    assert fault(model).startswith(f"{model / name} {text}")


def test_unreadable_file_is_named(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: Path, *arguments: Any) -> Any:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(Path, "open", refuse)
    assert fault(model) == f"{model / 'model.bin'} can't be read: Permission denied"


@pytest.mark.parametrize(
    ("files", "text"),
    [
        ([], "the directory is empty"),
        (["config.json", "model.safetensors", "tokenizer.json"], "in the format of PyTorch"),
        (["config.json", "pytorch_model.bin"], "ct2-transformers-converter"),
        (["snapshots/abc/model.bin"], "give the model's name, Systran/faster-whisper-base"),
        (["base/model.bin"], "there is one in "),
        (["config.json"], "a download or copy that was not finished"),
    ],
)
def test_directory_without_weights_is_explained(
    tmp_path: Path, files: list[str], text: str
) -> None:
    directory = tmp_path / "models--Systran--faster-whisper-base"
    directory.mkdir()
    for name in files:
        (directory / name).parent.mkdir(parents=True, exist_ok=True)
        (directory / name).write_text("x")
    assert fault(directory).startswith(f"the model in {directory} has no model.bin: ")
    assert text in fault(directory)


# --- vocabulary ---------------------------------------------------------------------------------


def test_multilingual_model_without_the_empty_token_is_refused(model: Path) -> None:
    tokens = json.loads((model / "vocabulary.json").read_text())
    tokens[tokens.index("")] = "other"
    (model / "vocabulary.json").write_text(json.dumps(tokens))
    assert "lacks the empty token" in fault(model)


def test_english_model_may_have_all_language_tokens(model: Path) -> None:
    """Whisper's own do; only the number of tokens distinguishes them."""
    tokens = json.loads((model / "vocabulary.json").read_text())
    tokens.remove("")
    tokens += [f"more{index}" for index in range(51_864 - len(tokens))]
    (model / "vocabulary.json").write_text(json.dumps(tokens))
    assert "has 51864 tokens, model.bin 2093" in fault(model)
    resize(model, "decoder/embeddings/weight", 0, 51_864)
    assert check(model) == Facts(multilingual=False, word_timestamps=True)


def resize(model: Path, name: str, dimension: int, size: int) -> None:
    """Changes one dimension of a variable in model.bin, and makes its bytes zero."""
    data = (model / "model.bin").read_bytes()
    start = data.index(name.encode()) + len(name) + 1
    layout = f"<B{data[start]}IBI"
    rank, *shape, kind, length = struct.unpack_from(layout, data, start)
    end = start + struct.calcsize(layout) + length
    length = length // shape[dimension] * size
    shape[dimension] = size
    header = struct.pack(layout, rank, *shape, kind, length)
    (model / "model.bin").write_bytes(data[:start] + header + bytes(length) + data[end:])


# --- alignment heads, which would crash the process ---------------------------------------------


@pytest.mark.parametrize("heads", [[[4, 0]], [[0, 4]], [[-1, 0]], [[0, 0], [3]], [[0, "0"]], [7]])
def test_alignment_heads_that_do_not_exist_are_refused(model: Path, heads: Any) -> None:
    edit(model / "config.json", alignment_heads=heads)
    assert "the decoder has 4 layers of 4 heads; word timestamps would crash" in fault(model)
    assert check(model, alignment_heads=False).word_timestamps


def test_alignment_heads_are_a_list_or_nothing(model: Path) -> None:
    edit(model / "config.json", alignment_heads={"0": 1})
    assert "alignment_heads is not a list" in fault(model)
    edit(model / "config.json", alignment_heads=None)
    assert check(model) == Facts(True, False, tuple(NAMES))


# --- model.bin ----------------------------------------------------------------------------------


@pytest.mark.parametrize("share", [0.1, 0.9])
def test_cut_off_model_names_the_least_that_is_missing(model: Path, share: float) -> None:
    size = (model / "model.bin").stat().st_size
    # In the list of aliases at its end.
    os.truncate(model / "model.bin", size - 20)
    assert "is damaged or no CTranslate2 model" in fault(model)
    left = int(size * share)
    os.truncate(model / "model.bin", left)
    found = re.search(
        r"cut off after ([\d,]+) bytes, in variable \d+ of 166, .* at least ([\d,]+) bytes are",
        fault(model),
    )
    assert found is not None
    there, least = (int(number.replace(",", "")) for number in found.groups())
    assert there == left
    assert 0 < least <= size - left


def test_other_kind_of_model_is_refused(model: Path) -> None:
    spec = b"TransformerSpec\0"
    header = struct.pack("<IH", 6, len(spec)) + spec + struct.pack("<III", 1, 0, 0)
    (model / "model.bin").write_bytes(header)
    assert "is not a Whisper model" in fault(model)


@given(st.integers(0, 2000), st.integers(1, 255))
def test_damaged_header_is_refused_or_harmless(
    damaged: Path, header: bytes, place: int, flip: int
) -> None:
    with (damaged / "model.bin").open("r+b") as file:
        file.write(header[:place] + bytes([header[place] ^ flip]) + header[place + 1 :])
    try:
        check(damaged)
    except LoadError as error:
        assert str(damaged) in str(error)


@pytest.fixture(scope="module")
def damaged(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return Path(shutil.copytree(MODEL, tmp_path_factory.mktemp("damaged") / "model"))


@pytest.fixture(scope="module")
def header() -> bytes:
    with (MODEL / "model.bin").open("rb") as file:
        return file.read(4096)


# --- mel bands ----------------------------------------------------------------------------------


def test_mel_bands_must_be_those_of_the_preprocessor(model: Path) -> None:
    (model / "preprocessor_config.json").unlink()
    assert check(model) == check(MODEL)
    resize(model, "encoder/conv1/weight", 1, 128)
    text = fault(model)
    assert "has no preprocessor_config.json, which one that takes 128 mel bands needs" in text
    assert "--copy_files tokenizer.json preprocessor_config.json" in text
    (model / "preprocessor_config.json").write_text('{"feature_size": 80}')
    assert "takes 128 mel bands but its preprocessor_config.json says 80" in fault(model)
    (model / "preprocessor_config.json").write_text('{"feature_size": 128}')
    assert check(model) == check(MODEL)
