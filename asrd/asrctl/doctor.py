"""`asrctl doctor`: what an admin gets wrong, in plain words, with the one command that mends it.

Each check in `asrd.asrctl.checks` looks at one thing and may be told by the `Host` that it can't be
seen; nothing here changes anything.
"""

import argparse
import json
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from asrd.asrctl.checks import CHECKS, Finding, Verdict
from asrd.asrctl.host import Host
from asrd.asrctl.streams import mention

_MARKS = {Verdict.OK: "ok     ", Verdict.WRONG: "WRONG  ", Verdict.UNSEEN: "unseen "}
Check = Callable[[Host], Iterable[Finding]]


def add_parser(subparsers: Any, common: argparse.ArgumentParser) -> None:
    """`common`: the options of every command."""
    text = "look for what is set up wrong, and say the command that mends it"
    parser = subparsers.add_parser(
        "doctor", parents=[common], help=text, description=text[0].upper() + text[1:]
    )
    parser.add_argument("--json", action="store_true", help="one JSON object, for programs")
    parser.set_defaults(function=run, parser=parser)


def run(args: argparse.Namespace) -> int:
    """0: nothing is wrong (what could not be seen is told); 1: something is."""
    findings = list(examine(Host(args.socket)))
    if args.json:
        mention(json.dumps([finding.as_json() for finding in findings], indent=2) + "\n")
    else:
        mention("".join(f"{line}\n" for line in report(findings)))
    return int(any(finding.verdict is Verdict.WRONG for finding in findings))


def examine(host: Host, checks: Iterable[Check] = CHECKS) -> Iterator[Finding]:
    """What the checks find; one that fails is told as something it could not see."""
    for check in checks:
        try:
            yield from check(host)
        except OSError as error:
            name = check.__name__.replace("_", " ")
            yield Finding(name, Verdict.UNSEEN, f"could not be looked at: {error}")


def report(findings: list[Finding]) -> Iterator[str]:
    for finding in findings:
        yield f"{_MARKS[finding.verdict]}{finding.subject}: {finding.text}"
        if finding.mend is not None:
            label = "fix it with" if finding.verdict is Verdict.WRONG else "to change it"
            yield f"         {label}:  {finding.mend}"
    wrong = sum(finding.verdict is Verdict.WRONG for finding in findings)
    unseen = sum(finding.verdict is Verdict.UNSEEN for finding in findings)
    yield f"{wrong or 'nothing'} wrong" + (
        f", {unseen} could not be seen (try as root: sudo asrctl doctor)" if unseen else ""
    )
