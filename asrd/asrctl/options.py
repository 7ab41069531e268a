"""asrctl's flags for the options that faster-whisper has, made from their declarations."""

import argparse
import dataclasses
import typing
from collections.abc import Callable
from typing import Any

from asrd.wire.fields import unknown_keys
from asrd.wire.options import EngineOptions, VadParameters

# Names that Whisper's own command has for an option.
_ALIASES = {"log_prob_threshold": "--logprob-threshold"}
_CHOICES = {"window": ("short", "full")}


def add_engine_options(parser: argparse.ArgumentParser) -> None:
    """Adds a flag for each field of EngineOptions, as a group of the help."""
    group = parser.add_argument_group(
        "options of faster-whisper", "The defaults are the daemon's settings."
    )
    for spec in dataclasses.fields(EngineOptions):
        names = ["--" + spec.name.replace("_", "-")]
        names += [_ALIASES[spec.name]] if spec.name in _ALIASES else []
        text = spec.metadata["help"].replace("%", "%%")
        group.add_argument(*names, dest=spec.name, help=text, **_kind(spec))


def _kind(spec: dataclasses.Field[Any]) -> dict[str, Any]:
    """Returns the arguments of `add_argument` for the type of an option."""
    kinds = set(typing.get_args(spec.type)) - {type(None)}
    if spec.name in _CHOICES:
        return {"choices": _CHOICES[spec.name]}
    if kinds == {bool}:
        return {"action": argparse.BooleanOptionalAction}
    if kinds == {int}:
        return {"type": int, "metavar": "N"}
    if kinds == {float}:
        return {"type": float, "metavar": "X"}
    if kinds == {str}:
        return {"metavar": "TEXT"}
    for kind in kinds:
        if typing.get_origin(kind) is tuple:
            item = typing.get_args(kind)[0]
            letter = {int: "N", float: "X", str: "LANG"}[item]
            return {"type": listed(item), "metavar": f"{letter}[,{letter}...]"}
    return {"type": _table, "metavar": "NAME=X[,NAME=X...]"}


def listed(item: type) -> Callable[[str], tuple[Any, ...]]:
    """Returns a reader of items that are separated by commas; an empty text has none."""

    def read(text: str) -> tuple[Any, ...]:
        try:
            return tuple(item(part.strip()) for part in text.split(",") if text.strip())
        except ValueError:
            raise argparse.ArgumentTypeError("must be numbers separated by commas") from None

    return read


def _table(text: str) -> dict[str, float]:
    try:
        pairs = (part.partition("=")[::2] for part in text.split(","))
        found = {name.strip(): _number(value) for name, value in pairs}
    except ValueError:
        raise argparse.ArgumentTypeError(
            "must be names with numbers, such as threshold=0.4,speech_pad_ms=200"
        ) from None
    for name in unknown_keys(VadParameters, found):
        known = ", ".join(spec.name for spec in dataclasses.fields(VadParameters))
        raise argparse.ArgumentTypeError(f"there is no {name!r}, but {known}")
    return found


def _number(text: str) -> float:
    return int(text) if text.strip().isdecimal() else float(text)
