"""The history of crashes that one front leaves to the next."""

import errno
import json
from pathlib import Path

import pytest

from asrd.front.reporting.crash_file import CrashFile
from asrd.front.reporting.crashes import KEPT, Crash, Crashes, JobRef
from asrd.wire.records import LastProcess
from tests.support.reporting import ALICE, ROOT, peer


def crash(at: float = 50.0) -> Crash:
    job = JobRef("hers", peer(ALICE), 320, 0.01, 2, "trace-1", in_turn=True)
    made = Crash("0", 1e9, at, "it closed", (job,), 7, "tiny", loading=True)
    made.explain(LastProcess("killed by SIGSEGV", 7, "the end \u20ac"))
    return made


def kept(path: Path) -> Crashes:
    crashes, file = Crashes(), CrashFile(str(path))
    crashes.keep(file.read(now=60.0), file.write)
    return crashes


def test_next_front_shows_the_crashes_of_the_one_before(tmp_path: Path) -> None:
    path = tmp_path / "crashes.json"
    first = kept(path)
    for at in range(KEPT + 3):
        first.add(crash(at))
    first.save()
    assert path.stat().st_mode & 0o777 == 0o600
    second = kept(path)
    shown = [[each.as_data(peer(ALICE), False) for each in crashes] for crashes in (first, second)]
    assert shown[0] == shown[1]
    assert [each.summary(peer(ROOT)) for each in first] == [
        each.summary(peer(ROOT)) for each in second
    ]
    assert second.since("0", 20.0) == 3
    second.add(crash(55.0))
    assert [each.at for each in kept(path)] == [*range(4, KEPT + 3), 55.0]


def test_crash_of_another_boot_is_none(tmp_path: Path) -> None:
    """The clock starts again; the file does not survive that where it belongs."""
    kept(tmp_path / "crashes.json").add(crash(70.0))
    assert list(kept(tmp_path / "crashes.json")) == []


@pytest.mark.parametrize(
    "damage",
    [
        lambda text: text[:-9],
        lambda text: "",
        lambda text: "[]",
        lambda text: text.replace("50.0", '"soon"'),
        lambda text: text.replace("tiny", "t" * 20_000),
        lambda text: json.dumps({"crashes": json.loads(text)["crashes"] * (KEPT + 1)}),
    ],
)
def test_damaged_file_is_no_history(
    tmp_path: Path, damage: "object", caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "crashes.json"
    kept(path).add(crash())
    assert len(list(kept(path))) == 1
    assert not caplog.records
    path.write_text(damage(path.read_text()))  # type: ignore[operator]
    assert list(kept(path)) == []
    assert "earlier crashes can't be read" in caplog.text
    kept(path).add(crash())
    assert len(list(kept(path))) == 1


def test_directory_that_is_missing_keeps_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    crashes = kept(tmp_path / "missing" / "crashes.json")
    crashes.add(crash())
    assert len(list(crashes)) == 1
    assert not caplog.records


def test_failed_or_killed_write_leaves_the_last_file_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "crashes.json"
    crashes = kept(path)
    crashes.add(crash(50.0))
    before = path.read_bytes()

    def fail(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "replace", fail)
    crashes.add(crash(51.0))
    assert ([*tmp_path.iterdir()], path.read_bytes()) == ([path], before)
    (tmp_path / "crashes.new").write_text("half")
    assert len(list(kept(path))) == 1
    assert [*tmp_path.iterdir()] == [path]
