"""The reference pages say what the code does, row by row.

Where a row is wrong the failure shows the one that should stand there.
"""

import dataclasses
import json
import re
import tomllib
from pathlib import Path
from typing import Any

import pytest

from asrd.errors import Code, WarningCode
from asrd.front.reporting import snapshot
from asrd.settings import TABLES, FrontSettings
from asrd.wire import client_events, frames, records, worker_events
from asrd.wire.peer import Peer
from tests.support.declared import accepts, default
from tests.support.paths import ROOT
from tests.support.reporting import front

DOCS = ROOT / "docs"
PROTOCOL = (DOCS / "protocol.md").read_text()
SETTINGS = (DOCS / "settings.md").read_text()
DIRECTIONS = {
    "## Client to asrd": client_events.FROM_CLIENT,
    "## asrd to client": client_events.TO_CLIENT,
    "### Front to worker": worker_events.TO_WORKER,
    "### Worker to front": worker_events.FROM_WORKER,
}
# Answers without a dataclass: their data is made elsewhere (asrd.front.reporting.snapshot).
UNDECLARED = {"## asrd to client": {"info", "status"}}
EVENTS = [(heading, kind) for heading, table in DIRECTIONS.items() for kind in table]
RECORDS = [
    records.AudioFormat,
    records.Options,
    records.Segment,
    records.Word,
    records.JobWarning,
    records.LastProcess,
]


def section(page: str, heading: str) -> str:
    """What stands under a heading, up to the next of its level or above."""
    level = heading.split()[0]
    found = re.search(
        rf"^{re.escape(heading)}\n(.*?)(?=^#{{1,{len(level)}}} |\Z)", page, re.MULTILINE | re.DOTALL
    )
    assert found is not None, f"there is no {heading!r}"
    return found[1]


def rows(text: str) -> list[list[str]]:
    """The first table's rows without its head, each cell stripped."""
    lines = re.search(r"^\|(?:.*\n\|)*.*", text, re.MULTILINE)
    table = lines[0].splitlines() if lines else []
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in table[2:]]


def declared(cls: type) -> list[list[str]]:
    return [
        [f"`{spec.name}`", accepts(spec.metadata["get"]), default(spec)]
        for spec in dataclasses.fields(cls)
    ]


# --- protocol.md ----------------------------------------------------------------------------------


@pytest.mark.parametrize("heading", DIRECTIONS)
def test_every_event_has_its_section_and_no_other(heading: str) -> None:
    found = set(re.findall(r"^#{3,4} `(.+)`$", section(PROTOCOL, heading), re.MULTILINE))
    assert found == DIRECTIONS[heading].keys() | UNDECLARED.get(heading, set())


@pytest.mark.parametrize(("heading", "kind"), EVENTS)
def test_every_field_of_an_event(heading: str, kind: str) -> None:
    deeper = "####" if heading.startswith("###") else "###"
    page = section(section(PROTOCOL, heading), f"{deeper} `{kind}`")
    assert [row[:3] for row in rows(page)] == declared(DIRECTIONS[heading][kind])


@pytest.mark.parametrize("cls", RECORDS)
def test_every_field_of_a_record(cls: type) -> None:
    page = section(PROTOCOL, f"### {cls.__name__}")
    assert [row[:3] for row in rows(page)] == declared(cls)


def test_every_error_code_with_its_retryability() -> None:
    found = rows(section(PROTOCOL, "## Error codes"))
    assert [[code, retryable] for code, _, retryable in found] == [
        [f"`{code}`", "yes" if code.retryable else "no"] for code in Code
    ]


def test_every_code_of_a_warning() -> None:
    named = re.findall(r"`([a-z-]+)`\s+\(", section(PROTOCOL, "### JobWarning"))
    assert named == [str(code) for code in WarningCode]


def test_every_limit_of_the_codec() -> None:
    cells = {row[0]: row[1] for row in rows(section(PROTOCOL, "## Framing"))}
    assert cells["header line"] == f"{frames.MAX_HEADER:,} bytes"
    assert cells["`type`"] == f"{frames.MAX_TYPE} characters"
    assert cells["`data_length`"] == (
        f"{frames.MAX_DATA:,} bytes; between front and worker {frames.MAX_TRANSCRIPT_DATA:,}"
    )
    assert cells["nesting of JSON"] == f"{frames.MAX_DEPTH} levels"
    values = "values in `data`: commas and opening brackets, also those in texts"
    assert cells[values] == f"{frames.MAX_VALUES:,}"
    fds = cells["`fds` of one event, and waiting for theirs"]
    assert fds == f"{frames.MAX_FDS}; on the status socket and over TCP none"


def test_every_setting_that_bounds_a_client_is_among_the_limits() -> None:
    limits = section(PROTOCOL, "## Framing")
    named = set(re.findall(r"`(\w+)`", limits)) & FrontSettings.__dataclass_fields__.keys()
    bounds = {name for name in FrontSettings.__dataclass_fields__ if re.search("_max|max_", name)}
    for_jobs = {"max_wait_seconds", "max_run_seconds", "max_attempts"}
    for_strangers = {"status_connections_max", "status_connections_max_per_user"}
    assert named == bounds - for_jobs - for_strangers | {"frame_timeout_seconds"}


def test_the_status_example_has_every_promised_key() -> None:
    found = re.search(r"```json\n(.*?)```", section(PROTOCOL, "## asrd to client"), re.DOTALL)
    assert found is not None
    example = json.loads(found[1])
    made = front("0")
    made.metrics.failed["bad-audio"] = 1
    assert shape(example) == shape(snapshot.snapshot(made, Peer(1, 0, 0), now=101.0))


def shape(value: Any) -> Any:
    """The keys of nested objects, without what they hold."""
    if isinstance(value, dict):
        return {key: shape(item) for key, item in value.items()}
    return [shape(item) for item in value] if isinstance(value, list) else None


def test_the_examples_by_hand_are_what_the_codec_says() -> None:
    """Header lines of the examples, but for the version, which changes."""
    examples = re.findall(r'\{"type":"\w+","version":"\.\.\.","data_length":\d+\}', PROTOCOL)
    pong = frames.encode("pong", {"text": "hello"})
    accepted = frames.encode("accepted", {"job_id": "6f1c2a9be04d7753", "queue_depth": 0})
    for raw in (pong, accepted):
        line = re.sub(r'"version":"[^"]*"', '"version":"..."', raw.decode().splitlines()[0])
        assert line in examples


# --- settings.md ----------------------------------------------------------------------------------


@pytest.mark.parametrize("table", TABLES)
def test_every_setting_with_its_values_default_and_help(table: str) -> None:
    (heading,) = re.findall(rf"^## `\[{table}\]`.*$", SETTINGS, re.MULTILINE)
    assert rows(section(SETTINGS, heading)) == [
        [*row, spec.metadata["help"]]
        for row, spec in zip(
            declared(TABLES[table]), dataclasses.fields(TABLES[table]), strict=True
        )
    ]


# --- every page -----------------------------------------------------------------------------------

PAGES = sorted([*DOCS.glob("*.md"), DOCS.parent / "README.md"])


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_link_leads_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)[^)]*\)", page.read_text()):
        if "://" not in target:
            assert (page.parent / target).exists(), target


def test_the_path_of_a_request_names_what_there_is() -> None:
    """Each row: files, what happens, and names that these files define."""
    section = (
        (ROOT / "README.md").read_text().split("## The path of a request")[1].split("\n## ")[0]
    )
    rows = [line.strip("|").split("|") for line in section.splitlines() if line.startswith("|")]
    paths = [row for row in rows if "asrd/" in row[0]]
    assert len(paths) >= 10
    for where, _, names in paths:
        sources = [(ROOT / path).read_text() for path in re.findall(r"`(asrd/[\w/]+\.py)`", where)]
        for name in re.findall(r"`([\w.]+)`", names):
            defined = re.compile(rf"\b(def|class) {name.rpartition('.')[2]}\b")
            assert any(defined.search(source) for source in sources), f"{where}: {name}"


def test_the_debian_packages_say_what_pyproject_says() -> None:
    control = (ROOT / "packaging" / "debian" / "control").read_text()
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    needs = dict(need.split(">=") for need in project["dependencies"])
    assert f"needs anyio {needs['anyio']} or newer" in control
    versions = set(re.findall(r"python3 \(>= ([\d.]+)\)", control))
    assert versions == {project["requires-python"].removeprefix(">=")}
