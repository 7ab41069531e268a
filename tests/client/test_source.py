"""Whatever a caller calls audio becomes one descriptor."""

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
    """What the daemon gets: bytes, format, and whether it is a sealed copy."""
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


def test_a_path_is_opened_and_not_copied(recording: Path) -> None:
    assert taken(recording) == (b"0123456789", FILE, False)
    assert taken(str(recording)) == (b"0123456789", FILE, False)


def test_a_file_may_be_raw_samples(recording: Path) -> None:
    _, format, _ = taken(recording, AudioHint("pcm_s16le", 8000, 2))
    assert format == AudioFormat("pcm_s16le", 8000, 2)


def test_an_open_file_at_its_start_is_not_copied(recording: Path) -> None:
    for buffering in (0, -1):
        with open(recording, "rb", buffering=buffering) as file:
            assert taken(file) == (b"0123456789", FILE, False)
            assert file.read() == b"0123456789"


def test_a_temporary_file_is_not_copied() -> None:
    with tempfile.NamedTemporaryFile() as file:
        file.write(b"abc")
        file.seek(0)
        assert taken(file) == (b"abc", FILE, False)


def test_of_a_file_that_was_begun_the_rest_is_taken(recording: Path) -> None:
    with open(recording, "rb") as file:
        file.read(4)
        assert taken(file) == (b"456789", FILE, True)


def test_a_packed_file_is_unpacked(tmp_path: Path) -> None:
    path = tmp_path / "talk.wav.gz"
    with gzip.open(path, "wb") as packed:
        packed.write(b"samples")
    with gzip.open(path, "rb") as file:
        assert taken(file) == (b"samples", FILE, True)


def test_files_without_a_descriptor_are_copied() -> None:
    assert taken(io.BytesIO(b"abc")) == (b"abc", FILE, True)


@pytest.mark.parametrize("wrap", [bytes, bytearray, memoryview])
def test_bytes_are_copied_and_sealed(wrap: Any) -> None:
    assert taken(wrap(b"abc")) == (b"abc", FILE, True)
    assert taken(wrap(b"")) == (b"", FILE, True)
    assert taken(wrap(b"abcd"), AudioHint("pcm_f32le")) == (b"abcd", AudioFormat("pcm_f32le"), True)


def test_a_pipe_is_read_to_its_end(tmp_path: Path) -> None:
    path = tmp_path / "pipe"
    os.mkfifo(path)
    writer = threading.Thread(target=path.write_bytes, args=(b"x" * 3_000_000,))
    writer.start()
    assert taken(path) == (b"x" * 3_000_000, FILE, True)
    writer.join()


def test_a_pipe_without_end_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(source, "MAX_COPY", 1 << 21)
    with pytest.raises(TooLarge):
        taken("/dev/zero")


def test_arrays_say_what_they_are() -> None:
    floats = np.array([0.5, -0.5], np.float32)
    assert taken(floats) == (floats.tobytes(), AudioFormat("pcm_f32le"), True)
    ints = np.array([[1, 2], [3, 4], [5, 6]], np.int16)
    assert taken(ints) == (ints.tobytes(), AudioFormat("pcm_s16le", 16000, 2), True)
    assert taken(ints, AudioHint(sample_rate=44100))[1] == AudioFormat("pcm_s16le", 44100, 2)
    assert taken(ints.ravel(), AudioHint(channels=2))[1].channels == 2


def floats(audio: Any, hint: AudioHint | None = None) -> list[float]:
    """The samples that the daemon gets of an array that is sent as floats."""
    data, format, sealed = taken(audio, hint)
    assert (format.encoding, sealed) == ("pcm_f32le", True)
    return list(np.frombuffer(data, "<f4"))


@pytest.mark.parametrize("type_", ["f2", "f4", "f8", "g", ">f2", ">f4", ">f8"])
def test_floats_keep_their_values(type_: str) -> None:
    assert floats(np.array([0.5, -1.0, 1.25, np.inf], type_)) == [0.5, -1.0, 1.25, np.inf]


@pytest.mark.parametrize("type_", ["i1", "i4", "i8", ">i4", ">i8"])
def test_integers_are_read_by_their_full_scale(type_: str) -> None:
    full = 2 ** (8 * np.dtype(type_).itemsize - 1)
    samples = np.array([-full, -full // 2, 0, full // 2], type_)
    assert floats(samples) == [-1.0, -0.5, 0.0, 0.5]


@pytest.mark.parametrize("type_", ["u1", "u2", "u4", "u8", ">u2"])
def test_the_middle_of_unsigned_integers_is_silence(type_: str) -> None:
    full = 2 ** (8 * np.dtype(type_).itemsize - 1)
    samples = np.array([0, full // 2, full, full + full // 2], type_)
    assert floats(samples) == [-1.0, -0.5, 0.0, 0.5]


def test_16_bits_stay_16_bits_in_any_byte_order() -> None:
    samples = np.array([1, -2, 32767, -32768], ">i2")
    assert taken(samples) == (samples.astype("<i2").tobytes(), AudioFormat("pcm_s16le"), True)


@pytest.mark.parametrize("type_", ["i4", "i8"])
def test_16_bit_samples_in_a_wider_type_are_not_silence(type_: str) -> None:
    with pytest.raises(BadRequest, match=r"no sample is above 32768: .*astype\('int16'\)"):
        taken(np.array([5, -32768], type_))
    assert floats(np.zeros(2, type_)) == [0.0, 0.0]


@pytest.mark.parametrize("type_", ["f2", "f4", "f8"])
def test_integers_as_floats_are_not_noise(type_: str) -> None:
    """`stereo.mean(axis=1)` of 16-bit samples, say."""
    for loud in (-20311, 20311):
        with pytest.raises(BadRequest, match=r"between -1 and 1.* 32768 for 16 bits"):
            taken(np.array([5, loud], type_))
    assert floats(np.array([8.0, -8.0], type_)) == [8.0, -8.0]


def test_samples_that_are_no_numbers_are_for_the_worker_to_judge() -> None:
    strange = np.array([0.5, np.nan, np.inf, -np.inf])
    assert np.array_equal(floats(strange), strange, equal_nan=True)


@pytest.mark.parametrize("type_", ["i2", ">i2", "f4", "f8", "i4", "u1"])
def test_any_layout_is_written_in_order(type_: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """In blocks, of which the last is shorter."""
    # Not too small for 32 bits.
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


def test_a_long_array_is_converted_a_part_at_a_time() -> None:
    long = np.zeros(20_000_000, np.int8)
    tracemalloc.start()
    try:
        open_source(long, AudioHint()).fd.close()
        assert tracemalloc.get_traced_memory()[1] < 16 << 20
    finally:
        tracemalloc.stop()


def test_an_array_may_lie_in_a_file(tmp_path: Path) -> None:
    samples = np.memmap(tmp_path / "samples", np.float64, "w+", shape=(3,))
    samples[:] = [0.5, 0.25, -0.5]
    assert floats(samples) == [0.5, 0.25, -0.5]


@pytest.mark.parametrize("shape", [(0,), (0, 2)])
def test_an_empty_array_is_refused(shape: tuple[int, ...]) -> None:
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
def test_other_arrays_are_refused(array: Any, said: str) -> None:
    with pytest.raises(TypeError, match=rf"floats or integers, shape \(n,\) or .*, not .*{said}"):
        taken(array)


@pytest.mark.parametrize("shape", [(1, 16000), (2, 16000)])
def test_channels_before_samples_are_noticed(shape: tuple[int, ...]) -> None:
    with pytest.raises(BadRequest, match=r"audio.channels: must be .*: pass audio\.T"):
        taken(np.zeros(shape, np.float32))


def test_an_array_without_a_channel_is_refused() -> None:
    with pytest.raises(BadRequest, match=r"audio.channels: must be between 1 and"):
        taken(np.zeros((9, 0), np.float32))


def test_an_array_and_an_encoding_must_agree() -> None:
    with pytest.raises(BadRequest, match="the array is sent as pcm_f32le, not pcm_s16le"):
        taken(np.zeros(4, np.float64), AudioHint("pcm_s16le"))
    assert taken(np.zeros(1, np.float32), AudioHint("pcm_f32le"))[0] == bytes(4)


class Tensor:
    """As torch has it."""

    def numpy(self) -> Any:
        raise NotImplementedError

    def __array__(self) -> Any:
        raise NotImplementedError


class Series:
    """As pandas has it."""

    def __array__(self) -> Any:
        raise NotImplementedError


@pytest.mark.parametrize(
    ("audio", "advice"),
    [(Tensor(), r"audio\.numpy\(\)"), (Series(), "numpy.asarray"), ([0.5], "numpy.asarray")],
)
def test_what_is_nearly_an_array_can_be_made_one(audio: Any, advice: str) -> None:
    with pytest.raises(
        TypeError, match=f"a numpy array, not {type(audio).__name__}: pass {advice}"
    ):
        taken(audio)


@pytest.mark.parametrize("audio", [None, 5, ["a"], io.StringIO("text")])
def test_what_is_no_audio_is_a_type_error(audio: Any) -> None:
    with pytest.raises(TypeError, match="audio must be a path"):
        taken(audio)


def test_unreadable_files_raise_what_open_raises(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        taken(tmp_path / "missing.wav")
    with pytest.raises(IsADirectoryError):
        taken(tmp_path)
    with open(tmp_path / "out", "wb") as write_only, pytest.raises(io.UnsupportedOperation):
        taken(write_only)


def test_a_format_out_of_range_is_named() -> None:
    with pytest.raises(BadRequest, match=r"audio.encoding: must be one of"):
        taken(b"", AudioHint("mp3"))
