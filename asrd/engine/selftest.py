"""The self-test: a model is asked for the log probability of a text that it hears.

On some GPUs and drivers CTranslate2 returns empty or wrong text without an error. So a worker tests
its model before it is ready, and again after a suspicious answer.

The known tokens are forced one by one, and the mean of their log probabilities decides. Compared
with reading the model's own text, this costs a few steps of the decoder, needs no padding, and a
model that would rather translate or spell in another way passes, too. Measured with tiny.en and
base (tests/real/test_selftest.py): -0.2 to -0.3; -1.3 with the token of another language; below -5
for silence, noise, other speech, and weights that are damaged.
"""

import math
from typing import Any

import ctranslate2
import numpy as np

from asrd.demo import SPEECH, samples
from asrd.engine.audio.opening import open_recording
from asrd.engine.audio.reader import RATE
from asrd.wire.records import AudioFormat

LEAST_LOG_PROBABILITY = -4.0
# The first words of SPEECH_TEXT, and the seconds that they last. Without a comma: models differ in
# where they put one.
_WORDS, _SECONDS = " And so my fellow Americans", 2.5
# Whisper's models have more tokens. A model with fewer is taken for one like the demo model, which
# knows no other words than those of its samples.
_WHISPER_TOKENS = 50_000


class SelfTest:
    """The known recording's features and tokens for one faster-whisper model."""

    def __init__(self, model: Any, language: str) -> None:
        path, seconds, text = SPEECH, _SECONDS, _WORDS
        if model.hf_tokenizer.get_vocab_size() < _WHISPER_TOKENS:
            sample = samples()[0]
            path, seconds, text = sample.path, sample.seconds, f" {sample.text}"
        names = ["<|startoftranscript|>", "<|notimestamps|>"]
        if model.model.is_multilingual:
            names[1:1] = [f"<|{language}|>", "<|transcribe|>"]
        self._model = model
        self._prompt = [model.hf_tokenizer.token_to_id(name) for name in names]
        self._tokens = model.hf_tokenizer.encode(text, add_special_tokens=False).ids
        with (
            path.open("rb") as file,
            open_recording(file.fileno(), AudioFormat("file"), 60) as audio,
        ):
            block = next(iter(audio))
        self._features = model.feature_extractor(block[: round(seconds * RATE)])

    def problem(self, quick: bool = False) -> str | None:
        """Returns a sentence that begins with the failure, None if the model passes.

        `quick` takes a third of the time, but needs alignment heads and leaves out the steps in
        which the decoder generates. Raises what CTranslate2 raises.
        """
        encoded = self._model.encode(self._features)
        found = self._aligned(encoded) if quick else self._generated(encoded)
        if found >= LEAST_LOG_PROBABILITY:
            return None
        return (
            f"the model fails its self-test: a known text has the log probability {found:.1f} per "
            f"token, and {LEAST_LOG_PROBABILITY:g} is the least"
        )

    def _aligned(self, encoded: Any) -> float:
        frames = self._features.shape[-1]
        [found] = self._model.model.align(encoded, self._prompt[:-1], [self._tokens], frames)
        # NaN stays NaN.
        return float(np.log(np.maximum(found.text_token_probs, 1e-30)).mean())

    def _generated(self, encoded: Any) -> float:
        [result] = self._model.model.generate(
            encoded,
            [self._prompt + self._tokens],
            beam_size=1,
            # CTranslate2 generates half as many tokens, the forced ones included.
            max_length=2 * len(self._tokens) + len(self._prompt),
            suppress_blank=False,
            suppress_tokens=None,
            return_logits_vocab=True,
        )
        found = list(map(_log_probability, result.logits[0], self._tokens))
        return sum(found) / len(self._tokens) if len(found) == len(self._tokens) else math.nan


def _log_probability(logits: Any, token: int) -> float:
    on_cpu = logits.to(ctranslate2.DataType.float32).to_device(ctranslate2.Device.cpu)
    values: Any = np.array(on_cpu, np.float64)
    with np.errstate(invalid="ignore"):
        values -= values.max()
        return float(values[token] - np.log(np.exp(values).sum()))
