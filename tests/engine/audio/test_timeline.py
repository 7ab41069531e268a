"""The container's clock: late starts, gaps, jumps and jitter."""

import io
import itertools
from fractions import Fraction
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from faster_whisper.audio import decode_audio

from asrd.engine.audio.reader import RATE, Samples
from asrd.engine.audio.timeline import JITTER_SECONDS, LONGEST_GAP_SECONDS, Timeline
from asrd.errors import TooLarge, WarningCode
from tests.support.mediafiles import Move, remuxed
from tests.support.sounds import encoded, read, recording

# The clocks of the first three begin at 0, even if the audio begins later.
FROM_ZERO = ["matroska", "mp4", "webm"]
TIMED = [*FROM_ZERO, "mpegts", "flv", "ogg", "nut"]


def moved(samples: Samples, move: Move, container: str = "matroska") -> bytes:
    return remuxed(io.BytesIO(encoded(samples, container)), container, move)


@pytest.mark.parametrize("container", TIMED)
def test_gaps_and_missing_packets_become_silence(longer: Samples, container: str) -> None:
    plain, _ = read(encoded(longer, container))
    samples, _ = read(moved(longer, lambda at: at if at < 3 else at + 2.5, container))
    assert len(samples) == pytest.approx(len(plain) + 2.5 * RATE, abs=0.1 * RATE)
    assert not samples[round(3.2 * RATE) : round(5.2 * RATE)].any()
    assert samples[round(5.7 * RATE) :].std() == pytest.approx(plain[3 * RATE :].std(), rel=0.1)
    samples, _ = read(moved(longer, lambda at: None if 3 < at < 5 else at, container))
    assert len(samples) == pytest.approx(len(plain), abs=0.1 * RATE)
    assert samples[-2 * RATE :].std() == pytest.approx(plain[-2 * RATE :].std(), rel=0.1)


@pytest.mark.parametrize("container", TIMED)
def test_late_start_is_silence_if_the_clock_begins_at_zero(longer: Samples, container: str) -> None:
    plain, _ = read(encoded(longer, container))
    samples, opened = read(moved(longer, lambda at: at + 4, container))
    late = 4 * RATE if container in FROM_ZERO else 0
    assert len(samples) == pytest.approx(len(plain) + late, abs=0.1 * RATE)
    assert not samples[: max(0, late - RATE // 4)].any()
    assert opened.warnings == []


@pytest.mark.parametrize("shift", [JITTER_SECONDS / 4, -JITTER_SECONDS / 4])
def test_jitter_neither_inserts_nor_drops(longer: Samples, shift: float) -> None:
    data = moved(longer, lambda at: at + 1 + (shift if int(9 * at) % 2 else 0))
    samples, _ = read(data)
    expected = decode_audio(io.BytesIO(data))
    assert np.array_equal(samples[len(samples) - len(expected) :], expected)
    assert len(samples) == pytest.approx(len(expected) + RATE, abs=0.15 * RATE)


def test_drift_is_compensated(longer: Samples) -> None:
    """A little is lost with each packet, so that no single gap is long enough."""
    samples, _ = read(moved(longer, lambda at: 1.05 * at))
    assert len(samples) == pytest.approx(1.05 * len(longer), abs=(JITTER_SECONDS + 0.1) * RATE)


@pytest.mark.parametrize("back", [0.5, 4.9])
def test_clock_that_jumps_back_loses_nothing(longer: Samples, back: float) -> None:
    plain, _ = read(moved(longer, lambda at: at))
    one = moved(longer, lambda at: at if at < 5 else None)
    other = moved(longer, lambda at: None if at < 5 else at - back)
    samples, opened = read(one + other)
    assert len(samples) >= len(plain) - 0.2 * RATE
    assert opened.warnings == []


def test_clock_that_was_set_makes_no_gap(longer: Samples) -> None:
    jump = LONGEST_GAP_SECONDS * 10
    data = moved(longer, lambda at: at if at < 3 else at + jump, "mp4")
    plain, _ = read(encoded(longer, "mp4"))
    samples, opened = read(data, limit=60)
    assert len(samples) == pytest.approx(len(plain), abs=0.1 * RATE)
    [warning] = opened.warnings
    assert warning.code == WarningCode.AUDIO_DAMAGED
    assert "jumps ahead by 36000 s" in warning.text


@pytest.mark.parametrize("wrong", [30.0, 95_443.0])
@pytest.mark.parametrize("place", [0, 5])
def test_single_damaged_timestamp_changes_nothing(wrong: float, place: int) -> None:
    """MPEG-TS has such at its start, where the clock of 26.5 h has just begun anew."""
    ticks = [1000 * number for number in range(10)]
    ticks[place] += round(1000 * wrong)
    frames = [SimpleNamespace(samples=RATE, sample_rate=RATE, pts=pts) for pts in ticks]
    container = SimpleNamespace(start_time=0, streams=[])
    no_file: Any = None
    timeline = Timeline(container, SimpleNamespace(time_base=Fraction(1, 1000)), "mpegts", no_file)
    gaps = [timeline.gap_before(*pair) for pair in itertools.zip_longest(frames, frames[1:])]
    assert not any(gaps)
    assert (timeline.end, timeline.left_out) == (10.0, 0.0)


def test_gaps_count_for_the_limit(longer: Samples) -> None:
    data = moved(longer, lambda at: at if at < 3 else at + 3000)
    with recording(data, limit=1000) as opened:
        with pytest.raises(TooLarge):
            list(opened)
        assert opened.seconds < 10
    samples, _ = read(data)
    assert len(samples) == pytest.approx(len(longer) + 3000 * RATE, abs=0.4 * RATE)


@pytest.mark.parametrize("container", ["matroska", "ogg"])
def test_only_read_seconds_count_for_the_limit(longer: Samples, container: str) -> None:
    """A claim is a guess."""
    with recording(encoded(longer, container), limit=3) as opened:
        assert opened.total_seconds is None
        with pytest.raises(TooLarge):
            list(opened)
        assert opened.seconds <= 10


# --- gaps in a transcript -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("cue", "expected"),
    [
        ((0.0, 7.0), (5.0, 7.0)),
        ((0.0, 5.0), (0.0, 5.0)),
        ((4.0, 10.5), (5.0, 10.0)),
        ((6.0, 12.0), (6.0, 10.0)),
        ((11.0, 14.0), (12.0, 14.0)),
        ((6.0, 14.0), (6.0, 14.0)),
        ((10.5, 11.5), (10.5, 11.5)),
    ],
)
def test_cue_begins_and_ends_outside_gaps(
    speech: Samples, cue: tuple[float, float], expected: tuple[float, float]
) -> None:
    with recording(encoded(speech, "flac")) as opened:
        assert opened.outside_gaps(*cue) == cue
        opened.gaps += [(0.0, 5.0), (10.0, 12.0)]
        assert opened.outside_gaps(*cue) == expected


def test_gaps_are_listed(longer: Samples) -> None:
    _, opened = read(moved(longer, lambda at: at + 4 if at < 3 else at + 6.5))
    assert np.array(opened.gaps) == pytest.approx(np.array([(0, 4), (7, 9.5)]), abs=0.15)
