"""The checks of `asrctl doctor`, each about one thing."""

import dataclasses
import os
import stat
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import Enum
from functools import partial
from pathlib import Path
from typing import Any

from asrd.asrctl.host import Host
from asrd.config import load_front, load_worker
from asrd.errors import AsrdError, ConfigError

MODELS = Path("/var/lib/asrd/models")
CUBLAS = Path("/usr/lib/asrd/vendor/nvidia/cublas/lib/libcublas.so.12")
# Below this neither a model nor the journal has room.
_DISK_LOW = 1 << 30
# A worker that ends so often is in a loop.
_MANY_RESTARTS = 5
# What the worker's sandbox hides (ProtectHome=, PrivateTmp=).
_HIDDEN = ("/home", "/root", "/run/user", "/tmp", "/var/tmp")


class Verdict(Enum):
    OK = "ok"
    WRONG = "wrong"
    UNSEEN = "unseen"


@dataclass(frozen=True, slots=True)
class Finding:
    """`mend` is one command line, or None where nothing is to be done."""

    subject: str
    verdict: Verdict
    text: str
    mend: str | None = None

    def as_json(self) -> dict[str, str | None]:
        return {**dataclasses.asdict(self), "verdict": self.verdict.value}


def ok(subject: str, text: str) -> Finding:
    return Finding(subject, Verdict.OK, text)


def wrong(subject: str, text: str, mend: str) -> Finding:
    return Finding(subject, Verdict.WRONG, text, mend)


def unseen(subject: str, text: str) -> Finding:
    return Finding(subject, Verdict.UNSEEN, text)


def settings(host: Host) -> Iterator[Finding]:
    """asrd.toml and each worker-NAME.toml: readable, no unknown key, no wrong value."""
    loads: list[Callable[[], Any]] = [partial(load_front, host.config)]
    loads += [partial(load_worker, host.config, name) for name in worker_names(host) or ["0"]]
    bad = []
    for load in loads:
        try:
            load()
        except ConfigError as error:
            bad.append(str(error))
    for text in dict.fromkeys(bad):
        yield wrong("settings", text, f"sudoedit {text.partition(':')[0]}")
    if not bad:
        yield ok("settings", f"{host.config} and the workers' files are in order")


def sockets(host: Host) -> Iterator[Finding]:
    """Checks for a listener: the units (enabled, active, not given up on), or an `asrd run`."""
    units = host.units("asrd.socket", "asrd-status.socket", "asr-worker@*.socket")
    if not is_installed(host):
        yield from _standalone(host)
        return
    for name, unit in (units or {}).items():
        if unit["LoadState"] != "loaded":
            yield wrong("sockets", f"{name} is not installed", "sudo apt install asrd")
        elif unit["ActiveState"] == "failed":
            mend = f"sudo systemctl reset-failed {name} && sudo systemctl restart {name}"
            yield wrong("sockets", f"{name} has failed ({unit['Result']})", mend)
        elif unit["ActiveState"] != "active":
            yield wrong("sockets", f"{name} is off", f"sudo systemctl enable --now {name}")
        else:
            yield ok("sockets", f"{name} listens")
    if not any(name.startswith("asr-worker@") for name in units or {}):
        mend = "sudo systemctl enable --now asr-worker@0.socket"
        yield wrong("sockets", "no worker's socket is on: nobody can transcribe", mend)


def is_installed(host: Host) -> bool:
    """True if the service manager knows the daemon; if not, only an `asrd run` can be there."""
    units = host.units("asrd.socket", "asrd.service") or {}
    return any(unit["LoadState"] == "loaded" for unit in units.values())


def _standalone(host: Host) -> Iterator[Finding]:
    try:
        pid = host.status()["pid"]
    except AsrdError as error:
        text = f"no systemd units are installed, and no `asrd run` answers: {error}"
        yield wrong("sockets", text, "asrd run")
    else:
        text = f"`asrd run` listens at {host.socket} (pid {pid}); no systemd units are installed"
        yield ok("sockets", text)


def services(host: Host) -> Iterator[Finding]:
    """Front and workers: failed, held back by a start limit, or in a loop of restarts."""
    units = host.units("asrd.service", "asr-worker@*.service") or {}
    for name, unit in units.items() if is_installed(host) else ():
        logs = f"journalctl -b -n 50 -u {name}"
        if unit["Result"] == "start-limit-hit":
            mend = f"sudo systemctl reset-failed {name} && sudo systemctl restart {name}"
            yield wrong("services", f"{name} was started too often, systemd gave up on it", mend)
        elif unit["ActiveState"] == "failed":
            text = f"{name} has failed: {unit['StatusText'] or unit['Result']}"
            yield wrong("services", text, logs)
        elif int(unit["NRestarts"] or 0) >= _MANY_RESTARTS:
            text = f"{name} had to be restarted {unit['NRestarts']} times"
            yield wrong("services", text, logs)
        else:
            yield ok("services", f"{name} is {unit['ActiveState']}")


def permission(host: Host) -> Iterator[Finding]:
    """Whether this user may connect."""
    if not host.socket.exists():
        # Not only enabled: where the file was removed, the unit is still active.
        mend = "sudo systemctl enable asrd.socket && sudo systemctl restart asrd.socket"
        if is_installed(host):
            yield wrong("permission", f"the socket {host.socket} is missing", mend)
    elif os.access(host.socket, os.W_OK):
        yield ok("permission", f"{host.user()} may send audio to {host.socket}")
    elif not is_installed(host):
        text = f"{host.user()} can't use {host.socket}: it is of another user's `asrd run`"
        yield wrong("permission", text, "asrd run")
    elif host.member_of("asr") and not host.in_group("asr"):
        text = f"{host.user()} is in the group asr, but this login is older than that"
        yield wrong("permission", text, "newgrp asr")
    else:
        text = f"{host.user()} is not in the group asr and can't use {host.socket}"
        yield wrong("permission", text, f"sudo usermod -aG asr {host.user()}")


def workers(host: Host) -> Iterator[Finding]:
    """What the daemon itself says of each worker: a model that is ready has been loaded."""
    try:
        status = host.status()
    except AsrdError as error:
        yield unseen("workers", f"the daemon can't be asked: {error}")
        return
    installed = is_installed(host)
    for worker in status["workers"]:
        name, state, model = worker["name"], worker["state"], worker["model"]
        if state in ("failed", "down"):
            text = f"worker {name} is {state}: {worker['reason']}"
            logs = f"journalctl -b -n 50 -u asr-worker@{name}"
            yield wrong("workers", text, logs if installed else "asrctl status --crashes")
        else:
            yield ok("workers", f"worker {name} is {state}, model {model}")
        if model == "demo":
            mend = "sudo asrd fetch-model large-v3-turbo && sudoedit /etc/asrd/asrd.toml"
            if not installed:
                mend = "asrd fetch-model small && asrd run --model small"
            yield Finding("workers", Verdict.OK, "the demo model knows about 80 words", mend)
    if not status["workers"]:
        mend = "sudo systemctl enable --now asr-worker@0.socket"
        yield wrong("workers", "the daemon has no worker", mend)


def models(host: Host) -> Iterator[Finding]:
    """Each configured model: there, whole, and where the worker's user can read it."""
    for name in worker_names(host) or ["0"]:
        try:
            model = load_worker(host.config, name).model
            yield from _model(f"model of worker {name}", model, is_installed(host))
        except ConfigError:
            continue


def _model(subject: str, model: str, sandboxed: bool) -> Iterator[Finding]:
    if not model.startswith("/") or not sandboxed:
        yield _model_by_name(subject, model or "demo", sandboxed)
        return
    path = Path(model)
    closed = [part for part in (path, *path.parents) if part.exists() and not _open_to_all(part)]
    if model.startswith(_HIDDEN):
        mend = f"sudo cp -r {path} {MODELS}/"
        yield wrong(subject, f"{path} is hidden from workers by their sandbox", mend)
    elif closed:
        text = f"the workers (group asr-worker) can't read {closed[-1]}"
        yield wrong(subject, text, f"sudo chmod a+rX {closed[-1]}")
    elif not (path / "model.bin").is_file():
        text = f"{path} is not there, or holds no CTranslate2 model (model.bin)"
        yield wrong(subject, text, "sudoedit /etc/asrd/asrd.toml")
    else:
        yield ok(subject, f"{path} is there and readable")


def _model_by_name(subject: str, model: str, as_service: bool) -> Finding:
    # The engine's own lookup, where the engine is installed.
    if as_service:
        os.environ.setdefault("HF_HOME", str(MODELS))
    try:
        from asrd.engine.model_check import check
        from asrd.engine.models import resolve

        check(resolve(model))
    except ImportError:
        return unseen(subject, f"{model!r} can't be looked up without the package asrd")
    except AsrdError as error:
        fetch = f"sudo asrd fetch-model {model}" if as_service else f"asrd fetch-model {model}"
        by_name = not model.startswith(("/", "~", "."))
        return wrong(subject, str(error), fetch if by_name else f"ls -l {model}")
    return ok(subject, f"{model} is there and whole")


def gpu(host: Host) -> Iterator[Finding]:
    """Driver, device nodes, cuBLAS, and whether the sandbox lets the worker at them."""
    gpus, devices = host.gpus(), _configured_devices(host)
    if not gpus and "cuda" not in devices:
        yield ok("gpu", "none here: the workers use the CPU")
        return
    if not gpus:
        text = 'the settings ask for device = "cuda", but there is no /dev/nvidia0'
        yield wrong("gpu", text, "sudo nvidia-modprobe -u -c=0")
        return
    yield ok("gpu", f"{len(gpus)} found")
    if devices == {"cpu"}:
        return
    # The node of unified memory, which the CUDA runtime opens too, comes with a module of its own.
    uvm = gpus[0].with_name("nvidia-uvm")
    if not uvm.exists():
        yield wrong("gpu", f"there is no {uvm}", "sudo nvidia-modprobe -u -c=0")
    for node in filter(Path.exists, (*gpus, uvm)):
        if stat.S_IMODE(node.stat().st_mode) & 0o006 != 0o006:
            text = f"the workers may not use {node}"
            yield wrong("gpu", text, f"sudo chmod a+rw {node}")
    yield from _in_use(host, "cpu" in devices)
    for name, unit in (host.units("asr-worker@*.service") or {}).items():
        shut = unit["PrivateDevices"] == "yes" or "char-nvidia" not in unit["DeviceAllow"]
        if shut and unit["DevicePolicy"] != "auto":
            text = f"{name} was changed so that its sandbox hides the GPU"
            yield wrong("gpu", text, f"sudo systemctl revert {name}")


def _in_use(host: Host, by_choice: bool) -> Iterator[Finding]:
    """What a running worker says of itself counts; where none says anything, the file does.

    `by_choice`: some worker's settings ask for the CPU.
    """
    try:
        running = {worker["name"]: worker["device"] for worker in host.status()["workers"]}
    except AsrdError:
        running = {}
    for name, device in running.items():
        if device == "cuda":
            yield ok("gpu", f"worker {name} runs on it")
        elif device == "cpu" and not by_choice:
            text = f"worker {name} uses the CPU although there is a GPU; its log says why"
            logs = f"journalctl -b -u asr-worker@{name} -g 'using the CPU'"
            yield wrong("gpu", text, logs if is_installed(host) else "asrctl status")
    if "cuda" not in running.values() and is_installed(host) and not CUBLAS.exists():
        yield wrong("gpu", f"libcublas 12 is not at {CUBLAS}", "sudo apt install asrd-cuda")


def disk(host: Host) -> Iterator[Finding]:
    for path in (MODELS, Path("/var/log")):
        if path.is_dir():
            free = host.free_bytes(path)
            text = f"{free / (1 << 30):.1f} GiB are free under {path}"
            if free < _DISK_LOW:
                yield wrong("disk", text, f"sudo du -xh --max-depth=2 {path}")
            else:
                yield ok("disk", text)


CHECKS = (settings, sockets, services, permission, workers, models, gpu, disk)


def worker_names(host: Host) -> list[str]:
    """The instances that systemd knows, else those that have settings of their own."""
    units = host.units("asr-worker@*.socket") or {}
    names = [name.removeprefix("asr-worker@").removesuffix(".socket") for name in units]
    files = host.config.parent.glob("worker-*.toml")
    return sorted({*names, *(path.stem.removeprefix("worker-") for path in files)})


def _configured_devices(host: Host) -> set[str]:
    found = set()
    for name in worker_names(host) or ["0"]:
        try:
            found.add(load_worker(host.config, name).device)
        except ConfigError:
            continue
    return found


def _open_to_all(path: Path) -> bool:
    wanted = 0o005 if path.is_dir() else 0o004
    return path.stat().st_mode & wanted == wanted
