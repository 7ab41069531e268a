"""The fields of a request for a transcript: OpenAI's, and asrd's own options beside them. No I/O.

A list may be written `languages[]=de`, `languages=de`, both repeated, `languages[0]=de`,
`languages=de,en` or `languages=["de", "en"]`; an object `vad_parameters[threshold]=0.5` or
`vad_parameters={"threshold": 0.5}`.
"""

import json
import typing
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any

from asrd.client.attempts import JobOptions
from asrd.config import from_text
from asrd.errors import FieldError
from asrd.formats import FORMATS as FILES
from asrd.http.errors import bad_request
from asrd.http.names import NAME
from asrd.wire.fields import number
from asrd.wire.options import Options, VadParameters

FORMATS = ("json", "text", "srt", "vtt", "verbose_json", "diarized_json")
GRANULARITIES = ("word", "segment")
# asrd's own options: those of a job, and of the client's library.
_OWN: dict[str, Any] = {spec.name: spec.type for spec in fields(Options)}
_OWN |= {"timeout": float, "encoding": str, "sample_rate": int, "channels": int}
_VAD: dict[str, Any] = {spec.name: spec.type for spec in fields(VadParameters)}
_seconds = number(0.001, 24 * 3600)
# The fields of OpenAI's for what no model here does.
_UNSUPPORTED = {
    "include": "log probabilities of tokens are not available",
    "known_speaker_names": "speakers are called A, B and so on",
    "known_speaker_references": "speakers are called A, B and so on",
}
# The names of server_vad's numbers among the parameters of the VAD.
_SERVER_VAD = {
    "threshold": "threshold",
    "prefix_padding_ms": "speech_pad_ms",
    "silence_duration_ms": "min_silence_duration_ms",
}
# Characters of a value that is no text; TOML takes seconds for a name with 32,000 dots.
_DATA_MAX = 1024
_STRATEGY = {"type": str, "threshold": float, "prefix_padding_ms": int, "silence_duration_ms": int}


@dataclass(frozen=True, slots=True)
class Wanted:
    """A request: the options of its job, and the form of the answer. `formats` are files that the
    last event of a stream brings, `ignored` fields that nobody knows. With `speakers`, the answer
    tells who speaks."""

    options: JobOptions
    format: str
    stream: bool
    words: bool
    segments: bool
    formats: tuple[str, ...]
    ignored: tuple[str, ...]
    speakers: bool = False
    num_speakers: int | None = None


@dataclass(slots=True)
class _Field:
    texts: list[str] = field(default_factory=list)
    members: dict[str, str] = field(default_factory=dict)


def read_form(pairs: Sequence[tuple[str, str]], task: str, aliases: Mapping[str, str]) -> Wanted:
    """Returns what the fields ask for. Raises HttpError that names a field."""
    found = _Fields(pairs)
    for name, problem in _UNSUPPORTED.items():
        if found.list(name):
            raise bad_request(name, problem)
    format_ = found.choice("response_format", FORMATS) or "json"
    stream = found.value("stream", bool) or False
    if not isinstance(stream, bool):
        raise bad_request("stream", "must be true or false")
    if stream and format_ in ("srt", "vtt"):
        raise bad_request(
            "stream", f"is for json, text, verbose_json and diarized_json, not {format_}"
        )
    granularities = found.list("timestamp_granularities")
    for name in granularities:
        if name not in GRANULARITIES:
            raise bad_request("timestamp_granularities", "must be word or segment")
    options = _options(found, task, aliases)
    num_speakers = options.pop("num_speakers", None)
    diarized = format_ == "diarized_json"
    if num_speakers is not None and not diarized:
        raise bad_request("num_speakers", "has an effect only with diarized_json")
    if options.get("task") == "speakers":
        raise bad_request("task", "speakers: use response_format=diarized_json")
    if diarized:
        _check_diarized(options)
    words = "word" in granularities or bool(options.get("word_timestamps"))
    if format_ == "verbose_json":
        options["word_timestamps"] = words or None
    if format_ == "verbose_json" or stream:
        options["include_tokens"] = True
    segments = "word" not in granularities or "segment" in granularities
    formats = _formats(found) if stream and format_ == "verbose_json" else ()
    return Wanted(
        options, format_, stream, words, segments, formats, found.rest(), diarized, num_speakers
    )


def _check_diarized(options: JobOptions) -> None:
    """Asks for the words that speakers are joined with. Raises HttpError."""
    if options.get("split_channels"):
        raise bad_request("split_channels", "is not possible with diarized_json")
    if options.get("task", "transcribe") not in ("transcribe", "translate"):
        raise bad_request("task", "must be transcribe or translate with diarized_json")
    # A translation's words have no reliable times.
    if options.get("task") != "translate":
        options.setdefault("word_timestamps", True)


def _formats(found: "_Fields") -> tuple[str, ...]:
    formats = found.list("formats")
    if not set(formats) <= FILES.keys():
        raise bad_request("formats", "must be of " + ", ".join(FILES))
    # Each is made once, however often it is asked for.
    return tuple(dict.fromkeys(formats))


def _options(found: "_Fields", task: str, aliases: Mapping[str, str]) -> JobOptions:
    options: dict[str, Any] = {name: found.value(name, kind) for name, kind in _OWN.items()}
    model = found.value("model", str)
    options["model"] = aliases.get(model, model) or None
    options["initial_prompt"] = found.value("prompt", str) or options["initial_prompt"]
    keywords = found.list("keywords")
    options["hotwords"] = ", ".join(keywords) or options["hotwords"]
    # For OpenAI 0 means what it means without the field: other temperatures are tried after it.
    if options["temperature"] == 0:
        options["temperature"] = None
    if task == "translate":
        options["task"] = task
    if options["timeout"] is not None:
        options["timeout"] = _checked("timeout", options["timeout"])
    _chunking(found, options)
    return typing.cast(JobOptions, {k: v for k, v in options.items() if v is not None})


def _checked(name: str, seconds: object) -> float:
    try:
        return float(_seconds(name, seconds))
    except FieldError as error:
        raise bad_request(error.field, error.problem) from None


def _chunking(found: "_Fields", options: dict[str, Any]) -> None:
    """OpenAI's `auto` asks for what Whisper does anyway; `server_vad` for the VAD."""
    strategy = found.object("chunking_strategy", _STRATEGY)
    if strategy in ({}, {"type": "auto"}):
        return
    if strategy.pop("type", None) != "server_vad":
        raise bad_request("chunking_strategy", "must be auto or an object of type server_vad")
    numbers = {_SERVER_VAD[name]: number for name, number in strategy.items()}
    options["vad_filter"] = True
    options["vad_parameters"] = {**numbers, **(options["vad_parameters"] or {})}


class _Fields:
    """The fields by name, whatever their spelling; each that is asked for is known."""

    def __init__(self, pairs: Sequence[tuple[str, str]]) -> None:
        self._fields: dict[str, _Field] = {}
        self._known: set[str] = set()
        for name, text in pairs:
            parts = NAME.fullmatch(name)
            if parts is None:
                raise bad_request(name[:100], "is no name of a field")
            of = self._fields.setdefault(parts[1], _Field())
            if parts[2] and not parts[2].isdecimal():
                of.members[parts[2]] = text
            else:
                of.texts.append(text)

    def _field(self, name: str) -> _Field:
        self._known.add(name)
        return self._fields.get(name, _Field())

    def rest(self) -> tuple[str, ...]:
        return tuple(sorted(self._fields.keys() - self._known))

    def value(self, name: str, kind: Any) -> Any:
        """Returns the field as data of that type, None for an absent or empty one. The client's
        library checks it."""
        found = self._field(name)
        kinds = typing.get_args(kind) or (kind,)
        if VadParameters in kinds:
            return self.object(name, _VAD) or None
        items = next((typing.get_args(one)[0] for one in kinds if typing.get_args(one)), None)
        # A temperature is a number, too.
        if items is not None and (items not in kinds or len(found.texts) > 1):
            return [_data(text, items) for text in self.list(name)] or None
        if len(found.texts) > 1:
            raise bad_request(name, "is given twice")
        text = "".join(found.texts).strip()
        return _data(text, kind) if text else None

    def choice(self, name: str, allowed: Sequence[str]) -> str | None:
        value: str | None = self.value(name, str)
        if value is not None and value not in allowed:
            raise bad_request(name, "must be one of " + ", ".join(allowed))
        return value

    def list(self, name: str) -> list[str]:
        """Returns a list of texts, without empty ones."""
        items: list[str] = []
        for text in self._field(name).texts:
            parsed = _json(text) if text.lstrip().startswith("[") else text.split(",")
            items += map(str, parsed if isinstance(parsed, list) else [text])
        return [item.strip() for item in items if item.strip()]

    def object(self, name: str, members: Mapping[str, Any]) -> dict[str, Any]:
        """Returns an object; a text that is none is its `type`."""
        found = self._field(name)
        value: dict[str, Any] = {}
        for text in filter(None, found.texts):
            parsed = _json(text)
            value |= parsed if isinstance(parsed, dict) else {"type": text}
        value |= {key: _data(text, members.get(key, str)) for key, text in found.members.items()}
        for key in value.keys() - members.keys():
            raise bad_request(name, f"has no member {str(key)[:100]!r}")
        return value


def _data(text: str, kind: Any) -> Any:
    """Returns a text as data of that type. One that is none stays text, which the client's library
    reports."""
    return from_text(text, kind) if len(text) <= _DATA_MAX else text


def _json(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None
