"""The checks of `asrctl doctor`. Each examines one subject and changes nothing."""

import os
import stat
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from enum import Enum
from functools import partial
from pathlib import Path
from typing import Any

from asrd.asrctl.host import Host
from asrd.config import load_front, load_worker
from asrd.errors import AsrdError, ConfigError
from asrd.model_names import match

MODELS = Path("/var/lib/asrd/models")
CUBLAS = Path("/usr/lib/asrd/vendor/nvidia/cublas/lib/libcublas.so.12")
# With less, neither a model nor the journal has room.
_DISK_LOW = 1 << 30
# A worker with so many restarts is in a loop.
_MANY_RESTARTS = 5
# The release of CUDA 12.8 (asrd.engine.cuda).
_OLDEST_DRIVER = 570
# The directories that the worker's sandbox hides (ProtectHome=, PrivateTmp=).
_HIDDEN = ("/home", "/root", "/run/user", "/tmp", "/var/tmp")
_ENABLE_WORKER = "sudo systemctl enable --now asr-worker@0.socket"


class Verdict(Enum):
    OK = "ok"
    WRONG = "wrong"
    UNSEEN = "unseen"


@dataclass(frozen=True, slots=True)
class Finding:
    """`fix` is one command line, or None if there is nothing to do."""

    verdict: Verdict
    text: str
    fix: str | None = None


ok = partial(Finding, Verdict.OK)
wrong = partial(Finding, Verdict.WRONG)
unseen = partial(Finding, Verdict.UNSEEN)


def settings(host: Host) -> Iterator[Finding]:
    """asrd.toml and each worker-NAME.toml: readable, no unknown key, no wrong value."""
    loads: list[Callable[[], Any]] = [partial(load_front, host.config)]
    loads += [partial(load_worker, host.config, name) for name in host.worker_names()]
    problems = []
    for load in loads:
        try:
            load()
        except ConfigError as error:
            problems.append(str(error))
    for text in dict.fromkeys(problems):
        yield wrong(text, f"sudoedit {text.partition(':')[0]}")
    if not problems and (host.config.exists() or any(host.config.parent.glob("worker-*.toml"))):
        yield ok(f"{host.config} and the workers' files are in order")
    elif not problems:
        yield ok(f"there is no {host.config}, so the defaults apply")


def sockets(host: Host) -> Iterator[Finding]:
    """The listeners: the socket units, or an `asrd run`."""
    if not host.is_installed():
        yield _standalone(host)
        return
    units = host.units("asrd.socket", "asrd-status.socket", "asr-worker@*.socket")
    for name, unit in units.items():
        if unit["LoadState"] != "loaded":
            yield wrong(f"{name} is not installed", "sudo apt install asrd")
        elif unit["ActiveState"] == "failed":
            yield wrong(f"{name} has failed ({unit['Result']})", _restart(name))
        elif unit["ActiveState"] != "active":
            yield wrong(f"{name} is not active", f"sudo systemctl enable --now {name}")
        else:
            yield ok(f"{name} listens")
    if not any(name.startswith("asr-worker@") for name in units):
        yield wrong("no worker's socket is active, so no job can run", _ENABLE_WORKER)
    # Only if the admin wants it: strangers come in there.
    for name, unit in host.units("asrd-wyoming.socket").items():
        if unit["ActiveState"] == "active":
            yield ok(f"{name} listens")
        elif unit["UnitFileState"] == "enabled":
            # systemd starts no socket of a service that runs.
            yield wrong(f"{name} is enabled, but not active", "sudo systemctl restart asrd")


def _restart(unit: str) -> str:
    return f"sudo systemctl reset-failed {unit} && sudo systemctl restart {unit}"


def _standalone(host: Host) -> Finding:
    try:
        pid = host.status().pid
    except AsrdError as error:
        text = f"no systemd units are installed, and no `asrd run` answers: {error}"
        return wrong(text, "asrd run")
    return ok(f"`asrd run` listens at {host.socket} (pid {pid}); no systemd units are installed")


def services(host: Host) -> Iterator[Finding]:
    """Front and workers: failed, stopped by a start limit, or in a loop of restarts."""
    if not host.is_installed():
        return
    for name, unit in host.units("asrd.service", "asr-worker@*.service").items():
        logs = f"journalctl -b -n 50 -u {name}"
        if unit["Result"] == "start-limit-hit":
            yield wrong(f"{name} was started too often, and systemd gave up", _restart(name))
        elif unit["ActiveState"] == "failed":
            yield wrong(f"{name} has failed: {unit['StatusText'] or unit['Result']}", logs)
        elif int(unit["NRestarts"] or 0) >= _MANY_RESTARTS:
            yield wrong(f"{name} was restarted {unit['NRestarts']} times", logs)
        else:
            yield ok(f"{name} is {unit['ActiveState']}")


def permission(host: Host) -> Iterator[Finding]:
    """The right of this user to connect."""
    user, installed = host.user(), host.is_installed()
    if not host.socket.exists():
        if installed:
            # Not only enabled: if the file was removed, the unit is still active.
            fix = "sudo systemctl enable asrd.socket && sudo systemctl restart asrd.socket"
            yield wrong(f"the socket {host.socket} is missing", fix)
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
    installed = host.is_installed()
    for worker in status.workers:
        # A worker that "is" loading or asleep needs no fix; a failed one is reported below.
        worrying = (f"worker {worker.name} has ", f"worker {worker.name} died ")
        for problem in status.problems:
            if problem.startswith(worrying):
                yield wrong(problem, "asrctl status --crashes")
        state = f"worker {worker.name} is {worker.state}"
        if worker.state in ("failed", "down"):
            logs = f"journalctl -b -n 50 -u asr-worker@{worker.name}"
            fix = logs if installed else "asrctl status --crashes"
            yield wrong(f"{state}: {worker.reason}", fix)
        else:
            yield ok(f"{state}, model {worker.model}")
        if worker.model == "demo":
            fix = "sudo asrd fetch-model large-v3-turbo && sudoedit /etc/asrd/asrd.toml"
            if not installed:
                fix = "asrd fetch-model small && asrd run --model small"
            yield ok("the demo model knows about 80 words", fix)
    if not status.workers:
        yield wrong("the daemon has no worker", _ENABLE_WORKER)


def models(host: Host) -> Iterator[Finding]:
    """Each configured model: present, complete, and readable by the worker's user."""
    find = _model_in_sandbox if host.is_installed() else _model
    for name in host.worker_names():
        with suppress(ConfigError):
            model = load_worker(host.config, name).model
            yield find(f"configured for worker {name}: ", model or "demo")


def _model_in_sandbox(worker: str, model: str) -> Finding:
    if not model.startswith("/"):
        os.environ.setdefault("HF_HOME", str(MODELS))
        return _model(worker, model, "sudo asrd")
    path = Path(model)
    closed = [part for part in (path, *path.parents) if part.exists() and not _open_to_all(part)]
    if model.startswith(_HIDDEN):
        text = f"{worker}{path} is hidden from workers by their sandbox"
        return wrong(text, f"sudo cp -r {path} {MODELS}/")
    if closed:
        text = f"{worker}the group asr-worker can't read {closed[-1]}"
        return wrong(text, f"sudo chmod a+rX {closed[-1]}")
    if not (path / "model.bin").is_file():
        text = f"{worker}{path} is missing, or holds no CTranslate2 model (model.bin)"
        return wrong(text, "sudoedit /etc/asrd/asrd.toml")
    return ok(f"{worker}{path} is readable")


def _model(worker: str, model: str, asrd: str = "asrd") -> Finding:
    """Looks the model up as the engine does, if the engine is installed."""
    try:
        from asrd.engine.model_check import check
        from asrd.engine.models import resolve

        check(resolve(model))
    except ImportError:
        return unseen(f"{worker}{model!r} can't be looked up without the package asrd")
    except AsrdError as error:
        by_name = not model.startswith(("/", "~", "."))
        return wrong(
            f"{worker}{error}", f"{asrd} fetch-model {model}" if by_name else f"ls -l {model}"
        )
    return ok(f"{worker}{model} is complete")


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
        yield wrong(text + ", ".join(sorted(set(models))), f"sudoedit {host.config}")


def gpu(host: Host) -> Iterator[Finding]:
    """Driver, device nodes, cuBLAS, and the sandbox's access to them."""
    gpus, devices = host.gpus(), _configured_devices(host)
    if not gpus and "cuda" not in devices:
        yield ok("there is none, so the workers use the CPU")
        return
    if not gpus:
        text = 'the settings request device = "cuda", but there is no /dev/nvidia0'
        yield wrong(text, "sudo nvidia-modprobe -u -c=0")
        return
    yield ok(f"{len(gpus)} found")
    if devices == {"cpu"}:
        return
    yield _driver(host.nvidia_driver())
    # The CUDA runtime also opens the node of unified memory, which has its own kernel module.
    uvm = gpus[0].with_name("nvidia-uvm")
    if not uvm.exists():
        yield wrong(f"there is no {uvm}", "sudo nvidia-modprobe -u -c=0")
    for node in filter(Path.exists, (*gpus, uvm)):
        if stat.S_IMODE(node.stat().st_mode) & 0o006 != 0o006:
            yield wrong(f"the workers may not use {node}", f"sudo chmod a+rw {node}")
    yield from _gpu_in_use(host, "cpu" in devices)
    for name, unit in host.units("asr-worker@*.service").items():
        shut = unit["PrivateDevices"] == "yes" or "char-nvidia" not in unit["DeviceAllow"]
        if shut and unit["DevicePolicy"] != "auto":
            text = f"the sandbox of {name} was changed and hides the GPU"
            yield wrong(text, f"sudo systemctl revert {name}")


def _driver(version: str) -> Finding:
    major = version.partition(".")[0]
    if not major.isdigit():
        return unseen("the version of the NVIDIA driver can't be read from /proc/driver/nvidia")
    if int(major) >= _OLDEST_DRIVER:
        return ok(f"the NVIDIA driver is {version}")
    text = (
        f"the NVIDIA driver is {version}, and R{_OLDEST_DRIVER} or newer is needed: with an older "
        "one CTranslate2 fails or gives wrong text on some cards; install a newer one and reboot"
    )
    return wrong(text, "apt list 'nvidia-driver*'")


def _gpu_in_use(host: Host, cpu_configured: bool) -> Iterator[Finding]:
    """Compares the reports of running workers; without one, checks for the file of cuBLAS."""
    try:
        running = {worker.name: worker.device for worker in host.status().workers}
    except AsrdError:
        running = {}
    installed = host.is_installed()
    for name, device in running.items():
        if device == "cuda":
            yield ok(f"worker {name} runs on it")
        elif device == "cpu" and not cpu_configured:
            text = f"worker {name} uses the CPU although there is a GPU; its log gives the reason"
            logs = f"journalctl -b -u asr-worker@{name} -g 'using the CPU'"
            yield wrong(text, logs if installed else "asrctl status")
    if "cuda" not in running.values() and installed and not CUBLAS.exists():
        yield wrong(f"libcublas 12 is not at {CUBLAS}", "sudo apt install asrd-cuda")


def disk(host: Host) -> Iterator[Finding]:
    for path in filter(Path.is_dir, (MODELS, Path("/var/log"))):
        free = host.free_bytes(path)
        text = f"{free / (1 << 30):.1f} GiB are free under {path}"
        if free < _DISK_LOW:
            yield wrong(text, f"sudo du -xh --max-depth=2 {path}")
        else:
            yield ok(text)


CHECKS = (settings, sockets, services, permission, workers, models, default_model, gpu, disk)


def _configured_devices(host: Host) -> set[str]:
    found = set()
    for name in host.worker_names():
        with suppress(ConfigError):
            found.add(load_worker(host.config, name).device)
    return found


def _open_to_all(path: Path) -> bool:
    wanted = 0o005 if path.is_dir() else 0o004
    return path.stat().st_mode & wanted == wanted
