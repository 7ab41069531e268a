"""Checks of a model's files, before the engine loads them.

CTranslate2 trusts a model's files: some faults end the process (alignment heads that do not exist),
some silently turn a multilingual model into an English one. These checks find such faults first,
and say of a directory that is no model, or an incomplete one, what the usual cause is.
"""

import json
import math
import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

from asrd.engine import speaker_files
from asrd.errors import LoadError
from asrd.wire.languages import NAMES

_LAYER = re.compile(r"decoder/layer_(\d+)/")
# Bytes per item of CTranslate2's data types, by their number in model.bin.
_ITEM_BYTES = {0: 4, 1: 1, 2: 2, 3: 4, 4: 2, 5: 2}
# Whisper's English-only models have all language tokens, too, but exactly this many tokens. The
# multilingual models have the empty token in addition.
_LANGUAGE = "<|es|>"
_ENGLISH_TOKENS = 51_864
# faster-whisper's default without a preprocessor_config.json.
_MELS = 80
# The first bytes of the file that `git clone` leaves in place of a large file without git-lfs.
_LFS_POINTER = b"version https://git-lfs"
_CONVERT = (
    "`ct2-transformers-converter --model DIR-OR-NAME --output_dir NEW --copy_files tokenizer.json "
    "preprocessor_config.json`"
)
_PYTORCH = ("*.safetensors", "pytorch_model*.bin", "*.pt", "*.pth")


class _Weights(NamedTuple):
    """Sizes in the header of model.bin: layers and heads of the decoder, tokens, and mel bands."""

    layers: int
    heads: int
    tokens: int
    mels: int


@dataclass(frozen=True, slots=True)
class Facts:
    """Facts from a model's files. `word_timestamps` is true if it has alignment heads. A model for
    `speakers` tells them apart, and knows no language."""

    multilingual: bool
    word_timestamps: bool
    languages: tuple[str, ...] = ("en",)
    speakers: bool = False


def check(path: Path, alignment_heads: bool = True) -> Facts:
    """Raises LoadError in one sentence if CTranslate2 could not load `path`, or would do harm; or
    if sherpa-onnx could not load it, for a directory with models of speakers.

    `alignment_heads=False` leaves out the check of the heads that word timestamps come from: the
    tests need a model that crashes.
    """
    try:
        if speaker_files.is_for_speakers(path):
            speaker_files.check(path)
            return Facts(False, False, (), speakers=True)
        vocabulary = "vocabulary.json"
        if not (path / vocabulary).exists():
            vocabulary = "vocabulary.txt"
        for name in ("model.bin", "config.json", "tokenizer.json", vocabulary):
            _check_file(path, name)
        return _check_contents(path, path / vocabulary, alignment_heads)
    except OSError as error:
        where = error.filename or path
        raise LoadError(f"{where} can't be read: {error.strerror or error}") from None


def explain_file(path: Path) -> LoadError:
    """Returns the error for a file that was named where a model's directory should be."""
    if path.name == "model.bin":
        return LoadError(f"{path} is a file of a model: give its directory, {path.parent}")
    if any(path.match(pattern) for pattern in _PYTORCH):
        return LoadError(
            f"{path} is a PyTorch checkpoint, and asrd needs the directory of a CTranslate2 model: "
            f"convert it (from the transformers format: {_CONVERT}), or give a name such as `small`"
        )
    return LoadError(f"{path} is a file, and a model is a directory (in CTranslate2's format)")


def _check_file(path: Path, name: str) -> None:
    """Raises LoadError for a missing file, and for the remains of a failed download."""
    file = path / name
    if not file.is_file():
        named = name.replace("vocabulary.txt", "vocabulary.json or vocabulary.txt")
        raise LoadError(f"the model in {path} has no {named}: {_why_missing(path, name)}")
    with file.open("rb") as content:
        start = content.read(len(_LFS_POINTER))
        content.seek(max(0, file.stat().st_size - 16))
        end = content.read().rstrip()
    if start == _LFS_POINTER:
        raise LoadError(
            f"{file} is only a pointer of Git LFS: `git lfs pull` in {path} fetches the file"
        )
    if not start:
        raise LoadError(f"{file} is empty, after a download or copy that was not finished")
    if name == "tokenizer.json" and not end.endswith(b"}"):
        raise LoadError(f"{file} is cut off, or no JSON object: download or copy it again")


def _why_missing(path: Path, name: str) -> str:
    if name == "tokenizer.json":
        return f"the converter copies it only on request, {_CONVERT}"
    if name != "model.bin":
        return "a download or copy that was not finished; CTranslate2's converter writes it"
    if any(next(path.glob(pattern), None) for pattern in _PYTORCH):
        return f"it is in the format of PyTorch; {_CONVERT} makes one for CTranslate2"
    if any(path.glob("snapshots/*/model.bin")):
        repository = path.name.removeprefix("models--").replace("--", "/")
        return f"it is a folder of the Hugging Face cache; give the model's name, {repository}"
    deeper = next(path.glob("*/model.bin"), None)
    if deeper is not None:
        return f"there is one in {deeper.parent}"
    if next(path.iterdir(), None) is None:
        return "the directory is empty"
    return "a download or copy that was not finished, or no model for CTranslate2"


def _check_contents(path: Path, vocabulary: Path, alignment_heads: bool) -> Facts:
    tokens = _tokens(vocabulary)
    multilingual = "" in tokens
    if _LANGUAGE in tokens and not multilingual and len(tokens) != _ENGLISH_TOKENS:
        raise LoadError(
            f"the model in {path} knows many languages but lacks the empty token in its "
            "vocabulary, so CTranslate2 would take it for an English one: convert it again"
        )
    weights = _weights(path / "model.bin")
    if weights.tokens != len(tokens):
        raise LoadError(
            f"the vocabulary in {path} has {len(tokens)} tokens, model.bin {weights.tokens}: "
            "they don't belong together"
        )
    _check_mels(path, weights.mels)
    pairs = _json_object(path / "config.json").get("alignment_heads")
    if alignment_heads and pairs is not None:
        _check_heads(path, pairs, weights)
    known = set(tokens) if multilingual else {"<|en|>"}
    return Facts(
        multilingual=multilingual,
        word_timestamps=pairs is not None,
        languages=tuple(code for code in NAMES if f"<|{code}|>" in known),
    )


def _check_mels(path: Path, mels: int) -> None:
    """Raises LoadError unless faster-whisper computes the features that the model takes."""
    file = path / "preprocessor_config.json"
    if not file.is_file():
        if mels != _MELS:
            raise LoadError(
                f"the model in {path} has no preprocessor_config.json, which one that takes {mels} "
                f"mel bands needs: copy it from the original model; {_CONVERT} does it"
            )
        return
    says = _json_object(file).get("feature_size", _MELS)
    if says != mels:
        raise LoadError(
            f"the model in {path} takes {mels} mel bands but its preprocessor_config.json says "
            f"{json.dumps(says)[:64]}: it is another model's; copy the right one"
        )


def _json(path: Path) -> Any:
    try:
        return json.loads(path.read_bytes())
    except ValueError as error:
        raise LoadError(f"{path} can't be read: {error}") from None


def _json_object(path: Path) -> dict[str, Any]:
    found = _json(path)
    if not isinstance(found, dict):
        raise LoadError(f"{path} is not a JSON object")
    return found


def _tokens(path: Path) -> list[str]:
    if path.suffix == ".json":
        tokens = _json(path)
        if not isinstance(tokens, list) or not all(isinstance(token, str) for token in tokens):
            raise LoadError(f"{path} is not a list of tokens")
        return tokens
    try:
        return path.read_text(encoding="utf-8").removesuffix("\n").split("\n")
    except ValueError as error:
        raise LoadError(f"{path} can't be read: {error}") from None


def _check_heads(path: Path, pairs: object, weights: _Weights) -> None:
    if not isinstance(pairs, list):
        raise LoadError(f"{path / 'config.json'}: alignment_heads is not a list")
    for pair in pairs:
        match pair:
            case [int(layer), int(head)] if (
                0 <= layer < weights.layers and 0 <= head < weights.heads
            ):
                continue
        raise LoadError(
            f"{path / 'config.json'}: alignment_heads has {json.dumps(pair)[:64]}, but the decoder "
            f"has {weights.layers} layers of {weights.heads} heads; word timestamps would crash "
            "the engine"
        )


def _weights(path: Path) -> _Weights:
    """Returns the sizes that model.bin declares. Raises LoadError.

    Walks over the variables without reading them (for the format see model_spec.py in CTranslate2),
    which finds a file that is cut off, or is something else.
    """
    layers: set[str] = set()
    heads = tokens = mels = 0
    try:
        with path.open("rb") as file:
            for name, shape, length in _variables(file, path.stat().st_size):
                if name == "decoder/num_heads":
                    heads = int.from_bytes(file.read(length), "little")
                elif name == "decoder/embeddings/weight":
                    tokens = shape[0]
                elif name == "encoder/conv1/weight":
                    mels = shape[1]
                elif layer := _LAYER.match(name):
                    layers.add(layer[1])
    except (struct.error, UnicodeDecodeError, IndexError) as error:
        raise LoadError(f"{path} is damaged or no CTranslate2 model: {error}") from None
    if not (layers and heads and tokens and mels):
        raise LoadError(f"{path} is not a Whisper model for CTranslate2")
    return _Weights(len(layers), heads, tokens, mels)


def _variables(file: BinaryIO, size: int) -> Iterator[tuple[str, list[int], int]]:
    """Yields each variable's name, shape, and length in bytes; `file` then is at its first byte."""
    (version,) = _unpack(file, "<I")
    if not 4 <= version <= 6:
        raise struct.error(f"binary version {version}")
    _string(file)
    _, count = _unpack(file, "<II")
    for index in range(count):
        if file.tell() >= size:
            raise _cut_off(size, index, count, 1)
        name = _string(file)
        (rank,) = _unpack(file, "<B")
        *shape, kind, length = _unpack(file, f"<{rank}IBI")
        start = file.tell()
        if length != math.prod(shape) * _ITEM_BYTES.get(kind, 0):
            raise struct.error(f"{name[:64]!r} has a wrong size")
        if start + length > size:
            raise _cut_off(size, index, count, start + length - size)
        yield name, shape, length
        file.seek(start + length)
    (aliases,) = _unpack(file, "<I")
    for _ in range(2 * aliases):
        _string(file)


def _cut_off(size: int, index: int, count: int, missing: int) -> struct.error:
    """Names the least that is missing: the sizes of later variables are missing, too."""
    return struct.error(
        f"it is cut off after {size:,} bytes, in variable {index + 1} of {count}, so that at least "
        f"{missing:,} bytes are missing: download or copy it again"
    )


def _string(file: BinaryIO) -> str:
    (length,) = _unpack(file, "<H")
    return str(_unpack(file, f"<{length}s")[0].rstrip(b"\0"), "utf-8")


def _unpack(file: BinaryIO, layout: str) -> tuple[Any, ...]:
    return struct.unpack(layout, file.read(struct.calcsize(layout)))
