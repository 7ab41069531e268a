"""Checks of the two models that tell speakers apart, before sherpa-onnx loads them.

sherpa-onnx ends the process for a model without the metadata that its own converters write. These
checks read them first, straight from the file (onnx.proto: field 14 of ModelProto).
"""

import os
from pathlib import Path
from typing import BinaryIO

from asrd.errors import LoadError

SEGMENTATION, EMBEDDING = "segmentation.onnx", "embedding.onnx"
# Metadata that sherpa-onnx requires of each file: numbers above 0, besides the framework.
_REQUIRED = {
    SEGMENTATION: ("num_speakers", "num_classes", "powerset_max_classes", "window_size"),
    EMBEDDING: ("framework", "output_dim"),
}
_FRAMEWORKS = ("3d-speaker", "nemo", "wespeaker")
# Of asrd.engine.audio.reader, which needs numpy.
_RATE = 16_000
_METADATA_FIELD = 14
_VARINT, _LENGTH_DELIMITED = 0, 2
_ENTRY_MAX = 1 << 16


def is_for_speakers(path: Path) -> bool:
    """Returns True for a directory with at least one of the two models. Raises OSError."""
    return any((path / name).is_file() for name in _REQUIRED)


def check(path: Path) -> None:
    """Raises LoadError in one sentence if sherpa-onnx could not load the models in `path`, and
    OSError."""
    for name, required in _REQUIRED.items():
        file = path / name
        if not file.is_file():
            raise LoadError(f"the model in {path} has no {name}: to tell speakers apart takes both")
        found = _metadata(file)
        missing = [key for key in ("sample_rate", *required) if key not in found]
        if missing:
            raise LoadError(
                f"{file} was not made for sherpa-onnx: its metadata lack {', '.join(missing)}"
            )
        for key in required:
            good = found[key] in _FRAMEWORKS if key == "framework" else _positive(found[key])
            if not good:
                raise LoadError(
                    f"{file} is none that sherpa-onnx knows: in its metadata, {key} is "
                    f"{found[key][:64]!r}"
                )
        if found["sample_rate"] != str(_RATE):
            raise LoadError(f"{file} takes {found['sample_rate']} Hz, and asrd has {_RATE}")


def _positive(text: str) -> bool:
    return text.isascii() and text.isdecimal() and 0 < int(text[:10]) < 1 << 31


def _metadata(file: Path) -> dict[str, str]:
    with file.open("rb") as content:
        try:
            return _read(content, os.fstat(content.fileno()).st_size)
        except ValueError as error:
            raise LoadError(
                f"{file} is damaged, cut off or no ONNX model ({error}): copy it again"
            ) from None


def _read(content: BinaryIO, size: int) -> dict[str, str]:
    """Raises ValueError."""
    found = {}
    while content.tell() < size:
        number, kind = divmod(_varint(content), 8)
        if kind == _VARINT:
            _varint(content)
            continue
        if kind != _LENGTH_DELIMITED:
            raise ValueError(f"a field of type {kind}")
        length = _varint(content)
        if length > size - content.tell():
            raise ValueError(f"{length - size + content.tell()} bytes are missing")
        if number == _METADATA_FIELD and length <= _ENTRY_MAX:
            key, value = _entry(content, content.tell() + length)
            found[key] = value
        else:
            content.seek(length, os.SEEK_CUR)
    if not found:
        raise ValueError("no metadata")
    return found


def _entry(content: BinaryIO, end: int) -> tuple[str, str]:
    """Reads a StringStringEntryProto: field 1 is the key, field 2 the value."""
    texts = {1: "", 2: ""}
    while content.tell() < end:
        number, kind = divmod(_varint(content), 8)
        length = _varint(content)
        if kind != _LENGTH_DELIMITED or length > end - content.tell():
            raise ValueError("a damaged entry of metadata")
        texts[number] = content.read(length).decode()
    return texts[1], texts[2]


def _varint(content: BinaryIO) -> int:
    """Reads protobuf's integer: 7 bits in a byte, the lowest first."""
    value = 0
    for shift in range(0, 64, 7):
        byte = content.read(1)
        if not byte:
            break
        value |= (byte[0] & 0x7F) << shift
        if byte[0] < 0x80:
            return value
    raise ValueError("a damaged number")
