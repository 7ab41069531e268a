"""docs/elsewhere.md without asrd's packages: the lines of "Elsewhere" as typed on Debian 13, and
`asrd run` in a bare root, as in a container."""

import os
import re
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from asrd import Client
from asrd.demo import SAMPLES
from asrd.errors import ConnectionLost
from tests.support.procfs import children
from tests.support.raw import TEXTS, wait_for
from tests.support.systemd.elsewhere import lines_of_page, machine_elsewhere, typed
from tests.support.systemd.nspawn import Machine
from tests.support.systemd.service import TEXT, Service

pytestmark = pytest.mark.package

SAMPLE = "/srv/checkout/asrd/demo/samples/en-0.wav"
# A user that has no name in the root.
UID = 12345
# Its first process is PROGRAM; everything but /data is read-only, and there is no HOME.
BOX = """
root=$1 data=$2; shift 2
mount --bind "$root" "$root"
mount --bind "$data" "$root/data"
mount -t proc proc "$root/proc"
mount --rbind /dev "$root/dev"
mount -o remount,ro,bind "$root"
exec chroot --userspec=12345:12345 "$root" /usr/bin/env -i "$@"
"""
UNSHARE = ["unshare", "--mount", "--pid", "--fork", "--kill-child", "--propagation=private"]


@pytest.fixture(scope="module")
def machine() -> Iterator[Machine]:
    """A machine on which the lines of the page were typed."""
    with machine_elsewhere() as machine:
        lines = lines_of_page()
        assert "install-units /opt/asrd" in lines and "talk.mp3" in lines
        done = typed(machine, lines.replace("talk.mp3", SAMPLE))
        assert done.stdout.splitlines()[-1] == TEXT, done
        yield machine


def test_lines_of_the_page_install_a_service(machine: Machine) -> None:
    for unit in ("asrd.socket", "asrd-status.socket", "asr-worker@0.socket"):
        assert machine.show(unit, "ActiveState") == "active"
        assert machine.show(unit, "UnitFileState") == "enabled"
    assert machine.run("asrctl", "doctor").returncode == 0
    pid = machine.show("asr-worker@0.service", "MainPID")
    # A dynamic user's (systemd.exec(5)); without nss-systemd it has no name.
    assert 61184 <= int(machine.output("stat", "--format=%u", f"/proc/{pid}")) <= 65519
    machine.run("systemctl", "kill", "--signal=SEGV", "asr-worker@0.service")
    assert typed(machine, f"asrctl transcribe {SAMPLE}").stdout.strip() == TEXT
    crashes = machine.output("asrctl", "status", "--crashes")
    assert "killed by SIGSEGV" in crashes


def test_model_is_added_and_the_units_are_removed(machine: Machine) -> None:
    typed(machine, "asrd add-model asrd/demo/model --name words")
    machine.write("/etc/asrd/worker-0.toml", 'model = "words"\n')
    typed(machine, "systemctl restart asr-workers.target")
    wait_for("the model", lambda: Service(machine).worker().get("model") == "words", 30.0)
    said = typed(machine, f"asrctl transcribe --model words {SAMPLE}")
    assert said.stdout.strip() == TEXT
    typed(machine, "packaging/install-units --remove /opt/asrd")
    units = machine.run("systemctl", "list-unit-files", "--no-legend", "asr*", check=False)
    assert units.stdout == ""
    assert machine.run("pgrep", "--full", "asr-worker|asrd serve", check=False).stdout == ""
    left = machine.output("find", "/etc", "/usr/local", "/run", "-name", "*asr*", "-xdev")
    assert re.sub(r"/etc/asrd(/\S+)?\n?", "", left + "\n") == ""
    assert (machine.root / "var/lib/asrd/models/words/model.bin").exists()


# --- as in a container ----------------------------------------------------------------------------


@contextmanager
def box(machine: Machine, data: Path, *argv: str) -> "Iterator[tuple[subprocess.Popen[str], int]]":
    """A program as the first process of a bare root, and its number outside. At the end it is
    killed if it still runs."""
    (machine.root / "data").mkdir(exist_ok=True)
    program = [*UNSHARE, "sh", "-ec", BOX, "sh", str(machine.root), str(data), *argv]
    pipe = subprocess.PIPE
    with subprocess.Popen(program, stdout=pipe, stderr=subprocess.STDOUT, text=True) as process:
        try:
            yield process, wait_for("the first process", lambda: children(process.pid))[0]
        finally:
            process.kill()


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """The only writable directory; its path is short enough for a socket."""
    data = tmp_path / "d"
    data.mkdir()
    os.chown(data, UID, UID)
    tmp_path.chmod(0o755)
    return data


def test_first_process_of_a_read_only_root_serves_and_leaves_nothing(
    machine: Machine, data: Path
) -> None:
    run = ["/opt/asrd/bin/asrd", "run", "--socket", "/data/run/asrd.sock"]
    with box(machine, data, *run) as (process, first), Client(f"{data}/run/asrd.sock") as client:

        def worker() -> int:
            try:
                return client.status()["workers"][0].get("pid") or 0
            except (ConnectionLost, IndexError):
                return 0

        assert wait_for("the worker", worker, 60.0)
        sample = SAMPLES / "en-0.wav"
        assert client.transcribe(sample).text == TEXTS["en-0.wav"]
        # Front and worker, in whatever order; both are replaced.
        for pid in children(first):
            os.kill(pid, signal.SIGSEGV)
        assert client.transcribe(sample).text == TEXTS["en-0.wav"]
        orphan = ["nsenter", f"--target={first}", "--pid", "sh", "-c", "sleep 0.2 & sleep 0.1"]
        subprocess.run(orphan, check=True)

        def none_is_left() -> bool:
            return len(children(first)) == 2

        wait_for("the end of the orphan", none_is_left, 20.0)
        os.kill(first, signal.SIGTERM)
        output, _ = process.communicate(timeout=60)
        assert process.returncode == 0, output
        assert "Traceback" not in output
    assert [path.name for path in data.rglob("*")] == ["run"]


@pytest.mark.parametrize(
    ("argv", "text"),
    [
        ((), r"no safe place for the socket \(can't make /tmp/asrd-12345: Read-only file system\)"),
        (("--socket", "/run/asrd/a.sock"), r"can't make /run/asrd for the socket: Read-only file"),
        (("--socket", "/run/a.sock"), "no directory for temporary files can be written"),
    ],
)
def test_read_only_root_without_a_place_is_explained(
    machine: Machine, data: Path, argv: tuple[str, ...], text: str
) -> None:
    with box(machine, data, "/opt/asrd/bin/asrd", "run", *argv) as (process, _):
        output, _ = process.communicate(timeout=60)
    assert process.returncode == 78
    assert re.search(rf"^asrd: {text}", output, re.MULTILINE), output
    assert "Traceback" not in output
