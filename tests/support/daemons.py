"""Real daemons for tests: `asrd run` whole, or `asrd serve` with the test itself as the worker."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

from asrd.demo import MODEL
from tests.support.raw import HELLO, PATIENCE, Peer, status, wait_for


def environment(tmp: Path) -> dict[str, str]:
    found = {k: v for k, v in os.environ.items() if not k.startswith("ASRD_")}
    # Its private directory must appear, and be gone afterwards, where the test can see it.
    found["TMPDIR"] = str(tmp)
    found["ASRD_CONFIG"] = str(tmp / "asrd.toml")
    found["PYTHONWARNINGS"] = "default"
    return found


def started_with(numbers: list[int], name: str = "asrd") -> list[str]:
    """The command of an interpreter that gets those sockets as systemd would pass them: as
    descriptors 3, 4, … with this name."""
    if not numbers:
        return [sys.executable]
    start = (
        "import os, sys;"
        f"numbers = {numbers};"
        "[os.dup2(number, 100 + i) for i, number in enumerate(numbers)];"
        "[os.dup2(100 + i, 3 + i) for i in range(len(numbers))];"
        "os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS=str(len(numbers)),"
        f" LISTEN_FDNAMES=':'.join(['{name}'] * len(numbers)));"
        "os.closerange(3 + len(numbers), 200);"
        "os.execv(sys.executable, [sys.executable, *sys.argv[1:]])"
    )
    return [sys.executable, "-c", start]


class _Process:
    """A daemon in a directory of its own; its log is kept for the failure report.

    `program` is how Python starts it; `shell` are commands that a shell runs before that.
    """

    program: tuple[str, ...] = ("-m", "asrd.main")

    def __init__(
        self,
        tmp: Path,
        arguments: list[str],
        config: str = "",
        shell: str = ":",
        passed: Sequence[socket.socket] = (),
    ) -> None:
        """`passed`: listeners that it gets as systemd would pass them, all named `asrd`."""
        self.tmp = tmp
        named = arguments.index("--socket") + 1 if "--socket" in arguments else 0
        self.socket = str(tmp / (arguments[named] if named else "asrd.sock"))
        (tmp / "asrd.toml").write_text(config)
        self._log = open(tmp / "log", "wb")  # noqa: SIM115
        if not named:
            arguments = [*arguments, "--socket", self.socket]
        numbers = [sock.fileno() for sock in passed]
        python = started_with(numbers)
        self.process = subprocess.Popen(
            ["sh", "-c", f'{shell}; exec "$@"', "sh", *python, *self.program, *arguments],
            env=environment(tmp),
            pass_fds=numbers,
            stdin=subprocess.DEVNULL,
            stdout=self._log,
            stderr=self._log,
            start_new_session=True,
        )

    @property
    def log(self) -> str:
        return (self.tmp / "log").read_text(errors="replace")

    def connect(self) -> Peer:
        return Peer.connect(self.socket)

    def status(self) -> dict[str, Any]:
        return status(self.socket)

    def _answers(self) -> bool:
        assert self.process.poll() is None, f"the daemon ended:\n{self.log}"
        try:
            self.status()
        except (OSError, AssertionError):
            # There is no front, or it ends just then.
            return False
        return True

    def wait_until_serving(self) -> None:
        wait_for("the daemon to answer", self._answers)

    def stop(self, number: int = signal.SIGTERM) -> None:
        """Stops it as its manager would; it must leave no file, and no complaint in its log."""
        if self.process.poll() is None:
            self.process.send_signal(number)
        try:
            self.process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            raise AssertionError(f"the daemon did not stop:\n{self.log}") from None
        finally:
            self._log.close()
        for word in ("ResourceWarning", "a connection failed", "the front failed on"):
            assert word not in self.log, self.log
        leftovers = [p.name for p in self.tmp.iterdir() if p.name.startswith("asrd-")]
        assert not leftovers, f"left behind: {leftovers}"

    def __enter__(self) -> Self:
        self.wait_until_serving()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()


class Daemon(_Process):
    """`asrd run` with real workers."""

    def __init__(self, tmp: Path, *arguments: str, config: str = "", shell: str = ":") -> None:
        super().__init__(tmp, ["run", *arguments], config, shell)

    def workers(self) -> dict[str, dict[str, Any]]:
        return {worker["name"]: worker for worker in self.status()["workers"]}

    def wait_until_ready(self, *names: str) -> None:
        def ready() -> bool:
            workers = self.workers()
            return all(workers.get(n, {}).get("state") == "ready" for n in names or ("0",))

        wait_for("the workers to be ready", ready)

    def pid_of(self, name: str = "0") -> int:
        """The worker's pid, once the front knows it: a new front needs a moment for that."""
        found = wait_for(f"worker {name}'s pid", lambda: self.workers().get(name, {}).get("pid"))
        return int(found)

    def kill(self, name: str = "0", number: int = signal.SIGKILL) -> None:
        os.kill(self.pid_of(name), number)

    def front_pid(self) -> int:
        return int(self.status()["pid"])


class Front(_Process):
    """`asrd serve` alone; its workers are sockets on which the test itself accepts."""

    def __init__(
        self,
        tmp: Path,
        *workers: str,
        config: str = "",
        passed: Sequence[socket.socket] = (),
    ) -> None:
        self.worker_dir = tmp / "worker"
        self.worker_dir.mkdir()
        self.listeners = {name: self.listen(name) for name in workers}
        settings = f"[front]\nworker_dir = '{self.worker_dir}'\n"
        settings += f"crash_file = '{tmp}/crashes.json'\n{config}"
        super().__init__(tmp, ["serve"], settings, passed=passed)

    def listen(self, name: str) -> socket.socket:
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        sock.bind(str(self.worker_dir / f"{name}.sock"))
        sock.listen(8)
        sock.settimeout(PATIENCE)
        return sock

    def accept(self, name: str = "0") -> Peer:
        """The front's connection, as the worker sees it."""
        sock, _ = self.listeners[name].accept()
        return Peer(sock)

    def ready(self, name: str = "0", **changes: Any) -> Peer:
        """Accept as the worker, and say that the model is loaded."""
        worker = self.accept(name)
        fds = changes.pop("fds", ())
        worker.send("hello", {**HELLO, **changes}, fds=fds)
        self.wait_for_state("ready", "busy", name=name)
        return worker

    def remove(self, name: str) -> None:
        (self.worker_dir / f"{name}.sock").unlink()
        self.listeners.pop(name).close()

    def worker(self, name: str) -> dict[str, Any]:
        return next(w for w in self.status()["workers"] if w["name"] == name)

    def wait_for_state(self, *states: str, name: str = "0") -> None:
        wait_for(f"worker {name} to be {states}", lambda: self.worker(name)["state"] in states)

    def stop(self, number: int = signal.SIGTERM) -> None:
        try:
            super().stop(number)
        finally:
            for listener in self.listeners.values():
                listener.close()


def resident_kib(pid: int) -> int:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1])
    raise AssertionError(f"process {pid} has no memory")


def descriptors(pid: int) -> int:
    return len(list(Path(f"/proc/{pid}/fd").iterdir()))


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


def crashing_model(parent: Path, of: Path = MODEL) -> Path:
    """Makes a model with alignment heads that do not exist: a request for word timestamps causes a
    real segmentation fault in CTranslate2."""
    model = parent / "crashing-model"
    shutil.copytree(of, model)
    settings = json.loads((model / "config.json").read_text())
    settings["alignment_heads"] = [[1, 400_000]]
    # The original may be read-only.
    model.chmod(0o755)
    (model / "config.json").unlink()
    (model / "config.json").write_text(json.dumps(settings))
    return model
