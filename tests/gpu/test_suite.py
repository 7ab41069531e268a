"""Tests of the program that checks a GPU, without a GPU, and all of its checks on a CPU."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.benchmarks.gpu import decide
from tests.gpu import __main__ as suite
from tests.gpu import checks, cublas, real
from tests.gpu.card import Card
from tests.gpu.report import Result, markdown

RUN = Path(__file__).with_name("run")


@pytest.mark.parametrize(
    ("versions", "renamed"), [("12 13", ""), ("13", " under the name libcublas.so.12")]
)
def test_cublas_12_is_preferred_and_13_is_renamed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, versions: str, renamed: str
) -> None:
    place = tmp_path / "site" / "nvidia" / "cublas" / "lib"
    place.mkdir(parents=True)
    for name in cublas.NAMES:
        for version in versions.split():
            (place / f"{name}.{version}").touch()
    monkeypatch.setattr(sys, "path", [str(tmp_path / "site"), *sys.path])
    monkeypatch.setattr(cublas, "_loader_cache", lambda: "")
    monkeypatch.setenv("LD_LIBRARY_PATH", "/opt/lib")
    found = cublas.find(tmp_path / "links")
    library = f"{place}/libcublas.so.{versions.split()[0]}"
    assert found.text == library + renamed
    directory = tmp_path / "links" / "nvidia" / "cublas" / "lib"
    assert found.changes["LD_LIBRARY_PATH"] == f"{directory}:/opt/lib"
    assert str((directory / "libcublas.so.12").readlink()) == library


def test_missing_cublas_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cublas, "_places", lambda: iter([tmp_path]))
    assert cublas.find(tmp_path / "links").text == "no cuBLAS of CUDA 12 or 13 was found"


def test_card_reads_nvidia_smi(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = tmp_path / "nvidia-smi"
    program.write_text(
        "#!/bin/sh\n"
        'case "$*" in\n'
        "*memory.used*) echo 1200 ;;\n"
        "*) echo 'NVIDIA H100, 580.1, 81559, 9.0' ;;\n"
        "esac\n"
    )
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/bin:/usr/bin")
    card = Card("cuda")
    assert card.describe() == "NVIDIA H100, 580.1, 81559, 9.0"
    assert card.used_mib_after(0, patience=0) == 1200


@pytest.mark.parametrize(
    ("batched", "text"),
    [(150.0, "1.50 x one worker (build it"), (149.0, "1.49 x one worker (not worth building")],
)
def test_rule_for_batching(batched: float, text: str) -> None:
    ways = {"batched by 8": 50.0, "batched by 16": batched}
    ways |= {"asrd, 1 worker, 1 clients": 80.0, "asrd, 1 worker, 8 clients": 100.0}
    assert text in decide({**ways, "asrd, 2 workers, 8 clients": 120.0})


def test_report_has_findings_and_table() -> None:
    seen = {"rates": {}, "table": "| a table |", "decision": {"5 s": "no"}}
    page = markdown(
        {"device": "cuda", "cores": "16"},
        [
            Result("texts", "passed", 3.2, {"float16": "all | right\n2"}),
            Result("throughput-small", "passed", 9, seen),
        ],
    )
    assert "| passed | 3 | float16: all \\| right 2 |" in page
    assert page.endswith("\n| a table |\n\n- 5 s: no\n")


def test_words_are_compared_without_case_and_punctuation() -> None:
    spoken = [real.Clip(Path("a.wav"), "en", "Mr. ten of clubs!"), real.Clip(Path(), "en", "two")]
    assert real.errors(["mister 10 of Clubs.", "Too."], spoken) == (1, 5)


def test_real_checks_need_their_variables(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ASRD_GPU_SPEECH", raising=False)
    with pytest.raises(checks.NotHere, match="ASRD_GPU_SPEECH is not set"):
        real.clips()
    monkeypatch.setenv("ASRD_GPU_REAL", str(tmp_path))
    with pytest.raises(checks.NotHere, match="ASRD_GPU_REAL has no base"):
        real.weights("base")


def test_check_without_time_left_is_not_run(tmp_path: Path) -> None:
    result = suite._watch(suite.CHECKS[0], "cpu", tmp_path, time.monotonic())
    assert (result.verdict, result.seconds) == ("not run", 0)
    assert "out of time" in result.seen["reason"]


def test_check_over_its_limit_is_stopped_with_its_children(tmp_path: Path) -> None:
    endless = suite.Check("texts", checks.texts, least=0, most=1.0)
    result = suite._watch(endless, "cpu", tmp_path, time.monotonic() + 60)
    assert (result.verdict, result.seen) == ("failed", {"reason": "not done after 1 s"})
    left = subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True, check=True)
    assert str(tmp_path) not in left.stdout


@pytest.mark.parametrize(
    "device",
    [pytest.param("cpu", marks=pytest.mark.soak), pytest.param("cuda", marks=pytest.mark.gpu)],
)
def test_whole_suite(tmp_path: Path, device: str) -> None:
    environment = {**os.environ, "OUT": str(tmp_path / "out"), "PYTHON": sys.executable}
    done = subprocess.run([RUN, "--device", device], env=environment, check=False)
    results = json.loads((tmp_path / "out" / "gpu.json").read_text())["results"]
    failed = [each for each in results if each["verdict"] == "failed"]
    assert (done.returncode, failed) == (0, [])
    passed = {each["check"] for each in results if each["verdict"] == "passed"}
    expected = {"texts", "crash", "sticky-error", "idle-exit", "no-cublas", "two-workers", "doctor"}
    if device == "cuda":
        expected |= {"out-of-memory", "throughput-large-v3-turbo"}
    else:
        expected |= {"shape-tiny", "throughput-demo", "every-option"}
    assert passed >= expected
