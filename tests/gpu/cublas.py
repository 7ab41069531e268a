"""The search for cuBLAS, and the environment in which a worker finds it.

CTranslate2 opens `libcublas.so.12` by that name. If only CUDA 13 is installed, its libraries are
tried under that name: both have the functions that CTranslate2 uses.
"""

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

NAMES = ("libcublasLt.so", "libcublas.so")


@dataclass(frozen=True)
class Found:
    """The text for the report, and the changes to the environment of the processes."""

    text: str
    changes: dict[str, str]


def find(links: Path) -> Found:
    """Creates the directory `links` for links with the right names."""
    places = list(dict.fromkeys(_places()))
    for version in ("12", "13"):
        for place in places:
            if all((place / f"{name}.{version}").exists() for name in NAMES):
                return _linked(place, version, links)
    return Found("no cuBLAS of CUDA 12 or 13 was found", {})


def _linked(place: Path, version: str, links: Path) -> Found:
    # asrd.engine.cuda searches the layout of pip's packages. CTranslate2 asks the loader, which
    # knows a library of CUDA 13 only under its own name.
    libraries = links / "nvidia" / "cublas" / "lib"
    libraries.mkdir(parents=True)
    # Also under its own name: libcublas.so.13 needs libcublasLt.so.13.
    for name in NAMES:
        for number in {"12", version}:
            (libraries / f"{name}.{number}").symlink_to(place / f"{name}.{version}")
    text = f"{place}/libcublas.so.{version}"
    if version != "12":
        text += " under the name libcublas.so.12"
    changes = {
        "PYTHONPATH": f"{links}:{os.environ.get('PYTHONPATH', '')}",
        "LD_LIBRARY_PATH": f"{libraries}:{os.environ.get('LD_LIBRARY_PATH', '')}".strip(":"),
    }
    return Found(text, changes)


def _places() -> Iterator[Path]:
    for entry in map(Path, sys.path):
        yield from sorted(entry.glob("nvidia/*/lib"))
        yield entry / "ctranslate2.libs"
        yield entry / "torch" / "lib"
    yield from map(Path, re.findall(r"=> (/\S+)/libcublas\.so", _loader_cache()))
    yield from sorted(Path("/usr/local").glob("cuda*/lib64"), reverse=True)
    yield from sorted(Path("/usr/local").glob("cuda*/targets/*/lib"), reverse=True)
    yield Path("/usr/lib/x86_64-linux-gnu")
    yield Path("/usr/lib/asrd/vendor/nvidia/cublas/lib")


def _loader_cache() -> str:
    try:
        done = subprocess.run(
            ["/sbin/ldconfig", "-p"], capture_output=True, text=True, timeout=30, check=False
        )
    except OSError:
        return ""
    return done.stdout
