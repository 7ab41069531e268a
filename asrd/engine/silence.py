"""Windows without any sound, which need no model: it would invent a text, or try six times.

Nothing else than faster-whisper's "no speech" comes of such a window: no segment, and the next
window. The language is detected in the first window that has sound.
"""

import math
from types import SimpleNamespace
from typing import Any

from asrd.engine.logmel import WINDOW, LogMel

# What `generate_segments` takes for "no speech": of no probability, in the first temperature.
_NOTHING = (SimpleNamespace(no_speech_prob=1.0, sequences_ids=[[]]), -math.inf, 0.0, 0.0)
# Language, probability, and all languages: what an answer says if there is no sound at all.
_UNKNOWN_LANGUAGE: tuple[str, float, list[Any]] = ("en", 0.0, [])


class Quiet:
    """The methods of a WhisperModel that pass over silence, for one job.

    `model` is the job's own copy. `language` and `language_probability` are those that were
    detected after silence; None if the first window had sound.
    """

    def __init__(self, model: Any, features: LogMel) -> None:
        self.language: str | None = None
        self.language_probability = 0.0
        self._model = model
        self._features = features
        self._encode, self._generate = model.encode, model.generate_with_fallback
        self._prompt, self._detect = model.get_prompt, model.detect_language
        self._undetected = False

    def install(self) -> None:
        model = self._model
        model.encode, model.generate_with_fallback = self.encode, self.generate
        model.get_prompt, model.detect_language = self.get_prompt, self.detect_language

    def encode(self, window: Any) -> Any:
        """None for silence. `window` is what the features handed out last."""
        if self._features.silent:
            return None
        encoded = self._encode(window)
        if self._undetected:
            token, probability = self._model.model.detect_language(encoded)[0][0]
            self.language, self.language_probability = token[2:-2], probability
            self._undetected = False
        return encoded

    def get_prompt(self, tokenizer: Any, *args: Any, **options: Any) -> list[int]:
        if self.language is not None:
            tokenizer.language = tokenizer.tokenizer.token_to_id(f"<|{self.language}|>")
            tokenizer.language_code = self.language
        prompt: list[int] = self._prompt(tokenizer, *args, **options)
        return prompt

    def generate(self, encoded: Any, *args: Any) -> Any:
        return _NOTHING if encoded is None else self._generate(encoded, *args)

    def detect_language(self, features: LogMel, **options: Any) -> Any:
        window = features[..., :WINDOW]
        if not features.silent:
            return self._detect(features=window, **options)
        self._undetected = True
        return _UNKNOWN_LANGUAGE
