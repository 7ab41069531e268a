"""The lower bound of a recovery: a process with nothing but faster-whisper."""

import os
import subprocess
import sys
import time
from pathlib import Path
from typing import NamedTuple

from asrd.worker.environment import WORKER_ENVIRONMENT

_SCRIPT = """
import os, sys, time, numpy
from faster_whisper import WhisperModel
path, threads, kind = sys.argv[1:]
model = WhisperModel(path, device="cpu", cpu_threads=int(threads), compute_type=kind)
loaded = time.monotonic()
data = sys.stdin.buffer.read()
if data:
    audio = numpy.frombuffer(data, "<i2").astype("float32") / 32768
    list(model.transcribe(audio, language="en", beam_size=1, temperature=0.0)[0])
print(loaded, time.monotonic(), flush=True)
os._exit(0)
"""


class Bare(NamedTuple):
    """Seconds from the start of the process until its model is loaded, and until it answered."""

    loaded: float
    answered: float


def bare(model: Path, audio: bytes = b"", threads: int = 1, compute_type: str = "int8") -> Bare:
    """Runs the process; `audio` is 16-bit PCM to transcribe, or empty."""
    argv = [sys.executable, "-c", _SCRIPT, str(model), str(threads), compute_type]
    environment = {**os.environ, **WORKER_ENVIRONMENT}
    start = time.monotonic()
    done = subprocess.run(
        argv, input=audio, stdout=subprocess.PIPE, env=environment, check=True, timeout=600
    )
    return Bare(*(float(mark) - start for mark in done.stdout.split()))
