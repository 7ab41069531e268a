"""The model of a job: it detects only allowed languages, and can be stopped between two calls."""

from collections.abc import Callable
from typing import Any

# Called before each window but a job's first, when all segments before it were yielded. Gets the
# tokens of the text that prompts it, the language and its probability (None if that was still open
# before the window), and the end of the last aligned word in seconds.
OnWindow = Callable[[list[int], tuple[str, float] | None, float], None]


class Detecting:
    """A CTranslate2 Whisper model that detects only the `allowed` languages; None: all.

    `on_step()` is called before each call of the model, since one window may take many: a text for
    each temperature, an alignment. It may wait; an error that it raises ends the job.
    `found` holds the codes that were detected last, one for each window of the call.
    """

    def __init__(
        self, model: Any, allowed: tuple[str, ...] | None, on_step: Callable[[], None]
    ) -> None:
        self._model = model
        self._on_step = on_step
        self._tokens = None if allowed is None else {f"<|{code}|>" for code in allowed}
        self.found = ["en"]

    def __getattr__(self, name: str) -> Any:
        return getattr(self._model, name)

    def encode(self, *args: Any, **options: Any) -> Any:
        self._on_step()
        return self._model.encode(*args, **options)

    def align(self, *args: Any, **options: Any) -> Any:
        self._on_step()
        return self._model.align(*args, **options)

    def generate(self, *args: Any, **options: Any) -> Any:
        self._on_step()
        return self._model.generate(*args, **options)

    def detect_language(self, encoded: Any) -> list[list[tuple[str, float]]]:
        """Returns tokens and their probabilities, the most probable first, for each window.

        Among allowed languages the probabilities sum up to 1. For None, a window of silence, the
        language stays as it was.
        """
        if encoded is None:
            return [[(f"<|{self.found[0]}|>", 0.0)]]
        self._on_step()
        windows = [self._choose(window) for window in self._model.detect_language(encoded)]
        self.found = [window[0][0][2:-2] for window in windows]
        return windows

    def _choose(self, found: list[tuple[str, float]]) -> list[tuple[str, float]]:
        if self._tokens is None:
            return found
        chosen = [(token, probability) for token, probability in found if token in self._tokens]
        total = sum(probability for _, probability in chosen) or 1.0
        return [(token, probability / total) for token, probability in chosen]
