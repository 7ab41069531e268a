"""`asrd run` as people start it: in any directory, with any environment, stderr and limit."""

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from importlib.metadata import packages_distributions
from pathlib import Path
from typing import Any

import pytest

from asrd import Client
from asrd.asrctl.host import Host
from asrd.demo import MODEL, SAMPLES
from asrd.standalone import child
from tests.support.daemons import Daemon, alive
from tests.support.paths import ROOT
from tests.support.raw import PATIENCE, SHORT, TEXTS, wait_for

CONFIG = "[worker]\ncpu_threads = 1\n"


def serves(daemon: Daemon) -> None:
    with daemon.connect() as client:
        client.ask_file("a")
        assert client.transcript("a")["text"] == TEXTS[SHORT]


# --- whose code runs ----------------------------------------------------------------------------

# The first line of each module: records that it ran, and where.
_DECOY = """
import sys
if {child!r} in " ".join(sys.orig_argv) or {anywhere}:
    open({mark!r}, "a").write(f"{{__name__}} in {{sys.orig_argv}}\\n")
"""


def decoys(directory: Path, names: set[str], anywhere: bool) -> Path:
    """A directory of modules; if any of them is imported, the mark that is returned is there.

    `anywhere` false: in a process that `asrd run` started.
    """
    directory.mkdir()
    mark = directory.parent / "mark"
    code = _DECOY.format(child=child.__file__, anywhere=anywhere, mark=str(mark))
    for name in names:
        (directory / f"{name}.py").write_text(code)
    return mark


def script(directory: Path, module: str) -> str:
    """The launcher that pip installs."""
    path = directory / module
    path.write_text(f"import sys\nfrom {module} import main\nsys.exit(main())\n")
    return str(path)


def test_working_directory_is_not_on_the_import_path(
    tmp_path: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setenv("PYTHONDONTWRITEBYTECODE", "1")
    names = {*sys.stdlib_module_names, *packages_distributions(), "sitecustomize", "torch"}
    evil = tmp_path_factory.mktemp("c") / "evil"
    mark = decoys(evil, {name for name in names if name.isidentifier()}, anywhere=True)

    class Installed(Daemon):
        program = (script(tmp_path, "asrd.main"),)

    with Installed(tmp_path, config=CONFIG, shell=f"cd {evil}") as daemon:
        serves(daemon)
        for program in (
            ["asrd.asrctl.cli", "--socket", daemon.socket, "doctor"],
            ["asrd.main", "demo"],
        ):
            command = [sys.executable, script(tmp_path, program[0]), *program[1:]]
            done = subprocess.run(
                command, cwd=evil, capture_output=True, text=True, timeout=PATIENCE, check=False
            )
            assert "Traceback" not in done.stderr
    assert not mark.exists(), mark.read_text()


def test_python_variables_of_the_environment_are_ignored(
    tmp_path: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Not those that the supervisor itself needs: its environment is its user's own.
    engine = {"av", "ctranslate2", "faster_whisper", "numpy", "onnxruntime", "tokenizers"}
    evil = tmp_path_factory.mktemp("c") / "evil"
    mark = decoys(evil, {*engine, "sitecustomize", "usercustomize", "torch"}, anywhere=False)
    monkeypatch.setenv("PYTHONPATH", f"{ROOT}:{evil}:")
    for name in ("PYTHONSTARTUP", "PYTHONINSPECT"):
        monkeypatch.setenv(name, str(evil / "sitecustomize.py"))
    with Daemon(tmp_path, config=CONFIG) as daemon:
        serves(daemon)
    assert not mark.exists(), mark.read_text()


# As packaging/launcher.in: no site-packages, but what the program itself adds.
_LAUNCHER = """
import sys
sys.path += {path!r}
from asrd.main import main
sys.exit(main())
"""


def test_children_of_the_debian_launcher_import_the_same_asrd(tmp_path: Path) -> None:
    path = [str(ROOT), *(entry for entry in sys.path if entry.endswith("-packages"))]
    (tmp_path / "launcher").write_text(_LAUNCHER.format(path=path))

    class Launched(Daemon):
        program = ("-IS", str(tmp_path / "launcher"))

    with Launched(tmp_path, config=CONFIG, shell="unset PYTHONPATH") as daemon:
        serves(daemon)


# --- where it is started ------------------------------------------------------------------------


def test_asrd_run_works_in_a_deleted_directory(
    tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    gone = tmp_path_factory.mktemp("c")
    shell = f"export PYTHONPATH={ROOT}; cd {gone}; rmdir {gone}"
    with Daemon(tmp_path, config=CONFIG, shell=shell) as daemon:
        serves(daemon)
        daemon.kill()
        serves(daemon)
        for pid in (daemon.front_pid(), daemon.pid_of()):
            assert Path(f"/proc/{pid}/cwd").readlink() == Path("/")


def test_relative_path_in_a_deleted_directory_is_an_error(
    tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    gone = tmp_path_factory.mktemp("c")
    shell = f"export PYTHONPATH={ROOT}; cd {gone}; rmdir {gone}"
    error = ends(Daemon(tmp_path, "--model", "./base", shell=shell))
    assert "./base is relative to the working directory, which was removed" in error


@pytest.mark.parametrize("model", ["~/model", "./model", "model"])
def test_relative_flags_are_resolved_against_the_working_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, model: str
) -> None:
    (tmp_path / "model").symlink_to(MODEL)
    monkeypatch.setenv("HOME", str(tmp_path))
    shell = f"export PYTHONPATH={ROOT}; cd {tmp_path}"
    arguments = ("--model", model, "--config", "asrd.toml", "--socket", "asrd.sock")
    with Daemon(tmp_path, *arguments, config=CONFIG, shell=shell) as daemon:
        serves(daemon)


# --- without a socket that was named --------------------------------------------------------------


def test_clients_find_the_default_socket(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    runtime = tmp_path / "run"
    runtime.mkdir(mode=0o700)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(runtime))
    monkeypatch.delenv("ASRD_SOCKET", raising=False)
    path = runtime / "asrd" / "asrd.sock"
    # The empty one is as none.
    with Unnamed(tmp_path, "--socket", "", config=CONFIG) as daemon:
        assert path.parent.stat().st_mode & 0o777 == 0o700
        with Client() as client:
            assert client.socket == str(path)
            assert client.transcribe(SAMPLES / SHORT, language="en").text == TEXTS[SHORT]
        assert Host().socket == path
        command = [sys.executable, "-m", "asrd.main", "run"]
        second = subprocess.run(
            command, capture_output=True, text=True, timeout=PATIENCE, check=False
        )
        assert second.returncode == 78
        error = second.stderr.splitlines()[-1]
        assert error == f"asrd: cannot listen at {path}: another daemon listens there"
        daemon.status()


class Unnamed(Daemon):
    def __init__(self, tmp: Path, *arguments: str, **more: Any) -> None:
        super().__init__(tmp, *arguments, **more)
        self.socket = str(tmp / "run" / "asrd" / "asrd.sock")


# --- stderr that is gone ------------------------------------------------------------------------


@pytest.fixture
def pipe(tmp_path: Path) -> Iterator[int]:
    """A pipe at `tmp_path/pipe`: the end that is read."""
    os.mkfifo(tmp_path / "pipe")
    fd = os.open(tmp_path / "pipe", os.O_RDONLY | os.O_NONBLOCK)
    yield fd
    os.close(fd)


def drains(daemon: Daemon, number: int) -> None:
    """Stop it in the middle of a job, which must have its answer."""
    with daemon.connect() as client:
        client.start_long()
        daemon.process.send_signal(number)
        assert client.transcript("a")["attempts"] == 1
    assert daemon.process.wait(PATIENCE) == 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_asrd_run_with_a_closed_stderr_drains(tmp_path: Path, number: int) -> None:
    with Daemon(tmp_path, config=CONFIG, shell="exec 0<&- 1>&- 2>&-") as daemon:
        daemon.wait_until_ready()
        opened = {Path(f"/proc/{daemon.pid_of()}/fd/{fd}").readlink() for fd in (0, 1)}
        assert opened == {Path(os.devnull)}
        drains(daemon, number)


def test_asrd_run_with_a_full_stderr_serves_and_drains(tmp_path: Path, pipe: int) -> None:
    full = f"exec 2>{tmp_path}/pipe; head -c 65536 /dev/zero >&2"
    with Daemon(tmp_path, config=CONFIG, shell=full) as daemon:
        daemon.wait_until_ready()
        daemon.kill()
        serves(daemon)
        drains(daemon, signal.SIGTERM)


# --- few descriptors ----------------------------------------------------------------------------


def ends(daemon: Daemon) -> str:
    """The last line of one that ends by itself, with the code of wrong settings."""
    try:
        assert daemon.process.wait(PATIENCE) == 78, daemon.log
    finally:
        daemon.stop()
    assert "Traceback" not in daemon.log
    return daemon.log.splitlines()[-1]


def test_lowest_allowed_descriptor_limit_is_enough(tmp_path: Path) -> None:
    with Daemon(tmp_path, "--workers", "2", config=CONFIG, shell="ulimit -n 36") as daemon:
        daemon.wait_until_ready("0", "1")
        serves(daemon)
        daemon.kill()
        serves(daemon)


def test_too_low_descriptor_limit_is_refused(tmp_path: Path) -> None:
    error = ends(Daemon(tmp_path, "--workers", "2", config=CONFIG, shell="ulimit -n 35"))
    assert error.startswith(
        "asrd: `asrd run` needs 36 open files at least, and 35 are allowed here"
    )


# --- what is removed while it runs ----------------------------------------------------------------


def test_removed_socket_directory_is_recreated(tmp_path: Path) -> None:
    place = tmp_path / "place"
    place.mkdir(mode=0o750)
    path = str(place / "asrd.sock")
    with Daemon(tmp_path, "--socket", path, config=CONFIG) as daemon:
        daemon.wait_until_ready()
        # Who is connected already stays so.
        with daemon.connect() as before:
            shutil.rmtree(place)
            daemon.wait_until_serving()
            before.ask_file("a")
            assert before.transcript("a")["text"] == TEXTS[SHORT]
        assert place.stat().st_mode & 0o777 == 0o750
        assert f"the socket was removed: listening at {path} again" in daemon.log
        # The supervisor has the new one, too.
        front = daemon.front_pid()
        os.kill(front, signal.SIGKILL)
        wait_for("its end", lambda: not alive(front))
        serves(daemon)
    assert not Path(path).exists()


def test_socket_path_taken_meanwhile_is_an_error(tmp_path: Path) -> None:
    place = tmp_path / "place"
    place.mkdir()
    with Daemon(tmp_path, "--socket", str(place / "asrd.sock"), config=CONFIG) as daemon:
        daemon.wait_until_ready()
        shutil.rmtree(place)
        place.write_text("a file")
        wait_for("the sentence", lambda: "so no client can connect: cannot listen at" in daemon.log)
        place.unlink()
        daemon.wait_until_serving()


def test_removed_private_directory_costs_a_restart(tmp_path: Path) -> None:
    with Daemon(tmp_path, config=CONFIG) as daemon, daemon.connect() as client:
        daemon.wait_until_ready()
        worker = daemon.pid_of()
        client.start_long()
        shutil.rmtree(next(path for path in tmp_path.iterdir() if path.name.startswith("asrd-")))
        assert client.transcript("a")["attempts"] == 1
        wait_for("its end", lambda: not alive(worker))
        daemon.wait_until_serving()
        serves(daemon)
        assert "was removed: starting again" in daemon.log


# --- what can't be loaded -----------------------------------------------------------------------


def test_missing_model_ends_asrd_run_with_its_reason(tmp_path: Path) -> None:
    error = ends(Daemon(tmp_path, "--model", "smal", "--workers", "2", config=CONFIG))
    assert error.startswith("asrd: cannot load: there is no model 'smal': did you mean small")


def test_one_working_worker_is_enough_to_start(tmp_path: Path) -> None:
    (tmp_path / "worker-0.toml").write_text("model = 'smal'\n")
    with Daemon(tmp_path, "--workers", "2", config=CONFIG) as daemon:
        wait_for("the failure", lambda: daemon.workers()["0"]["state"] == "failed")
        serves(daemon)
