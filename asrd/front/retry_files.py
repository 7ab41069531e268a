"""The files whose change makes a failed worker worth another start at once."""

from pathlib import Path

import anyio

from asrd.config import config_path

# Seconds between two looks.
_LOOK_SECONDS = 1.0


class RetryFiles:
    """The settings of one worker, and the directory of its socket, which asr-workers-retry.service
    touches. Their state is that of the moment in which this object was made."""

    def __init__(self, worker: str, socket: Path) -> None:
        config = config_path()
        own = [config.with_name(f"worker-{worker}.{end}") for end in ("toml", "env")]
        self._paths = [config, *own, socket.parent]
        self._before = self._state()

    async def changed(self) -> None:
        """Waits until one of them has changed, also in its mode."""
        while self._state() == self._before:
            await anyio.sleep(_LOOK_SECONDS)

    def _state(self) -> list[tuple[int, int] | None]:
        return [_state(path) for path in self._paths]


def _state(path: Path) -> tuple[int, int] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_ino, found.st_ctime_ns
