"""Parts of the programs that asrctl is compared with.

Only a few files of each are read, so none is installed: they would bring PyTorch. They come from
the directory $ASRD_TEST_PEERS (with `whisper`, `whisper_ctranslate2` and `whisperx` in it), else
from the Python package index.
"""

import ast
import importlib.util
import os
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path
from types import ModuleType

WHISPER = "openai-whisper==20250625"
CTRANSLATE2, WHISPERX = "whisper-ctranslate2==0.5.8", "whisperx==3.8.6"
# The file of each that declares its options.
OPTIONS = {
    "whisper": "whisper/transcribe.py",
    "whisper-ctranslate2": "whisper_ctranslate2/commandline.py",
    "whisperX": "whisperx/__main__.py",
}


def directory(scratch: Path) -> Path:
    """Returns the directory with the packages. Raises CalledProcessError without a network."""
    given = os.environ.get("ASRD_TEST_PEERS")
    if given:
        return Path(given)
    pip = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "-d", str(scratch)]
    for arguments in (["--no-binary", "openai-whisper", WHISPER], [CTRANSLATE2, WHISPERX]):
        subprocess.run([*pip, *arguments], check=True, timeout=300)
    (archive,) = scratch.glob("openai_whisper-*.tar.gz")
    with tarfile.open(archive) as packed:
        packed.extractall(scratch, filter="data")
    (scratch / archive.name.removesuffix(".tar.gz") / "whisper").rename(scratch / "whisper")
    for wheel in scratch.glob("*.whl"):
        with zipfile.ZipFile(wheel) as zipped:
            zipped.extractall(scratch)
    return scratch


def load(path: Path) -> ModuleType:
    """Imports one file that needs nothing of its package."""
    spec = importlib.util.spec_from_file_location(f"peer_{path.stem}", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def options(path: Path) -> dict[str, set[str]]:
    """Returns the long options that a file gives to argparse, with their choices."""
    found: dict[str, set[str]] = {}
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)):
            continue
        if node.func.attr == "add_argument":
            names = [each.value for each in node.args if isinstance(each, ast.Constant)]
            choices = {k.arg: k.value for k in node.keywords}.get("choices")
            listed = choices.elts if isinstance(choices, ast.List) else []
            values = {str(each.value) for each in listed if isinstance(each, ast.Constant)}
            found |= {str(name): values for name in names if str(name).startswith("--")}
    return found
