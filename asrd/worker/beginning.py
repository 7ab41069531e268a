"""What a worker's process needs before it can begin: settings, its socket, its stderr."""

import argparse
import logging
import socket
from collections.abc import Callable
from typing import Any

from asrd import sd
from asrd.config import WorkerSettings, config_path, load_worker
from asrd.errors import ConfigError, LoadError
from asrd.ownedfd import OwnedFd
from asrd.version import __version__
from asrd.worker.lastwords import CapturedStderr

log = logging.getLogger(__name__)


def _load_engine(settings: WorkerSettings) -> Any:
    # Imported in the inference thread: it takes a fifth of a second and pulls in the C extensions.
    from asrd.worker.engine import load_engine

    return load_engine(settings)


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(
        prog="asr-worker",
        description="One isolated Faster Whisper worker, as systemd or `asrd run` starts it.",
    )
    made.add_argument("name", metavar="NAME", help="the worker's name: its settings' file too")
    made.add_argument("--config", metavar="FILE", help="the settings' file (asrd.toml)")
    made.add_argument("--version", action="version", version=f"asr-worker {__version__}")
    return made


def listener(name: str, passed: list[int]) -> socket.socket:
    """Raises ConfigError unless exactly one socket was passed in."""
    if len(passed) != 1:
        raise ConfigError(
            f"asr-worker {name} needs one listening socket named `worker`: start it through "
            f"asr-worker@{name}.socket, or use `asrd run`"
        )
    return socket.socket(fileno=passed[0])


def captured_stderr(stored: list[int], notifier: sd.Notifier) -> CapturedStderr | None:
    """None where no service manager would keep it, or there is no memory for it."""
    if not notifier.managed:
        return None
    try:
        return CapturedStderr(OwnedFd(stored[0]) if stored else None, notifier)
    except OSError as error:
        log.warning("what the engine writes to stderr is not kept: %s", error.strerror)
        return None


def configure(args: argparse.Namespace) -> tuple[WorkerSettings, Callable[[], Any]]:
    """The settings, and what loads the engine. Wrong settings are told where a model that can't be
    loaded is told: to the front, too."""
    try:
        settings = load_worker(config_path(args.config), args.name)
    except ConfigError as error:
        reason = str(error)

        def refuse() -> Any:
            raise LoadError(reason)

        return WorkerSettings(), refuse
    return settings, lambda: _load_engine(settings)
