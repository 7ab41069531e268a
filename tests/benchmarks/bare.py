"""What no recovery can beat: a process with nothing but faster-whisper, stage by stage."""

import itertools
import os
import subprocess
import sys
import time
from dataclasses import astuple, dataclass
from pathlib import Path

from asrd.worker.environment import WORKER_ENVIRONMENT

_SCRIPT = """
import time
marks = [time.monotonic()]
import os, sys, numpy
from faster_whisper import WhisperModel
marks.append(time.monotonic())
model = WhisperModel(sys.argv[1], device="cpu", cpu_threads=int(sys.argv[2]))
marks.append(time.monotonic())
data = sys.stdin.buffer.read()
if data:
    audio = numpy.frombuffer(data, "<i2").astype("float32") / 32768
    list(model.transcribe(audio, language="en", beam_size=1, temperature=0.0)[0])
marks.append(time.monotonic())
print(*marks, flush=True)
os._exit(0)
"""


@dataclass(frozen=True)
class Stages:
    """Seconds; they add up to the whole, from the start of the process to its first answer."""

    interpreter: float
    imports: float
    load: float
    answer: float

    @property
    def whole(self) -> float:
        return float(sum(astuple(self)))

    @property
    def until_loaded(self) -> float:
        return self.whole - self.answer


def bare(model: Path, audio: bytes = b"", threads: int = 1) -> Stages:
    """`audio`: 16-bit PCM to transcribe; with none, it ends once it has loaded."""
    argv = [sys.executable, "-c", _SCRIPT, str(model), str(threads)]
    environment = {**os.environ, **WORKER_ENVIRONMENT}
    start = time.monotonic()
    done = subprocess.run(
        argv, input=audio, stdout=subprocess.PIPE, env=environment, check=True, timeout=600
    )
    marks = [start, *map(float, done.stdout.split())]
    return Stages(*(b - a for a, b in itertools.pairwise(marks)))
