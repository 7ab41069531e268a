"""The `asr-worker` program: systemd or `asrd run` starts it, one process for each worker."""

import argparse
import faulthandler
import gc
import logging
import os
import signal
import socket
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, TypeAlias

from asrd import cores, systemd
from asrd.config import config_path, load_worker
from asrd.engine import models
from asrd.engine.model_check import Facts
from asrd.errors import ConfigError, LoadError
from asrd.exitcodes import EXIT_BROKEN, EXIT_CANNOT_LOAD
from asrd.journal import setup_logging
from asrd.settings import WorkerSettings
from asrd.version import __version__
from asrd.wire.fds import OwnedFd
from asrd.wire.turn_word import TurnWord
from asrd.wire.worker_events import Loading
from asrd.worker import neighbours
from asrd.worker.inference import Announce, Inference
from asrd.worker.stderr_capture import STORED, CapturedStderr, keep_real_stderr
from asrd.worker.worker import Worker

if TYPE_CHECKING:
    from asrd.engine.interface import Engine

# Gets the number of workers that share the cores.
_Load: TypeAlias = "Callable[[int, Announce], Engine[Any]]"

log = logging.getLogger(__name__)


def _load_engine(settings: WorkerSettings, workers: int, announce: Announce) -> "Engine[Any]":
    started = time.monotonic()
    settings = replace(settings, cpu_threads=settings.cpu_threads or cores.share(workers))
    path, facts = models.find(settings)
    loading = Loading(
        pid=os.getpid(),
        model=settings.model or "demo",
        languages=facts.languages,
        translate=facts.multilingual,
        word_timestamps=facts.word_timestamps,
        speech=not facts.speakers,
        speakers=facts.speakers,
    )
    announce(loading)
    engine = _load_speakers(settings, path) if facts.speakers else _load(settings, path, facts)
    engine.load_seconds = time.monotonic() - started
    # These objects stay: no collection needs to visit them.
    gc.freeze()
    gc.enable()
    return engine


def _load(settings: WorkerSettings, path: Path, facts: Facts) -> "Engine[Any]":
    # Imported in the engine's thread: it takes a tenth of a second and pulls in C extensions. Most
    # of that time the weights are being loaded already.
    from asrd.engine.weights import Weights

    weights = Weights(settings, path, facts)
    from asrd.engine.whisper import load_engine

    return load_engine(settings, weights)


def _load_speakers(settings: WorkerSettings, path: Path) -> "Engine[Any]":
    from asrd.engine.speakers import load_engine

    return load_engine(settings, path)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="asr-worker",
        description="One isolated worker with one model, as systemd or `asrd run` starts it.",
    )
    parser.add_argument("name", metavar="NAME", help="the worker's name, also in worker-NAME.toml")
    parser.add_argument("--config", metavar="FILE", help="the settings file (asrd.toml)")
    parser.add_argument("--version", action="version", version=f"asr-worker {__version__}")
    return parser


def _listener(name: str, passed: list[int]) -> socket.socket:
    """Raises ConfigError unless exactly one socket was passed in."""
    if len(passed) != 1:
        raise ConfigError(
            f"asr-worker {name} needs one listening socket named `worker`: start it through "
            f"asr-worker@{name}.socket, or use `asrd run`"
        )
    return socket.socket(fileno=passed[0])


def _captured_stderr(stored: list[int], notifier: systemd.Notifier) -> CapturedStderr | None:
    """Returns None if there is no service manager to keep it, or no memory for it."""
    if not notifier.managed:
        return None
    try:
        return CapturedStderr(OwnedFd(stored[0]) if stored else None, notifier)
    except OSError as error:
        log.warning("what the engine writes to stderr is not kept: %s", error.strerror)
        return None


def _configure(args: argparse.Namespace) -> tuple[WorkerSettings, _Load]:
    """Returns the settings, and the function that loads the engine.

    Where the settings are wrong that function raises LoadError, so the front gets the reason too.
    """
    try:
        settings = load_worker(config_path(args.config), args.name)
    except ConfigError as error:
        reason = str(error)

        def refuse(workers: int, announce: Announce) -> NoReturn:
            raise LoadError(reason)

        return WorkerSettings(), refuse
    settings = replace(settings, model=models.short_name(settings.model))
    return settings, partial(_load_engine, settings)


def main() -> int:
    # The collector finds nothing before the model is loaded, and takes a seventh of that time.
    gc.disable()
    args = _parser().parse_args()
    faulthandler.enable(2)
    keep_real_stderr()
    systemd.die_with_supervisor()
    settings, load = _configure(args)
    setup_logging(settings.log_level, f"asr-worker@{args.name}")
    passed, notifier = systemd.listen_fds(), systemd.Notifier()
    try:
        listener = _listener(args.name, passed.get("worker", []))
        inference = Inference(TurnWord.create())
    except ConfigError as error:
        log.error("%s", error)
        return EXIT_CANNOT_LOAD
    except OSError as error:
        log.error("there is no memory for the turn word: %s", error.strerror)
        return EXIT_BROKEN
    stderr = _captured_stderr(passed.get(STORED, []), notifier)
    worker = Worker(settings, listener, notifier, inference, stderr)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: worker.stop())
    try:
        workers = neighbours.count(listener, config_path(args.config))
        inference.start(partial(load, workers))
        code = worker.run()
    except BaseException:
        log.exception("the worker failed")
        code = EXIT_BROKEN
    logging.shutdown()
    # The engine's thread may be anywhere in a C extension: no interpreter shutdown.
    os._exit(code)


if __name__ == "__main__":
    sys.exit(main())
