"""Every kind of audio becomes one descriptor."""

import fcntl
import gzip
import io
import os
import tempfile
import threading
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from asrd.client import source
from asrd.client.attempts import AudioHint
from asrd.client.source import open_source
from asrd.errors import BadAudio, BadRequest, TooLarge
from asrd.wire.records import AudioFormat

FILE = AudioFormat("file")
SEALED = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE | fcntl.F_SEAL_SEAL


@pytest.fixture
def recording(tmp_path: Path) -> Path:
    path = tmp_path / "talk.wav"
    path.write_bytes(b"0123456789")
    return path


def taken(audio: Any, hint: AudioHint | None = None) -> tuple[bytes, AudioFormat, bool]:
    """Returns bytes and format that the daemon gets, and True for a sealed copy."""
    opened = open_source(audio, hint or AudioHint())
    fd = opened.fd.fileno()
    try:
        assert not os.get_inheritable(fd)
        try:
            sealed = fcntl.fcntl(fd, fcntl.F_GET_SEALS) == SEALED
        except OSError:
            sealed = False
        return os.pread(fd, os.fstat(fd).st_size, 0), opened.format, sealed
    finally:
        opened.fd.close()


def test_regular_file_is_not_copied(recording: Path) -> None:
    assert taken(recording) == taken(str(recording)) == (b"0123456789", FILE, False)
    assert taken(recording, AudioHint("pcm_s16le", 8000, 2))[1:] == (
        AudioFormat("pcm_s16le", 8000, 2),
        False,
    )
    for buffering in (0, -1):
        with open(recording, "rb", buffering=buffering) as file:
            assert taken(file) == (b"0123456789", FILE, False)
            assert file.read() == b"0123456789"
    with tempfile.NamedTemporaryFile() as temporary:
        temporary.write(b"abc")
        temporary.seek(0)
        assert taken(temporary) == (b"abc", FILE, False)


def test_rest_of_a_file_is_copied(recording: Path) -> None:
    with open(recording, "rb") as file:
        file.read(4)
        assert taken(file) == (b"456789", FILE, True)
    assert taken(io.BytesIO(b"abc")) == (b"abc", FILE, True)


def test_packed_file_is_unpacked(tmp_path: Path) -> None:
    path = tmp_path / "talk.wav.gz"
    with gzip.open(path, "wb") as packed:
        packed.write(b"samples")
    with gzip.open(path, "rb") as file:
        assert taken(file) == (b"samples", FILE, True)


@pytest.mark.parametrize("wrap", [bytes, bytearray, memoryview])
def test_bytes_are_copied_and_sealed(wrap: Any) -> None:
    assert taken(wrap(b"abc")) == (b"abc", FILE, True)
    assert taken(wrap(b"")) == (b"", FILE, True)
    assert taken(wrap(b"abcd"), AudioHint("pcm_f32le")) == (b"abcd", AudioFormat("pcm_f32le"), True)


def test_pipe_is_read_to_its_end(tmp_path: Path) -> None:
    path = tmp_path / "pipe"
    os.mkfifo(path)
    writer = threading.Thread(target=path.write_bytes, args=(b"x" * 3_000_000,))
    writer.start()
    assert taken(path) == (b"x" * 3_000_000, FILE, True)
    writer.join()


def test_pipe_without_end_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(source, "MAX_COPY", 1 << 21)
    with pytest.raises(TooLarge):
        taken("/dev/zero")


def test_format_follows_from_the_array() -> None:
    floats = np.array([0.5, -0.5], np.float32)
    assert taken(floats) == (floats.tobytes(), AudioFormat("pcm_f32le"), True)
    ints = np.array([[1, 2], [3, 4], [5, 6]], np.int16)
    assert taken(ints) == (ints.tobytes(), AudioFormat("pcm_s16le", 16000, 2), True)
    assert taken(ints, AudioHint(sample_rate=44100))[1] == AudioFormat("pcm_s16le", 44100, 2)
    assert taken(ints.ravel(), AudioHint(channels=2))[1].channels == 2


def floats(audio: Any, hint: AudioHint | None = None) -> list[float]:
    """Returns the samples that the daemon gets, for an array that is sent as floats."""
    data, format, sealed = taken(audio, hint)
    assert (format.encoding, sealed) == ("pcm_f32le", True)
    return list(np.frombuffer(data, "<f4"))


@pytest.mark.parametrize("type_", ["f2", "f4", "f8", "g", ">f4"])
def test_floats_keep_their_values(type_: str) -> None:
    samples = [0.5, -1.0, 1.25, np.inf, -np.inf, np.nan]
    assert np.array_equal(floats(np.array(samples, type_)), samples, equal_nan=True)


@pytest.mark.parametrize("type_", ["i1", "i4", "i8", ">i4", "u1", "u2", "u4", "u8", ">u2"])
def test_integers_are_scaled_by_their_type(type_: str) -> None:
    full = 2 ** (8 * np.dtype(type_).itemsize - 1)
    silence = full if "u" in type_ else 0
    samples = np.array([silence - full, silence - full // 2, silence, silence + full // 2], type_)
    assert floats(samples) == [-1.0, -0.5, 0.0, 0.5]


def test_16_bits_stay_16_bits_in_any_byte_order() -> None:
    samples = np.array([1, -2, 32767, -32768], ">i2")
    assert taken(samples) == (samples.astype("<i2").tobytes(), AudioFormat("pcm_s16le"), True)


@pytest.mark.parametrize("type_", ["i4", "i8"])
def test_16_bit_samples_in_a_wider_type_are_refused(type_: str) -> None:
    with pytest.raises(BadRequest, match=r"no sample is above 32768: .*astype\('int16'\)"):
        taken(np.array([5, -32768], type_))
    assert floats(np.zeros(2, type_)) == [0.0, 0.0]


@pytest.mark.parametrize("type_", ["f2", "f4", "f8"])
def test_integers_as_floats_are_refused(type_: str) -> None:
    """For example `stereo.mean(axis=1)` of 16-bit samples."""
    for loud in (-20311, 20311):
        with pytest.raises(BadRequest, match=r"between -1 and 1.* 32768 for 16 bits"):
            taken(np.array([5, loud], type_))
    assert floats(np.array([8.0, -8.0], type_)) == [8.0, -8.0]


@pytest.mark.parametrize("type_", ["i2", ">i2", "f4", "f8", "i4", "u1"])
def test_any_memory_layout_is_written_in_order(type_: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The last block is shorter."""
    # Loud enough for 32 bits.
    unit = 1 << 20 if type_ == "i4" else 1
    stereo = (np.arange(22).reshape(11, 2) * unit).astype(type_)
    for layout in [
        stereo,
        np.asfortranarray(stereo),
        np.repeat(np.repeat(stereo, 3, 0), 2, 1)[::3, ::2],
        np.ascontiguousarray(stereo[::-1, ::-1])[::-1, ::-1],
        stereo[:, 0],
        stereo[:0:-2, 1],
        np.broadcast_to(stereo[:, :1], (11, 2)),
    ]:
        whole = taken(np.ascontiguousarray(layout))
        with monkeypatch.context() as patch:
            patch.setattr(source, "_BLOCK", 7)
            assert taken(layout) == whole


def test_long_array_is_converted_in_blocks() -> None:
    long = np.zeros(20_000_000, np.int8)
    tracemalloc.start()
    try:
        open_source(long, AudioHint()).fd.close()
        assert tracemalloc.get_traced_memory()[1] < 16 << 20
    finally:
        tracemalloc.stop()


def test_array_in_a_file_is_accepted(tmp_path: Path) -> None:
    samples = np.memmap(tmp_path / "samples", np.float64, "w+", shape=(3,))
    samples[:] = [0.5, 0.25, -0.5]
    assert floats(samples) == [0.5, 0.25, -0.5]


@pytest.mark.parametrize("shape", [(0,), (0, 2)])
def test_empty_array_is_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(BadAudio, match="the array is empty"):
        taken(np.zeros(shape, np.float32))


@pytest.mark.parametrize(
    ("array", "said"),
    [
        (np.zeros(4, np.complex64), r"complex64 of shape \(4,\)"),
        (np.zeros(4, bool), "bool"),
        (np.array([None, 1]), "object"),
        (np.array(["a"]), "<U1"),
        (np.zeros(4, "M8[s]"), "datetime64"),
        (np.zeros(4, [("left", "f4")]), "left"),
        (np.zeros((2, 2, 2), np.int16), r"int16 of shape \(2, 2, 2\)"),
        (np.float32(1.0), r"float32 of shape \(\)"),
    ],
)
def test_other_arrays_are_a_type_error(array: Any, said: str) -> None:
    with pytest.raises(TypeError, match=rf"floats or integers, shape \(n,\) or .*, not .*{said}"):
        taken(array)


def test_number_of_channels_is_checked() -> None:
    with pytest.raises(BadRequest, match=r"audio.channels: must be .*: pass audio\.T"):
        taken(np.zeros((2, 16000), np.float32))
    with pytest.raises(BadRequest, match=r"audio.channels: must be between 1 and"):
        taken(np.zeros((9, 0), np.float32))


def test_encoding_must_agree_with_the_array() -> None:
    with pytest.raises(BadRequest, match="the array is sent as pcm_f32le, not pcm_s16le"):
        taken(np.zeros(4, np.float64), AudioHint("pcm_s16le"))
    assert taken(np.zeros(1, np.float32), AudioHint("pcm_f32le"))[0] == bytes(4)


class Tensor:
    """The conversions of a PyTorch tensor."""

    def numpy(self) -> Any:
        raise NotImplementedError

    def __array__(self) -> Any:
        raise NotImplementedError


class Series:
    """The conversions of a pandas series."""

    def __array__(self) -> Any:
        raise NotImplementedError


@pytest.mark.parametrize(
    ("audio", "advice"),
    [(Tensor(), r"audio\.numpy\(\)"), (Series(), "numpy.asarray"), ([0.5], "numpy.asarray")],
)
def test_type_error_advises_a_conversion(audio: Any, advice: str) -> None:
    with pytest.raises(
        TypeError, match=f"a numpy array, not {type(audio).__name__}: pass {advice}"
    ):
        taken(audio)


@pytest.mark.parametrize("audio", [None, 5, ["a"], io.StringIO("text")])
def test_other_objects_are_a_type_error(audio: Any) -> None:
    with pytest.raises(TypeError, match="audio must be a path"):
        taken(audio)


def test_unreadable_files_raise_oserror(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        taken(tmp_path / "missing.wav")
    with pytest.raises(IsADirectoryError):
        taken(tmp_path)
    with open(tmp_path / "out", "wb") as write_only, pytest.raises(io.UnsupportedOperation):
        taken(write_only)


def test_format_out_of_range_is_named() -> None:
    with pytest.raises(BadRequest, match=r"audio.encoding: must be one of"):
        taken(b"", AudioHint("mp3"))
