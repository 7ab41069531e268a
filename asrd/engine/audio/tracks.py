"""The choice of one audio track of a file."""

from collections.abc import Collection, Sequence
from typing import Any

import av

from asrd.engine.audio.containers import reason
from asrd.errors import BadAudio, BadRequest, WarningCode
from asrd.wire.languages import same_language
from asrd.wire.records import JobWarning

# The longest frame: a minute and a half at 44.1 kHz. No codec's has more than a few seconds.
MAX_SAMPLES = 1 << 22
_LISTED = 8
_TITLE = 60


def choose(
    streams: Sequence[Any], wanted: int | str | None, silent: Collection[int] = ()
) -> tuple[int, list[JobWarning]]:
    """Returns the number of the track to read, whose decoder is then open, and notices about the
    choice. `wanted`: a number from 0, or a language. `silent`: tracks of which nothing could be
    decoded.

    Raises BadRequest if the wanted track is not there; BadAudio if none can be decoded.
    """
    if not streams:
        raise BadAudio("audio: the file has no audio track")
    skipped: list[int] = []
    problem = ""
    for number in _in_order(streams, wanted):
        problem = "not one packet" if number in silent else _open_decoder(streams[number])
        if not problem:
            return number, _warnings(streams, number, skipped, wanted is not None)
        skipped.append(number)
    tracks = "track" if len(skipped) == 1 else "tracks"
    raise BadAudio(f"audio: {tracks} {_listed(streams, skipped)} can't be decoded: {problem}")


def _in_order(streams: Sequence[Any], wanted: int | str | None) -> list[int]:
    """Returns the numbers of the tracks to try, the best first."""
    numbers = range(len(streams))
    # PyAV has the disposition since version 12.1; bit 0 is `default`.
    found = sorted(numbers, key=lambda n: not int(getattr(streams[n], "disposition", 0)) & 1)
    if isinstance(wanted, str):
        found = [number for number in found if same_language(wanted, _language(streams[number]))]
    elif wanted is not None:
        found = [number for number in found if number == wanted]
    if not found:
        listed = _listed(streams, numbers)
        raise BadRequest(f"audio_track: the file has no audio track {wanted!r}; it has {listed}")
    return found


def _open_decoder(stream: Any) -> str:
    """Returns the reason if the decoder can't be opened, or ""."""
    context = stream.codec_context
    if context is None:
        return "there is no decoder for this codec"
    context.options = {"max_samples": str(MAX_SAMPLES)}
    try:
        context.open(strict=False)
    except (av.FFmpegError, ValueError) as error:
        return reason(error)
    return ""


def _warnings(
    streams: Sequence[Any], chosen: int, skipped: list[int], was_wanted: bool
) -> list[JobWarning]:
    this = f"this is audio track {_listed(streams, [chosen])}"
    found = []
    if skipped:
        text = f"audio: can't decode audio track {_listed(streams, skipped)}; {this}"
        found.append(JobWarning(WarningCode.TRACK_SKIPPED, text))
    others = [number for number in range(len(streams)) if number not in (chosen, *skipped)]
    if others and not was_wanted:
        listed = _listed(streams, others)
        text = f"audio: {this}; the file has others, which audio_track chooses: {listed}"
        found.append(JobWarning(WarningCode.OTHER_TRACKS, text))
    return found


def _listed(streams: Sequence[Any], numbers: Sequence[int]) -> str:
    named = [_named(streams[number], number) for number in numbers[:_LISTED]]
    more = len(numbers) - len(named)
    return ", ".join(named) + (f" and {more} more" if more > 0 else "")


def _named(stream: Any, number: int) -> str:
    title = str(stream.metadata.get("title") or "")[:_TITLE]
    title = "".join(c if c.isprintable() else " " for c in title)
    facts = [fact for fact in (_language(stream), title and f'"{title}"') if fact]
    return f"{number} ({', '.join(facts)})" if facts else str(number)


def _language(stream: Any) -> str:
    language = str(stream.metadata.get("language") or "")[:16]
    return language if language.isprintable() and language != "und" else ""
