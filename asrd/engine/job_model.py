"""A faster-whisper model for one job: streamed features, hints, and silence that costs nothing.

faster-whisper takes the whole recording at once, puts hints before the text of every window,
invents text for silence, and pads every window to 30 s. `JobModel` overrides the methods in which
these happen. Seek points, prompts, temperatures and segments stay faster-whisper's.

A window with less speech is encoded with a few seconds of silence after it (LogMel.shortened),
which costs a third. Whisper was trained on 30 s, and sometimes repeats itself or adds words in a
short window. So a short window is decoded once, and its text is kept only if it is plausible
(asrd.engine.plausible) and faster-whisper, too, would keep it. Else the window is encoded at full
length.
"""

import math
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

from faster_whisper import WhisperModel

from asrd.engine.hints import Decoded, Hints, is_better
from asrd.engine.logmel import WINDOW, LogMel
from asrd.engine.mel import FRAMES_PER_SECOND
from asrd.engine.plausible import is_plausible, most_tokens

_DECODER_TOKENS = 448
# A result that `generate_segments` takes for "no speech": it makes no segment of the window and
# goes on to the next.
_NO_SPEECH = (SimpleNamespace(no_speech_prob=1.0, sequences_ids=[[]]), -math.inf, 0.0, 0.0)


class JobModel(WhisperModel):  # type: ignore[misc]  # faster-whisper has no types
    """A model that shares the weights of `model`, and reads `features` instead of any audio.

    With `short`, windows that hold less than 30 s are encoded shorter. `late_language` is the
    language and its probability, if they were detected after silence.
    """

    def __init__(self, model: Any, features: LogMel, hints: Hints, *, short: bool = True) -> None:
        self.__dict__.update(vars(model))
        self.feature_extractor = _FeatureStub(model.feature_extractor, features)
        self.late_language: tuple[str, float] | None = None
        self._features = features
        self._hints = hints
        self._short = short
        # The last window that was encoded: its place, its features at full length if they were
        # shortened, and the encoder's output.
        self._place: tuple[int, int] | None = None
        self._padded: Any = None
        self._encoded: Any = None
        # The tokens before the text of the current window with hints; empty without hints.
        self._context: list[int] = []
        self._undetected = False

    def detect_language(self, features: LogMel, **options: Any) -> Any:
        """Leaves the language open, with probability 0, if the recording begins with silence."""
        window = features[..., :WINDOW]
        if not features.silent:
            return super().detect_language(features=window, **options)
        self._undetected = True
        return "en", 0.0, []

    def encode(self, features: Any) -> Any:
        """Returns None for silence; the first other window decides a language left open.

        `features` is the window that the LogMel handed out last.
        """
        if self._features.silent:
            return None
        start, stop = self._features.window
        # If the language was detected in this window, it has been encoded already.
        if self._place != (start, stop):
            # No text comes from the frame that detect_language has at the end of the recording.
            features[:, stop - start :] = 0
            short = self._features.shortened(features) if self._short else None
            self._padded = None if short is None else features
            self._encoded = super().encode(features if short is None else short)
            self._place = start, stop
        if self._undetected:
            token, probability = self.model.detect_language(self._encoded)[0][0]
            self.late_language = token[2:-2], probability
            self._undetected = False
        return self._encoded

    def get_prompt(self, tokenizer: Any, previous_tokens: list[int], **options: Any) -> Any:
        """Returns the prompt without hints, and keeps what the one with hints needs."""
        if self.late_language is not None:
            code, _ = self.late_language
            tokenizer.language = tokenizer.tokenizer.token_to_id(f"<|{code}|>")
            tokenizer.language_code = code
        plain, context = self._hints.split(previous_tokens)
        self._context = [tokenizer.sot_prev, *context] if context else []
        return super().get_prompt(tokenizer, plain, **options)

    def generate_with_fallback(
        self, encoder_output: Any, prompt: list[int], tokenizer: Any, options: Any
    ) -> Any:
        """Returns the result without hints, or the one with hints if that is better."""
        if encoder_output is None:
            return _NO_SPEECH
        plain = self._decode(prompt, tokenizer, options)
        tokens = plain[0].sequences_ids[0]
        if not self._context or not tokenizer.decode(tokens).strip():
            return plain
        hinted_prompt = [*self._context, *tokenizer.sot_sequence]
        # One temperature, and little more room than the other text took: a loop costs little.
        room = min(_DECODER_TOKENS - len(hinted_prompt), len(tokens) + len(tokens) // 4 + 16)
        once = replace(options, temperatures=options.temperatures[:1], max_new_tokens=room)
        hinted = super().generate_with_fallback(self._encoded, hinted_prompt, tokenizer, once)
        texts = [self._decoded(result, tokenizer) for result in (plain, hinted)]
        return hinted if is_better(texts[0], texts[1], self._hints.words) else plain

    def find_alignment(
        self, tokenizer: Any, text_tokens: Any, encoder_output: Any, num_frames: int, **options: Any
    ) -> Any:
        """Aligns the words with the encoder's output from which they were decoded."""
        return super().find_alignment(tokenizer, text_tokens, self._encoded, num_frames, **options)

    def _decode(self, prompt: list[int], tokenizer: Any, options: Any) -> Any:
        """Returns the result without hints; a short window with doubtful text is encoded again."""
        if self._padded is not None:
            start, stop = self._features.window
            seconds = (stop - start) / FRAMES_PER_SECOND
            # One temperature, and little room: a loop costs little.
            limits = (most_tokens(seconds), _DECODER_TOKENS - len(prompt), options.max_new_tokens)
            room = min(filter(None, limits))
            once = replace(options, temperatures=options.temperatures[:1], max_new_tokens=room)
            found = super().generate_with_fallback(self._encoded, prompt, tokenizer, once)
            tokens = found[0].sequences_ids[0]
            if (
                len(tokens) < most_tokens(seconds)
                and is_plausible(tokenizer.decode(tokens), seconds)
                and found[1] >= options.log_prob_threshold
                and found[3] <= options.compression_ratio_threshold
            ):
                return found
            self._encoded, self._padded = super().encode(self._padded), None
        return super().generate_with_fallback(self._encoded, prompt, tokenizer, options)

    def _decoded(self, result: Any, tokenizer: Any) -> Decoded:
        """The text that faster-whisper keeps of a window, and where it begins the next window."""
        segments, seek, _ = self._split_segments_by_timestamps(
            tokenizer, result[0].sequences_ids[0], 0.0, WINDOW, 30.0, 0
        )
        kept = [token for segment in segments for token in segment["tokens"]]
        return Decoded(tokenizer.decode(kept), result[1], result[3], seek)


class _FeatureStub:
    """The model's feature extractor, except that it returns the job's features for any audio."""

    def __init__(self, extractor: Any, features: LogMel) -> None:
        self._extractor = extractor
        self._features = features

    def __call__(self, audio: object, chunk_length: int | None = None) -> LogMel:
        return self._features

    def __getattr__(self, name: str) -> Any:
        return getattr(self._extractor, name)
