"""Decisions out of bytes: from a fuzzer that learns which bytes lead where, or from a seed."""

from collections.abc import Sequence
from typing import TypeVar

T = TypeVar("T")


class Source:
    """Where no byte is left, zeros follow: whatever is made of them should be small and valid."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    def byte(self) -> int:
        if self._at >= len(self._data):
            return 0
        self._at += 1
        return self._data[self._at - 1]

    def number(self, count: int) -> int:
        """Below 256 to the power of `count`."""
        value = 0
        for _ in range(count):
            value = value << 8 | self.byte()
        return value

    def pick(self, choices: Sequence[T]) -> T:
        return choices[self.byte() % len(choices)]

    def rest(self) -> bytes:
        data = self._data[self._at :]
        self._at = len(self._data)
        return data
