"""The files of a model: their names, their largest sizes, and their hashes."""

import hashlib
import re
from collections.abc import Mapping
from pathlib import Path
from typing import IO

from asrd.errors import AsrdError

_MIB = 1 << 20
# The files that faster-whisper and sherpa-onnx read, with the largest size that is copied. The
# largest official model has 3.1 GB; one in float32 has twice that.
LARGEST = {
    "config.json": _MIB,
    "preprocessor_config.json": _MIB,
    "tokenizer.json": 64 * _MIB,
    "vocabulary.json": 64 * _MIB,
    "vocabulary.txt": 64 * _MIB,
    "model.bin": 16 << 30,
    "segmentation.onnx": 256 * _MIB,
    "embedding.onnx": 1 << 30,
}
# Written by `--to`, in the format of sha256sum(1).
SUMS = "SHA256SUMS"
_SUM = re.compile(r"([0-9a-f]{64}) [ *](\S+)")
# A SHA-256, or git's hash of a small file (SHA-1, with a header).
_DIGEST = re.compile(r"[0-9a-f]{64}|[0-9a-f]{40}")
_CHUNK = 1 << 20


def is_digest(text: object) -> bool:
    return isinstance(text, str) and _DIGEST.fullmatch(text) is not None


def digest(path: Path, like: str | None = None) -> str:
    """Returns the file's SHA-256, or git's hash of it if `like` is one."""
    if like is None or len(like) == 64:
        hasher = hashlib.sha256()
    else:
        hasher = hashlib.sha1(b"blob %d\0" % path.stat().st_size, usedforsecurity=False)
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            hasher.update(chunk)
    return hasher.hexdigest()


def copy(source: IO[bytes], target: Path, mode: str = "xb") -> None:
    """Writes the rest of `source` to `target`. Raises AsrdError if that gets too large."""
    with target.open(mode) as file:
        while chunk := source.read(_CHUNK):
            file.write(chunk)
            if file.tell() > LARGEST[target.name]:
                raise AsrdError(
                    f"its {target.name} is larger than {LARGEST[target.name]:,} bytes, so it is "
                    "no Whisper model"
                )


def read_sums(text: str) -> dict[str, str]:
    """Returns the hashes of the known files in a SHA256SUMS file; other lines are ignored."""
    found = (_SUM.fullmatch(line.strip()) for line in text.splitlines())
    return {each[2]: each[1] for each in found if each and each[2] in LARGEST}


def revision_of(digests: Mapping[str, str]) -> str:
    """Returns a name in the form of the hub's for a revision that the hub does not know."""
    text = "".join(f"{name} {digests[name]}\n" for name in sorted(digests))
    return hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest()


def write_sums(directory: Path, digests: Mapping[str, str]) -> None:
    text = "".join(f"{digests[name]}  {name}\n" for name in sorted(digests))
    (directory / SUMS).write_text(text)


def megabytes(size: int) -> str:
    return f"{size / 1e6:,.0f} MB" if size >= 1e6 else f"{size / 1e3:,.0f} kB"
