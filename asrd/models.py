"""From a model's name to its directory, and whether the engine can be trusted with what is in it.

CTranslate2 takes a model at its word: some faults end the process (alignment heads that do not
exist), some turn a multilingual model into an English one without a sound. So they are looked
for here, before it loads anything.
"""

import json
import math
import os
import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from asrd.errors import AsrdError, LoadError

# The names that faster-whisper gives to the models on the Hugging Face hub (a test compares them).
REPOSITORIES = {
    **{
        size: f"Systran/faster-whisper-{size}"
        for size in (
            *("tiny", "tiny.en", "base", "base.en", "small", "small.en", "medium", "medium.en"),
            *("large-v1", "large-v2", "large-v3"),
        )
    },
    "large": "Systran/faster-whisper-large-v3",
    "distil-small.en": "Systran/faster-distil-whisper-small.en",
    "distil-medium.en": "Systran/faster-distil-whisper-medium.en",
    "distil-large-v2": "Systran/faster-distil-whisper-large-v2",
    "distil-large-v3": "Systran/faster-distil-whisper-large-v3",
    "distil-large-v3.5": "distil-whisper/distil-large-v3.5-ct2",
    "large-v3-turbo": "mobiuslabsgmbh/faster-whisper-large-v3-turbo",
    "turbo": "mobiuslabsgmbh/faster-whisper-large-v3-turbo",
}
_FILES = [
    "config.json",
    "preprocessor_config.json",
    "model.bin",
    "tokenizer.json",
    "vocabulary.*",
]
_REPOSITORY = re.compile(r"[\w.-]+/[\w.-]+")
# Bytes per item of CTranslate2's data types, by their number in model.bin.
_ITEM_BYTES = {0: 4, 1: 1, 2: 2, 3: 4, 4: 2, 5: 2}
# Whisper's language tokens; any of them makes a vocabulary a multilingual one.
_LANGUAGE = "<|es|>"


@dataclass(frozen=True, slots=True)
class Facts:
    """What the files of a model say; `word_timestamps` is whether it has alignment heads."""

    multilingual: bool
    word_timestamps: bool


def resolve(name: str) -> Path:
    """The directory of a model: `demo` (or empty), a directory, a name or repository id in the
    local Hugging Face cache. Never asks the network. Raises LoadError."""
    if name in ("", "demo"):
        from asrd.demo import MODEL

        return MODEL
    path = Path(name).expanduser()
    if path.is_dir():
        return path
    try:
        return _snapshot(name, local_files_only=True)
    except OSError:
        raise LoadError(
            f"the model {name!r} is not on this machine; `asrd fetch-model {name}` fetches it"
        ) from None


def fetch_model(name: str) -> Path:
    """Bring a model from the Hugging Face hub into the local cache, and check its files.

    Shows the hub library's own progress bars on a terminal. Raises AsrdError in one sentence.
    """
    # A hub that can't be reached is told after seconds, not minutes.
    os.environ.setdefault("HF_HUB_ETAG_TIMEOUT", "5")
    try:
        path = _snapshot(name, local_files_only=False)
    except OSError as error:
        raise AsrdError(f"the model {name!r} could not be fetched: {_first_line(error)}") from error
    check(path)
    return path


def check(path: Path, alignment_heads: bool = True) -> Facts:
    """Raises LoadError in one sentence if CTranslate2 could not load `path`, or would do harm.

    `alignment_heads` false leaves out the check of the heads that word timestamps come from: the
    tests need a model that crashes.
    """
    for name in ("config.json", "model.bin", "tokenizer.json"):
        if not (path / name).is_file():
            raise LoadError(f"the model in {path} has no {name}")
    tokens = _vocabulary(path)
    multilingual = _LANGUAGE in tokens
    if multilingual and "" not in tokens:
        raise LoadError(
            f"the model in {path} knows many languages but lacks the empty token in its "
            "vocabulary, so CTranslate2 would take it for an English one: convert it again"
        )
    layers, heads = _decoder_shape(path / "model.bin")
    config = _json(path / "config.json")
    if not isinstance(config, dict):
        raise LoadError(f"{path / 'config.json'} is not a JSON object")
    pairs = config.get("alignment_heads")
    if alignment_heads and pairs is not None:
        _check_heads(path, pairs, layers, heads)
    return Facts(multilingual, word_timestamps=pairs is not None)


def _snapshot(name: str, local_files_only: bool) -> Path:
    """Raises LoadError for what can be no model's name; OSError if it is not there."""
    repository = REPOSITORIES.get(name, name)
    if not _REPOSITORY.fullmatch(repository):
        raise LoadError(
            f"there is no model {name!r}: give a directory, `demo`, OWNER/NAME on the Hugging Face "
            f"hub, or one of {', '.join(REPOSITORIES)}"
        )
    # Read when the library is imported.
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    import huggingface_hub

    found = huggingface_hub.snapshot_download(
        repository, allow_patterns=_FILES, local_files_only=local_files_only
    )
    return Path(found)


def _first_line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0] or type(error).__name__


def _json(path: Path) -> Any:
    try:
        return json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        raise LoadError(f"{path} can't be read: {error}") from None


def _vocabulary(path: Path) -> set[str]:
    if (path / "vocabulary.json").is_file():
        tokens = _json(path / "vocabulary.json")
        if not isinstance(tokens, list) or not all(isinstance(token, str) for token in tokens):
            raise LoadError(f"{path / 'vocabulary.json'} is not a list of tokens")
        return set(tokens)
    try:
        return set((path / "vocabulary.txt").read_text(encoding="utf-8").split("\n"))
    except (OSError, ValueError):
        raise LoadError(
            f"the model in {path} has no vocabulary.json or vocabulary.txt that can be read"
        ) from None


def _check_heads(path: Path, pairs: object, layers: int, heads: int) -> None:
    if not isinstance(pairs, list):
        raise LoadError(f"{path / 'config.json'}: alignment_heads is not a list")
    for pair in pairs:
        match pair:
            case [int(layer), int(head)] if 0 <= layer < layers and 0 <= head < heads:
                continue
        raise LoadError(
            f"{path / 'config.json'}: alignment_heads has {json.dumps(pair)[:64]}, but the decoder "
            f"has {layers} layers of {heads} heads; word timestamps would crash the engine"
        )


def _decoder_shape(path: Path) -> tuple[int, int]:
    """How many layers and attention heads the decoder has.

    Walks over model.bin's variables without reading them (for the format see model_spec.py in
    CTranslate2), so a file that is cut off or something else is told here. Raises LoadError.
    """
    layers: set[str] = set()
    heads = 0
    try:
        with path.open("rb") as file:
            for name, length in _variables(file, path.stat().st_size):
                if name == "decoder/num_heads":
                    heads = int.from_bytes(file.read(length), "little")
                elif name.startswith("decoder/layer_"):
                    layers.add(name.split("/")[1])
    except (OSError, struct.error, UnicodeDecodeError) as error:
        raise LoadError(f"{path} is damaged or no CTranslate2 model: {error}") from None
    if not layers or not heads:
        raise LoadError(f"{path} is not a Whisper model for CTranslate2")
    return len(layers), heads


def _variables(file: BinaryIO, size: int) -> Iterator[tuple[str, int]]:
    """Each variable's name and length in bytes; `file` stands at the first of them."""
    (version,) = _unpack(file, "<I")
    if not 4 <= version <= 6:
        raise struct.error(f"binary version {version}")
    _string(file)
    _, count = _unpack(file, "<II")
    for _ in range(count):
        name = _string(file)
        (rank,) = _unpack(file, "<B")
        *shape, kind, length = _unpack(file, f"<{rank}IBI")
        start = file.tell()
        if length != math.prod(shape) * _ITEM_BYTES.get(kind, 0):
            raise struct.error(f"{name[:64]!r} has a wrong size")
        if start + length > size:
            raise struct.error(f"it is cut off, {start + length - size} bytes are missing")
        yield name, length
        file.seek(start + length)


def _string(file: BinaryIO) -> str:
    (length,) = _unpack(file, "<H")
    return str(_unpack(file, f"<{length}s")[0].rstrip(b"\0"), "utf-8")


def _unpack(file: BinaryIO, layout: str) -> tuple[Any, ...]:
    return struct.unpack(layout, file.read(struct.calcsize(layout)))
