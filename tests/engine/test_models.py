"""Names to directories, the faults of a model that are told before it is loaded, and fetching."""

import json
import os
import re
import shutil
import socket
import struct
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from faster_whisper import utils
from huggingface_hub import constants
from hypothesis import given
from hypothesis import strategies as st

from asrd.demo import MODEL
from asrd.engine import models
from asrd.engine.models import Facts, check, fetch_model, resolve
from asrd.errors import AsrdError, LoadError
from asrd.wire.languages import NAMES
from tests.support.fake_daemon import PATIENCE
from tests.support.hub import serve


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A copy of the demo model, to be spoilt."""
    return Path(shutil.copytree(MODEL, tmp_path / "model"))


def fault(path: Path) -> str:
    with pytest.raises(LoadError) as caught:
        check(path)
    text = str(caught.value)
    assert "\n" not in text
    return text


def edit(path: Path, **changes: Any) -> None:
    config = json.loads(path.read_text())
    path.write_text(json.dumps({**config, **changes}))


# --- names ------------------------------------------------------------------------------------


def test_the_names_are_those_of_faster_whisper() -> None:
    assert models.REPOSITORIES == utils._MODELS


@pytest.mark.parametrize("name", ["", "demo"])
def test_the_demo_model_has_a_name(name: str) -> None:
    assert resolve(name) == MODEL


def test_a_directory_is_itself(model: Path) -> None:
    assert resolve(str(model)) == model


@pytest.mark.parametrize(
    "name", ["/no/such/directory", "tinny", "a/b/c", "../x y", "a/b\nc", "a/\0"]
)
def test_what_can_be_no_model_is_told(name: str) -> None:
    with pytest.raises(LoadError, match="there is no model"):
        resolve(name)


@pytest.mark.parametrize("name", ["a/" + "x" * 300, "-a/b", "a..b/c"])
def test_a_name_that_no_repository_can_have_is_told(name: str) -> None:
    with pytest.raises(LoadError, match="there is no model"):
        resolve(name)


@pytest.mark.parametrize(
    ("name", "near"),
    [("smal", "small"), ("Large_v3", "large-v3"), ("turbo-v3", "turbo"), ("tiny-en", "tiny.en")],
)
def test_a_name_that_is_nearly_right_is_told_the_right_one(name: str, near: str) -> None:
    with pytest.raises(LoadError, match=r"did you mean ([\w. -]+)\? Else give") as caught:
        resolve(name)
    assert near in str(caught.value)


@pytest.mark.parametrize("name", ["large-v3", "nobody/nothing-at-all"])
def test_a_model_that_is_not_here_is_told_with_its_cure(name: str) -> None:
    # The network is never asked: there is none at this address.
    done = python(
        f"from asrd.engine.models import resolve; resolve({name!r})", "http://127.0.0.1:9"
    )
    assert f"is not on this machine; `asrd fetch-model {name}` fetches it" in done.stderr


# --- what a model must be -----------------------------------------------------------------------


def test_the_demo_model_is_sound() -> None:
    assert check(MODEL) == Facts(True, True, tuple(NAMES))


@pytest.mark.parametrize("name", ["config.json", "model.bin", "tokenizer.json"])
def test_a_missing_file_is_named(model: Path, name: str) -> None:
    (model / name).unlink()
    assert fault(model).startswith(f"the model in {model} has no {name}: ")


def test_a_missing_vocabulary_is_told(model: Path) -> None:
    (model / "vocabulary.json").unlink()
    assert "has no vocabulary.json or vocabulary.txt" in fault(model)


def test_a_vocabulary_may_be_a_text_file(model: Path) -> None:
    tokens = json.loads((model / "vocabulary.json").read_text())
    (model / "vocabulary.json").unlink()
    (model / "vocabulary.txt").write_text("\n".join(tokens) + "\n")
    assert check(model) == check(MODEL)


@pytest.mark.parametrize("text", ["", "{", "[]", "7"])
def test_a_spoilt_config_is_named(model: Path, text: str) -> None:
    (model / "config.json").write_text(text)
    assert "config.json" in fault(model)


@pytest.mark.parametrize("text", ["", "[1]", '{"a": 1}', '"text"'])
def test_a_spoilt_vocabulary_is_named(model: Path, text: str) -> None:
    (model / "vocabulary.json").write_text(text)
    assert "vocabulary.json" in fault(model)


def test_a_multilingual_model_without_the_empty_token_is_refused(model: Path) -> None:
    tokens = json.loads((model / "vocabulary.json").read_text())
    tokens[tokens.index("")] = "other"
    (model / "vocabulary.json").write_text(json.dumps(tokens))
    assert "lacks the empty token" in fault(model)


def test_whispers_own_english_models_are_not_taken_for_one(model: Path) -> None:
    # They have all language tokens; only the number of their tokens tells.
    tokens = json.loads((model / "vocabulary.json").read_text())
    tokens.remove("")
    tokens += [f"more{index}" for index in range(51_864 - len(tokens))]
    (model / "vocabulary.json").write_text(json.dumps(tokens))
    assert "has 51864 tokens, model.bin 2093" in fault(model)
    assert resized(model, 51_864) == Facts(multilingual=False, word_timestamps=True)


def resized(model: Path, tokens: int) -> Facts:
    """The facts with the decoder's embeddings made `tokens` rows long (and their bytes zero)."""
    data = (model / "model.bin").read_bytes()
    name = b"decoder/embeddings/weight\0"
    start = data.index(name) + len(name)
    rank, rows, width, kind, length = struct.unpack_from("<BIIBI", data, start)
    header = struct.pack("<BIIBI", rank, tokens, width, kind, tokens * length // rows)
    rest = data[start + len(header) + length :]
    body = bytes(tokens * length // rows)
    (model / "model.bin").write_bytes(data[:start] + header + body + rest)
    return check(model)


# --- alignment heads, which would crash the process ---------------------------------------------


@pytest.mark.parametrize(
    "heads",
    [[[9, 0]], [[1, 400_000]], [[4, 0]], [[0, 4]], [[-1, 0]], [[0, 0], [3]], [[0, "0"]], [7], [[]]],
)
def test_alignment_heads_that_do_not_exist_are_refused(model: Path, heads: Any) -> None:
    edit(model / "config.json", alignment_heads=heads)
    assert "the decoder has 4 layers of 4 heads; word timestamps would crash" in fault(model)
    assert check(model, alignment_heads=False).word_timestamps


@pytest.mark.parametrize("heads", [7, "x", {"0": 1}])
def test_alignment_heads_that_are_no_list_are_refused(model: Path, heads: Any) -> None:
    edit(model / "config.json", alignment_heads=heads)
    assert "alignment_heads is not a list" in fault(model)


def test_a_model_may_have_no_alignment_heads(model: Path) -> None:
    edit(model / "config.json", alignment_heads=None)
    assert check(model) == Facts(True, False, tuple(NAMES))


# --- model.bin ----------------------------------------------------------------------------------


@pytest.mark.parametrize("share", [1e-6, 0.001, 0.3, 0.9, 0.99999])
def test_a_model_that_was_cut_off_is_told(model: Path, share: float) -> None:
    size = (model / "model.bin").stat().st_size
    os.truncate(model / "model.bin", int(size * share))
    assert "damaged or no CTranslate2 model" in fault(model)


@pytest.mark.parametrize("left", [100_000, 1_000_000, 2_000_000])
def test_a_cut_off_model_claims_no_more_than_it_knows(model: Path, left: int) -> None:
    lacks = (model / "model.bin").stat().st_size - left
    os.truncate(model / "model.bin", left)
    told = re.search(
        r"cut off after ([\d,]+) bytes, in variable \d+ of 166, .* at least ([\d,]+) bytes are",
        fault(model),
    )
    assert told is not None
    there, least = (int(number.replace(",", "")) for number in told.groups())
    assert there == left
    assert 0 < least <= lacks


@pytest.mark.parametrize("name", ["config.json", "model.bin", "tokenizer.json", "vocabulary.json"])
@pytest.mark.parametrize(
    ("content", "text"),
    [
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:00\n", "a pointer of Git LFS"),
        (b"", "is empty"),
    ],
)
def test_what_stands_for_a_file_that_was_not_fetched(
    model: Path, name: str, content: bytes, text: str
) -> None:
    (model / name).write_bytes(content)
    told = fault(model)
    assert told.startswith(str(model / name))
    assert text in told


def test_a_tokenizer_that_was_cut_off_is_told(model: Path) -> None:
    os.truncate(model / "tokenizer.json", 10_000)
    assert fault(model).startswith(f"{model / 'tokenizer.json'} is cut off")


@pytest.mark.parametrize(
    ("files", "text"),
    [
        ([], "the directory is empty"),
        (["config.json", "model.safetensors", "tokenizer.json"], "in the format of PyTorch"),
        (["config.json", "pytorch_model.bin"], "ct2-transformers-converter"),
        (["base.pt"], "in the format of PyTorch"),
        (["snapshots/abc/model.bin"], "give the model's name, Systran/faster-whisper-base"),
        (["base/model.bin"], "there is one in "),
        (["config.json"], "a download or copy that was not finished"),
    ],
)
def test_a_directory_that_is_no_model_says_what_it_is(
    tmp_path: Path, files: list[str], text: str
) -> None:
    directory = tmp_path / "models--Systran--faster-whisper-base"
    directory.mkdir()
    for name in files:
        (directory / name).parent.mkdir(parents=True, exist_ok=True)
        (directory / name).write_text("x")
    told = fault(directory)
    assert told.startswith(f"the model in {directory} has no model.bin: ")
    assert text in told


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("base.pt", "is a PyTorch checkpoint"),
        ("model.bin", "is a file of a model: give its directory"),
        ("ggml-base.bin", "is a file, and a model is a directory"),
    ],
)
def test_a_file_is_no_model(tmp_path: Path, name: str, text: str) -> None:
    (tmp_path / name).write_text("x")
    with pytest.raises(LoadError, match=text):
        resolve(str(tmp_path / name))


# --- mel bands ----------------------------------------------------------------------------------


def with_mels(model: Path, mels: int) -> None:
    """Make the first convolution one of so many bands, as large-v3 has it."""
    data = (model / "model.bin").read_bytes()
    name = b"encoder/conv1/weight\0"
    start = data.index(name) + len(name)
    rank, out, bands, width, kind, length = struct.unpack_from("<BIIIBI", data, start)
    end = start + struct.calcsize("<BIIIBI") + length
    new = length // bands * mels
    header = struct.pack("<BIIIBI", rank, out, mels, width, kind, new)
    (model / "model.bin").write_bytes(data[:start] + header + bytes(new) + data[end:])


def test_a_model_of_128_bands_needs_its_preprocessor_config(model: Path) -> None:
    with_mels(model, 128)
    (model / "preprocessor_config.json").unlink()
    told = fault(model)
    assert "has no preprocessor_config.json, which one that takes 128 mel bands needs" in told
    assert "--copy_files tokenizer.json preprocessor_config.json" in told
    (model / "preprocessor_config.json").write_text('{"feature_size": 80}')
    assert "takes 128 mel bands but its preprocessor_config.json says 80" in fault(model)
    (model / "preprocessor_config.json").write_text('{"feature_size": 128}')
    assert check(model) == check(MODEL)


def test_a_model_of_80_bands_needs_none(model: Path) -> None:
    (model / "preprocessor_config.json").unlink()
    assert check(model) == check(MODEL)


@pytest.mark.parametrize(
    "data", [b"<html>404</html>" * 99, b"version https://git-lfs", bytes(1000), b"\xff" * 1000]
)
def test_what_is_no_model_is_told(model: Path, data: bytes) -> None:
    (model / "model.bin").write_bytes(data)
    assert "model.bin is" in fault(model)


def test_another_kind_of_model_is_told(model: Path) -> None:
    spec = b"TransformerSpec\0"
    header = struct.pack("<IH", 6, len(spec)) + spec + struct.pack("<III", 1, 0, 0)
    (model / "model.bin").write_bytes(header)
    assert "is not a Whisper model" in fault(model)


@given(st.integers(0, 2000), st.integers(1, 255))
def test_a_damaged_header_is_told_or_harmless(
    spoilt: Path, header: bytes, place: int, flip: int
) -> None:
    with (spoilt / "model.bin").open("r+b") as file:
        file.write(header[:place] + bytes([header[place] ^ flip]) + header[place + 1 :])
    try:
        check(spoilt)
    except LoadError as error:
        assert str(spoilt) in str(error)


@pytest.fixture(scope="module")
def spoilt(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return Path(shutil.copytree(MODEL, tmp_path_factory.mktemp("spoilt") / "model"))


@pytest.fixture(scope="module")
def header() -> bytes:
    with (MODEL / "model.bin").open("rb") as file:
        return file.read(4096)


# --- fetching -----------------------------------------------------------------------------------


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("HF_HOME", "HF_HUB_CACHE", "HF_HUB_OFFLINE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path


def python(code: str, endpoint: str, **env: str) -> subprocess.CompletedProcess[str]:
    # In a process of its own: the library reads its settings once.
    return subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "HF_ENDPOINT": endpoint, **env},
        text=True,
        capture_output=True,
        timeout=PATIENCE,
        check=False,
    )


def fetched(name: str, endpoint: str, **env: str) -> subprocess.CompletedProcess[str]:
    code = f"import sys; from asrd.main import main; sys.exit(main(['fetch-model', {name!r}]))"
    return python(code, endpoint, **env)


def hub_files() -> dict[str, Path]:
    return {path.name: path for path in (*MODEL.iterdir(), MODEL.parent / "README.md")}


def test_a_model_is_fetched_and_then_found_without_the_network(home: Path) -> None:
    with serve("some/model", hub_files()) as endpoint:
        done = fetched("some/model", endpoint)
    assert (done.returncode, done.stderr) == (0, "")
    path = Path(done.stdout.strip())
    assert path.is_relative_to(home)
    assert sorted(entry.name for entry in path.iterdir()) == sorted(
        entry.name for entry in MODEL.iterdir()
    )
    found = python("from asrd.engine.models import resolve; print(resolve('some/model'))", endpoint)
    assert found.stdout.strip() == str(path), found.stderr


def test_what_is_fetched_is_checked(home: Path) -> None:
    files = hub_files()
    del files["model.bin"]
    with serve("some/model", files) as endpoint:
        done = fetched("some/model", endpoint)
    assert done.returncode == 1
    assert done.stderr.startswith("asrd: the model in ")
    assert "has no model.bin: a download or copy that was not finished" in done.stderr


def test_a_repository_that_is_not_there_is_told(home: Path) -> None:
    with serve("some/model", hub_files()) as endpoint:
        done = fetched("some/other", endpoint)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == (
        "asrd: the model 'some/other' could not be fetched: "
        "the hub shows no repository some/other\n"
    )


def test_an_unreachable_hub_is_told(home: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as unused:
        endpoint = f"http://127.0.0.1:{unused.getsockname()[1]}"
    done = fetched("some/model", endpoint)
    assert done.returncode == 1
    assert done.stderr == (
        f"asrd: the model 'some/model' could not be fetched: {endpoint}: "
        "[Errno 111] Connection refused\n"
    )


def test_a_silent_hub_is_not_waited_for(
    home: Path, monkeypatch: pytest.MonkeyPatch, silent: str
) -> None:
    monkeypatch.setattr(constants, "ENDPOINT", silent)
    monkeypatch.setattr(models, "_HUB_PATIENCE", 0.1)
    with pytest.raises(AsrdError, match=f"could not be fetched: {silent}: "):
        fetch_model("some/model")


@pytest.fixture
def silent() -> Iterator[str]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"http://127.0.0.1:{server.getsockname()[1]}"


def test_offline_is_obeyed(home: Path) -> None:
    with serve("some/model", hub_files()) as endpoint:
        done = fetched("some/model", endpoint, HF_HUB_OFFLINE="1")
    assert done.returncode == 1
    assert "HF_HUB_OFFLINE" in done.stderr
