"""The checks of systemd's units, for `asrctl doctor`."""

import time
from collections.abc import Iterator
from pathlib import Path

from asrd.asrctl.finding import Finding, ok, wrong
from asrd.asrctl.host import Host, Unit
from asrd.errors import AsrdError

# A service with so many restarts is in a loop, unless its process runs for so many seconds. Pauses
# between restarts are 8 s at most (systemd/restart-backoff).
_MANY_RESTARTS, _SETTLED_SECONDS = 5, 20.0
_FRONT_SOCKETS = ("asrd.socket", "asrd-status.socket")
ENABLE_WORKER = "sudo systemctl enable --now asr-worker@0.socket"


def sockets(host: Host) -> Iterator[Finding]:
    """The listeners: the socket units, or an `asrd run`."""
    if not host.is_installed():
        yield _standalone(host)
        return
    units = _sockets(host)
    services = host.units("asrd.service", "asr-worker@*.service")
    for name, unit in units.items():
        hindrance = _hindrance(name, unit)
        masked = services.get(_service(name), {}).get("LoadState") == "masked"
        if masked and unit["LoadState"] == "loaded":
            # That is reported, and it can't be started before that.
            continue
        if hindrance is not None:
            yield hindrance
        elif unit["ActiveState"] != "active":
            yield _inactive(host, name, unit)
        elif lost := [path for path in _paths(unit) if host.is_missing(path)]:
            # A restart of the front starts only sockets that are not active.
            stop = f"sudo systemctl stop {name} && " if name in _FRONT_SOCKETS else ""
            yield wrong(f"{name} has lost {lost[0]}: its file was removed", stop + _start(name))
        else:
            yield ok(f"{name} listens")
    if not any(name.startswith("asr-worker@") for name in units):
        yield wrong("no worker's socket is active, so no job can run", ENABLE_WORKER)
    # Only if the admin wants it: strangers come in there.
    for name, unit in host.units("asrd-wyoming.socket").items():
        if unit["ActiveState"] == "active":
            yield ok(f"{name} listens")
        elif unit["UnitFileState"] == "enabled":
            yield wrong(f"{name} is enabled, but not active", _start(name))


def startable_sockets(host: Host) -> Iterator[Finding]:
    """Hindrances for systemd to start the socket units. One that is not active or has lost its
    file is no reason against a restart, which is a part of its repair."""
    for name, unit in _sockets(host).items():
        yield _hindrance(name, unit) or ok(f"{name} can be started")


def _sockets(host: Host) -> dict[str, Unit]:
    named = (f"asr-worker@{name}.socket" for name in host.worker_files())
    return host.units(*_FRONT_SOCKETS, "asr-worker@*.socket", *named)


def _hindrance(name: str, unit: Unit) -> Finding | None:
    if unit["LoadState"] == "masked":
        return _masked(name, unit)
    if unit["LoadState"] != "loaded":
        return wrong(f"{name} is not installed", "sudo apt install --reinstall asrd")
    if unit["ActiveState"] == "failed":
        again = f"sudo systemctl reset-failed {name} && {_start(name)}"
        return wrong(f"{name} has failed ({unit['Result']})", again)
    return None


def _standalone(host: Host) -> Finding:
    try:
        pid = host.status().pid
    except AsrdError as error:
        text = f"no systemd units are installed, and no `asrd run` answers: {error}"
        return wrong(text, "asrd run")
    return ok(f"`asrd run` listens at {host.socket} (pid {pid}); no systemd units are installed")


def _inactive(host: Host, name: str, unit: Unit) -> Finding:
    if name in _FRONT_SOCKETS:
        enable = f"sudo systemctl enable {name} && " * (unit["UnitFileState"] == "disabled")
        return wrong(f"{name} is not active", enable + _start(name))
    text = f"{name} is not active"
    worker = name.removeprefix("asr-worker@").removesuffix(".socket")
    if worker in host.worker_files():
        text += f", so that {host.worker_file(worker)} has no effect"
    return wrong(text, f"sudo systemctl enable --now {name}")


def _masked(name: str, unit: Unit) -> Finding:
    # An instance is masked by its own name, or with all others by that of the template.
    file = Path(unit["FragmentPath"]).name or name
    return wrong(
        f"{name} is masked, so systemd does not start it",
        f"sudo systemctl unmask {file} && {_start(name)}",
    )


def _paths(unit: Unit) -> Iterator[Path]:
    """Yields the paths that a socket unit listens at."""
    for line in unit["Listen"].splitlines():
        path = line.rpartition(" (")[0]
        if path.startswith("/"):
            yield Path(path)


def _service(socket: str) -> str:
    worker = socket.startswith("asr-worker@")
    return socket.removesuffix(".socket") + ".service" if worker else "asrd.service"


def _start(name: str) -> str:
    """Returns the command that starts a unit again, with what it needs. systemd starts no socket of
    a service that runs, and a restart of the front starts its sockets first."""
    worker = name.startswith("asr-worker@")
    socket = name.removesuffix(".service").removesuffix(".socket") + ".socket"
    return f"sudo systemctl restart {socket if worker else 'asrd'}"


def services(host: Host) -> Iterator[Finding]:
    """Front and workers: masked, failed, stopped by a start limit, or in a loop of restarts."""
    if not host.is_installed():
        return
    for name, unit in host.units("asrd.service", "asr-worker@*.service").items():
        logs = f"journalctl -b -n 50 -u {name}"
        if unit["LoadState"] == "masked":
            yield _masked(name, unit)
        elif unit["Result"] == "start-limit-hit":
            again = f"sudo systemctl reset-failed {name} && {_start(name)}"
            yield wrong(f"{name} was started too often, and systemd gave up", again)
        elif unit["ActiveState"] == "failed":
            text = f"{name} has failed: {unit['StatusText'] or unit['Result']}"
            yield wrong(text, see=logs)
        elif _is_looping(unit):
            yield wrong(f"{name} was restarted {unit['NRestarts']} times", see=logs)
        else:
            yield ok(f"{name} is {unit['ActiveState']}")


def _is_looping(unit: Unit) -> bool:
    """Returns True if it is restarted again and again now. systemd counts its restarts however long
    ago they were, until an admin restarts it."""
    started = int(unit["ExecMainStartTimestampMonotonic"] or 0) / 1e6
    settled = time.monotonic() - started > _SETTLED_SECONDS
    return int(unit["NRestarts"] or 0) >= _MANY_RESTARTS and not settled
