"""The doctor's report."""

import argparse
import json
from collections.abc import Iterator

import pytest

from asrd.asrctl import doctor
from asrd.asrctl.finding import Finding, Verdict
from asrd.asrctl.host import Host


def test_check_that_fails_is_unseen() -> None:
    def broken(host: Host) -> Iterator[Finding]:
        raise PermissionError(13, "Permission denied", "/secret")

    ((subject, found),) = doctor.examine(Host(), [broken])
    assert (subject, found.verdict) == ("broken", Verdict.UNSEEN)
    *_, last = doctor.report([(subject, found)])
    assert last == "nothing wrong, 1 could not be checked (try as root: sudo asrctl doctor)"


@pytest.mark.parametrize(("verdict", "code"), [(Verdict.OK, 0), (Verdict.WRONG, 1)])
def test_exit_code_and_both_reports(
    verdict: Verdict,
    code: int,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    found = Finding(verdict, "it is\x1b full", "sudo true", "ls")
    monkeypatch.setattr(doctor, "examine", lambda host: [("disk", found)])
    assert doctor.doctor(argparse.Namespace(json=True, socket=None)) == code
    expected = {"subject": "disk", "verdict": verdict.value}
    expected |= {"text": "it is\x1b full", "fix": "sudo true", "see": "ls"}
    assert json.loads(capsys.readouterr().out) == [expected]
    assert doctor.doctor(argparse.Namespace(json=False, socket=None)) == code
    assert capsys.readouterr().out.splitlines() == [
        f"{'WRONG ' if code else 'ok    '} disk: it is\\x1b full",
        f"         {'fix it with' if code else 'to change it'}:  sudo true",
        "         see more with:  ls",
        "1 wrong" if code else "nothing wrong",
    ]
