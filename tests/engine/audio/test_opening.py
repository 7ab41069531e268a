"""Descriptors to samples: every container, every wrong descriptor, and hostile files."""

import gc
import io
import math
import os
import re
import socket
import struct
from collections.abc import Callable
from pathlib import Path

import av
import numpy as np
import pytest
from faster_whisper.audio import decode_audio

from asrd.engine.audio.containers import ACCEPTED, OPTIONS
from asrd.engine.audio.opening import open_recording
from asrd.engine.audio.reader import BLOCK_SECONDS, RATE, Samples
from asrd.errors import BadAudio, TooLarge
from asrd.wire.records import AudioFormat
from tests.support.engine_jobs import F32, S16
from tests.support.sounds import FILE, KINDS, encoded, memory_file, read, recording, s16, wav


def refusal(data: bytes, audio: AudioFormat = FILE) -> str:
    with pytest.raises(BadAudio) as caught:
        read(data, audio)
    return caught.value.text


# --- PCM --------------------------------------------------------------------------------------


@pytest.mark.parametrize("seconds", [29.5, 30, 91])
def test_blocks_of_every_source_have_one_length(speech: Samples, seconds: float) -> None:
    samples = s16(np.tile(speech, 30)[: round(seconds * RATE)])
    expected = [
        min(BLOCK_SECONDS, seconds - start) * RATE
        for start in range(0, math.ceil(seconds), BLOCK_SECONDS)
    ]
    floats = (samples * np.float32(1 / 32768)).tobytes()
    for data, audio in ((samples.tobytes(), S16), (wav(samples.tobytes()), FILE), (floats, F32)):
        with recording(data, audio) as opened:
            blocks = list(opened)
        assert [len(block) for block in blocks] == expected
        assert np.array_equal(np.concatenate(blocks), samples.astype(np.float32) / 32768)


@pytest.mark.parametrize(("rate", "channels"), [(8_000, 1), (44_100, 2), (384_000, 2)])
def test_pcm_of_any_rate_becomes_16_khz(rate: int, channels: int) -> None:
    tone = np.sin(2 * np.pi * 440 * np.arange(2 * rate) / rate) / 2
    frames = np.repeat(s16(tone.astype(np.float32)), channels)
    heard, _ = read(frames.tobytes(), AudioFormat("pcm_s16le", rate, channels))
    wanted = np.sin(2 * np.pi * 440 * np.arange(2 * RATE) / RATE) / 2
    assert len(heard) == 2 * RATE
    # The filter's own beginning and end aside.
    assert np.abs(heard - wanted)[100:-100].max() < 2e-3


def test_floats_beyond_full_scale_are_accepted() -> None:
    assert read(np.array([2, -65_536], "<f4").tobytes(), F32)[0].tolist() == [2, -65_536]


def test_pcm_that_ends_inside_a_frame_is_refused() -> None:
    text = refusal(b"abc", AudioFormat("pcm_s16le", RATE, 2))
    assert text == "audio: is 3 bytes, not a multiple of 4 (pcm_s16le, 2 channels)"


# --- descriptors ------------------------------------------------------------------------------


def test_client_offset_is_neither_used_nor_moved(speech: Samples) -> None:
    for data, audio in ((s16(speech).tobytes(), S16), (wav(s16(speech).tobytes()), FILE)):
        with memory_file(data) as fd:
            os.lseek(fd, 1001, os.SEEK_SET)
            with open_recording(fd, audio, 3600) as opened:
                assert sum(map(len, opened)) == len(speech)
            assert os.lseek(fd, 0, os.SEEK_CUR) == 1001


def reopened(flags: int) -> list[int]:
    with memory_file(b"RIFF") as fd:
        return [os.open(f"/proc/self/fd/{fd}", flags)]


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (lambda: list(os.pipe()), "is a pipe"),
        (lambda: [end.detach() for end in socket.socketpair()], "is a socket"),
        (lambda: [os.open("/", os.O_RDONLY)], "is a directory"),
        (lambda: [os.open("/dev/zero", os.O_RDONLY)], "is a character device"),
        (lambda: reopened(os.O_WRONLY), "for writing only"),
        (lambda: reopened(os.O_PATH), "can't be read"),
        (lambda: [-1], "Bad file descriptor"),
    ],
)
def test_unreadable_descriptor_is_refused(make: Callable[[], list[int]], text: str) -> None:
    fds = make()
    try:
        for audio in (S16, FILE):
            with pytest.raises(BadAudio, match=text), open_recording(fds[0], audio, 9) as opened:
                list(opened)
    finally:
        for fd in fds:
            if fd >= 0:
                os.close(fd)


@pytest.mark.parametrize("audio", [S16, FILE])
def test_empty_file_is_refused(audio: AudioFormat) -> None:
    assert refusal(b"", audio) == "audio: is empty"


def test_file_truncated_while_it_is_read_is_refused(speech: Samples) -> None:
    long = np.tile(speech, 30)
    for data, audio in ((s16(long).tobytes(), S16), (encoded(long, "flac"), FILE)):
        with memory_file(data) as fd, open_recording(fd, audio, 3600) as opened:
            blocks = iter(opened)
            next(blocks)
            os.truncate(fd, 1000)
            with pytest.raises(BadAudio, match="was truncated"):
                list(blocks)


def test_file_that_grows_ends_where_it_ended_at_first(speech: Samples) -> None:
    data = s16(speech).tobytes()
    with memory_file(data) as fd, open_recording(fd, S16, 3600) as opened:
        os.pwrite(fd, data, len(data))
        assert sum(map(len, opened)) == len(speech)


# --- length -----------------------------------------------------------------------------------


def test_too_long_pcm_is_refused_before_it_is_read() -> None:
    data = bytes(2 * RATE * 5)
    with memory_file(data) as fd, pytest.raises(TooLarge, match=r"more than the 4\.9 seconds"):
        open_recording(fd, S16, 4.9)
    assert len(read(data, S16, 5)[0]) == 5 * RATE


def test_too_long_file_is_refused_while_it_is_decoded(speech: Samples) -> None:
    with recording(encoded(np.tile(speech, 10), "adts", "aac"), limit=12) as opened:
        with pytest.raises(TooLarge):
            list(opened)
        assert opened.seconds < 30


def test_absurd_claim_of_length_is_ignored(speech: Samples) -> None:
    """The front takes a worker that reports such a length for broken."""
    data = bytearray(encoded(speech, "flv", "pcm_s16le", 22_050))
    # The number, an AMF double, stands behind its name and its type.
    struct.pack_into(">d", data, data.index(b"duration") + 9, 1e8)
    with recording(bytes(data)) as opened:
        assert opened.total_seconds is None
        count = sum(map(len, opened))
        assert opened.total_seconds == count / RATE == pytest.approx(len(speech) / RATE, abs=0.01)


def test_length_is_known_early_and_exact_at_the_end(speech: Samples) -> None:
    with recording(encoded(speech, "mp3")) as opened:
        assert opened.total_seconds == pytest.approx(len(speech) / RATE, rel=0.05)
        count = sum(map(len, opened))
        assert opened.total_seconds == opened.seconds == count / RATE


# --- containers and codecs --------------------------------------------------------------------


OTHER_CODECS = ("pcm_s24le", "pcm_f32le", "pcm_f64le", "pcm_mulaw", "adpcm_ima_wav")


@pytest.mark.parametrize(
    ("container", "codec", "rate"),
    [
        *((container, *kind) for container, kind in KINDS.items()),
        *(("wav", codec, 22_050) for codec in OTHER_CODECS),
        ("mpegts", "libmp3lame", 48_000),
    ],
)
def test_samples_equal_those_of_faster_whisper(
    speech: Samples, container: str, codec: str, rate: int
) -> None:
    data = encoded(speech, container, codec, rate)
    samples, opened = read(data, require_complete=True)
    assert opened.warnings == []
    assert np.array_equal(samples, decode_audio(io.BytesIO(data)))
    assert len(samples) == pytest.approx(len(speech), rel=0.05)


@pytest.mark.parametrize("channels", [2, 6, 16])
def test_channels_of_a_file_are_mixed(channels: int) -> None:
    tone = s16((np.sin(np.arange(RATE) / 10) / 4).astype(np.float32))
    heard, _ = read(wav(np.repeat(tone, channels).tobytes(), channels=channels))
    assert np.abs(heard - tone / 32768).max() < 1e-3


@pytest.mark.parametrize("rate", [1, 999, 1_000_001, 2**31 - 1])
def test_absurd_rate_is_refused(rate: int) -> None:
    data = bytearray(wav(bytes(2000)))
    data[24:32] = struct.pack("<II", rate, min(2 * rate, 2**32 - 1))
    assert refusal(bytes(data)) == f"audio: a sample rate of {rate} Hz"


# --- files without audio ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (b"x", ACCEPTED),
        (b"hello world\n" * 1000, ACCEPTED),
        (bytes(100_000), ACCEPTED),
        (np.random.default_rng(0).bytes(100_000), ""),
        (b"\x89PNG\r\n\x1a\n" + bytes(1000), ACCEPTED),
        (wav(b""), "audio: can't be decoded: it holds no frame of audio"),
    ],
    ids=["one byte", "text", "zeros", "noise", "picture", "wav without samples"],
)
def test_file_without_audio_is_refused(data: bytes, text: str) -> None:
    assert text in refusal(data)


def test_file_of_damaged_frames_is_refused(speech: Samples) -> None:
    data = encoded(speech, "mp4", "aac", 44_100)
    start, end = (match.start() for match in re.finditer(b"mdat|moov", data))
    zeros = bytes(end - start - 8)
    assert "can't be decoded" in refusal(data[: start + 4] + zeros + data[end - 4 :])


def test_video_without_audio_is_refused() -> None:
    file = io.BytesIO()
    with av.open(file, "w", format="mp4") as output:
        picture = output.add_stream("mpeg4", rate=10)
        picture.width = picture.height = 16
        output.mux(picture.encode(av.VideoFrame(16, 16, "yuv420p")))
        output.mux(picture.encode(None))
    assert refusal(file.getvalue()) == "audio: the file has no audio track"


# --- files that name other files --------------------------------------------------------------


@pytest.fixture
def neighbour(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, speech: Samples) -> Path:
    """A real recording in the working directory."""
    path = tmp_path / "secret.wav"
    path.write_bytes(wav(s16(speech).tobytes()))
    monkeypatch.chdir(tmp_path)
    return path


PLAYLISTS = {
    "concat": "ffconcat version 1.0\nfile {path}\n",
    "hls": "#EXTM3U\n#EXT-X-TARGETDURATION:10\n#EXTINF:10,\nsecret.wav\n#EXT-X-ENDLIST\n",
    "hls, http:": "#EXTM3U\n#EXT-X-TARGETDURATION:10\n#EXTINF:10,\nhttp://127.0.0.1:9/a\n",
    "dash": '<?xml version="1.0"?><MPD xmlns="urn:mpeg:dash:schema:mpd:2011" type="static">'
    '<Period><AdaptationSet mimeType="audio/wav"><Representation id="1"><BaseURL>{path}</BaseURL>'
    "</Representation></AdaptationSet></Period></MPD>",
    "sdp": "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\n"
    "m=audio 5004 RTP/AVP 0\n",
    "smil": '<smil><body><audio src="{path}"/></body></smil>',
}


@pytest.mark.parametrize("text", PLAYLISTS.values(), ids=PLAYLISTS)
def test_playlist_is_refused_and_not_followed(neighbour: Path, text: str) -> None:
    assert refusal(text.format(path=neighbour).encode()).endswith(ACCEPTED)


@pytest.mark.parametrize("kind", ["concat", "sdp"])
def test_demuxers_of_playlists_could_open_nothing(
    neighbour: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    # Without the list of containers, the second lock holds.
    monkeypatch.setitem(OPTIONS, "format_whitelist", f"{kind},wav")
    assert refusal(PLAYLISTS[kind].format(path="secret.wav").encode()).startswith("audio: ")


# --- memory -----------------------------------------------------------------------------------


def resident_kib() -> int:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") // 1024


def test_two_hundred_decodes_do_not_grow_memory(speech: Samples) -> None:
    """Without the garbage collector; one is given up in the middle, one before its start."""
    data = encoded(speech[:RATE], "mp3")
    damaged = data[: len(data) // 2] + bytes(1000)
    long = encoded(np.tile(speech, 4), "flac")
    gc.disable()
    try:
        for round_ in range(250):
            if round_ == 50:
                before = resident_kib()
            read(data)
            read(damaged)
            refusal(data[:100])
            with recording(long) as opened:
                next(iter(opened))
            with recording(data):
                pass
        assert resident_kib() - before < 2048
    finally:
        gc.enable()
