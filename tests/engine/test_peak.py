"""The loudest place of a recording is found, within the promised distance."""

import dataclasses
import io
from typing import Any, NamedTuple

import numpy as np
import pytest
from faster_whisper.audio import decode_audio
from faster_whisper.feature_extractor import FeatureExtractor
from faster_whisper.vad import collect_chunks, get_speech_timestamps, get_vad_model
from hypothesis import given
from hypothesis import strategies as st

from asrd.engine import peak
from asrd.engine.audio.opening import open_recording
from asrd.engine.audio.reader import BLOCK_SECONDS, RATE, Samples
from asrd.engine.hints import Hints
from asrd.engine.mel import FFT, HOP, loudest, mel_power
from asrd.engine.peak import READ_AHEAD_SECONDS, SEARCHED_SECONDS, search
from asrd.engine.prepared import Prepared
from asrd.engine.vad import Vad
from asrd.wire.options import Options
from asrd.wire.records import AudioFormat
from tests.support.engine_jobs import F32, FILE, S16
from tests.support.sounds import blocks, encoded, memory_file, noise, s16, silence, wav

FILTERS = FeatureExtractor().mel_filters
# Seconds read for the first window, the excess of one read, and one block to know if there is one.
FIRST_WINDOW = 31 + 2 * BLOCK_SECONDS + 1


@dataclasses.dataclass
class Steps:
    """The session of the VAD's model. `count` steps of 32 ms were judged."""

    session: Any
    count: int = 0

    def run(self, outputs: None, inputs: dict[str, Any]) -> Any:
        self.count += len(inputs["input"])
        return self.session.run(outputs, inputs)

    @property
    def seconds(self) -> float:
        return self.count * 512 / RATE


@pytest.fixture
def steps() -> Steps:
    return Steps(get_vad_model().session)


@pytest.fixture(scope="module")
def twelve(minute: Samples) -> Samples:
    """Minutes, the loudest of which is the last."""
    return np.concatenate((np.tile(minute * np.float32(0.3), 11), minute))


def loudness(samples: Samples) -> float:
    return float(FeatureExtractor()(samples).max() * 4 - 4)


class Found(NamedTuple):
    """The logarithm of the peak's power, the seconds read, and the number of reports."""

    peak: float
    seconds: float
    reports: int


def prepare(data: bytes, audio: AudioFormat = S16, vad: Vad | None = None) -> Found:
    reports = []
    with memory_file(data) as fd:
        recording = open_recording(fd, audio, 1e9)
        callback = lambda done, total: reports.append(done)  # noqa: E731
        reopen = lambda: recording  # noqa: E731
        with Prepared(
            *(recording, Options(), {}, Hints(), callback, FILTERS), vad=vad, reopen=reopen
        ) as prepared:
            prepared.read_ahead()
            power = prepared.features.peak
    return Found(float(np.log10(power)), recording.seconds, len(reports))


# --- a search without the spectrum ------------------------------------------------------------


@given(
    st.integers(0, 2**32 - 1),
    st.integers(FFT, 20_000),
    st.sampled_from([0.0, 0.03, 0.5]),
    st.floats(50, 7_900),
)
def test_search_finds_the_peak_of_the_spectrum(
    seed: int, length: int, noisy: float, hertz: float
) -> None:
    chance = np.random.default_rng(seed)
    loudness = np.interp(np.arange(length), np.linspace(0, length, 9), chance.uniform(0, 1, 9))
    tone = np.sin(2 * np.pi * hertz / RATE * np.arange(length)) * loudness
    samples = (tone + chance.normal(0, noisy, length)).astype(np.float32)
    powers = mel_power(samples, FILTERS).max(axis=0)
    power, frame = loudest(samples, FILTERS, 0.0)
    assert power == pytest.approx(powers.max(), rel=1e-5)
    assert powers[frame] == pytest.approx(powers.max(), rel=1e-5)
    assert loudest(samples, FILTERS, 2 * power) == (2 * power, -1)


def test_search_transforms_few_frames(minute: Samples, monkeypatch: pytest.MonkeyPatch) -> None:
    transformed = 0
    rfft = np.fft.rfft

    def counting(frames: Any, **options: Any) -> Any:
        nonlocal transformed
        transformed += len(frames)
        return rfft(frames, **options)

    monkeypatch.setattr(np.fft, "rfft", counting)
    parts = [*blocks(minute, RATE * 10)] * 30
    search(parts, len(parts), FILTERS, 0.0)
    assert transformed < sum(map(len, parts)) // HOP / 20


@pytest.mark.parametrize("where", [0, BLOCK_SECONDS, BLOCK_SECONDS - 0.01])
def test_click_is_found_anywhere(where: float) -> None:
    samples = noise(35, 1e-3)
    samples[int(where * RATE)] = 0.5
    assert np.log10(search(blocks(samples, RATE * 10), 4, FILTERS, 0.0)) == pytest.approx(
        loudness(samples), abs=1e-5
    )


# --- how far the search goes -------------------------------------------------------------------


def test_plain_recording_is_searched_and_not_kept(twelve: Samples) -> None:
    data = s16(twelve).tobytes()
    floats = s16(twelve) * np.float32(1 / 32768)
    piped = wav(data, data_size=0xFFFFFFFF)
    for found in prepare(piped, FILE), prepare(floats.tobytes(), F32):
        assert found.peak == pytest.approx(loudness(floats), abs=1e-5)
        assert found.seconds <= FIRST_WINDOW
        # Progress is reported all the way.
        assert found.reports >= len(twelve) / RATE / BLOCK_SECONDS


def test_only_the_samples_of_a_wav_are_searched(minute: Samples) -> None:
    quiet = s16(minute * np.float32(0.1)).tobytes()
    loud = s16(minute).tobytes()
    data = wav(quiet) + b"LIST" + len(loud).to_bytes(4, "little") + loud
    heard = np.frombuffer(quiet, np.int16) * np.float32(1 / 32768)
    assert prepare(data, FILE).peak == pytest.approx(loudness(heard), abs=1e-5)


def test_search_has_an_end(minute: Samples) -> None:
    beyond = s16(np.concatenate((np.tile(minute * np.float32(0.3), 31), minute)))
    assert len(beyond) > SEARCHED_SECONDS * RATE
    found = prepare(beyond.tobytes())
    assert found.peak == pytest.approx(loudness(minute * np.float32(0.3)), abs=0.1)
    assert found.reports <= (SEARCHED_SECONDS + FIRST_WINDOW) / BLOCK_SECONDS + 2


@pytest.mark.parametrize(
    ("container", "codec", "rate", "most"),
    [("flac", "flac", RATE, 300), ("ogg", "libopus", 48_000, 150)],
)
def test_number_of_packets_limits_the_search(
    minute: Samples, container: str, codec: str, rate: int, most: int
) -> None:
    found = prepare(encoded(np.tile(minute, 7), container, codec, rate), FILE)
    assert most - 2 * BLOCK_SECONDS <= found.seconds <= most + 3 * BLOCK_SECONDS


def test_short_recording_is_read_once(minute: Samples, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(peak, "loudest", None)
    assert prepare(s16(minute[: 30 * RATE]).tobytes()).seconds == 30


# --- speech -----------------------------------------------------------------------------------


@pytest.mark.parametrize("seconds", [80, 89.9, 90])
def test_loudest_speech_that_is_read_ahead_is_that_of_faster_whisper(
    minute: Samples, steps: Steps, monkeypatch: pytest.MonkeyPatch, seconds: float
) -> None:
    """Exactly: a hundredth of a decibel may decide a word."""
    # Instead of five minutes.
    monkeypatch.setattr(peak, "_READ_AHEAD_BLOCKS", 90 // BLOCK_SECONDS + 1)
    end = np.concatenate((silence(0.0123), minute, noise(0.5, 1e-4)))
    audio = np.concatenate((minute * np.float32(0.3), end))[-round(seconds * RATE) :]
    flac = encoded(audio, "flac", "flac", RATE)
    audio = decode_audio(io.BytesIO(flac))
    speech = np.concatenate(collect_chunks(audio, get_speech_timestamps(audio))[0])
    for data, form in (audio.tobytes(), F32), (flac, FILE):
        assert prepare(data, form, Vad(steps)).peak == pytest.approx(loudness(speech), abs=2e-6)


def test_loudest_speech_is_found_and_little_is_judged(
    twelve: Samples, minute: Samples, steps: Steps
) -> None:
    found = prepare(s16(twelve).tobytes(), vad=Vad(steps))
    # Nearly: the frames are shifted.
    assert found.peak == pytest.approx(loudness(minute), abs=0.02)
    assert found.seconds <= READ_AHEAD_SECONDS + 3 * BLOCK_SECONDS
    # Four places of seven seconds.
    assert steps.seconds <= READ_AHEAD_SECONDS + 3 * BLOCK_SECONDS + 4 * 7 + 1


def test_bang_is_no_speech(minute: Samples, steps: Steps) -> None:
    quiet = minute * np.float32(0.3)
    parts: list[Samples] = [quiet, quiet, silence(20)]
    bang = np.concatenate((silence(10), np.exp(-np.arange(RATE) / 400) * noise(1, 0.9)))
    parts += [bang.astype(np.float32), silence(20), quiet]
    found = prepare(s16(np.clip(np.concatenate(parts), -1, 1)).tobytes(), vad=Vad(steps))
    assert found.peak == pytest.approx(loudness(quiet), abs=0.02)
