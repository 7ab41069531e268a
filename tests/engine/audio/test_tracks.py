"""The choice of an audio track."""

import numpy as np
import pytest

from asrd.engine.audio.opening import open_recording
from asrd.engine.audio.reader import Samples
from asrd.errors import BadAudio, BadRequest, WarningCode
from asrd.wire.languages import same_language
from asrd.wire.records import AudioFormat
from tests.support.mediafiles import with_tracks
from tests.support.sounds import memory_file, read, s16, silence, wav


@pytest.fixture(scope="module")
def three(speech: Samples) -> bytes:
    """Tracks of three volumes; the second is the default."""
    return with_tracks(
        [
            (speech, {"language": "ger"}),
            (speech * np.float32(0.5), {"language": "eng"}),
            (speech * np.float32(0.25), {"language": "fre", "title": "Commentary"}),
        ],
        default=1,
    )


def test_default_track_is_read_and_others_are_listed(three: bytes, speech: Samples) -> None:
    heard, opened = read(three)
    assert np.abs(heard - speech / 2).max() < 1e-3
    [warning] = opened.warnings
    assert warning.code == WarningCode.OTHER_TRACKS
    assert warning.text == (
        "audio: this is audio track 1 (eng); the file has others, which audio_track chooses: "
        '0 (ger), 2 (fre, "Commentary")'
    )


def test_first_track_is_read_without_a_default(speech: Samples) -> None:
    heard, _ = read(with_tracks([(speech, {}), (silence(3), {})]))
    assert np.abs(heard - speech).max() < 1e-3


@pytest.mark.parametrize(
    ("track", "share"),
    [
        (0, 1), (2, 4), ("de", 1), ("ger", 1), ("German", 1), ("de-AT", 1), ("english", 2),
    ],
)  # fmt: skip
def test_track_is_chosen_by_number_or_language(
    three: bytes, speech: Samples, track: int | str, share: int
) -> None:
    heard, opened = read(three, track=track)
    assert np.abs(heard - speech / share).max() < 1e-3
    assert opened.warnings == []


@pytest.mark.parametrize("track", [3, "es", "und"])
def test_refusal_of_a_missing_track_lists_the_tracks(three: bytes, track: int | str) -> None:
    with pytest.raises(BadRequest, match="audio_track") as caught:
        read(three, track=track)
    assert '0 (ger), 1 (eng), 2 (fre, "Commentary")' in caught.value.text


def test_track_without_a_decoder_is_skipped(speech: Samples) -> None:
    data = with_tracks([(silence(3), {}), (speech, {})], default=0).replace(b"A_FLAC", b"A_FLAX", 1)
    heard, opened = read(data)
    assert np.abs(heard - speech).max() < 1e-3
    [warning] = opened.warnings
    assert warning.code == WarningCode.TRACK_SKIPPED
    assert "can't decode audio track 0" in warning.text
    with pytest.raises(BadAudio, match="track 0 can't be decoded"):
        read(data, track=0)


def test_track_of_undecodable_packets_is_skipped(speech: Samples) -> None:
    """The decoder of the codec that it claims opens."""
    data = with_tracks([(speech, {}), (speech, {})], codec="aac").replace(b"A_AAC", b"A_AC3", 1)
    heard, opened = read(data)
    assert heard.std() == pytest.approx(speech.std(), rel=0.1)
    assert [warning.code for warning in opened.warnings] == [WarningCode.TRACK_SKIPPED]
    both = data.replace(b"A_AAC", b"A_AC3")
    for hopeless in (both, both + both):
        with pytest.raises(BadAudio, match="can't be decoded"):
            read(hopeless)


def test_titles_are_made_safe_and_short(speech: Samples) -> None:
    title = "a\nb\x1b[1m" + 5000 * "x"
    tracks = [(silence(1), {"title": title, "language": "eng"}) for _ in range(30)]
    _, opened = read(with_tracks([(speech, {}), *tracks]))
    [warning] = opened.warnings
    assert warning.text.isprintable() and len(warning.text) < 1000
    assert warning.text.endswith("and 22 more")


def test_pcm_has_one_track(speech: Samples) -> None:
    with memory_file(s16(speech).tobytes()) as fd:
        for track in (1, "en"):
            with pytest.raises(BadRequest, match="audio_track"):
                open_recording(fd, AudioFormat("pcm_s16le"), 3600, track=track)
        open_recording(fd, AudioFormat("pcm_s16le"), 3600, track=0).close()
    assert read(wav(s16(speech).tobytes()), track=0)[1].warnings == []


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("zh", "chi", True), ("zho", "Chinese", True), ("no", "nob", True), ("pt_BR", "por", True),
        ("iw", "heb", True), ("qaa", "qaa", True), ("de", "en", False), ("", "", False),
    ],
)  # fmt: skip
def test_names_of_one_language_are_equal(one: str, other: str, same: bool) -> None:
    assert same_language(one, other) is same
