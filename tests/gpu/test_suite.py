"""The program that proves a GPU, without one: what it finds, reports and ends; and all of it on a
CPU, as far as that goes."""

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


def libraries(place: Path, version: str) -> Path:
    place.mkdir(parents=True)
    for name in cublas.NAMES:
        (place / f"{name}.{version}").touch()
    return place


def test_cublas_12_is_taken_before_13(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    newer = libraries(tmp_path / "site" / "nvidia" / "cu13" / "lib", "13")
    older = libraries(tmp_path / "cuda-12.4" / "lib64", "12")
    monkeypatch.setattr(cublas, "_places", lambda: iter([newer, older]))
    found = cublas.find(tmp_path / "links")
    assert found.told == f"{older}/libcublas.so.12"
    link = tmp_path / "links" / "nvidia" / "cublas" / "lib" / "libcublasLt.so.12"
    assert link.readlink() == older / "libcublasLt.so.12"


def test_cublas_13_is_tried_under_the_older_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = libraries(tmp_path / "site" / "nvidia" / "cu13" / "lib", "13")
    monkeypatch.setattr(sys, "path", [str(tmp_path / "site"), *sys.path])
    monkeypatch.setattr(cublas, "_loader_cache", lambda: "")
    monkeypatch.setenv("LD_LIBRARY_PATH", "/opt/lib")
    found = cublas.find(tmp_path / "links")
    assert found.told == f"{place}/libcublas.so.13 under the name libcublas.so.12"
    directory = tmp_path / "links" / "nvidia" / "cublas" / "lib"
    assert found.changes["LD_LIBRARY_PATH"] == f"{directory}:/opt/lib"
    assert (directory / "libcublas.so.12").readlink() == place / "libcublas.so.13"
    assert (directory / "libcublasLt.so.13").readlink() == place / "libcublasLt.so.13"


def test_no_cublas_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cublas, "_places", lambda: iter([tmp_path]))
    assert cublas.find(tmp_path / "links").told == "no cuBLAS of CUDA 12 or 13 was found"


def test_the_loader_s_directories_are_searched(monkeypatch: pytest.MonkeyPatch) -> None:
    line = "\tlibcublas.so.12 (libc6,x86-64) => /opt/cuda/lib/libcublas.so.12\n"
    monkeypatch.setattr(cublas, "_loader_cache", lambda: line)
    assert Path("/opt/cuda/lib") in cublas._places()


def test_the_card_is_read_from_nvidia_smi(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = tmp_path / "nvidia-smi"
    program.write_text(
        "#!/bin/sh\n"
        'case "$*" in\n'
        "*query-gpu=memory*) echo '1200, 81559' ;;\n"
        "*query-gpu=name*) echo 'NVIDIA H100, 580.1, 81559, 9.0' ;;\n"
        "*) echo '42, 600'; echo '43, [N/A]' ;;\n"
        "esac\n"
    )
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/bin:/usr/bin")
    card = Card()
    assert card.describe() == "NVIDIA H100, 580.1, 81559, 9.0"
    memory = card.memory()
    assert (memory.used, memory.total, memory.of_us) == (1200, 81559, {42: 600})
    assert card.settle(lambda memory: memory.used == 0, patience=0).used == 1200


@pytest.mark.parametrize(
    ("batched", "said"),
    [(150.0, "1.50 x one worker (build it"), (149.0, "1.49 x one worker (not worth building")],
)
def test_the_rule_for_batching(batched: float, said: str) -> None:
    ways = {
        "engine in process": 90.0,
        "batched by 8": 50.0,
        "batched by 16": batched,
        "asrd, 1 worker, 1 clients": 80.0,
        "asrd, 1 worker, 8 clients": 100.0,
        "asrd, 2 workers, 8 clients": 120.0,
    }
    assert said in decide(ways)


def test_the_report() -> None:
    rates = {"5 s": {"engine in process": 2.0, "batched by 8": 3.0}}
    page = markdown(
        {"device": "cuda", "cores": "16"},
        [
            Result("texts", "passed", 3.2, {"float16": "all | right\n2"}),
            Result("throughput-small", "passed", 9, {"rates": rates, "decision": {"5 s": "no"}}),
        ],
    )
    assert "| texts | passed | 3 | float16: all \\| right 2 |" in page
    assert "| batched by 8 | 3.0 |" in page
    assert page.endswith("\n- 5 s: no\n")


def test_words_are_compared_without_case_punctuation_and_small_numerals() -> None:
    assert real.normal("Mr. Smith's 3 cold-hearted men, 42!") == (
        "mister smith's three cold hearted men 42"
    )
    spoken = [real.Clip(Path("a.wav"), "en", "ten of clubs"), real.Clip(Path("b.wav"), "en", "two")]
    assert real.errors(["10 of Clubs.", "Too."], spoken) == (1, 4)


def test_without_real_weights_and_speech_those_checks_are_not_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("ASRD_GPU_SPEECH", raising=False)
    with pytest.raises(checks.NotHere, match="ASRD_GPU_SPEECH is not set"):
        real.clips()
    monkeypatch.setenv("ASRD_GPU_REAL", str(tmp_path))
    with pytest.raises(checks.NotHere, match="ASRD_GPU_REAL has no base"):
        real.weights("base")


def test_recordings_without_a_reference_are_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines = [
        {"file": "a.wav", "language": "en", "text": "yes"},
        {"file": "b.wav", "language": "en", "text": None},
    ]
    (tmp_path / "references.jsonl").write_text("\n".join(map(json.dumps, lines)))
    monkeypatch.setenv("ASRD_GPU_SPEECH", str(tmp_path))
    assert real.clips() == [real.Clip(tmp_path / "a.wav", "en", "yes")]


def test_what_does_not_fit_any_more_is_told_as_not_run(tmp_path: Path) -> None:
    result = suite._watch(suite.CHECKS[0], "cpu", tmp_path, time.monotonic())
    assert (result.verdict, result.seconds) == ("not run", 0)
    assert "out of time" in result.seen["reason"]


def test_a_check_that_takes_too_long_is_ended_with_all_that_it_started(tmp_path: Path) -> None:
    endless = suite.Check("texts", checks.texts, least=0, most=1.0)
    result = suite._watch(endless, "cpu", tmp_path, time.monotonic() + 60)
    assert (result.verdict, result.seen) == ("failed", {"reason": "not done after 1 s"})
    left = subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True, check=True)
    assert str(tmp_path) not in left.stdout


@pytest.mark.parametrize(
    "device",
    [pytest.param("cpu", marks=pytest.mark.soak), pytest.param("cuda", marks=pytest.mark.gpu)],
)
def test_everything(tmp_path: Path, device: str) -> None:
    # Of this very tree and interpreter, whatever is carried.
    environment = {**os.environ, "OUT": str(tmp_path / "out"), "PYTHON": sys.executable}
    done = subprocess.run([RUN, "--device", device], env=environment, check=False)
    told = json.loads((tmp_path / "out" / "gpu.json").read_text())["results"]
    failed = [each for each in told if each["verdict"] == "failed"]
    assert (done.returncode, failed) == (0, [])
    passed = {each["check"] for each in told if each["verdict"] == "passed"}
    expected = {"texts", "crash", "sticky-error", "idle-exit", "no-cublas", "two-workers", "doctor"}
    if device == "cuda":
        expected |= {"out-of-memory", "throughput-large-v3-turbo"}
    else:
        expected |= {"shape-tiny", "throughput-demo", "every-option"}
    assert passed >= expected
