"""systemd's interfaces: sockets passed in (sd_listen_fds(3)), and notifications (sd_notify(3))."""

import os
import socket

from sdnotify import SystemdNotifier

from asrd.safe_text import escape

LISTEN_FDS_START = 3
# systemd ignores a notification of more than 4 KiB; a character takes up to 4 bytes.
_STATUS_MAX = 1000


def listen_fds() -> dict[str, list[int]]:
    """What systemd (or `asrd run`) passed to this very process, by name: listening sockets, and
    what the process before this one had stored (`Notifier.store`). They are the caller's.

    They are close-on-exec from here on, and the variables are gone, so that no child takes them
    for its own.
    """
    pid = os.environ.pop("LISTEN_PID", "")
    count = os.environ.pop("LISTEN_FDS", "0")
    names = os.environ.pop("LISTEN_FDNAMES", "").split(":")
    if pid != str(os.getpid()) or not count.isdecimal():
        return {}
    found: dict[str, list[int]] = {}
    for index in range(int(count)):
        fd = LISTEN_FDS_START + index
        os.set_inheritable(fd, False)
        name = names[index] if index < len(names) and names[index] else "unknown"
        found.setdefault(name, []).append(fd)
    return found


def listen_sockets() -> dict[str, list[socket.socket]]:
    """`listen_fds` where all of them are sockets."""
    return {name: [socket.socket(fileno=fd) for fd in fds] for name, fds in listen_fds().items()}


class Notifier:
    """Tells the service manager how it stands; does nothing where there is none."""

    def __init__(self) -> None:
        # Made only where it can connect: sdnotify leaks its socket where it can't.
        self._notifier = SystemdNotifier() if os.environ.get("NOTIFY_SOCKET") else None
        self._status: str | None = None

    @property
    def managed(self) -> bool:
        return self._notifier is not None

    def _notify(self, state: str) -> None:
        if self._notifier is not None:
            # sdnotify encodes as latin-1, systemd wants UTF-8: bytes go through as characters.
            self._notifier.notify(state.encode().decode("latin-1"))

    def ready(self) -> None:
        self._notify("READY=1")
        if self._notifier is not None and self._notifier.socket is not None:
            # From here on a manager that does not read (it may be stopped) misses something, which
            # is better than that our clients wait for it.
            self._notifier.socket.setblocking(False)

    def stopping(self) -> None:
        self._notify("STOPPING=1")

    def watchdog(self) -> None:
        self._notify("WATCHDOG=1")

    def status(self, text: str) -> None:
        """The line that `systemctl status` shows; sent only if it changed.

        It stays one line whatever is in `text`: a second one would be an order to the manager.
        """
        text = escape(text)[:_STATUS_MAX]
        if text != self._status:
            self._status = text
            self._notify(f"STATUS={text}")

    def store(self, name: str, fd: int) -> None:
        """Have the manager keep this descriptor, and pass it to the next process of the service as
        `name` (FileDescriptorStoreMax=)."""
        if self._notifier is not None and self._notifier.socket is not None:
            socket.send_fds(self._notifier.socket, [f"FDSTORE=1\nFDNAME={name}".encode()], [fd])

    def close(self) -> None:
        if self._notifier is not None and self._notifier.socket is not None:
            self._notifier.socket.close()


def watchdog_seconds() -> float | None:
    """How often to ping: half of what the manager allows (sd_watchdog_enabled(3)); None if it does
    not watch this process."""
    usec = os.environ.get("WATCHDOG_USEC", "")
    pid = os.environ.get("WATCHDOG_PID")
    if not usec.isdecimal() or (pid and pid != str(os.getpid())):
        return None
    return int(usec) / 2_000_000


def die_with_supervisor() -> None:
    """Where `asrd run` started this process, end with it, however it ends (prctl(2))."""
    supervisor = os.environ.pop("ASRD_SUPERVISED", None)
    if supervisor is not None:
        import ctypes
        import signal

        pr_set_pdeathsig = 1
        ctypes.CDLL(None).prctl(pr_set_pdeathsig, signal.SIGKILL)
        # It may have died before we asked to be told.
        if str(os.getppid()) != supervisor:
            os.kill(os.getpid(), signal.SIGKILL)


def last_exit() -> str | None:
    """How the process before this one ended, as the service manager saw it: `killed by SIGSEGV`.
    None for the first, and after an end of the worker's own will."""
    return os.environ.get("ASRD_LAST_EXIT") or None
