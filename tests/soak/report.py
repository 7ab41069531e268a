"""What a campaign came to, as tables of plain text."""

import collections
from collections.abc import Iterable

from tests.soak.ledger import Ledger


def render(ledger: Ledger, figures: Iterable[tuple[str, str]]) -> str:
    return "\n\n".join(
        [
            f"== {ledger.title}, seed {ledger.seed}: {_verdict(ledger)}",
            _outcomes(ledger),
            _pairs("faults", collections.Counter(f"{f.what} to {f.target}" for f in ledger.faults)),
            _pairs("what clients and played workers did", ledger.tricks),
            "\n".join(f"  {name:32} {value}" for name, value in [*_totals(ledger), *figures]),
        ]
    )


def _verdict(ledger: Ledger) -> str:
    count = len(ledger.failures)
    return "every promise kept" if not count else f"{count} BROKEN PROMISES"


def _outcomes(ledger: Ledger) -> str:
    found = collections.Counter((job.kind, str(job.outcome)) for job in ledger.jobs)
    outcomes = sorted({outcome for _, outcome in found})
    lines = ["  jobs by kind " + "".join(f"{outcome:>18}" for outcome in outcomes)]
    for kind in sorted({kind for kind, _ in found}):
        counts = "".join(f"{found[kind, outcome] or '-':>18}" for outcome in outcomes)
        lines.append(f"  {kind:20}"[:15].ljust(15) + counts)
    return "\n".join(lines)


def _pairs(title: str, counts: collections.Counter[str]) -> str:
    lines = [f"  {title}"]
    lines += [f"    {name:40} {count:7}" for name, count in sorted(counts.items())]
    return "\n".join(lines)


def _totals(ledger: Ledger) -> list[tuple[str, str]]:
    answered = [job for job in ledger.jobs if job.outcome == "transcript"]
    longest = max((job.seconds for job in ledger.jobs), default=0.0)
    return [
        ("jobs", str(len(ledger.jobs))),
        ("transcripts", str(len(answered))),
        ("transcripts after a retry", str(sum(job.attempts > 1 for job in answered))),
        ("longest wait for an answer", f"{longest:.1f} s"),
    ]
