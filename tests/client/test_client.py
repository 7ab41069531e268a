"""The blocking client's own behaviour: threads, copies, signals, imports."""

import signal
import threading
from pathlib import Path
from typing import Any

import pytest

from asrd import Client
from asrd.errors import Cancelled
from tests.support.copying import COPIES
from tests.support.fake_daemon import FakeDaemon, answer, begin, never
from tests.support.subprocesses import run_python


@pytest.mark.parametrize("how", ["close", "drop", "with"])
def test_stream_left_early_hangs_up(path: Path, how: str) -> None:
    with FakeDaemon(path, [begin("a", "b"), answer("x")]) as daemon, Client(str(path)) as client:
        stream = client.stream(b"")
        next(stream)
        match how:
            case "close":
                stream.close()
            case "drop":
                del stream
            case "with":
                with stream:
                    pass
        daemon.wait_for_hang_up()
        assert client.transcribe(b"").text == "x"


def test_unread_stream_submits_nothing(path: Path) -> None:
    with FakeDaemon(path) as daemon, Client(str(path)) as client:
        client.stream(b"").close()
        assert daemon.requests == []


def test_another_thread_cancels_a_job(path: Path) -> None:
    with FakeDaemon(path, [never]) as daemon, Client(str(path)) as client:

        def cancel() -> None:
            daemon.wait_for("transcribe")
            client.cancel("j")

        thread = threading.Thread(target=cancel)
        thread.start()
        with pytest.raises(Cancelled) as caught:
            client.transcribe(b"", job_id="j")
        assert caught.value.job_id == "j"
        thread.join()


@pytest.mark.parametrize("copied", COPIES)
def test_copy_has_the_path_and_its_own_connections(path: Path, copied: Any) -> None:
    with FakeDaemon(path, [begin("a")]) as daemon, Client(str(path)) as client:
        client.ping()
        with copied(client) as copy_:
            assert repr(copy_) == f"<Client {path} idle=0>"
            copy_.ping()
            client.ping()
            assert [request.connection for request in daemon.requests] == [0, 1, 0]
        with client.stream(b"") as stream:
            next(stream)
            with pytest.raises(TypeError, match="SegmentStream belongs to one process"):
                copied(stream)
        client.close()
        with copied(client) as copy_:
            # A copy of a closed client is open.
            copy_.ping()
            assert repr(copy_) == f"<Client {path} idle=1>"


def test_dropped_client_hangs_up(path: Path) -> None:
    with FakeDaemon(path) as daemon:
        Client(str(path)).ping()
        daemon.wait_for_hang_up()


def test_interrupt_cancels_the_job(path: Path) -> None:
    class Interrupt(Exception):
        pass

    def interrupt(number: int, frame: object) -> None:
        raise Interrupt

    main = threading.get_ident()
    previous = signal.signal(signal.SIGUSR1, interrupt)
    try:
        with FakeDaemon(path, [never, answer("x")]) as daemon, Client(str(path)) as client:

            def signal_main() -> None:
                daemon.wait_for("transcribe")
                # A signal to the process may reach another thread, which wakes nobody.
                signal.pthread_kill(main, signal.SIGUSR1)

            thread = threading.Thread(target=signal_main)
            thread.start()
            with pytest.raises(Interrupt):
                client.transcribe(b"")
            thread.join()
            daemon.wait_for_hang_up()
            assert client.transcribe(b"").text == "x"
    finally:
        signal.signal(signal.SIGUSR1, previous)


def test_blocking_client_imports_nothing_heavy() -> None:
    code = """
import sys
from asrd import Client
heavy = {"numpy", "faster_whisper", "ctranslate2", "av", "onnxruntime", "anyio", "asyncio"}
print(sorted(heavy & set(sys.modules)))
from asrd import AsyncClient
print(sorted(heavy & set(sys.modules)))
"""
    assert run_python(code).stdout.split("\n")[:2] == ["[]", "['anyio']"]


def test_debug_variable_traces_events_without_their_text(path: Path) -> None:
    code = f"""
from asrd import Client
with Client({str(path)!r}) as client:
    print(client.transcribe(b"RIFF", job_id="j").text)
"""
    with FakeDaemon(path, [answer("a secret")]):
        ran = run_python(code, ASRD_DEBUG="wire")
        quiet = run_python(code, ASRD_DEBUG="")
    assert ran.stdout == "a secret\n"
    lines = ran.stderr.splitlines()
    assert lines[0].startswith("asrd wire > 'transcribe' job_id='j' data=")
    assert lines[0].endswith("payload=0 fds=1")
    assert [line.split()[3] for line in lines[1:]] == ["'accepted'", "'transcript'"]
    assert "secret" not in ran.stderr
    assert quiet.stderr == ""
