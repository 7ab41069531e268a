"""A daemon for one program, and the signals that end it."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from asrd.standalone import private


def test_signal_while_the_thread_starts_does_not_hang(monkeypatch: pytest.MonkeyPatch) -> None:
    """anyio waits for its thread's first step, and forever if an exception ends that wait."""
    started = []

    @contextmanager
    def starting() -> Iterator[None]:
        signal.raise_signal(signal.SIGINT)
        started.append(True)
        yield

    monkeypatch.setattr(private, "start_blocking_portal", starting)
    with pytest.raises(KeyboardInterrupt), private.in_background({}, verbose=False):
        pass
    assert started
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
