"""The weights of a model: where and how they are loaded.

CTranslate2 reads them without the interpreter's lock, and that is most of a recovery. A thread of
its own does it, so that this process imports faster-whisper and reads the tokenizer meanwhile.
"""

import contextlib
import logging
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

# numpy reads it when it is imported, and the next import does that. The features' one matrix
# product takes 0.1 ms in one thread, and 10 ms in two of two cores that are busy with inference.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import ctranslate2

from asrd.engine import cuda
from asrd.engine.model_check import Facts
from asrd.errors import BadRequest, LoadError
from asrd.settings import WorkerSettings

log = logging.getLogger(__name__)


class Weights:
    """The weights of the model in `path`; a thread loads them on the device of the settings.

    Raises LoadError for settings that the device or the model can't follow.
    """

    def __init__(self, settings: WorkerSettings, path: Path, facts: Facts) -> None:
        self.path = path
        self.facts = facts
        self._device = _choose_device(settings)
        index = settings.device_index if self._device == "cuda" else 0
        with self._explained():
            compute_type = _compute_type(settings, self._device, index)
        self._thread = ThreadPoolExecutor(1, "weights")
        self._model = self._thread.submit(
            ctranslate2.models.Whisper,
            str(path),
            device=self._device,
            device_index=index,
            compute_type=compute_type,
            intra_threads=settings.cpu_threads,
        )

    def wait(self) -> Any:
        """Returns the loaded `ctranslate2.models.Whisper`. Raises CTranslate2's errors."""
        return self._model.result()

    @contextlib.contextmanager
    def loading(self) -> Iterator[None]:
        """Raises LoadError in place of a library's error. Afterwards the thread has ended."""
        with self._explained(), self._thread:
            yield

    @contextlib.contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except LoadError:
            raise
        except BadRequest as error:
            raise LoadError(
                f"the settings don't fit the model in {self.path}: {error.text}"
            ) from error
        except Exception as error:
            raise LoadError(
                f"the model in {self.path} can't be loaded on {self._device}: {error}"
            ) from error


def _choose_device(settings: WorkerSettings) -> str:
    if settings.device == "cpu":
        return "cpu"
    count = ctranslate2.get_cuda_device_count()
    reason = cuda.why_not(settings.device_index, count)
    if reason is None:
        if old := cuda.why_old():
            log.warning("%s", old)
        return "cuda"
    if settings.device == "cuda":
        raise LoadError(f"device cuda: {reason}")
    log.log(logging.WARNING if count else logging.INFO, "using the CPU: %s", reason)
    return "cpu"


def _compute_type(settings: WorkerSettings, device: str, index: int) -> str:
    supported = ctranslate2.get_supported_compute_types(device, index)
    if not settings.compute_type:
        # On a CPU it makes as few errors, and costs less time and memory (docs/performance.md).
        return "int8" if device == "cpu" and "int8" in supported else "default"
    if settings.compute_type not in supported | {"default", "auto"}:
        raise LoadError(
            f"compute_type {settings.compute_type} is not supported on this {device}; "
            f"default, auto, {', '.join(sorted(supported))} are"
        )
    return settings.compute_type
