"""Parts of the programs that asrctl is compared with: openai-whisper and whisper-ctranslate2.

Only two files of each are read, so neither is installed: openai-whisper would bring PyTorch. They
come from the directory $ASRD_TEST_PEERS (with `whisper` and `whisper_ctranslate2` in it), else from
the Python package index.
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

WHISPER, CTRANSLATE2 = "openai-whisper==20250625", "whisper-ctranslate2==0.5.8"


def directory(scratch: Path) -> Path:
    """Returns the directory with both packages. Raises CalledProcessError without a network."""
    given = os.environ.get("ASRD_TEST_PEERS")
    if given:
        return Path(given)
    pip = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "-d", str(scratch)]
    for arguments in (["--no-binary", "openai-whisper", WHISPER], [CTRANSLATE2]):
        subprocess.run([*pip, *arguments], check=True, timeout=300)
    (archive,) = scratch.glob("openai_whisper-*.tar.gz")
    with tarfile.open(archive) as packed:
        packed.extractall(scratch, filter="data")
    (scratch / archive.name.removesuffix(".tar.gz") / "whisper").rename(scratch / "whisper")
    (wheel,) = scratch.glob("whisper_ctranslate2-*.whl")
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


def options(path: Path) -> set[str]:
    """Returns the long options that a file gives to argparse."""
    return {
        str(argument.value)
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and node.func.attr == "add_argument"
        for argument in node.args
        if isinstance(argument, ast.Constant) and str(argument.value).startswith("--")
    }
