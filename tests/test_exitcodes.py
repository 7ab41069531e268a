"""Exit codes, and that asrctl's help tells them all."""

import re

from asrd.errors import Code, ConnectionLost, ProtocolError, job_error_type
from asrd.exitcodes import EXIT_CODES, Exit, exit_code


def test_the_help_names_exactly_the_codes_there_are() -> None:
    assert [int(code) for code in re.findall(r"^ +(\d+)", EXIT_CODES, re.M)] == sorted(Exit)


def test_every_error_has_one() -> None:
    codes = {code: exit_code(job_error_type(code)("x")) for code in Code}
    assert codes[Code.BUSY] == codes[Code.SHUTTING_DOWN] == Exit.BUSY
    others = [codes[code] for code in Code if code is not Code.SHUTTING_DOWN]
    assert len(set(others)) == len(others)
    assert exit_code(ConnectionLost("x")) == Exit.UNREACHABLE
    assert exit_code(ProtocolError("x")) == Exit.FAILED
