"""`asrctl doctor`: finds errors in the set-up, and prints the command that fixes each, if there is
one, or the one that shows more."""

import argparse
from collections.abc import Callable, Iterable, Iterator

from asrd.asrctl.checks import CHECKS
from asrd.asrctl.finding import Finding, Verdict, unseen
from asrd.asrctl.host import Host
from asrd.asrctl.streams import mention
from asrd.safe_text import escape, safe_json

# A check's name and one of its findings.
Result = tuple[str, Finding]


def doctor(args: argparse.Namespace) -> int:
    """Returns 1 if anything is wrong, otherwise 0, also if something could not be examined."""
    results = list(examine(Host(args.socket)))
    if args.json:
        rows = [
            {
                "subject": subject,
                "verdict": item.verdict.value,
                "text": item.text,
                "fix": item.fix,
                "see": item.see,
            }
            for subject, item in results
        ]
        mention(safe_json(rows, indent=2) + "\n")
    else:
        mention("".join(f"{line}\n" for line in report(results)))
    return int(any(item.verdict is Verdict.WRONG for _, item in results))


def examine(
    host: Host, checks: Iterable[Callable[[Host], Iterable[Finding]]] = CHECKS
) -> Iterator[Result]:
    """Yields the findings of all checks; a check that fails is something unseen."""
    for check in checks:
        try:
            for item in check(host):
                yield check.__name__, item
        except OSError as error:
            yield check.__name__, unseen(f"could not be examined: {error}")


def report(results: list[Result]) -> Iterator[str]:
    for subject, item in results:
        mark = "WRONG" if item.verdict is Verdict.WRONG else item.verdict.value
        yield escape(f"{mark:6} {subject}: {item.text}")
        if item.fix is not None:
            label = "fix it with" if item.verdict is Verdict.WRONG else "to change it"
            yield f"         {label}:  {item.fix}"
        if item.see is not None:
            yield f"         see more with:  {item.see}"
    verdicts = [item.verdict for _, item in results]
    wrong, hidden = verdicts.count(Verdict.WRONG), verdicts.count(Verdict.UNSEEN)
    yield f"{wrong or 'nothing'} wrong" + (
        f", {hidden} could not be checked (try as root: sudo asrctl doctor)" if hidden else ""
    )
