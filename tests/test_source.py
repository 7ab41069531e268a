"""Whatever a caller calls audio becomes one descriptor."""

import fcntl
import gzip
import io
import os
import tempfile
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from asrd.client import source
from asrd.client.attempts import AudioHint
from asrd.client.source import open_source
from asrd.errors import BadRequest, TooLarge
from asrd.records import (
    AudioFormat,
)

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
        opened.close()


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


def test_arrays_with_gaps_are_written_in_order() -> None:
    stereo = np.arange(12, dtype=np.int16).reshape(6, 2)
    left = stereo[:, 0]
    assert not left.flags.c_contiguous
    assert taken(left)[0] == np.ascontiguousarray(left).tobytes()
    turned = np.asfortranarray(stereo)
    assert taken(turned)[0] == stereo.tobytes()


def test_an_empty_array_is_for_the_daemon_to_refuse() -> None:
    assert taken(np.zeros(0, np.float32)) == (b"", AudioFormat("pcm_f32le"), True)


@pytest.mark.parametrize(
    "array",
    [
        np.zeros(4, np.float64),
        np.zeros(4, ">i2"),
        np.zeros((2, 2, 2), np.int16),
        np.float32(1.0),
    ],
)
def test_other_arrays_are_refused(array: Any) -> None:
    with pytest.raises(TypeError, match=r"float32 or int16 of shape \(n,\) or \(n, channels\)"):
        taken(array)


def test_channels_before_samples_are_noticed() -> None:
    with pytest.raises(BadRequest, match=r"audio.channels: must be between 1 and 64"):
        taken(np.zeros((2, 16000), np.float32))


def test_an_array_and_an_encoding_must_agree() -> None:
    with pytest.raises(BadRequest, match="the array is pcm_f32le, not pcm_s16le"):
        taken(np.zeros(4, np.float32), AudioHint("pcm_s16le"))
    assert taken(np.zeros(1, np.float32), AudioHint("pcm_f32le"))[0] == bytes(4)


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
