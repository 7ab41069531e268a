"""Where a machine has cuBLAS, and how a worker is made to find it.

CTranslate2 opens `libcublas.so.12` by that name. Where CUDA 13 alone is installed, its libraries
are tried under that name: the functions that CTranslate2 takes from them are in both.
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
    """`changes`: to the environment of whatever is started."""

    told: str
    changes: dict[str, str]


def find(links: Path) -> Found:
    """`links`: a directory to be made, for links of the right names."""
    places = list(dict.fromkeys(_places()))
    for version in ("12", "13"):
        for place in places:
            if all((place / f"{name}.{version}").exists() for name in NAMES):
                return _linked(place, version, links)
    return Found("no cuBLAS of CUDA 12 or 13 was found", {})


def _linked(place: Path, version: str, links: Path) -> Found:
    # As pip's packages lie, for asrd.engine.cuda; and for CTranslate2 itself, which asks the
    # loader, and the loader knows a library of CUDA 13 by its own name alone.
    libraries = links / "nvidia" / "cublas" / "lib"
    libraries.mkdir(parents=True)
    # Under its own name, too: libcublas.so.13 needs libcublasLt.so.13.
    for name in NAMES:
        for number in {"12", version}:
            (libraries / f"{name}.{number}").symlink_to(place / f"{name}.{version}")
    told = f"{place}/libcublas.so.{version}"
    if version != "12":
        told += " under the name libcublas.so.12"
    return Found(
        told,
        {
            "PYTHONPATH": f"{links}:{os.environ.get('PYTHONPATH', '')}",
            "LD_LIBRARY_PATH": f"{libraries}:{os.environ.get('LD_LIBRARY_PATH', '')}".strip(":"),
        },
    )


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
