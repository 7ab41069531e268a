"""From a model's name to its directory, and whether the engine can be trusted with what is in it.

CTranslate2 takes a model at its word: some faults end the process (alignment heads that do not
exist), some turn a multilingual model into an English one without a sound. So they are looked
for here, before it loads anything.
"""

import contextlib
import json
import math
import os
import re
import struct
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

from asrd.config import WorkerSettings
from asrd.errors import AsrdError, LoadError
from asrd.languages import NAMES

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
_LAYER = re.compile(r"decoder/layer_(\d+)/")
_REPOSITORY = re.compile(r"[\w.-]+/[\w.-]+")
# Bytes per item of CTranslate2's data types, by their number in model.bin.
_ITEM_BYTES = {0: 4, 1: 1, 2: 2, 3: 4, 4: 2, 5: 2}
# Whisper's English-only models have all language tokens, too, but exactly this many tokens; the
# multilingual ones have the empty token besides.
_LANGUAGE = "<|es|>"
_ENGLISH_TOKENS = 51_864
# Longest wait for the hub's first answer, in seconds.
_HUB_PATIENCE = 10


class _Decoder(NamedTuple):
    layers: int
    heads: int
    tokens: int


@dataclass(frozen=True, slots=True)
class Facts:
    """What the files of a model say; `word_timestamps` is whether it has alignment heads."""

    multilingual: bool
    word_timestamps: bool
    languages: tuple[str, ...] = ("en",)


def resolve(name: str) -> Path:
    """The directory of a model: `demo` (or empty), a directory, a name or repository id in the
    local Hugging Face cache. Never asks the network. Raises LoadError."""
    if name in ("", "demo"):
        from asrd.demo import MODEL

        return MODEL
    path = Path(name)
    with contextlib.suppress(RuntimeError):
        # A shell leaves the tilde of `--model=~/x` alone.
        path = path.expanduser()
    if path.is_dir():
        return path
    repository = _repository(name)
    try:
        return _snapshot(repository, local_files_only=True)
    except OSError:
        raise LoadError(
            f"the model {name!r} is not on this machine; `asrd fetch-model {name}` fetches it"
        ) from None


def find(settings: WorkerSettings) -> tuple[Path, Facts]:
    """The configured model's directory, and what its files say. Raises LoadError."""
    path = resolve(settings.model)
    return path, check(path, alignment_heads=settings.check_model)


def fetch_model(name: str) -> Path:
    """Bring a model from the Hugging Face hub into the local cache, and check its files.

    Shows the hub library's own progress bars on a terminal. Raises AsrdError in one sentence.
    """
    if not sys.stderr.isatty():
        os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    repository = _repository(name)
    hub = _hub()
    try:
        # Asked first, with a limit: the download itself waits for ever for a silent hub.
        hub.HfApi().model_info(repository, timeout=_HUB_PATIENCE)
        path = _snapshot(repository)
    except hub.errors.RepositoryNotFoundError:
        problem = f"the hub shows no repository {repository}"
    except Exception as error:  # each version of the library raises others
        problem = f"{hub.constants.ENDPOINT}: {_first_line(error)}"
    else:
        check(path)
        return path
    raise AsrdError(f"the model {name!r} could not be fetched: {problem}")


def check(path: Path, alignment_heads: bool = True) -> Facts:
    """Raises LoadError in one sentence if CTranslate2 could not load `path`, or would do harm.

    `alignment_heads` false leaves out the check of the heads that word timestamps come from: the
    tests need a model that crashes.
    """
    for name in ("config.json", "model.bin", "tokenizer.json"):
        if not (path / name).is_file():
            raise LoadError(f"the model in {path} has no {name}")
    tokens = _vocabulary(path)
    if _LANGUAGE in tokens and "" not in tokens and len(tokens) != _ENGLISH_TOKENS:
        raise LoadError(
            f"the model in {path} knows many languages but lacks the empty token in its "
            "vocabulary, so CTranslate2 would take it for an English one: convert it again"
        )
    decoder = _decoder(path / "model.bin")
    if decoder.tokens != len(tokens):
        raise LoadError(
            f"the vocabulary in {path} has {len(tokens)} tokens, model.bin {decoder.tokens}: "
            "they don't belong together"
        )
    config = _json(path / "config.json")
    if not isinstance(config, dict):
        raise LoadError(f"{path / 'config.json'} is not a JSON object")
    pairs = config.get("alignment_heads")
    if alignment_heads and pairs is not None:
        _check_heads(path, pairs, decoder)
    multilingual = "" in tokens
    known = set(tokens) if multilingual else {"<|en|>"}
    return Facts(
        multilingual=multilingual,
        word_timestamps=pairs is not None,
        languages=tuple(code for code in NAMES if f"<|{code}|>" in known),
    )


def _repository(name: str) -> str:
    repository = REPOSITORIES.get(name, name)
    if not _REPOSITORY.fullmatch(repository):
        raise LoadError(
            f"there is no model {name!r}: give a directory, `demo`, OWNER/NAME on the Hugging Face "
            f"hub, or one of {', '.join(REPOSITORIES)}"
        )
    return repository


def _hub() -> Any:
    # Read when the library is imported, which takes a while: only those who need it wait for it.
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    import huggingface_hub.constants
    import huggingface_hub.errors

    return huggingface_hub


def _snapshot(repository: str, local_files_only: bool = False) -> Path:
    found = _hub().snapshot_download(
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


def _vocabulary(path: Path) -> list[str]:
    if (path / "vocabulary.json").is_file():
        tokens = _json(path / "vocabulary.json")
        if not isinstance(tokens, list) or not all(isinstance(token, str) for token in tokens):
            raise LoadError(f"{path / 'vocabulary.json'} is not a list of tokens")
        return tokens
    try:
        text = (path / "vocabulary.txt").read_text(encoding="utf-8")
    except (OSError, ValueError):
        raise LoadError(
            f"the model in {path} has no vocabulary.json or vocabulary.txt that can be read"
        ) from None
    return text.removesuffix("\n").split("\n")


def _check_heads(path: Path, pairs: object, decoder: _Decoder) -> None:
    if not isinstance(pairs, list):
        raise LoadError(f"{path / 'config.json'}: alignment_heads is not a list")
    for pair in pairs:
        match pair:
            case [int(layer), int(head)] if (
                0 <= layer < decoder.layers and 0 <= head < decoder.heads
            ):
                continue
        raise LoadError(
            f"{path / 'config.json'}: alignment_heads has {json.dumps(pair)[:64]}, but the decoder "
            f"has {decoder.layers} layers of {decoder.heads} heads; word timestamps would crash "
            "the engine"
        )


def _decoder(path: Path) -> _Decoder:
    """How many layers, attention heads and tokens the decoder has.

    Walks over model.bin's variables without reading them (for the format see model_spec.py in
    CTranslate2), so a file that is cut off or something else is told here. Raises LoadError.
    """
    layers: set[str] = set()
    heads = tokens = 0
    try:
        with path.open("rb") as file:
            for name, shape, length in _variables(file, path.stat().st_size):
                if name == "decoder/num_heads":
                    heads = int.from_bytes(file.read(length), "little")
                elif name == "decoder/embeddings/weight":
                    tokens = shape[0]
                elif layer := _LAYER.match(name):
                    layers.add(layer[1])
    except (OSError, struct.error, UnicodeDecodeError) as error:
        raise LoadError(f"{path} is damaged or no CTranslate2 model: {error}") from None
    if not (layers and heads and tokens):
        raise LoadError(f"{path} is not a Whisper model for CTranslate2")
    return _Decoder(len(layers), heads, tokens)


def _variables(file: BinaryIO, size: int) -> Iterator[tuple[str, list[int], int]]:
    """Each variable's name, shape, and length in bytes; `file` stands at the first of them."""
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
        yield name, shape, length
        file.seek(start + length)
    (aliases,) = _unpack(file, "<I")
    for _ in range(2 * aliases):
        _string(file)


def _string(file: BinaryIO) -> str:
    (length,) = _unpack(file, "<H")
    return str(_unpack(file, f"<{length}s")[0].rstrip(b"\0"), "utf-8")


def _unpack(file: BinaryIO, layout: str) -> tuple[Any, ...]:
    return struct.unpack(layout, file.read(struct.calcsize(layout)))
