"""`asr-worker`: how the service manager, or `asrd run`, starts a worker (asrd.worker.worker)."""

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
from functools import partial
from typing import Any

from asrd import systemd
from asrd.config import config_path, load_worker
from asrd.engine import models
from asrd.errors import ConfigError, LoadError
from asrd.journal import setup_logging
from asrd.settings import WorkerSettings
from asrd.version import __version__
from asrd.wire.fds import OwnedFd
from asrd.worker.inference import Inference, Skills
from asrd.worker.stderr_capture import STORED, CapturedStderr, keep_real_stderr
from asrd.worker.worker import EXIT_BROKEN, EXIT_CANNOT_LOAD, Worker

log = logging.getLogger(__name__)


def _load_engine(settings: WorkerSettings, announce: Callable[[Skills], None]) -> Any:
    """`announce` is called before the engine is imported."""
    started = time.monotonic()
    found = models.find(settings)
    looked, (_, facts) = time.monotonic() - started, found
    announce(Skills(facts.languages, facts.multilingual, facts.word_timestamps))
    # Imported in the thread that loads: it takes a tenth of a second and pulls in C extensions.
    from asrd.engine.whisper import load_engine

    engine = load_engine(settings, found)
    engine.load_seconds += looked
    # What is there now stays: no collection need look at it again.
    gc.freeze()
    gc.enable()
    return engine


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="asr-worker",
        description="One isolated Faster Whisper worker, as systemd or `asrd run` starts it.",
    )
    parser.add_argument("name", metavar="NAME", help="the worker's name: its settings' file too")
    parser.add_argument("--config", metavar="FILE", help="the settings' file (asrd.toml)")
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
    """None where no service manager would keep it, or there is no memory for it."""
    if not notifier.managed:
        return None
    try:
        return CapturedStderr(OwnedFd(stored[0]) if stored else None, notifier)
    except OSError as error:
        log.warning("what the engine writes to stderr is not kept: %s", error.strerror)
        return None


def _configure(
    args: argparse.Namespace,
) -> tuple[WorkerSettings, Callable[[Callable[[Skills], None]], Any]]:
    """The settings, and what loads the engine. Wrong settings are told where a model that can't be
    loaded is told: to the front, too."""
    try:
        settings = load_worker(config_path(args.config), args.name)
    except ConfigError as error:
        reason = str(error)

        def refuse(announce: Callable[[Skills], None]) -> Any:
            raise LoadError(reason)

        return WorkerSettings(), refuse
    return settings, partial(_load_engine, settings)


def main() -> int:
    # A seventh of the time until a worker is ready goes to a collector that finds nothing.
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
    except ConfigError as error:
        log.error("%s", error)
        return EXIT_CANNOT_LOAD
    stderr = _captured_stderr(passed.get(STORED, []), notifier)
    inference = Inference(lambda: load(inference.announce))
    worker = Worker(settings, listener, notifier, inference, stderr)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: worker.stop())
    try:
        code = worker.run()
    except BaseException:
        log.exception("the worker failed")
        code = EXIT_BROKEN
    logging.shutdown()
    # The engine's threads may be anywhere in the C extension: no interpreter shutdown for them.
    os._exit(code)


if __name__ == "__main__":
    sys.exit(main())
