"""Whisper's own spelling of options, so that a script moves by changing the program's name. Pure.

The options are those of openai-whisper and whisper-ctranslate2. docs/whisper.md has the table.
"""

import dataclasses
import typing
from collections.abc import Sequence

from asrd.errors import AsrdError
from asrd.wire.options import EngineOptions, VadParameters

_RENAMED = {"-f": "--output-format", "-p": "--pretty-json", "--speaker-num": "--num-speakers"}
_WORKER = "the worker's settings decide that, see asrd.toml(5)"
# Options without effect on the text; the others of these programs would change it.
IGNORED = {
    "--compute-type": _WORKER,
    "--device": _WORKER,
    "--device-index": _WORKER,
    "--fp16": _WORKER,
    "--local-files-only": _WORKER,
    "--model-dir": _WORKER,
    "--threads": _WORKER,
    "--pretty-json": "json is one line per file; `jq .` indents it",
}
_MICROPHONE = "use --microphone, see asrctl(1)"
REFUSED = {
    "--carry-initial-prompt": "asrd gives --initial-prompt to the first window only",
    "--model-directory": "--model names a model that a worker has loaded",
    "--speaker-name": "speakers are called `speaker 1` and so on",
    "--version": "goes before the command: asrctl --version",
    "--live-transcribe": _MICROPHONE,
    "--live-volume-threshold": _MICROPHONE,
    "--live-input-device": _MICROPHONE,
    "--live-input-device-sample-rate": _MICROPHONE,
}
_FLAGS = {"--highlight-words", "--include-tokens", "--live", "--quiet", "--require-complete"}
_FLAGS |= {"--color", "--overwrite", "--recursive", "--speakers"}
_SWITCHES = {"--word-timestamps"} | {
    "--" + spec.name.replace("_", "-")
    for spec in dataclasses.fields(EngineOptions)
    if bool in typing.get_args(spec.type)
}
_VAD = {
    "--vad-" + spec.name.replace("_", "-"): spec.name for spec in dataclasses.fields(VadParameters)
}
_OUTPUTS = {"-o", "--output", "--output-dir"}
# Whisper's None: one candidate or beam, or nothing.
_NONE = {"--beam-size": ["--beam-size", "1"], "--best-of": ["--best-of", "1"]}
_NO_LIMIT = {"--max-line-width", "--max-line-count", "--max-words-per-line", "--threads"}
_NO_LIMIT |= {"--batch-size", "--hallucination-silence-threshold"}
_TRUTH = {"true": True, "false": False}
# What whisper-ctranslate2 does at once with --batched True.
_BATCH = "8"


class Unsupported(AsrdError):
    """An option of Whisper's that would change the text, and that asrd does not have."""


def translated(
    argv: Sequence[str], own: frozenset[str] = frozenset()
) -> tuple[list[str], list[str]]:
    """Returns the arguments after `transcribe` in asrctl's spelling, and a note for each one that
    is ignored. `own`: options of IGNORED that the program has.

    Raises Unsupported.
    """
    reader = _Reader(own)
    rest = list(argv)
    while rest and rest[0] != "--":
        reader.read(rest)
    return [*reader.found(), *rest], reader.notes


class _Reader:
    def __init__(self, own: frozenset[str]) -> None:
        self.notes: list[str] = []
        self._own = own
        self._out: list[str] = []
        self._vad: list[str] = []
        self._temperature: str | None = None
        self._step: str | None = None
        self._batched = False
        self._whisper_files = False

    def read(self, rest: list[str]) -> None:
        """Takes one argument, and its value where that matters, from the start of `rest`."""
        word = rest.pop(0)
        name, equals, value = word.partition("=")
        # Spelled so, it stands in a script of Whisper's, which writes all formats without -f.
        self._whisper_files |= name == "--output_dir"
        name = name.replace("_", "-") if name.startswith("--") else name
        name = _RENAMED.get(name, name)
        if not name.startswith("-") or name == "-":
            self._out.append(word)
        elif name in _FLAGS | _SWITCHES or name in ("--batched", "--verbose"):
            self._read_flag(name, rest, value if equals else None)
        elif name == "--version":
            raise Unsupported(f"{name}: {REFUSED[name]}")
        elif not (equals or rest):
            # argparse says what is missing.
            self._out.append(name)
        else:
            # Values that begin with a minus sign are numbers here.
            given = value if equals else rest[0]
            if self._read_value(name, given):
                del rest[: not equals]
            else:
                self._out.append(name + equals + value)

    def found(self) -> list[str]:
        """Returns the arguments, with those that come from several of Whisper's."""
        out = self._out
        if self._vad:
            out += ["--vad-parameters", ",".join(self._vad)]
        if self._step is not None:
            out += ["--temperature", _temperatures(self._temperature or "0", self._step)]
        elif self._temperature is not None:
            out += [f"--temperature={self._temperature}"]
        names = {word.partition("=")[0] for word in out}
        if self._batched and "--batch-size" not in names:
            out += ["--batch-size", _BATCH]
        if self._whisper_files:
            # As there, -o is the directory, by default the current one.
            out = ["--output-dir" if word == "-o" else word for word in out]
            if not _OUTPUTS & names:
                out += ["--output-dir", "."]
            if not {"--format", "--live"} & names:
                out += ["--format", "all"]
            out += ["--overwrite"]
        return out

    def _read_flag(self, name: str, rest: list[str], value: str | None) -> None:
        if value is None and rest and rest[0].lower() in _TRUTH:
            value = rest.pop(0)
        wanted = None if value is None else _TRUTH.get(value.lower())
        if value is not None and wanted is None:
            raise Unsupported(f"{name}: must be True or False")
        if name == "--verbose" and value is not None:
            self._out += [] if wanted else ["--quiet"]
        elif name == "--batched":
            self._batched = wanted is not False
        elif wanted is not False:
            self._out.append(name)
        elif name in _SWITCHES:
            self._out.append(name.replace("--", "--no-", 1))

    def _read_value(self, name: str, value: str) -> bool:
        """Returns True if the option was translated, with its value."""
        if name in REFUSED:
            if value.lower() != "false":
                raise Unsupported(f"{name}: {REFUSED[name]}")
        elif name in IGNORED and name not in self._own:
            self.notes.append(f"{name} is ignored: {IGNORED[name]}")
        elif name == "--hf-token":
            # It switches speakers on there.
            self._out.append("--speakers")
            self.notes.append("--hf-token is ignored: the worker's model is on its machine")
        elif name == "--print-colors":
            self._out += ["--color"] * (value.lower() == "true")
        elif name == "--temperature":
            self._temperature = value
        elif name == "--temperature-increment-on-fallback":
            self._step = None if value == "None" else value
        elif name in _VAD:
            self._vad.append(f"{_VAD[name]}={value}")
        elif name == "--vad-parameters":
            self._vad.append(value)
        elif name == "--output-format":
            self._whisper_files = True
            self._out += ["--format", value]
        elif value == "None" and name in _NO_LIMIT | _NONE.keys():
            self._out += _NONE.get(name, [])
        elif value == "None" and name.endswith("-threshold"):
            raise Unsupported(f"{name}: can't be None; give a number that is never reached")
        else:
            return False
        return True


def _temperatures(first: str, step: str) -> str:
    """Returns Whisper's list: from the first temperature to 1."""
    try:
        start, by = float(first), float(step)
    except ValueError:
        raise Unsupported("--temperature-increment-on-fallback: must be a number") from None
    if not (by >= 0.01 and 0 <= start <= 1):
        raise Unsupported("--temperature-increment-on-fallback: must be at least 0.01")
    count = int((1 - start + 1e-6) / by) + 1
    return ",".join(f"{start + by * i:g}" for i in range(count))
