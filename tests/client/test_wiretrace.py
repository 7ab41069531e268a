"""ASRD_DEBUG=wire."""

from pathlib import Path

from tests.support.fake_daemon import FakeDaemon, answer
from tests.support.subprocesses import run_python


def test_the_wire_can_be_watched_and_tells_no_text(tmp_path: Path) -> None:
    path = tmp_path / "asrd.sock"
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
