"""The checks: each function returns its findings, or raises.

Each runs in a process of its own with a time limit (`python -m tests.gpu`).
"""

import contextlib
import ctypes
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

from asrd import Client
from asrd.client.source import Audio
from asrd.demo import MODEL, SAMPLES, samples
from asrd.errors import AsrdError, Code, JobError
from tests.gpu import brokencublas, faulty
from tests.gpu.card import SLACK_MIB, Card
from tests.gpu.service import COLD, Service, service, with_workers
from tests.support.speech import word_error_rate
from tests.support.subprocesses import started

Seen = dict[str, Any]

SHORT = SAMPLES / "en-4.wav"
MINUTE = SAMPLES / "en-minute.flac"
_WIDEST = 32


class NotHere(Exception):
    """The machine lacks something that the check needs."""


class Wrong(Exception):
    """The check failed."""


@dataclass(frozen=True)
class Stage:
    """`device` is `cuda` or `cpu`; `models` has the models of random weights, by shape."""

    device: str
    work: Path
    models: Path

    def service(self, name: str, *arguments: str, device: str = "", **settings: Any) -> Any:
        """Runs `asrd run`; for `settings` see tests.gpu.service.service."""
        return service(self.work / name, device or self.device, *arguments, **settings)

    def card(self) -> Card:
        return Card(self.device)

    def need_card(self) -> None:
        if self.device != "cuda":
            raise NotHere("there is no card")

    def model(self, shape: str, patience: float = 120) -> Path:
        """Waits for a model that another process makes; the demo model exists."""
        if shape == "demo":
            return MODEL
        done = self.models / f"{shape}.done"
        if not (self.models / shape).exists():
            raise NotHere(f"no model {shape} is being made")
        deadline = time.monotonic() + patience
        while not done.exists():
            if time.monotonic() > deadline:
                raise NotHere(f"the model {shape} was not made in time")
            time.sleep(0.2)
        return self.models / shape

    def environment(self, **changes: str) -> Any:
        """Sets variables of this process, and so of the processes that it starts."""
        return mock.patch.dict(os.environ, changes)


def expect(condition: object, otherwise: str) -> None:
    if not condition:
        raise Wrong(otherwise)


def says(client: Client, sample: Path = SHORT) -> str:
    return client.transcribe(sample, language="en", timeout=120).text


def spoken(sample: Path = SHORT) -> str:
    return next(each.text for each in samples() if each.path == sample)


def texts(stage: Stage) -> Seen:
    """In each compute type the demo model makes as few errors as on a CPU in float32, and `status`
    shows device and type. The very first start fills the driver's cache."""
    types = ("float16", "int8_float16", "float32") if stage.device == "cuda" else ("int8_float32",)
    seen: Seen = {"driver's cache before": f"{_cached_mib():.0f} MiB"}
    wanted, words, seen["CPU, float32"] = _heard(stage, "cpu", "float32")
    for compute_type in types:
        wrong, words, seen[compute_type] = _heard(stage, stage.device, compute_type)
        expect(wrong <= wanted + 0.05 * words, f"{compute_type}: {wrong} of {words} words wrong")
    return seen


def _heard(stage: Stage, device: str, compute_type: str) -> tuple[int, int, str]:
    """Returns the number of wrong words, the number of words, and a text with both."""
    directory = stage.work / f"{device}-{compute_type}"
    with service(directory, device, "--compute-type", compute_type) as running:
        ready = running.ready()
        worker = running.worker()
        shown = (worker["device"], worker["compute_type"])
        expect(shown == (device, compute_type), f"status shows {shown}")
        with running.client() as client:
            wrong, words = _word_errors(client, compute_type)
    return wrong, words, f"{wrong} of {words} words wrong, ready after {ready:.1f} s"


def _word_errors(client: Client, compute_type: str) -> tuple[int, int]:
    """Counts over all samples. Raises Wrong for an error in a short English one, since the model
    recognises those even with int8 weights."""
    wrong = words = 0
    for sample in samples():
        heard = client.transcribe(
            sample.path, language=sample.language, beam_size=1, temperature=0.0, timeout=60
        ).text
        if sample.seconds < 5 and sample.language == "en":
            expect(heard == sample.text, f"{compute_type}: {sample.name}: {heard!r}")
        errors, count = word_error_rate(sample.text, heard)
        wrong, words = wrong + errors, words + count
    return wrong, words


def _cached_mib() -> float:
    files = Path(os.environ.get("CUDA_CACHE_PATH", "/nowhere")).rglob("*")
    return sum(file.stat().st_size for file in files if file.is_file()) / (1 << 20)


def crash(stage: Stage, *arguments: str) -> Seen:
    """SIGSEGV during a job: the job is answered, the worker becomes ready, and the card's memory is
    freed."""
    card = stage.card()
    with stage.service("crash", *arguments) as running, running.client() as client:
        running.ready()
        # The same job as in the crash: a worker keeps the memory of its longest job.
        says(client, MINUTE)
        before = card.used_mib()
        to_answer, to_ready = kill_in_a_job(running, client)
        after = card.used_mib_after(before)
    expect(after <= before + SLACK_MIB, f"{after - before} MiB of the card are lost")
    return {
        "the job's answer, in its second attempt": f"after {to_answer}",
        "ready": to_ready,
        "card before and after": f"{before}, {after} MiB",
    }


def shape(stage: Stage, name: str) -> Seen:
    """Load, memory, a job of a minute and a crash with random weights in a real model's shape."""
    model, card, seen = str(stage.model(name)), stage.card(), Seen()
    untested = "self_test = false\n"
    types = ("float16", "int8_float16") if card.real else ("int8_float32",)
    for compute_type in types:
        before = card.used_mib()
        arguments = ("--model", model, "--compute-type", compute_type)
        random = stage.service(compute_type, *arguments, worker=untested)
        with random as running, running.client() as client:
            running.ready()
            started = time.monotonic()
            client.transcribe(MINUTE, language="en", temperature=0.0, timeout=120)
            took = time.monotonic() - started
            taken = f"{card.used_mib() - before} MiB"
            to_answer, to_ready = kill_in_a_job(running, client)
        seen[compute_type] = (
            f"{taken}, a minute in {took:.2f} s, killed in a job: its answer after "
            f"{to_answer}, ready {to_ready}"
        )
    return seen


def crash_without_cache(stage: Stage) -> Seen:
    """`crash` without the driver's cache of compiled kernels."""
    stage.need_card()
    with stage.environment(CUDA_CACHE_DISABLE="1"):
        return crash(stage)


def kill_in_a_job(running: Service, client: Client, sample: Audio = MINUTE) -> tuple[str, str]:
    """Kills worker 0 during a job. Returns, as texts, the seconds from the kill to that job's
    transcript, and until all workers are ready or busy."""
    for _ in range(5):
        before = running.pid_of()
        with (
            client.stream(sample, language="en", timeout=COLD) as segments,
            ThreadPoolExecutor(1) as thread,
        ):
            next(segments)
            os.kill(before, signal.SIGSEGV)
            died = time.monotonic()
            ready = thread.submit(running.replaced, before)
            for _ in segments:
                pass
            answered = time.monotonic() - died
        if segments.transcript.attempts == 2:
            break
    expect(segments.transcript.attempts == 2, "the job ended before the kill, five times")
    load = running.worker()["load_seconds"]
    return f"{answered:.2f} s", f"after {ready.result():.2f} s, of which {load:.2f} s loading"


def out_of_memory(stage: Stage) -> Seen:
    """Another program takes the whole card: jobs fail as `out-of-memory`, or the worker restarts
    and reports the reason. When the program has ended, jobs succeed again."""
    stage.need_card()
    model = str(stage.model("small"))
    arguments = ("--model", model, "--compute-type", "float16")
    with stage.service("oom", *arguments, worker="self_test = false\n") as running:
        running.ready()
        with running.client() as client:
            says(client)
            before = running.pid_of()
            with _neighbour() as left:
                during = [_outcome(client) for _ in range(3)]
                worker = running.worker()
            back = running.wait_for("the worker", lambda: running.worker()["state"] == "ready", 120)
            # The very first job must succeed.
            after = [_outcome(client) for _ in range(3)]
        same = running.pid_of() == before
    seen = {
        "the neighbour": left,
        "jobs meanwhile": ", ".join(during),
        "worker then": f"{worker['state']} ({worker['reason']})",
        "ready again": f"{back:.1f} s after its end",
        "process": "the same" if same else "another",
        "jobs after it": ", ".join(after),
    }
    honest = {Code.OUT_OF_MEMORY, Code.UNAVAILABLE, Code.WORKER_CRASHED}
    expect(set(during) <= honest | {"transcript"}, f"{seen}")
    expect(set(during) != {"transcript"}, f"the memory never ran out: {seen}")
    expect(set(after) == {"transcript"}, f"{seen}")
    return seen


@contextlib.contextmanager
def _neighbour() -> Iterator[str]:
    argv = [sys.executable, "-m", "tests.gpu.driver"]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        try:
            if other.stdout is None or not (line := other.stdout.readline().strip()):
                raise Wrong("the neighbour could not fill the card")
            yield line
        finally:
            other.kill()


def _outcome(client: Client) -> str:
    try:
        # So wide a beam needs far more memory than the worker has kept from earlier jobs.
        client.transcribe(MINUTE, language="en", beam_size=_WIDEST, timeout=60)
    except JobError as error:
        return str(error.code)
    except AsrdError as error:
        return type(error).__name__
    return "transcript"


def sticky_error(stage: Stage) -> Seen:
    """A kernel faults in the worker's context: the process ends, the job fails after its second
    attempt, and the next job succeeds."""
    kind = with_workers("tests.gpu.faulty")
    with stage.service("sticky", kind=kind) as running, running.client() as client:
        running.ready()
        before = running.pid_of()
        code = "none"
        try:
            client.transcribe(SHORT, language="en", initial_prompt=faulty.PROMPT, timeout=120)
        except JobError as error:
            code, sentence = str(error.code), str(error)
        expect(code == Code.WORKER_CRASHED, f"the job was answered {code}")
        heard = says(client)
        expect(heard == spoken(), f"then: {heard!r}")
        worker = running.worker()
        expect(worker["pid"] != before, "the broken process is still there")
        expect(worker["restarts"] == 2, f"{worker['restarts']} restarts")
        return {"error": sentence, "last death": worker["last_death"], "then": "right text"}


def idle_exit(stage: Stage) -> Seen:
    """An idle worker frees all of the card's memory, and the next request wakes it."""
    card = stage.card()
    before = card.used_mib()
    with stage.service("idle", worker="idle_exit_seconds = 1\n") as running:
        running.ready()
        with_worker = card.used_mib()
        with running.client() as client:
            says(client)
            running.wait_for("sleep", lambda: running.worker()["state"] == "asleep", 30)
            asleep = card.used_mib_after(before)
            woken = time.monotonic()
            heard = says(client)
            woken = time.monotonic() - woken
    expect(heard == spoken(), f"after waking: {heard!r}")
    expect(asleep <= before + SLACK_MIB, f"{asleep - before} MiB are still taken")
    memory = f"{before}, {with_worker}, {asleep} MiB"
    return {"card before, with and after": memory, "first answer when woken": f"{woken:.2f} s"}


def no_cublas(stage: Stage) -> Seen:
    """A broken file is found before the real cuBLAS: `asrd run` ends with a sentence that says so.
    Without a GPU, the sentence says that."""
    library = stage.work / "broken" / "nvidia" / "cublas" / "lib"
    library.mkdir(parents=True)
    for name in ("libcublas.so.12", "libcublasLt.so.12"):
        (library / name).write_text("no library")
    directory = stage.work / "no-cublas"
    directory.mkdir()
    with stage.environment(**{brokencublas.VARIABLE: str(stage.work / "broken")}):
        running = with_workers("tests.gpu.brokencublas")(directory, "--device", "cuda")
        code = running.process.wait(60)
        running.stop()
    reason = running.log.splitlines()[-1]
    wanted = "libcublasLt.so.12 can't be loaded" if stage.device == "cuda" else "no NVIDIA driver"
    expect(wanted in reason, reason)
    expect(code == 78, f"it ended with {code}")
    return {"reason": reason}


def two_workers(stage: Stage) -> Seen:
    """Two workers on one card: both serve, and the death of one does not affect the other."""
    card = stage.card()
    with stage.service("two", "--workers", "2") as running, running.client() as client:
        running.ready()
        used = card.used_mib()
        with ThreadPoolExecutor(8) as threads:
            heard = list(threads.map(lambda _: says(client), range(24)))
        expect(set(heard) == {spoken()}, f"{set(heard)}")
        done = {name: worker["jobs_done"] for name, worker in running.workers().items()}
        expect(all(done.values()), f"jobs done: {done}")
        survivor = running.pid_of("1")
        os.kill(running.pid_of("0"), signal.SIGKILL)
        expect(says(client) == spoken(), "another text")
        running.ready()
        expect(running.pid_of("1") == survivor, "the other worker died, too")
    return {"jobs done": ", ".join(f"{n}: {c}" for n, c in done.items()), "card": f"{used} MiB"}


def hot_spare(stage: Stage) -> Seen:
    """`crash` with a spare worker: the death costs no load."""
    return crash(stage, "--spares", "1")


def doctor(stage: Stage) -> Seen:
    """`asrctl doctor` finds the GPU and no problem with it."""
    with stage.service("doctor") as running:
        running.ready()
        with stage.environment(ASRD_CONFIG=str(running.tmp / "asrd.toml")):
            asrctl = started("--socket", running.socket, "doctor", "--json")
        output, _ = asrctl.communicate(timeout=60)
        found = [each for each in json.loads(output) if each["subject"] == "gpu"]
    expect(found, "no finding about a GPU")
    expect(all(each["verdict"] == "ok" for each in found), f"{found}")
    if stage.device == "cuda":
        expect(any("worker 0 runs on it" in each["text"] for each in found), f"{found}")
    return {"says": "; ".join(each["text"] for each in found)}


def no_new_code(stage: Stage) -> Seen:
    """packaging/gpu-only.conf: written memory never becomes executable (prctl(2), PR_SET_MDWE)."""
    stage.need_card()
    pr_set_mdwe, refuse_exec_gain = 65, 1
    library = ctypes.CDLL(None, use_errno=True)
    if library.prctl(pr_set_mdwe, refuse_exec_gain, 0, 0, 0) != 0:
        raise NotHere(f"the kernel has no PR_SET_MDWE ({os.strerror(ctypes.get_errno())})")
    # The processes that this one starts inherit it.
    with stage.service("mdwe") as running, running.client() as client:
        running.ready()
        expect(says(client) == spoken(), "another text")
        client.transcribe(SHORT, language="en", vad_filter=True, word_timestamps=True)
    return {"transcribes": "also with VAD and word timestamps"}


def every_option(stage: Stage) -> Seen:
    """Every option once, right after the start, without the driver's cache: no job is so slow that
    the watchdog kills the worker."""
    options: list[dict[str, Any]] = [
        {"beam_size": 1},
        {"beam_size": 5},
        {"temperature": 0.4},
        {"word_timestamps": True},
        {"vad_filter": True},
        {"initial_prompt": "four green", "hotwords": "window"},
        {"language": None},
    ]
    seen: Seen = {}
    with stage.environment(CUDA_CACHE_DISABLE="1"):
        with stage.service("options") as running, running.client() as client:
            running.ready()
            for each in options:
                started = time.monotonic()
                client.transcribe(SHORT, timeout=COLD, **{"language": "en", **each})
                name = ", ".join(f"{key} {value}" for key, value in each.items())
                seen[name] = f"{time.monotonic() - started:.2f} s"
            expect(running.worker()["restarts"] == 0, "the worker died")
    return seen


def throughput(
    stage: Stage, model: Path, seconds: float, clients: tuple[int, ...] = (1, 4, 16, 32)
) -> Seen:
    """The table of tests/benchmarks/gpu.py with this model."""
    from tests.benchmarks import gpu

    tiny = stage.device == "cpu"
    plan = gpu.Plan(
        model=str(model),
        device=stage.device,
        compute_type="int8" if tiny else "float16",
        lengths=(5.0,) if tiny else (5.0, 30.0),
        clients=(1, 2) if tiny else clients,
        workers=(1,) if tiny else (1, 2, 4),
        batches=(2,) if tiny else (8, 16, 32),
        seconds=seconds,
    )
    found = gpu.measure_all(plan)
    return {**found, "table": gpu.table(found["rates"])}
