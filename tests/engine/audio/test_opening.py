"""Descriptors to samples: every container, every way to be wrong, and hostile files."""

import contextlib
import gc
import io
import math
import os
import re
import socket
import struct
from collections.abc import Callable, Iterator
from pathlib import Path

import av
import numpy as np
import pytest
from faster_whisper.audio import decode_audio

from asrd.engine.audio.containers import ACCEPTED, OPTIONS
from asrd.engine.audio.opening import open_recording
from asrd.engine.audio.reader import BLOCK_SECONDS, RATE, AudioReader, Samples
from asrd.errors import BadAudio, TooLarge
from asrd.wire.records import AudioFormat
from tests.support.sounds import encoded, memory_file, s16, sample, wav

FILE = AudioFormat("file")
S16 = AudioFormat("pcm_s16le")
F32 = AudioFormat("pcm_f32le")
LIMIT = 3600.0


@contextlib.contextmanager
def recording(data: bytes, audio: AudioFormat, limit: float = LIMIT) -> Iterator[AudioReader]:
    with memory_file(data) as fd, open_recording(fd, audio, limit) as opened:
        yield opened


def read(data: bytes, audio: AudioFormat = FILE, limit: float = LIMIT) -> Samples:
    with recording(data, audio, limit) as opened:
        return np.concatenate(list(opened))


def refused(data: bytes, audio: AudioFormat = FILE) -> str:
    with pytest.raises(BadAudio) as caught:
        read(data, audio)
    return caught.value.text


@pytest.fixture(scope="module")
def speech() -> Samples:
    return sample("en-4.wav")


# --- PCM --------------------------------------------------------------------------------------


def test_pcm_at_16_khz_is_taken_as_it_is(speech: Samples) -> None:
    data = s16(speech)
    assert np.array_equal(read(data.tobytes(), S16), data.astype(np.float32) / 32768)
    assert np.array_equal(read(speech.tobytes(), F32), speech)


@pytest.mark.parametrize("seconds", [29.5, 30, 30.5, 60, 91])
def test_blocks_are_of_one_length_however_it_comes(speech: Samples, seconds: float) -> None:
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


def test_channels_are_averaged() -> None:
    frames = np.array([[0.5, -0.5, 0.3], [0.2, 0.4, 0.6]], "<f4")
    mono = read(frames.tobytes(), AudioFormat("pcm_f32le", RATE, 3))
    assert mono == pytest.approx([0.1, 0.4], abs=1e-6)


@pytest.mark.parametrize("rate", [8_000, 11_025, 44_100, 48_000, 384_000])
@pytest.mark.parametrize("channels", [1, 2])
def test_any_rate_becomes_16_khz(rate: int, channels: int) -> None:
    tone = np.sin(2 * np.pi * 440 * np.arange(2 * rate) / rate) / 2
    frames = np.repeat(s16(tone.astype(np.float32)), channels)
    heard = read(frames.tobytes(), AudioFormat("pcm_s16le", rate, channels))
    wanted = np.sin(2 * np.pi * 440 * np.arange(2 * RATE) / RATE) / 2
    assert len(heard) == 2 * RATE
    # The filter's own beginning and end aside.
    assert np.abs(heard - wanted)[100:-100].max() < 2e-3


def test_floats_beyond_full_scale_are_taken() -> None:
    assert read(np.array([2, -65_536], "<f4").tobytes(), F32).tolist() == [2, -65_536]


def test_pcm_that_ends_in_the_middle_of_a_frame_is_refused() -> None:
    text = refused(b"abc", AudioFormat("pcm_s16le", RATE, 2))
    assert text == "audio: is 3 bytes, not a multiple of 4 (pcm_s16le, 2 channels)"


# --- descriptors ------------------------------------------------------------------------------


def test_the_clients_offset_is_neither_used_nor_moved(speech: Samples) -> None:
    for data, audio in ((s16(speech).tobytes(), S16), (wav(s16(speech).tobytes()), FILE)):
        with memory_file(data) as fd:
            os.lseek(fd, 1001, os.SEEK_SET)
            with open_recording(fd, audio, LIMIT) as opened:
                assert sum(map(len, opened)) == len(speech)
            assert os.lseek(fd, 0, os.SEEK_CUR) == 1001


def a_pipe() -> list[int]:
    return list(os.pipe())


def a_socket() -> list[int]:
    return [end.detach() for end in socket.socketpair()]


def reopened(flags: int) -> list[int]:
    with memory_file(b"RIFF") as fd:
        return [os.open(f"/proc/self/fd/{fd}", flags)]


@pytest.mark.parametrize("audio", [S16, FILE])
@pytest.mark.parametrize(
    ("make", "says"),
    [
        (a_pipe, "is a pipe"),
        (a_socket, "is a socket"),
        (lambda: [os.open("/", os.O_RDONLY)], "is a directory"),
        (lambda: [os.open("/dev/zero", os.O_RDONLY)], "is a character device"),
        (lambda: reopened(os.O_WRONLY), "for writing only"),
        (lambda: reopened(os.O_PATH), "can't be read"),
    ],
)
def test_what_is_no_readable_file_is_refused(
    make: Callable[[], list[int]], says: str, audio: AudioFormat
) -> None:
    fds = make()
    try:
        with pytest.raises(BadAudio, match=says), open_recording(fds[0], audio, LIMIT) as opened:
            list(opened)
    finally:
        for fd in fds:
            os.close(fd)


def test_a_closed_descriptor_is_refused() -> None:
    with memory_file(b"x") as fd:
        pass
    with pytest.raises(BadAudio, match="Bad file descriptor"):
        open_recording(fd, S16, LIMIT)


@pytest.mark.parametrize("audio", [S16, F32, FILE])
def test_an_empty_file_is_refused(audio: AudioFormat) -> None:
    assert refused(b"", audio) == "audio: is empty"


def test_a_file_that_is_truncated_meanwhile_is_refused(speech: Samples) -> None:
    long = np.tile(speech, 30)
    for data, audio in ((s16(long).tobytes(), S16), (encoded(long, "flac", "flac"), FILE)):
        with memory_file(data) as fd, open_recording(fd, audio, LIMIT) as opened:
            blocks = iter(opened)
            next(blocks)
            os.truncate(fd, 1000)
            with pytest.raises(BadAudio, match="was truncated"):
                list(blocks)


def test_a_file_that_grows_meanwhile_ends_where_it_ended(speech: Samples) -> None:
    data = s16(speech).tobytes()
    with memory_file(data) as fd, open_recording(fd, S16, LIMIT) as opened:
        os.pwrite(fd, data, len(data))
        assert sum(map(len, opened)) == len(speech)


# --- how long it may be -----------------------------------------------------------------------


def test_pcm_that_is_too_long_is_refused_before_it_is_read() -> None:
    data = bytes(2 * RATE * 5)
    with memory_file(data) as fd, pytest.raises(TooLarge, match=r"more than the 4\.9 seconds"):
        open_recording(fd, S16, 4.9)
    assert len(read(data, S16, 5)) == 5 * RATE


def test_files_are_refused_when_they_go_on_too_long(speech: Samples) -> None:
    with recording(encoded(np.tile(speech, 10), "adts", "aac"), FILE, 12) as opened:
        with pytest.raises(TooLarge):
            list(opened)
        assert opened.seconds < 30


@pytest.mark.parametrize("data_size", [0xFFFFFFFF, 0, 0x7FFFFF00])
def test_a_wav_from_a_pipe_does_not_know_its_length(speech: Samples, data_size: int) -> None:
    data = s16(speech)
    assert np.array_equal(
        read(wav(data.tobytes(), data_size=data_size), limit=10), data.astype(np.float32) / 32768
    )


def test_a_length_that_no_recording_may_have_is_not_believed(speech: Samples) -> None:
    """It would be told as progress, and what says such things is a broken worker to the front."""
    data = bytearray(encoded(speech, "flv", "pcm_s16le", 22_050))
    # The number, an AMF double, stands behind its name and its type.
    struct.pack_into(">d", data, data.index(b"duration") + 9, 1e8)
    with recording(bytes(data), FILE) as opened:
        assert opened.total_seconds is None
        count = sum(map(len, opened))
        assert opened.total_seconds == count / RATE == pytest.approx(len(speech) / RATE, abs=0.01)


def test_the_length_is_told_early_and_exactly_in_the_end(speech: Samples) -> None:
    with recording(encoded(speech, "mp3", "libmp3lame", 44_100), FILE) as opened:
        assert opened.total_seconds == pytest.approx(len(speech) / RATE, rel=0.05)
        count = sum(map(len, opened))
        assert opened.total_seconds == opened.seconds == count / RATE


# --- containers and codecs --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("container", "codec", "rate"),
    [
        ("wav", "pcm_s16le", 16_000),
        ("wav", "pcm_s16le", 44_100),
        ("wav", "pcm_s24le", 48_000),
        ("wav", "pcm_f32le", 22_050),
        ("wav", "pcm_f64le", 16_000),
        ("wav", "pcm_mulaw", 8_000),
        ("wav", "adpcm_ima_wav", 16_000),
        ("flac", "flac", 44_100),
        ("ogg", "libopus", 48_000),
        ("webm", "libopus", 48_000),
        ("matroska", "aac", 44_100),
        ("mp3", "libmp3lame", 44_100),
        ("mp4", "aac", 44_100),
        ("3gp", "aac", 44_100),
        ("mov", "alac", 44_100),
        ("adts", "aac", 44_100),
        ("mpegts", "mp2", 48_000),
        ("mpegts", "libmp3lame", 48_000),
        ("mpeg", "ac3", 48_000),
        ("avi", "libmp3lame", 44_100),
        ("flv", "aac", 44_100),
        ("amr", "amr_nb", 8_000),
        ("aiff", "pcm_s16be", 44_100),
        ("caf", "pcm_s16le", 16_000),
        ("au", "pcm_s16be", 8_000),
        ("ac3", "ac3", 48_000),
        ("tta", "tta", 44_100),
        ("wv", "wavpack", 44_100),
        ("w64", "pcm_s16le", 16_000),
    ],
)
def test_a_media_file_gives_the_very_samples_that_faster_whisper_gets(
    speech: Samples, container: str, codec: str, rate: int
) -> None:
    data = encoded(speech, container, codec, rate)
    samples = read(data)
    assert np.array_equal(samples, decode_audio(io.BytesIO(data)))
    assert len(samples) == pytest.approx(len(speech), rel=0.05)


def test_the_sound_of_a_video_is_taken(speech: Samples) -> None:
    data = encoded(speech, "mp4", "aac", 44_100, video=True)
    assert np.array_equal(read(data), decode_audio(io.BytesIO(data)))


@pytest.mark.parametrize("channels", [2, 3, 6, 8, 16])
def test_channels_of_a_file_are_mixed(channels: int) -> None:
    tone = s16((np.sin(np.arange(RATE) / 10) / 4).astype(np.float32))
    heard = read(wav(np.repeat(tone, channels).tobytes(), channels=channels))
    assert np.abs(heard - tone / 32768).max() < 1e-3


@pytest.mark.parametrize("rate", [1, 999, 1_000_001, 2**31 - 1])
def test_an_absurd_rate_is_refused(rate: int) -> None:
    data = bytearray(wav(bytes(2000)))
    data[24:32] = struct.pack("<II", rate, min(2 * rate, 2**32 - 1))
    assert refused(bytes(data)) == f"audio: a sample rate of {rate} Hz"


# --- damage -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("container", "codec", "rate"),
    [("flac", "flac", 16_000), ("mp3", "libmp3lame", 44_100), ("ogg", "libopus", 48_000)],
)
def test_what_is_damaged_in_the_middle_is_skipped(
    speech: Samples, container: str, codec: str, rate: int
) -> None:
    whole = encoded(np.tile(speech, 5), container, codec, rate)
    middle = len(whole) // 2
    damaged = whole[:middle] + np.random.default_rng(1).bytes(500) + whole[middle + 500 :]
    heard, intact = read(damaged), read(whole)
    assert len(intact) * 0.8 < len(heard) <= len(intact) * 1.01
    assert np.array_equal(heard[: RATE * 5], intact[: RATE * 5])
    # The end is there, too: unlike in faster-whisper, whose decoding ends at the first damage.
    assert heard[-RATE:].std() == pytest.approx(intact[-RATE:].std(), rel=0.05)


@pytest.mark.parametrize(
    "data",
    [
        b"x",
        b"hello world\n" * 1000,
        bytes(100_000),
        np.random.default_rng(0).bytes(100_000),
        b"\x89PNG\r\n\x1a\n" + bytes(1000),
        wav(b""),
    ],
    ids=["one byte", "text", "zeros", "noise", "picture", "wav without samples"],
)
def test_what_holds_no_sound_is_refused(data: bytes) -> None:
    assert refused(data).startswith("audio: ")


def test_a_file_of_nothing_but_damaged_frames_is_refused(speech: Samples) -> None:
    data = encoded(speech, "mp4", "aac", 44_100)
    start, end = (match.start() for match in re.finditer(b"mdat|moov", data))
    assert "can't be decoded" in refused(
        data[: start + 4] + bytes(end - start - 8) + data[end - 4 :]
    )


def test_a_video_without_sound_is_refused() -> None:
    file = io.BytesIO()
    with av.open(file, "w", format="mp4") as output:
        picture = output.add_stream("mpeg4", rate=10)
        picture.width = picture.height = 16
        output.mux(picture.encode(av.VideoFrame(16, 16, "yuv420p")))
        output.mux(picture.encode(None))
    assert refused(file.getvalue()) == "audio: the file has no audio track"


# --- files that name other files --------------------------------------------------------------


@pytest.fixture
def neighbour(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, speech: Samples) -> Path:
    """A real recording beside the working directory's playlists."""
    path = tmp_path / "secret.wav"
    path.write_bytes(wav(s16(speech).tobytes()))
    monkeypatch.chdir(tmp_path)
    return path


def test_ffmpeg_itself_would_follow_a_playlist(neighbour: Path, speech: Samples) -> None:
    # The danger that the next tests are about is real.
    playlist = io.BytesIO(b"ffconcat version 1.0\nfile secret.wav\n")
    with av.open(playlist, "r") as container:
        assert sum(frame.samples for frame in container.decode(audio=0)) == len(speech)


PLAYLISTS = {
    "concat": "ffconcat version 1.0\nfile secret.wav\n",
    "concat, absolute": "ffconcat version 1.0\nfile {path}\n",
    "concat, /etc/hostname": "ffconcat version 1.0\nfile /etc/hostname\n",
    "hls": "#EXTM3U\n#EXT-X-TARGETDURATION:10\n#EXTINF:10,\nsecret.wav\n#EXT-X-ENDLIST\n",
    "hls, file:": "#EXTM3U\n#EXT-X-TARGETDURATION:10\n#EXTINF:10,\nfile:{path}\n#EXT-X-ENDLIST\n",
    "hls, http:": "#EXTM3U\n#EXT-X-TARGETDURATION:10\n#EXTINF:10,\nhttp://127.0.0.1:9/a\n",
    "dash": '<?xml version="1.0"?><MPD xmlns="urn:mpeg:dash:schema:mpd:2011" type="static">'
    '<Period><AdaptationSet mimeType="audio/wav"><Representation id="1"><BaseURL>{path}</BaseURL>'
    "</Representation></AdaptationSet></Period></MPD>",
    "sdp": "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\n"
    "m=audio 5004 RTP/AVP 0\n",
    "smil": '<smil><body><audio src="{path}"/></body></smil>',
}


@pytest.mark.parametrize("text", PLAYLISTS.values(), ids=PLAYLISTS)
def test_a_playlist_is_refused_and_not_followed(neighbour: Path, text: str) -> None:
    assert refused(text.format(path=neighbour).encode()) in (
        f"audio: this kind of file is not accepted; {ACCEPTED}",
        "audio: is not a media file that can be read: Invalid data found when processing input; "
        + ACCEPTED,
    )


@pytest.mark.parametrize("kind", ["concat", "sdp"])
def test_even_their_demuxers_could_open_nothing(
    neighbour: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    # With the list of containers out of the way, the second lock holds.
    monkeypatch.setitem(OPTIONS, "format_whitelist", f"{kind},wav")
    assert refused(PLAYLISTS[kind].encode()).startswith("audio: ")


# --- nothing stays ----------------------------------------------------------------------------


def resident_kib() -> int:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") // 1024


def test_two_hundred_decodes_do_not_grow_memory(speech: Samples) -> None:
    # Without the garbage collector: what is left must go by itself.
    data = encoded(speech, "mp3", "libmp3lame", 44_100)
    damaged = data[: len(data) // 2] + bytes(1000)
    gc.disable()
    try:
        for round_ in range(250):
            if round_ == 50:
                before = resident_kib()
            read(data)
            read(damaged)
            refused(data[:100])
        assert resident_kib() - before < 2048
    finally:
        gc.enable()


def test_a_recording_that_is_given_up_in_the_middle_leaves_nothing(speech: Samples) -> None:
    data = encoded(np.tile(speech, 10), "flac", "flac")
    with recording(data, FILE) as opened:
        next(iter(opened))
    with recording(data, FILE):
        pass
