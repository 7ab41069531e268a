"""Small files that claim much: none may take the worker's memory."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from asrd.engine.audio.layout import layout
from asrd.engine.audio.preadfile import PreadFile
from tests.support.mediafiles import box, claiming, numbers
from tests.support.sounds import memory_file, wav

MIB = 1 << 20

_READ = """
import sys
from asrd.errors import JobError
from asrd.wire.records import (AudioFormat)
from asrd.engine.audio.opening import open_recording

def peak():
    # Unlike ru_maxrss of getrusage(2), it starts anew with the program.
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) for line in status if line.startswith("VmHWM")) // 1024

before = peak()
with open(sys.argv[1], "rb") as file:
    try:
        with open_recording(file.fileno(), AudioFormat("file"), 14400) as opened:
            for block in opened:
                pass
    except JobError as error:
        print(error.text, file=sys.stderr)
print(peak() - before)
"""


def endless_wav(channels: int, rate: int) -> bytes:
    return wav(b"", channels=channels, rate=rate, data_size=0xFFFFFFFF)


def ebml(name: bytes, content: bytes, size: int | None = None) -> bytes:
    """An element; `size` if that is not its content's."""
    length = len(content) if size is None else size
    return name + b"\x01" + length.to_bytes(7, "big") + content


_HEADER = ebml(b"\x1a\x45\xdf\xa3", ebml(b"\x42\x82", b"matroska"))
_LIVE = b"\x18\x53\x80\x67\x01" + b"\xff" * 7
_TRACK = ebml(
    b"\x16\x54\xae\x6b",
    ebml(
        b"\xae",
        ebml(b"\xd7", b"\x01") + ebml(b"\x73\xc5", b"\x01") + ebml(b"\x83", b"\x02")
        + ebml(b"\x86", b"A_PCM/INT/LIT")
        + ebml(b"\xe1", ebml(b"\x9f", b"\x01") + ebml(b"\x62\x64", b"\x10")),
    ),
)  # fmt: skip


def block(size: int) -> tuple[bytes, int]:
    cluster = b"\x1f\x43\xb6\x75\x01" + b"\xff" * 7 + ebml(b"\xe7", b"\x00")
    head = _HEADER + _LIVE + _TRACK + cluster + ebml(b"\xa3", b"\x81\x00\x00\x80", size)
    return head, len(head) + size


def attachment(size: int) -> tuple[bytes, int]:
    data = ebml(b"\x46\x6e", b"a") + ebml(b"\x46\xae", b"\x01") + ebml(b"\x46\x5c", b"", size)
    attached = ebml(b"\x61\xa7", data, len(data) + size)
    head = _HEADER + _LIVE + _TRACK + ebml(b"\x19\x41\xa4\x69", attached, len(attached) + size)
    return head, len(head) + size


def fragment(samples: int) -> tuple[bytes, int]:
    run = box(b"trun", numbers(1, samples, 8))
    moof = box(b"moof", box(b"mfhd", numbers(0, 1)), box(b"traf", box(b"tfhd", numbers(0, 1)), run))
    whole = claiming(samples=0, size=0, ticks=0)
    return whole[:-16] + moof + box(b"mdat", bytes(1000)), 0


BOMBS = {
    "a sample of 300 MiB": (claiming(samples=1, size=300 * MIB, ticks=1), 301 * MIB),
    "a sample of 60 MiB": (claiming(samples=1, size=60 * MIB, ticks=1), 61 * MIB),
    "samples of 4 MiB": (claiming(samples=9, size=4 * MIB, ticks=4 * MIB), 37 * MIB),
    "80 million samples": (claiming(samples=80_000_000, size=1, ticks=2), 80 * MIB),
    "80 million in a fragment": fragment(80_000_000),
    "a block of 300 MiB": block(300 * MIB),
    "an attachment of 250 MiB": attachment(250 * MIB),
    "65,535 channels": (endless_wav(65_535, 16_000), 100 * MIB),
    "64 channels at 1 MHz": (endless_wav(64, 1_000_000), 100 * MIB),
    "one channel at 1 kHz": (endless_wav(1, 1_000), 100 * MIB),
    "a picture of 250 MiB": (b"ID3\x04\0\0\x7f\x7f\x7f\x7fAPIC\x7f\x7f\x7f\x00\0\0", 256 * MIB),
}


@pytest.mark.parametrize("bomb", BOMBS.values(), ids=BOMBS)
def test_small_file_takes_little_memory(tmp_path: Path, bomb: tuple[bytes, int]) -> None:
    head, size = bomb
    path = tmp_path / "bomb"
    path.write_bytes(head)
    with path.open("r+b") as file:
        file.truncate(max(len(head), size))
    done = subprocess.run(
        [sys.executable, "-c", _READ, str(path)], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) < 250, done.stderr


def test_tables_of_a_day_of_pcm_are_no_bomb() -> None:
    """They count each sample, of which FFmpeg makes large packets."""
    day = 24 * 3600 * 48_000
    with memory_file(claiming(samples=day, size=2, ticks=1, codec=b"sowt")) as fd:
        assert layout(PreadFile(fd)).missing


def test_memory_of_a_job_goes_back_when_it_ends() -> None:
    code = """
from asrd.worker.trimming import Trimmer, resident
trimmer = Trimmer()
before = resident()
assert not trimmer.after_job()
pieces = [bytearray(60_000) for _ in range(6_000)]
kept = [bytearray(100) for _ in range(100)]
del pieces
assert trimmer.after_job()
assert resident() - before < 64 << 20, resident() - before
assert not trimmer.after_job()
"""
    environment = {
        "MALLOC_ARENA_MAX": "1",
        "MALLOC_MMAP_THRESHOLD_": "1073741824",
        "MALLOC_TRIM_THRESHOLD_": "1073741824",
    }
    subprocess.run([sys.executable, "-c", code], check=True, env={**os.environ, **environment})
