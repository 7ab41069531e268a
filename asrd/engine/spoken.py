"""The language of a window: detected by the model, and chosen among the allowed ones."""

from typing import Any


class Detecting:
    """A CTranslate2 Whisper model that detects only the `allowed` languages; None: all.

    `found` holds the codes that were detected last, one for each window of the call.
    """

    def __init__(self, model: Any, allowed: tuple[str, ...] | None) -> None:
        self._model = model
        self._tokens = None if allowed is None else {f"<|{code}|>" for code in allowed}
        self.found = ["en"]

    def __getattr__(self, name: str) -> Any:
        return getattr(self._model, name)

    def detect_language(self, encoded: Any) -> list[list[tuple[str, float]]]:
        """Returns tokens and their probabilities, the most probable first, for each window.

        Among allowed languages the probabilities sum up to 1. For None, a window of silence, the
        language stays as it was.
        """
        if encoded is None:
            return [[(f"<|{self.found[0]}|>", 0.0)]]
        windows = [self._choose(window) for window in self._model.detect_language(encoded)]
        self.found = [window[0][0][2:-2] for window in windows]
        return windows

    def _choose(self, found: list[tuple[str, float]]) -> list[tuple[str, float]]:
        if self._tokens is None:
            return found
        chosen = [(token, probability) for token, probability in found if token in self._tokens]
        total = sum(probability for _, probability in chosen) or 1.0
        return [(token, probability / total) for token, probability in chosen]
