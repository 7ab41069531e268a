"""A transcript in the formats of the OpenAI API. Pure.

Fields and events are those of the official client's types (openai/types/audio). asrd adds
`warnings` (docs/protocol.md, JobWarning) to a transcript that has some.
"""

from collections.abc import Iterator
from typing import Any

from asrd.formats import FORMATS
from asrd.http.form import Wanted
from asrd.wire.client_events import Progress, Transcript
from asrd.wire.fields import dump
from asrd.wire.languages import NAMES
from asrd.wire.records import Segment

# Positions of Whisper's encoder in a second of audio: the tokens that the model reads.
_AUDIO_TOKENS = 50
_SEGMENT = (
    *("id", "seek", "start", "end", "text", "tokens", "temperature"),
    *("avg_logprob", "compression_ratio", "no_speech_prob"),
)


def body(transcript: Transcript, wanted: Wanted) -> tuple[Any, str]:
    """Returns the answer and its media type: an object for JSON, else a text."""
    match wanted.format:
        case "verbose_json":
            return _verbose(transcript, wanted), "application/json"
        case "diarized_json":
            return _diarized(transcript, wanted), "application/json"
        case "text":
            return transcript.text + "\n", "text/plain"
        case "srt":
            return FORMATS["srt"]("").whole(transcript), "application/x-subrip"
        case "vtt":
            return FORMATS["vtt"]("").whole(transcript), "text/vtt"
        case _:
            return _plain(transcript), "application/json"


def _plain(transcript: Transcript) -> dict[str, Any]:
    return {
        "text": transcript.text,
        "languages": _languages(transcript),
        "usage": {"type": "duration", "seconds": _seconds(transcript)},
        **_warnings(transcript),
    }


def _verbose(transcript: Transcript, wanted: Wanted) -> dict[str, Any]:
    translated = wanted.options.get("task") == "translate"
    code = transcript.language or ""
    found: dict[str, Any] = {
        "task": wanted.options.get("task", "transcribe"),
        "language": "english" if translated else NAMES.get(code, code),
        "duration": _seconds(transcript),
        "text": transcript.text,
    }
    if wanted.segments:
        found["segments"] = [_segment(segment) for segment in transcript.segments]
    if wanted.words:
        found["words"] = [
            {"word": word.word.strip(), "start": word.start, "end": word.end}
            for segment in transcript.segments
            for word in segment.words or ()
        ]
    found["usage"] = {"type": "duration", "seconds": found["duration"]}
    return found | _warnings(transcript)


def _diarized(transcript: Transcript, wanted: Wanted) -> dict[str, Any]:
    return {
        "task": wanted.options.get("task", "transcribe"),
        "duration": _seconds(transcript),
        "text": transcript.text,
        "segments": [_turn(segment) for segment in transcript.segments],
        "usage": {"type": "duration", "seconds": _seconds(transcript)},
        **_warnings(transcript),
    }


def _turn(segment: Segment) -> dict[str, Any]:
    return {
        "type": "transcript.text.segment",
        "id": str(segment.id),
        "start": segment.start,
        "end": segment.end,
        "text": segment.text,
        "speaker": speaker_name(segment.speaker or 0),
    }


def speaker_name(number: int) -> str:
    """Returns OpenAI's name of a speaker: A to Z, then AA, AB and so on."""
    before, last = divmod(number, 26)
    return (speaker_name(before - 1) if before else "") + chr(ord("A") + last)


def _segment(segment: Segment) -> dict[str, Any]:
    values = dump(segment)
    absent = {"seek": 0, "tokens": [], "temperature": 0.0}
    found = {name: values.get(name, absent.get(name, 0.0)) for name in _SEGMENT}
    return found | {key: values[key] for key in ("channel", "language") if key in values}


def _languages(transcript: Transcript) -> list[dict[str, str]]:
    own = [segment.language for segment in transcript.segments if segment.language]
    codes = dict.fromkeys([*([transcript.language] if transcript.language else []), *own])
    return [{"code": code} for code in codes]


def _seconds(transcript: Transcript) -> float:
    return transcript.duration_ms / 1000


def _warnings(transcript: Transcript) -> dict[str, Any]:
    return {"warnings": dump(transcript.warnings)} if transcript.warnings else {}


# --- events ---------------------------------------------------------------------------------------


class Events:
    """The events of one stream."""

    def __init__(self, formats: tuple[str, ...] = ()) -> None:
        """`formats`: files that the last event brings (`asrd.formats`)."""
        self._formats = formats
        self._duration: float | None = None

    def progress(self, progress: Progress) -> None:
        """Learns the recording's duration."""
        self._duration = progress.audio_seconds

    def add(self, segment: Segment) -> Iterator[dict[str, Any]]:
        """Yields the events of a segment: OpenAI's for one with times. OpenAI sends them with
        speakers, here they come with the words if those were asked for, and with the `duration`
        of the recording in seconds as soon as it is known."""
        values = dump(segment)
        shown = ("start", "end", "text", "words", "channel", "language")
        found = {key: values[key] for key in shown if key in values}
        known = {} if self._duration is None else {"duration": self._duration}
        if segment.speaker is not None:
            found["speaker"] = speaker_name(segment.speaker)
        yield {"type": "transcript.text.segment", "id": str(segment.id), **found, **known}

    def done(self, transcript: Transcript) -> dict[str, Any]:
        """Returns the last event. Its usage can only be in tokens: those that the model read (50
        in a second of audio) and wrote."""
        read = round(_seconds(transcript) * _AUDIO_TOKENS)
        wrote = sum(len(segment.tokens or ()) for segment in transcript.segments)
        files = {name: FORMATS[name]("").whole(transcript) for name in self._formats}
        return {
            "type": "transcript.text.done",
            "text": transcript.text,
            "languages": _languages(transcript),
            "usage": {
                "type": "tokens",
                "input_tokens": read,
                "output_tokens": wrote,
                "total_tokens": read + wrote,
                "input_token_details": {"audio_tokens": read, "text_tokens": 0},
            },
            **({"formats": files} if files else {}),
            **_warnings(transcript),
        }


class Deltas(Events):
    """Makes segments into deltas of the text, which together are the transcript's text."""

    def __init__(self) -> None:
        super().__init__()
        self._begun = False
        self._held = ""

    def add(self, segment: Segment) -> Iterator[dict[str, Any]]:
        """Yields one event, or none for white space, which is held back: it may be the end."""
        whole = self._held + segment.text if self._begun else segment.text.lstrip()
        visible = whole.rstrip()
        self._held = whole[len(visible) :] if visible or self._begun else ""
        if visible:
            self._begun = True
            yield {"type": "transcript.text.delta", "delta": visible}


def events_of(wanted: Wanted) -> Events:
    """Returns the events that a stream consists of; `json` and `text` have no times."""
    timed = wanted.format in ("verbose_json", "diarized_json")
    return Events(wanted.formats) if timed else Deltas()
