"""systemd's interfaces: sockets passed in (sd_listen_fds(3)), and notifications (sd_notify(3))."""

import contextlib
import os
import select
import signal
import socket

from sdnotify import SystemdNotifier

from asrd.safe_text import escape

LISTEN_FDS_START = 3
# RestartKillSignal= of the front's unit. Not SIGINT, of which Python makes an exception: in a front
# that only starts, an import may lose that (the front would never stop), or crash half way.
RESTART_SIGNAL = signal.SIGUSR2
FRONT_SIGNALS = (signal.SIGTERM, signal.SIGINT, RESTART_SIGNAL)
# The name of what the front stores at a restart (asrd.front.handover).
HANDOVER = "handover"
# systemd ignores a notification of more than 4 KiB; a character takes up to 4 bytes.
_STATUS_MAX = 1000
# Seconds for the manager to handle our notifications: nobody is served meanwhile.
_BARRIER_SECONDS = 1.0


def listen_fds() -> dict[str, list[int]]:
    """Returns the descriptors that systemd (or `asrd run`) passed to this process, by name.

    They are listening sockets, and descriptors that the process before this one stored
    (`Notifier.store`); the caller closes them. They become close-on-exec, and the environment
    variables are removed, so that no child process takes them for its own.
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
    """Returns the descriptors of `listen_fds` as sockets."""
    return {name: [socket.socket(fileno=fd) for fd in fds] for name, fds in listen_fds().items()}


class Notifier:
    """Sends notifications to the service manager; does nothing where there is none."""

    def __init__(self) -> None:
        # Only where it can connect: else sdnotify leaks its socket.
        self._notifier = SystemdNotifier() if os.environ.get("NOTIFY_SOCKET") else None
        self._status: str | None = None

    @property
    def managed(self) -> bool:
        return self._notifier is not None

    def _notify(self, state: str) -> None:
        if self._notifier is not None:
            # sdnotify encodes as latin-1 and systemd expects UTF-8, so each byte is a character.
            self._notifier.notify(state.encode().decode("latin-1"))

    def ready(self) -> None:
        self._notify("READY=1")
        if self._notifier is not None and self._notifier.socket is not None:
            # A manager that does not read (it may be stopped) misses notifications from now on;
            # otherwise our clients would wait for it.
            self._notifier.socket.setblocking(False)

    def stopping(self) -> None:
        self._notify("STOPPING=1")

    def watchdog(self) -> None:
        self._notify("WATCHDOG=1")

    def status(self, text: str) -> None:
        """Sends the line that `systemctl status` shows, if it has changed.

        Line feeds are escaped: a second line would be another notification.
        """
        text = escape(text)[:_STATUS_MAX]
        if text != self._status:
            self._status = text
            self._notify(f"STATUS={text}")

    def store(self, name: str, fd: int) -> None:
        """Makes the manager keep a descriptor for the next process of the service
        (FileDescriptorStoreMax=)."""
        if self._notifier is not None and self._notifier.socket is not None:
            socket.send_fds(self._notifier.socket, [f"FDSTORE=1\nFDNAME={name}".encode()], [fd])

    def store_socket(self, name: str) -> socket.socket | None:
        """Makes the manager keep one end of a pair of sockets for the next process, with whatever
        is sent to it. Returns the other end; None if the manager keeps nothing, or if this process
        has no descriptors left."""
        if self._notifier is None or self._notifier.socket is None:
            return None
        try:
            ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        except OSError:
            return None
        ours.setblocking(False)
        # Kept also when our end closes.
        state = f"FDSTORE=1\nFDNAME={name}\nFDPOLL=0"
        with theirs, contextlib.suppress(OSError):
            socket.send_fds(self._notifier.socket, [state.encode()], [theirs.fileno()])
        if self._barrier() and not _is_closed(ours):
            return ours
        ours.close()
        return None

    def unstore(self, name: str) -> None:
        """Makes the manager close what it keeps under this name."""
        self._notify(f"FDSTOREREMOVE=1\nFDNAME={name}")

    def _barrier(self) -> bool:
        """Waits until the manager has handled all notifications so far, which it shows by closing a
        descriptor. Returns False if it does not in time."""
        if self._notifier is None or self._notifier.socket is None:
            return False
        try:
            ours, theirs = os.pipe2(os.O_CLOEXEC)
        except OSError:
            return False
        try:
            socket.send_fds(self._notifier.socket, [b"BARRIER=1"], [theirs])
        except OSError:
            os.close(ours)
            return False
        finally:
            os.close(theirs)
        try:
            return _is_closed(ours, _BARRIER_SECONDS)
        finally:
            os.close(ours)

    def close(self) -> None:
        if self._notifier is not None and self._notifier.socket is not None:
            self._notifier.socket.close()


def _is_closed(end: socket.socket | int, seconds: float = 0.0) -> bool:
    """Returns True if nobody has the other end, after a wait of so many seconds at most."""
    poll = select.poll()
    poll.register(end, 0)
    return bool(poll.poll(seconds * 1000))


def watchdog_seconds() -> float | None:
    """Returns the time between two pings, half of what the manager allows; None if it does not
    watch this process (sd_watchdog_enabled(3))."""
    usec = os.environ.get("WATCHDOG_USEC", "")
    pid = os.environ.get("WATCHDOG_PID")
    if not usec.isdecimal() or (pid and pid != str(os.getpid())):
        return None
    return int(usec) / 2_000_000


def die_with_supervisor() -> None:
    """Makes this process die with `asrd run`, if that started it (prctl(2))."""
    supervisor = os.environ.pop("ASRD_SUPERVISED", None)
    if supervisor is not None:
        import ctypes
        import signal

        pr_set_pdeathsig = 1
        ctypes.CDLL(None).prctl(pr_set_pdeathsig, signal.SIGKILL)
        # It may have died before the call.
        if str(os.getppid()) != supervisor:
            os.kill(os.getpid(), signal.SIGKILL)


def last_exit() -> str | None:
    """Returns how the process before this one ended, as `killed by SIGSEGV`; None if it is the
    first, or the one before exited on purpose."""
    return os.environ.get("ASRD_LAST_EXIT") or None
