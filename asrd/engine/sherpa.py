"""sherpa-onnx's diarization: who speaks when, in a whole recording.

It is called through its C interface (c-api.h of sherpa-onnx 2.0), because its Python module holds
the interpreter's lock during a call: for minutes, the worker could neither serve the front nor give
a sign of life.
"""

import ctypes
import importlib.metadata
import importlib.util
from collections.abc import Callable
from ctypes import POINTER, c_char_p, c_float, c_int32, c_void_p
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from asrd.errors import LoadError

_PACKAGE = "sherpa-onnx-core"
# The layout of the structures below may be another one in another version.
_VERSION = "2.0.1"
# Its own defaults, in seconds: shorter turns are dropped, and shorter pauses belong to a turn.
_SHORTEST_TURN, _SHORTEST_PAUSE = 0.3, 0.5
# Each window of 10 s begins so much of it after the one before. With the default, 0.1, the search
# took twice the time and heard speakers who were not there (docs/speakers.md).
_WINDOW_SHIFT = 0.25
_OnProgress = ctypes.CFUNCTYPE(c_int32, c_int32, c_int32, c_void_p)


class _Pyannote(ctypes.Structure):
    _fields_ = (("model", c_char_p), ("window_shift_ratio", c_float))


class _Segmentation(ctypes.Structure):
    _fields_ = (
        ("pyannote", _Pyannote),
        ("num_threads", c_int32),
        ("debug", c_int32),
        ("provider", c_char_p),
    )


class _Embedding(ctypes.Structure):
    _fields_ = (
        ("model", c_char_p),
        ("num_threads", c_int32),
        ("debug", c_int32),
        ("provider", c_char_p),
    )


class _Clustering(ctypes.Structure):
    _fields_ = (
        ("num_clusters", c_int32),
        ("threshold", c_float),
        ("compute_confidence", c_int32),
    )


class _Config(ctypes.Structure):
    _fields_ = (
        ("segmentation", _Segmentation),
        ("embedding", _Embedding),
        ("clustering", _Clustering),
        ("min_duration_on", c_float),
        ("min_duration_off", c_float),
    )


class _Turn(ctypes.Structure):
    _fields_ = (
        ("start", c_float),
        ("end", c_float),
        ("speaker", c_int32),
        ("confidence", c_float),
    )


class Turn(NamedTuple):
    """A stretch of one speaker's speech, in seconds; speakers are counted from 0."""

    start: float
    end: float
    speaker: int


class Diarizer:
    """Finds speakers with two models, which each job loads for itself: that takes less than a
    second, and jobs that take turns share no state.

    `threshold` is the cosine distance above which two voices are two speakers.
    """

    def __init__(self, segmentation: Path, embedding: Path, threshold: float, threads: int) -> None:
        """Raises LoadError, ImportError."""
        self._library = _load_library()
        self._paths = bytes(segmentation), bytes(embedding)
        self._threshold = threshold
        self._threads = threads

    def turns(
        self,
        samples: NDArray[np.float32],
        speakers: int | None,
        on_progress: Callable[[float], object],
    ) -> list[Turn]:
        """Returns the turns in the order of their starts; turns of several speakers may overlap.

        Args:
            samples: shape (n,), 16 kHz, from -1 to 1.
            speakers: their number, or None if it is unknown.
            on_progress: called with the finished share of the second half of the work, the voices;
                the first half, where somebody speaks, is silent.

        Raises LoadError, and what `on_progress` raises, but only at the end: the library can't be
        stopped.
        """
        library = self._library
        handle = library.SherpaOnnxCreateOfflineSpeakerDiarization(self._config(speakers))
        if not handle:
            raise LoadError("sherpa-onnx can't load these models; the log says why")
        reporter = _Reporter(on_progress)
        try:
            pointer = np.ascontiguousarray(samples).ctypes.data_as(POINTER(c_float))
            result = library.SherpaOnnxOfflineSpeakerDiarizationProcessWithCallback(
                handle, pointer, len(samples), reporter.callback, None
            )
            try:
                found = self._read(result)
            finally:
                library.SherpaOnnxOfflineSpeakerDiarizationDestroyResult(result)
        finally:
            library.SherpaOnnxDestroyOfflineSpeakerDiarization(handle)
        if reporter.error is not None:
            raise reporter.error
        return found

    def _config(self, speakers: int | None) -> Any:
        segmentation, embedding = self._paths
        return ctypes.byref(
            _Config(
                _Segmentation(_Pyannote(segmentation, _WINDOW_SHIFT), self._threads, 0, b"cpu"),
                _Embedding(embedding, self._threads, 0, b"cpu"),
                _Clustering(speakers or -1, self._threshold, 0),
                _SHORTEST_TURN,
                _SHORTEST_PAUSE,
            )
        )

    def _read(self, result: int) -> list[Turn]:
        """Returns the turns of a result; speakers are numbered in the order of their first ones."""
        library = self._library
        count = library.SherpaOnnxOfflineSpeakerDiarizationResultGetNumSegments(result)
        if count == 0:
            return []
        array = library.SherpaOnnxOfflineSpeakerDiarizationResultSortByStartTime(result)
        try:
            numbers: dict[int, int] = {}
            return [
                Turn(turn.start, turn.end, numbers.setdefault(turn.speaker, len(numbers)))
                for turn in array[:count]
            ]
        finally:
            library.SherpaOnnxOfflineSpeakerDiarizationDestroySegment(array)


class _Reporter:
    """Passes progress on. An exception must not pass through the library: it is kept in `error`."""

    def __init__(self, on_progress: Callable[[float], object]) -> None:
        self.error: BaseException | None = None
        self.callback = _OnProgress(self._call)
        self._on_progress = on_progress

    def _call(self, done: int, total: int, _: object) -> int:
        if self.error is None:
            try:
                self._on_progress(done / total)
            except BaseException as error:
                self.error = error
        return 0


def _load_library() -> Any:
    """Raises ImportError without the package, LoadError for another version of it."""
    spec = importlib.util.find_spec("sherpa_onnx")
    if spec is None or not spec.submodule_search_locations:
        raise ImportError("No module named 'sherpa_onnx'", name="sherpa_onnx")
    found = importlib.metadata.version(_PACKAGE)
    if found != _VERSION:
        raise LoadError(f"{_PACKAGE} {found} is installed, and asrd knows only {_VERSION}")
    folder = Path(spec.submodule_search_locations[0]) / "lib"
    library = ctypes.CDLL(str(folder / "libsherpa-onnx-c-api.so"))
    prefix = "SherpaOnnxOfflineSpeakerDiarization"
    types: dict[str, tuple[Any, list[Any]]] = {
        "SherpaOnnxCreateOfflineSpeakerDiarization": (c_void_p, [POINTER(_Config)]),
        "SherpaOnnxDestroyOfflineSpeakerDiarization": (None, [c_void_p]),
        f"{prefix}ProcessWithCallback": (
            c_void_p,
            [c_void_p, POINTER(c_float), c_int32, _OnProgress, c_void_p],
        ),
        f"{prefix}DestroyResult": (None, [c_void_p]),
        f"{prefix}ResultGetNumSegments": (c_int32, [c_void_p]),
        f"{prefix}ResultSortByStartTime": (POINTER(_Turn), [c_void_p]),
        f"{prefix}DestroySegment": (None, [POINTER(_Turn)]),
    }
    for name, (result, arguments) in types.items():
        function = getattr(library, name)
        function.restype, function.argtypes = result, arguments
    return library
