"""A faster-whisper model for one job: streamed features, hints, and silence that costs nothing.

faster-whisper takes the whole recording at once, puts hints before the text of every window,
invents text for silence, and pads every window to 30 s. `JobModel` overrides the methods in which
these happen. Seek points, prompts, temperatures and segments stay faster-whisper's.

A window with less speech is encoded with a few seconds of silence after it (LogMel.shortened),
which costs a third. Whisper was trained on 30 s, and sometimes repeats itself or adds words in a
short window. So a short window is decoded once, and its text is kept only if it is plausible
(asrd.engine.plausible) and faster-whisper, too, would keep it. Else the window is encoded at full
length; so is one in which no language is probable.
"""

import contextlib
import math
from collections.abc import Callable, Generator, Iterator
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
from faster_whisper import WhisperModel
from faster_whisper.audio import pad_or_trim

from asrd.engine.hints import PROMPT_TOKENS, Decoded, Hints, is_better
from asrd.engine.logmel import WINDOW, LogMel, Tail
from asrd.engine.mel import FRAMES_PER_SECOND
from asrd.engine.plausible import is_plausible, most_tokens
from asrd.engine.spoken import Detecting, OnWindow
from asrd.wire.records import Checkpoint

_DECODER_TOKENS = 448
# faster-whisper's threshold for a language, which it takes without looking at other windows.
_SURE = 0.5
# The average log probability of a token below which short windows have more wrong words than full
# ones; faster-whisper decodes a window again below -1.
_PROBABLE = -0.8
# A result that `generate_segments` takes for "no speech" at any threshold: it makes no segment of
# the window and goes on to the next.
_NO_SPEECH = (SimpleNamespace(no_speech_prob=math.inf, sequences_ids=[[]]), -math.inf, 0.0, 0.0)


class JobModel(WhisperModel):  # type: ignore[misc]  # faster-whisper has no types
    """A model that shares the weights of `model`, and reads `features` instead of any audio.

    With `short`, windows that hold less than 30 s are encoded shorter; `allowed` are the languages
    that may be detected. `language` is the detected one and its probability, known once the job has
    run. `asked` is true once a window was not silent, so that the weights decided what its text is.
    `on_step` is called before each call of the weights. `resume` is the state in which an earlier
    attempt ended.
    """

    def __init__(
        self,
        model: Any,
        features: LogMel,
        hints: Hints,
        allowed: tuple[str, ...] | None = None,
        *,
        short: bool = True,
        resume: Checkpoint | None = None,
        on_step: Callable[[], None] = lambda: None,
        on_window: OnWindow = lambda tokens, language, last_speech: None,
    ) -> None:
        self.__dict__.update(vars(model))
        self.model = Detecting(model.model, allowed, on_step)
        self.feature_extractor = _FeatureStub(model.feature_extractor, features)
        self.language = ("en", 0.0)
        self.asked = False
        self._resume = resume
        self._features = features
        self._hints = hints
        self._short = short
        self._on_window = on_window
        # faster-whisper's loop, and True once it is past the first window.
        self._loop: Any = None
        self._begun = False
        # The last window that was encoded: its place, its features at full length if they were
        # shortened, and the encoder's output.
        self._place: tuple[int, int] | None = None
        self._padded: Any = None
        self._encoded: Any = None
        # The prompt of the current window with hints; empty if there are none.
        self._hinted: list[int] = []
        # True until a language that silence left open is detected, and then until it is used.
        self._undetected = self._detected_late = False

    def segments(self, arguments: dict[str, Any]) -> Generator[tuple[Any, str | None], None, None]:
        """Yields the segments, each with its language if that is detected for each window."""
        found, info = self.transcribe(np.zeros(0, np.float32), **arguments)
        self.language = (info.language, info.language_probability)
        self._loop = found
        with contextlib.closing(found):
            for segment in found:
                multilingual = info.transcription_options.multilingual
                yield segment, self.model.found[0] if multilingual else None

    def find_language(self, first_frame: int, **options: Any) -> None:
        """Detects the language in the first windows with sound from `first_frame` on, without
        decoding. `options` are those of `detect_language`."""
        self.language = ("en", 1.0)
        if self.model.is_multilingual:
            tail = Tail(self._features, first_frame)
            self.language = self.detect_language(tail, skip_silence=True, **options)[:2]

    def detect_language(
        self,
        features: Tail,
        language_detection_segments: int = 1,
        language_detection_threshold: float = 0.5,
        skip_silence: bool = False,
    ) -> tuple[str, float, list[Any]]:
        """Does what faster-whisper's does, but leaves silence out.

        If the first windows are silent, the language stays open, with probability 0; with
        `skip_silence`, they do not count. In an earlier attempt they were silent.
        """
        votes: dict[str, list[float]] = {}
        count = language_detection_segments if self._resume is None else 0
        for window in self._windows(features, count, skip_silence):
            self.encode(pad_or_trim(window))
            code, probability = self._detected()
            if probability > language_detection_threshold:
                return code, probability, []
            votes.setdefault(code, []).append(probability)
        if not votes:
            self._undetected = True
            return "en", 0.0, []
        most = max(votes, key=lambda code: len(votes[code]))
        return most, max(votes[most]), []

    def _windows(self, tail: Tail, count: int, skip_silence: bool) -> Iterator[Any]:
        """Yields those of the first `count` windows that have sound; with `skip_silence`, the first
        `count` that have sound."""
        features, start = tail.features, tail.start
        size = self.feature_extractor.nb_max_frames
        while count:
            end = start + size
            # Windows that will be decoded, too, are kept.
            window = features[:, start:end] if skip_silence else features.window(start, end)
            if not window.shape[-1]:
                return
            start = end
            if not features.silent:
                yield window
            elif skip_silence:
                continue
            count -= 1

    def encode(self, features: Any) -> Any:
        """Returns None for silence; the first other window decides a language left open.

        `features` is the window that the LogMel handed out last.
        """
        if self._begun:
            self._report_window()
        if self._features.silent:
            return None
        self.asked = True
        start, stop = self._features.place
        # If the language was detected in this window, it has been encoded already.
        if self._place != (start, stop):
            # No text comes from the frame that detect_language has at the end of the recording.
            features[:, stop - start :] = 0
            short = self._features.shortened(features) if self._short else None
            self._padded = None if short is None else features
            self._encoded = super().encode(features if short is None else short)
            self._place = start, stop
        if self._undetected:
            self.language = self._detected()
            self._undetected, self._detected_late = False, True
        return self._encoded

    def _detected(self) -> tuple[str, float]:
        """Returns the language of the last encoded window and its probability. A short window in
        which no language is probable is encoded again."""
        token, probability = self.model.detect_language(self._encoded)[0][0]
        if self._padded is not None and probability <= _SURE:
            self._encode_padded()
            token, probability = self.model.detect_language(self._encoded)[0][0]
        return token[2:-2], probability

    def _encode_padded(self) -> None:
        self._encoded, self._padded = super().encode(self._padded), None

    def get_prompt(self, tokenizer: Any, previous_tokens: list[int], **options: Any) -> Any:
        """Returns the prompt without hints, and keeps what the one with hints needs."""
        self._begun = True
        if self._detected_late:
            self._detected_late = False
            code, _ = self.language
            tokenizer.language = tokenizer.tokenizer.token_to_id(f"<|{code}|>")
            tokenizer.language_code = code
        plain, context = self._hints.split(previous_tokens)
        start = super().get_prompt(tokenizer, [], **options)
        self._hinted = [tokenizer.sot_prev, *context, *start] if context else []
        return super().get_prompt(tokenizer, plain, **options)

    def _report_window(self) -> None:
        """Reports the state before a window as soon as the one before it is done."""
        language = None if self._undetected or self._detected_late else self.language
        state = self._loop.gi_frame.f_locals
        previous_tokens: list[int] = state["all_tokens"][state["prompt_reset_since"] :]
        # More tokens change no prompt, with or without an initial prompt among them.
        tokens = previous_tokens[-2 * PROMPT_TOKENS :]
        self._on_window(tokens, language, self._since_resumed(state["last_speech_timestamp"]))

    def _since_resumed(self, last_speech: float) -> float:
        # faster-whisper begins with 0. So does its search for hallucinations: with a threshold of
        # 2 s or more, it may drop doubtful text at the start of this attempt that it kept before.
        return last_speech or (0.0 if self._resume is None else self._resume.last_speech)

    def generate_with_fallback(
        self, encoder_output: Any, prompt: list[int], tokenizer: Any, options: Any
    ) -> Any:
        """Returns the result without hints, or the one with hints if that is better."""
        if encoder_output is None:
            return _NO_SPEECH
        if options.max_new_tokens is not None:
            # faster-whisper raises an error for more than fits.
            room = min(options.max_new_tokens, _DECODER_TOKENS - len(prompt))
            options = replace(options, max_new_tokens=room)
        plain = self._decode(prompt, tokenizer, options)
        tokens = plain[0].sequences_ids[0]
        if not self._hinted or not tokenizer.decode(tokens).strip():
            return plain
        # One temperature, and little more room than the other text took: a loop costs little.
        room = _room(len(tokens) + len(tokens) // 4 + 16, self._hinted)
        if room < len(tokens):
            return plain
        once = replace(options, temperatures=options.temperatures[:1], max_new_tokens=room)
        hinted = super().generate_with_fallback(self._encoded, self._hinted, tokenizer, once)
        texts = [self._decoded(result, tokenizer) for result in (plain, hinted)]
        return hinted if is_better(texts[0], texts[1], self._hints.words) else plain

    def find_alignment(
        self, tokenizer: Any, text_tokens: Any, encoder_output: Any, num_frames: int, **options: Any
    ) -> Any:
        """Aligns the words with the encoder's output from which they were decoded."""
        return super().find_alignment(tokenizer, text_tokens, self._encoded, num_frames, **options)

    def add_word_timestamps(self, *args: Any, last_speech_timestamp: float) -> Any:
        """Adds the words to segments, knowing the speech of an earlier attempt."""
        heard = self._since_resumed(last_speech_timestamp)
        return super().add_word_timestamps(*args, last_speech_timestamp=heard)

    def _decode(self, prompt: list[int], tokenizer: Any, options: Any) -> Any:
        """Returns the result without hints; a short window with doubtful text is encoded again."""
        if self._padded is not None:
            start, stop = self._features.place
            seconds = (stop - start) / FRAMES_PER_SECOND
            most = most_tokens(seconds)
            # One temperature, and little room: a loop costs little.
            room = min(_room(most, prompt), options.max_new_tokens or _DECODER_TOKENS)
            once = replace(options, temperatures=options.temperatures[:1], max_new_tokens=room)
            found = super().generate_with_fallback(self._encoded, prompt, tokenizer, once)
            tokens = found[0].sequences_ids[0]
            if (
                len(tokens) < most
                and is_plausible(tokenizer.decode(tokens), seconds)
                and found[1] >= max(options.log_prob_threshold, _PROBABLE)
                and found[3] <= options.compression_ratio_threshold
                # Hum, noise and music: "You" in a short window, often nothing in a full one.
                and found[0].no_speech_prob <= options.no_speech_threshold
            ):
                return found
            self._encode_padded()
        return super().generate_with_fallback(self._encoded, prompt, tokenizer, options)

    def _decoded(self, result: Any, tokenizer: Any) -> Decoded:
        """The text that faster-whisper keeps of a window, and where it begins the next window."""
        segments, seek, _ = self._split_segments_by_timestamps(
            tokenizer, result[0].sequences_ids[0], 0.0, WINDOW, 30.0, 0
        )
        kept = [token for segment in segments for token in segment["tokens"]]
        return Decoded(tokenizer.decode(kept), result[1], result[3], seek)


def _room(tokens: int, prompt: list[int]) -> int:
    """Returns `max_new_tokens` for so many tokens, or as many as fit: CTranslate2 makes at most
    half as many as prompt and `max_new_tokens` together."""
    return min(max(tokens, 2 * tokens - len(prompt)), _DECODER_TOKENS - len(prompt))


class _FeatureStub:
    """The model's feature extractor, except that it returns the job's features for any audio."""

    def __init__(self, extractor: Any, features: LogMel) -> None:
        self._extractor = extractor
        self._features = features

    def __call__(self, audio: object, chunk_length: int | None = None) -> LogMel:
        if chunk_length is not None:
            # faster-whisper changes its own extractor, and so all later jobs.
            self.nb_max_frames = chunk_length * FRAMES_PER_SECOND
        return self._features

    def __getattr__(self, name: str) -> Any:
        return getattr(self._extractor, name)
