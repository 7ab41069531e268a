"""The demo model's files for a fake hub, and calls of `asrd fetch-model`."""

import hashlib
import os
import subprocess
import sys
from pathlib import Path

import pytest

from asrd.demo import MODEL
from asrd.engine import fetch_model
from asrd.errors import AsrdError
from tests.support.fake_daemon import PATIENCE

FILES = {path.name: path for path in (*MODEL.iterdir(), MODEL.parent / "README.md")}
NAMES = {path.name for path in MODEL.iterdir()}
# What is kept of a half: whole chunks.
KEPT = FILES["model.bin"].stat().st_size // 2 >> 20 << 20
SHA256 = {name: hashlib.sha256(FILES[name].read_bytes()).hexdigest() for name in NAMES}


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


def fetch(name: str, endpoint: str, **env: str) -> subprocess.CompletedProcess[str]:
    code = f"import sys; from asrd.main import main; sys.exit(main(['fetch-model', {name!r}]))"
    return python(code, endpoint, **env)


def refusal(name: str, **options: object) -> str:
    with pytest.raises(AsrdError) as caught:
        fetch_model.fetch_model(name, **options)  # type: ignore[arg-type]
    return str(caught.value)


def names(path: Path) -> set[str]:
    return {entry.name for entry in path.iterdir()}
