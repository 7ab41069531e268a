"""The checks of `asrctl doctor`. Each examines one subject and changes nothing."""

import os
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from shlex import quote
from typing import Any

from asrd.asrctl.finding import Finding, edit, ok, unseen, wrong
from asrd.asrctl.gpu_checks import gpu
from asrd.asrctl.host import Host
from asrd.asrctl.model_checks import MODELS, models
from asrd.asrctl.speed import speed
from asrd.asrctl.unit_checks import ENABLE_WORKER, services, sockets
from asrd.config import load_front, load_worker
from asrd.errors import AsrdError, ConfigError
from asrd.model_names import match
from asrd.snapshot import SETTINGS_WRONG

# Bytes that must be free. With less, neither a model nor the journal has room; in /run there are
# sockets and small files.
_FREE = {MODELS: 1 << 30, Path("/var/log"): 1 << 30, Path("/run"): 1 << 20}
_FREE_INODES = 100


def settings(host: Host) -> Iterator[Finding]:
    """asrd.toml and each worker-NAME.toml: readable by the daemon, no unknown key, no wrong
    value."""
    closed = list(_closed(host)) if host.is_installed() else []
    yield from closed
    loads: list[Callable[[], Any]] = [partial(load_front, host.config)]
    loads += [partial(load_worker, host.config, name) for name in host.worker_names()]
    problems = []
    for load in loads if not closed else ():
        try:
            load()
        except ConfigError as error:
            problems.append(str(error))
    for text in dict.fromkeys(problems):
        yield wrong(text, _correction(host, text))
    if problems or closed:
        return
    if host.config.exists() or host.worker_files():
        yield ok(f"{host.config} and the workers' files are in order")
    else:
        yield ok(f"there is no {host.config}, so the defaults apply")


def _correction(host: Host, problem: str) -> str | None:
    """Returns the command that edits the file of a mistake; None if it is in a variable."""
    files = [host.config, *map(host.worker_file, host.worker_files())]
    found = [file for file in files if problem.startswith(f"{file}:")]
    return edit(found[0]) if found else None


def _closed(host: Host) -> Iterator[Finding]:
    workers = [host.worker_file(name) for name in host.worker_files()]
    for reader, files in (
        (host.front_reader(), [host.config]),
        (host.worker_reader(), [host.config, *workers]),
    ):
        there = [part for file in files if file.exists() for part in (file.parent, file)]
        if closed := reader.closed(there):
            names = [str(path) for path in closed]
            text = f"{reader.name} can't read {' '.join(names)}"
            yield wrong(text, f"sudo chmod a+rX {' '.join(map(quote, names))}")


def permission(host: Host) -> Iterator[Finding]:
    """The right of this user to connect."""
    user, installed = host.user(), host.is_installed()
    if not host.socket.exists():
        # The check of the sockets reports the reason.
        if installed:
            yield unseen(f"there is no {host.socket}")
    elif os.access(host.socket, os.W_OK):
        yield ok(f"{user} may send audio to {host.socket}")
    elif not installed:
        text = f"{user} can't use {host.socket}: it belongs to another user's `asrd run`"
        yield wrong(text, "asrd run")
    elif host.member_of("asr") and not host.in_group("asr"):
        yield wrong(f"{user} joined the group asr after this login", "newgrp asr")
    else:
        text = f"{user} is not in the group asr and can't use {host.socket}"
        yield wrong(text, f"sudo usermod -aG asr {user}")


def workers(host: Host) -> Iterator[Finding]:
    """The daemon's own report on its workers."""
    try:
        status = host.status()
    except AsrdError as error:
        yield unseen(f"the daemon does not answer: {error}")
        return
    if mistakes := [text for text in status.problems if text.startswith(SETTINGS_WRONG)]:
        # The front has no workers until that is corrected.
        for text in mistakes:
            yield wrong(text, _correction(host, text.removeprefix(SETTINGS_WRONG)))
        return
    installed = host.is_installed()
    for worker in status.workers:
        # A worker that "is" loading or asleep needs no fix; a failed one is reported below.
        worrying = (f"worker {worker.name} has ", f"worker {worker.name} died ")
        for problem in status.problems:
            if problem.startswith(worrying):
                yield wrong(problem, see="asrctl status --crashes")
        state = f"worker {worker.name} is {worker.state}"
        if worker.state in ("failed", "down"):
            logs = f"journalctl -b -n 50 -u asr-worker@{worker.name}"
            see = logs if installed else "asrctl status --crashes"
            yield wrong(f"{state}: {worker.reason}", see=see)
        else:
            yield ok(f"{state}, model {worker.model}")
        if worker.model == "demo":
            fix = "sudo asrd fetch-model large-v3-turbo && sudoedit /etc/asrd/asrd.toml"
            if not installed:
                fix = "asrd fetch-model small && asrd run --model small"
            yield ok("the demo model knows about 80 words", fix)
    if not status.workers:
        # With sockets, one of those is what is wrong.
        enable = installed and not host.units("asr-worker@*.socket")
        yield wrong("the daemon has no worker", ENABLE_WORKER if enable else None)


def default_model(host: Host) -> Iterator[Finding]:
    """The model of requests that name none: one of the workers has it."""
    try:
        front, workers = load_front(host.config), host.status().workers
    except AsrdError:
        # Reported by other checks.
        return
    aliases = {alias.casefold(): model for alias, model in front.model_aliases.items()}
    wanted = aliases.get(front.default_model.casefold(), front.default_model)
    models = [worker.model for worker in workers if worker.model is not None]
    if not wanted or not models:
        return
    if any(match(model, wanted) is not None for model in models):
        yield ok(f"requests without a model are for {wanted}")
    elif len(models) == len(workers):
        text = f"no worker has {wanted}, so requests without a model fail; there is: "
        yield wrong(text + ", ".join(sorted(set(models))), edit(host.config))


def disk(host: Host) -> Iterator[Finding]:
    """Room for models, the journal and the daemon's own small files."""
    for path in filter(Path.is_dir, _FREE):
        bytes_free, inodes = host.free(path)
        see = f"sudo du -xh --max-depth=2 {path}"
        size = (
            f"{bytes_free / (1 << 30):.1f} GiB" if bytes_free >> 30 else f"{bytes_free >> 20} MiB"
        )
        text = f"{size} are free under {path}"
        if bytes_free < _FREE[path]:
            yield wrong(text, see=see)
        elif inodes is not None and inodes < _FREE_INODES:
            yield wrong(f"{inodes} more files fit under {path}", see=f"{see} --inodes")
        else:
            yield ok(text)


CHECKS = (settings, sockets, services, permission, workers, models, default_model, gpu, disk, speed)
