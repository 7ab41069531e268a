"""Which of a file's audio tracks is transcribed."""

import numpy as np
import pytest

from asrd.engine.audio.opening import open_recording
from asrd.engine.audio.reader import AudioReader, Samples
from asrd.errors import BadAudio, BadRequest, WarningCode
from asrd.wire.languages import same_language
from asrd.wire.records import AudioFormat
from tests.support.mediafiles import with_tracks
from tests.support.sounds import memory_file, s16, sample, silence, wav

FILE = AudioFormat("file")


@pytest.fixture(scope="module")
def speech() -> Samples:
    return sample("en-4.wav")


@pytest.fixture(scope="module")
def three(speech: Samples) -> bytes:
    """Of three volumes, by which they are told apart; the second is the default."""
    return with_tracks(
        [
            (speech, {"language": "ger"}),
            (speech * np.float32(0.5), {"language": "eng"}),
            (speech * np.float32(0.25), {"language": "fre", "title": "Commentary"}),
        ],
        default=1,
    )


def read(data: bytes, track: int | str | None = None) -> tuple[Samples, AudioReader]:
    with memory_file(data) as fd, open_recording(fd, FILE, 3600, track=track) as opened:
        return np.concatenate(list(opened)), opened


def test_the_default_track_is_read_and_the_others_are_listed(three: bytes, speech: Samples) -> None:
    heard, opened = read(three)
    assert np.abs(heard - speech / 2).max() < 1e-3
    [warning] = opened.warnings
    assert warning.code == WarningCode.OTHER_TRACKS
    assert warning.text == (
        "audio: this is audio track 1 (eng); the file has others, which audio_track chooses: "
        '0 (ger), 2 (fre, "Commentary")'
    )


def test_without_a_default_it_is_the_first(speech: Samples) -> None:
    heard, _ = read(with_tracks([(speech, {}), (silence(3), {})]))
    assert np.abs(heard - speech).max() < 1e-3


@pytest.mark.parametrize(
    ("track", "share"),
    [
        (0, 1), (1, 2), (2, 4),
        ("de", 1), ("ger", 1), ("deu", 1), ("German", 1), ("DE", 1), ("de-AT", 1),
        ("en", 2), ("english", 2), ("fr", 4), ("fra", 4),
    ],
)  # fmt: skip
def test_a_track_is_chosen(three: bytes, speech: Samples, track: int | str, share: int) -> None:
    heard, opened = read(three, track)
    assert np.abs(heard - speech / share).max() < 1e-3
    assert opened.warnings == []


@pytest.mark.parametrize("track", [3, 1000, "es", "xx", "und"])
def test_a_track_that_is_not_there_names_those_that_are(three: bytes, track: int | str) -> None:
    with pytest.raises(BadRequest, match="audio_track") as caught:
        read(three, track)
    assert '0 (ger), 1 (eng), 2 (fre, "Commentary")' in caught.value.text


def test_a_track_that_no_decoder_knows_is_skipped(speech: Samples) -> None:
    data = with_tracks([(silence(3), {}), (speech, {})], default=0).replace(b"A_FLAC", b"A_FLAX", 1)
    heard, opened = read(data)
    assert np.abs(heard - speech).max() < 1e-3
    [warning] = opened.warnings
    assert warning.code == WarningCode.TRACK_SKIPPED
    assert "can't decode audio track 0" in warning.text
    with pytest.raises(BadAudio, match="track 0 can't be decoded"):
        read(data, 0)


def test_a_track_of_which_nothing_can_be_decoded_is_skipped(speech: Samples) -> None:
    """There is a decoder for what it says it is."""
    data = with_tracks([(speech, {}), (speech, {})], codec="aac").replace(b"A_AAC", b"A_AC3", 1)
    heard, opened = read(data)
    assert heard.std() == pytest.approx(speech.std(), rel=0.1)
    assert [warning.code for warning in opened.warnings] == [WarningCode.TRACK_SKIPPED]
    both = data.replace(b"A_AAC", b"A_AC3")
    for hopeless in (both, both + both):
        with pytest.raises(BadAudio, match="can't be decoded"):
            read(hopeless)


def test_titles_can_not_break_the_sentence(speech: Samples) -> None:
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
    assert read(wav(s16(speech).tobytes()), 0)[1].warnings == []


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("zh", "chi", True), ("zho", "Chinese", True), ("no", "nob", True), ("pt_BR", "por", True),
        ("iw", "heb", True), ("qaa", "qaa", True), ("de", "en", False), ("", "", False),
    ],
)  # fmt: skip
def test_languages_have_several_names(one: str, other: str, same: bool) -> None:
    assert same_language(one, other) is same
