"""The exit codes of all programs."""

import re

from asrd.errors import Code, ConnectionLost, ProtocolError, job_error_type
from asrd.exitcodes import EXIT_CANNOT_LOAD, EXIT_CODES, EXIT_IDLE, Exit, exit_code
from tests.support.paths import ROOT


def test_every_error_code_has_its_exit_code() -> None:
    codes = {code: exit_code(job_error_type(code)("x")) for code in Code}
    assert codes.pop(Code.SHUTTING_DOWN) == codes[Code.BUSY] == Exit.BUSY
    assert len(set(codes.values())) == len(codes)
    assert exit_code(ConnectionLost("x")) == Exit.UNREACHABLE
    assert exit_code(ProtocolError("x")) == Exit.FAILED


def test_help_lists_every_exit_code() -> None:
    assert "  9    no worker is available\n  10   no worker has that model\n" in EXIT_CODES
    assert EXIT_CODES.count("\n") == len(Exit) + 2


def test_units_and_script_use_the_same_numbers() -> None:
    unit = (ROOT / "systemd" / "asr-worker@.service").read_text()
    assert f"\nRestartPreventExitStatus={EXIT_IDLE} {EXIT_CANNOT_LOAD}\n" in unit
    assert f"\nSuccessExitStatus={EXIT_IDLE}\n" in unit
    script = (ROOT / "systemd" / "restart-backoff").read_text()
    assert re.findall(r"^(EXIT_\w+)=(\d+)$", script, re.M) == [
        ("EXIT_CANNOT_LOAD", str(EXIT_CANNOT_LOAD))
    ]
