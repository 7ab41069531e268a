"""Three asrd hosts on this machine, with Debian's HAProxy and packaging/examples/haproxy.cfg in
front of them."""

import csv
import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Self

from tests.support.daemons import Daemon, alive
from tests.support.http import HttpProgram, wait_until_ready
from tests.support.paths import ROOT
from tests.support.raw import PATIENCE, wait_for

CONFIG = ROOT / "packaging" / "examples" / "haproxy.cfg"
NAMES = ("host1", "host2", "host3")
BACKENDS = ("asrd_http", "asrd_wyoming")
# Of [front] and [http], as docs/scaling.md has them.
FRONT = "[front]\nqueue_max_per_user = 0\nmax_wait_seconds = 300\n[worker]\ncpu_threads = 1\n"
HTTP = "drain_seconds = 5"


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port


class Host:
    """An `asrd run` with its Wyoming port, and an asrd-http at a Unix socket; both keep their
    addresses when they start again."""

    def __init__(self, directory: Path, model: Path) -> None:
        self.directory = directory
        self.model = model
        self.port = free_port()
        self.http_path = directory / "http.sock"

    def start(self) -> Self:
        wyoming = f"127.0.0.1:{self.port}"
        self.daemon = Daemon(
            self.directory, "--model", str(self.model), "--wyoming", wyoming, config=FRONT
        )
        self.daemon.__enter__()
        self.start_http()
        return self

    def start_http(self) -> None:
        self.http_path.unlink(missing_ok=True)
        self.http = HttpProgram(self.directory, self.daemon.socket, HTTP)
        self.http.__enter__()
        wait_until_ready(self.http)

    def stop_http(self) -> None:
        """Returns when its requests have their answers."""
        self.http.__exit__()

    def stop(self) -> None:
        if self.daemon.process.poll() is None:
            self.stop_http()
            self.daemon.stop()

    def kill(self) -> None:
        """Ends all processes at once, as a loss of power would."""
        workers = [worker["pid"] for worker in self.daemon.workers().values()]
        daemon = [self.daemon.process.pid, self.daemon.front_pid(), *workers]
        for pid in (*daemon, self.http.process.pid):
            os.kill(pid, signal.SIGKILL)
        self.daemon.process.wait()
        self.http.process.wait()
        wait_for("the end of the host", lambda: not any(map(alive, daemon)))
        self.daemon._log.close()
        self.http._log.close()
        for left in self.directory.glob("asrd-*"):
            shutil.rmtree(left)

    def works(self) -> bool:
        """True while a worker has a job."""
        return any(worker["jobs"] for worker in self.daemon.workers().values())

    @contextmanager
    def frozen_worker(self) -> Iterator[None]:
        """Its jobs last until the end of the `with`, or of the host."""
        pid = self.daemon.pid_of()
        os.kill(pid, signal.SIGSTOP)
        try:
            yield
        finally:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)

    @contextmanager
    def without_workers(self) -> Iterator[None]:
        """The front goes on, and nobody starts another worker meanwhile."""
        self.daemon.process.send_signal(signal.SIGSTOP)
        try:
            self.daemon.kill()
            yield
        finally:
            self.daemon.process.send_signal(signal.SIGCONT)

    @property
    def accepted(self) -> int:
        found: int = self.daemon.status()["jobs"]["accepted"]
        return found


class Balancer:
    """HAProxy with the example as it is; `more` are names of the example and their values."""

    def __init__(self, directory: Path, hosts: dict[str, Host], **more: str) -> None:
        self.directory = directory
        self.http, self.wyoming = free_port(), free_port()
        self.admin = directory / "admin.sock"
        # In the place of Debian's /etc/haproxy/haproxy.cfg, which needs root.
        own = directory / "haproxy.cfg"
        own.write_text(
            f"global\n    log stdout format raw local0\n    stats socket {self.admin} level admin\n"
        )
        addresses = {
            "ASRD_HTTP": f"127.0.0.1:{self.http}",
            "ASRD_WYOMING": f"127.0.0.1:{self.wyoming}",
        }
        for number, host in enumerate(hosts.values(), 1):
            addresses[f"ASRD_HTTP_{number}"] = f"unix@{host.http_path}"
            addresses[f"ASRD_WYOMING_{number}"] = f"127.0.0.1:{host.port}"
        self._log = open(directory / "log", "wb")  # noqa: SIM115
        self.process = subprocess.Popen(
            ["haproxy", "-db", "-f", str(own), "-f", str(CONFIG)],
            env=os.environ | addresses | more,
            stdin=subprocess.DEVNULL,
            stdout=self._log,
            stderr=subprocess.STDOUT,
        )

    def ask(self, command: str) -> str:
        with socket.socket(socket.AF_UNIX) as sock:
            sock.settimeout(PATIENCE)
            sock.connect(str(self.admin))
            sock.sendall(command.encode() + b"\n")
            return b"".join(iter(lambda: sock.recv(65536), b"")).decode()

    def servers(self) -> dict[tuple[str, str], dict[str, str]]:
        """The columns of `show stat` of each (backend, host), and of (backend, BACKEND)."""
        rows = csv.DictReader(self.ask("show stat").removeprefix("# ").splitlines())
        return {(row["pxname"], row["svname"]): row for row in rows}

    def are(self, state: str, *names: str, backends: tuple[str, ...] = BACKENDS) -> bool:
        servers = self.servers()
        return all(
            servers[backend, name]["status"].startswith(state)
            for backend in backends
            for name in names
        )

    def cpu_seconds(self) -> float:
        """The processor time of HAProxy until now (proc_pid_stat(5))."""
        text = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2]
        return sum(map(int, text.split()[11:13])) / os.sysconf("SC_CLK_TCK")

    def serving(self, backend: str) -> list[str]:
        """The hosts that have a request of HAProxy."""
        servers = self.servers()
        return [name for name in NAMES if servers[backend, name]["scur"] != "0"]

    def wait_until(self, state: str, *names: str) -> float:
        """Waits until both backends see these hosts as UP or DOWN. Returns the time it took."""
        start = time.monotonic()
        wait_for(f"{names} to be {state}", lambda: self.are(state, *names))
        return time.monotonic() - start

    def __enter__(self) -> Self:
        wait_for("HAProxy", self._is_checking)
        self.wait_until("UP", *NAMES)
        return self

    def _is_checking(self) -> bool:
        """True after the first checks: until then every server is UP."""
        assert self.process.poll() is None, (self.directory / "log").read_text()
        return self.admin.exists() and all(
            row["check_status"] not in ("", "INI")
            for row in self.servers().values()
            if row["svname"] in NAMES
        )

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.wait()
        self._log.close()


@contextmanager
def three_hosts(directory: Path, model: Path) -> Iterator[dict[str, Host]]:
    with ExitStack() as stack:
        hosts = {}
        for name in NAMES:
            (directory / name).mkdir()
            hosts[name] = Host(directory / name, model).start()
            stack.callback(hosts[name].stop)
        yield hosts
        for host in hosts.values():
            # All at once, and the second signal ends the wait for a balancer.
            host.http.terminate()
