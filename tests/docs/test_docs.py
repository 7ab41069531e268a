"""The pages: generated parts are fresh, and the facts that are written by hand are the code's."""

import json
import re
import tomllib
from pathlib import Path
from typing import Any

from asrd.errors import WarningCode
from asrd.front import refusing
from asrd.front.reporting import snapshot
from asrd.settings import TABLES, FrontSettings
from asrd.wire import frames
from asrd.wire.peer import Peer
from tests.support.docs import pages, written
from tests.support.paths import ROOT
from tests.support.reporting import front, submit

DOCS = ROOT / "docs"
PROTOCOL = (DOCS / "protocol.md").read_text()


def section(page: str, heading: str) -> str:
    """The text under a heading, up to the next of its level or above."""
    level = heading.split()[0]
    found = re.search(
        rf"^{re.escape(heading)}\n(.*?)(?=^#{{1,{len(level)}}} |\Z)", page, re.MULTILINE | re.DOTALL
    )
    assert found is not None, f"there is no {heading!r}"
    return found[1]


def test_generated_parts_of_the_pages_are_fresh() -> None:
    for page, parts in pages().items():
        assert page.read_text() == written(page, parts), f"{page.name} is stale: run `make docs`"


# --- protocol.md ----------------------------------------------------------------------------------


def test_protocol_page_names_every_warning_code() -> None:
    named = re.findall(r"`([a-z-]+)`\s+\(", section(PROTOCOL, "### JobWarning"))
    assert named == [str(code) for code in WarningCode]


def test_protocol_page_states_every_limit_of_the_codec() -> None:
    rows = re.findall(r"^\| (.*?) \| (.*?) \|", section(PROTOCOL, "## Framing"), re.MULTILINE)
    cells = dict(rows)
    assert cells["header line"] == f"{frames.MAX_HEADER:,} bytes"
    assert cells["`type`"] == f"{frames.MAX_TYPE} characters"
    assert cells["`data_length`"] == (
        f"{frames.MAX_DATA:,} bytes; between front and worker {frames.MAX_TRANSCRIPT_DATA:,}"
    )
    assert cells["nesting of JSON"] == f"{frames.MAX_DEPTH} levels"
    values = "values in `data`: commas and opening brackets, also those in texts"
    assert cells[values] == f"{frames.MAX_VALUES:,}"
    assert cells["one transcript"] == f"{frames.MAX_TRANSCRIPT_DATA:,} bytes"
    fds = cells["`fds` of one event, and waiting for theirs"]
    assert fds == f"{frames.MAX_FDS}; on the status socket and the Wyoming socket none"


def test_protocol_page_lists_every_setting_that_bounds_clients() -> None:
    limits = section(PROTOCOL, "## Framing")
    named = set(re.findall(r"`(\w+)`", limits)) & FrontSettings.__dataclass_fields__.keys()
    bounds = {name for name in FrontSettings.__dataclass_fields__ if re.search("_max|max_", name)}
    for_jobs = {"max_wait_seconds", "max_load_seconds", "max_run_seconds", "max_attempts"}
    for_strangers = {name for name in bounds if name.startswith(("status_", "wyoming_"))}
    assert named == bounds - for_jobs - for_strangers | {"frame_timeout_seconds"}
    differing = set(re.findall(r"`(\w+)`", section(PROTOCOL, "## The Wyoming socket")))
    assert {name for name in for_strangers if name.startswith("wyoming_")} <= differing


def test_status_example_has_every_promised_key() -> None:
    found = re.search(r"```json\n(.*?)```", section(PROTOCOL, "## asrd to client"), re.DOTALL)
    assert found is not None
    example = json.loads(found[1])
    made = front("0")
    made.metrics.failed["bad-audio"] = 1
    submit(made, "running")
    assert shape(example) == shape(snapshot.snapshot(made, Peer(1, 0, 0), now=101.0))


def shape(value: Any) -> Any:
    """The keys of nested objects, without what they hold. Lists count only as far as they hold
    objects."""
    if isinstance(value, dict):
        return {key: shape(item) for key, item in value.items()}
    items = [shape(item) for item in value] if isinstance(value, list) else []
    return items if any(items) else None


def test_examples_by_hand_are_what_the_codec_sends() -> None:
    """Header lines of the examples, but for the version, which changes."""
    examples = re.findall(r'\{"type":"\w+","version":"\.\.\.","data_length":\d+\}', PROTOCOL)
    pong = frames.encode("pong", {"text": "hello"})
    accepted = frames.encode("accepted", {"job_id": "6f1c2a9be04d7753", "queue_depth": 0})
    for raw in (pong, accepted):
        line = re.sub(r'"version":"[^"]*"', '"version":"..."', raw.decode().splitlines()[0])
        assert line in examples


# --- every page -----------------------------------------------------------------------------------


def test_every_link_between_pages_leads_somewhere() -> None:
    for page in [*ROOT.glob("*.md"), *ROOT.glob("tests/*.md"), *DOCS.rglob("*.md")]:
        for target, heading in re.findall(r"\]\(([^)#]*)#?([^)]*)\)", page.read_text()):
            if "://" not in target:
                file = page.parent / target if target else page
                assert file.exists(), f"{page.name}: {target}"
                assert not heading or heading in anchors(file), f"{page.name}: {target}#{heading}"


def anchors(page: Path) -> set[str]:
    """The names that a forge, and the site, give the headings of a page."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_pages_say_how_soon_a_refusing_front_serves() -> None:
    notice, farewell = refusing._LOOK_SECONDS, refusing._FAREWELL_SECONDS
    assert notice == 1, "the pages say: within a second"
    restarts = " ".join((DOCS / "restarts.md").read_text().split())
    assert f"within {notice + farewell:g} s if a client is connected that has sent noth" in restarts
    symptoms = (DOCS / "troubleshooting.md").read_text()
    assert f"the front serves within {notice + farewell:g} s, without a restart" in symptoms
    man = (DOCS / "man" / "asrd.toml.5").read_text()
    assert f"It serves then, {farewell:g} s later at most" in man


def test_path_of_a_request_names_existing_code() -> None:
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


def test_shipped_settings_file_shows_the_defaults() -> None:
    text = (ROOT / "packaging" / "asrd.toml").read_text()
    shown = tomllib.loads(re.sub(r"^#(\w+ = )", r"\1", text, flags=re.MULTILINE))
    # The model is an example: without one the demo model is used.
    del shown["worker"]["model"]
    for table, values in shown.items():
        assert values == {name: getattr(TABLES[table](), name) for name in values}


def test_debian_packages_state_the_versions_of_pyproject() -> None:
    control = (ROOT / "packaging" / "debian" / "control").read_text()
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    needs = dict(need.split(">=") for need in project["dependencies"])
    assert f"needs anyio {needs['anyio']} or newer" in control
    versions = set(re.findall(r"python3 \(>= ([\d.]+)\)", control))
    assert versions == {project["requires-python"].removeprefix(">=")}
