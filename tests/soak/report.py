"""The report of a campaign, as tables in Markdown."""

from collections import Counter
from collections.abc import Mapping

from tests.soak.ledger import Ledger
from tests.soak.oracle import Kind

Cells = Mapping[tuple[str, str], int]


def render(ledger: Ledger) -> str:
    kinds, hows = Counter[tuple[str, str]](), Counter[tuple[str, str]]()
    for (kind, how, outcome), number in ledger.outcomes.items():
        kinds[kind, outcome] += number
        if kind is Kind.INNOCENT:
            hows[how, outcome] += number
    return "\n\n".join(
        [
            f"== {ledger.title}, seed {ledger.seed}: {_verdict(ledger)}",
            _table("jobs", kinds),
            _table("innocent, by kind of request", hows),
            _list(
                "fault", {f"{what} to {target}": n for (what, target), n in ledger.struck.items()}
            ),
            _list("acts of clients and played workers", ledger.tricks),
            _list("figure", dict([*_totals(ledger), *ledger.figures]), in_order=True),
        ]
    )


def _verdict(ledger: Ledger) -> str:
    count = len(ledger.failures) + ledger.unshown_failures
    return "every promise kept" if not count else f"{count} BROKEN PROMISES"


def _table(title: str, cells: Cells) -> str:
    columns = sorted({column for _, column in cells})
    rows = [[title, *columns], ["---"] * (1 + len(columns))]
    for row in sorted({row for row, _ in cells}):
        rows.append([row, *(str(cells.get((row, column), "")) for column in columns)])
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def _list(title: str, values: Mapping[str, object], in_order: bool = False) -> str:
    items = values.items() if in_order else sorted(values.items())
    lines = [f"| {title} | |", "| --- | --- |", *(f"| {name} | {value} |" for name, value in items)]
    return "\n".join(lines)


def _totals(ledger: Ledger) -> list[tuple[str, str]]:
    outcomes = ledger.outcomes.items()
    return [
        ("jobs", str(sum(number for _, number in outcomes))),
        (
            "transcripts",
            str(sum(number for (*_, what), number in outcomes if what == "transcript")),
        ),
        ("transcripts after a retry, one window", str(ledger.retried)),
        ("transcripts after a retry, several windows", str(ledger.retried_long)),
        *((f"longest wait, {kind}", f"{s:.1f} s") for kind, s in sorted(ledger.longest.items())),
    ]
