"""What must be seen on a GPU, one function per thing: it returns what it saw, or raises.

Each runs in a process of its own (`python -m tests.gpu`), with a time limit from outside.
"""

import contextlib
import ctypes
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

from asrd import Client
from asrd.client.source import Audio
from asrd.demo import MODEL, SAMPLES, samples
from asrd.errors import AsrdError, Code, JobError
from tests.gpu import brokencublas, faulty
from tests.gpu.card import SLACK_MIB, Card
from tests.gpu.service import Service, environment, service, with_workers
from tests.support.speech import word_error_rate

Seen = dict[str, Any]

SHORT = SAMPLES / "en-4.wav"
MINUTE = SAMPLES / "en-minute.flac"
# For a worker to be ready while the driver compiles for a new GPU.
COLD = 240.0
_WIDEST = 32


class NotHere(Exception):
    """What is to be checked does not exist on this machine or in this version."""


class Wrong(Exception):
    """Something else came than what is promised."""


@dataclass(frozen=True)
class Stage:
    """`device` is `cuda` or `cpu`; `models` holds those of random weights, by shape."""

    device: str
    work: Path
    models: Path

    def service(self, name: str, *arguments: str, device: str = "", **settings: Any) -> Any:
        """`settings`: see tests.gpu.service.service."""
        return service(self.work / name, device or self.device, *arguments, **settings)

    def card(self) -> Card:
        if self.device != "cuda":
            raise NotHere("there is no card")
        return Card()

    def maybe_card(self) -> Card | None:
        return Card() if self.device == "cuda" else None

    def model(self, shape: str, patience: float = 120) -> Path:
        """Made by another process meanwhile; the demo model is there."""
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


def expect(true: object, otherwise: str) -> None:
    if not true:
        raise Wrong(otherwise)


def says(client: Client, sample: Path = SHORT) -> str:
    return client.transcribe(sample, language="en", timeout=120).text


def spoken(sample: Path = SHORT) -> str:
    return next(each.text for each in samples() if each.path == sample)


# --- the checks -----------------------------------------------------------------------------------


def texts(stage: Stage) -> Seen:
    """The demo model hears in each compute type what it hears on a CPU in float32, and `status`
    tells device and type. The very first start fills the driver's cache."""
    types = ("float16", "int8_float16", "float32") if stage.device == "cuda" else ("int8_float32",)
    seen: Seen = {"driver's cache before": f"{_cached_mib():.0f} MiB"}
    wanted, words, told = _heard(stage, "cpu", "float32")
    seen["CPU, float32"] = told
    for compute_type in types:
        wrong, words, seen[compute_type] = _heard(stage, stage.device, compute_type)
        expect(wrong <= wanted + 0.05 * words, f"{compute_type}: {wrong} of {words} words wrong")
    return seen


def _heard(stage: Stage, device: str, compute_type: str) -> tuple[int, int, str]:
    """Wrong words, words, and that told."""
    directory = stage.work / f"{device}-{compute_type}"
    with service(directory, device, "--compute-type", compute_type) as running:
        ready = running.ready(COLD)
        worker = running.worker()
        told = (worker["device"], worker["compute_type"])
        expect(told == (device, compute_type), f"status says {told}")
        with running.client() as client:
            wrong, words = _word_errors(client, compute_type)
    return wrong, words, f"{wrong} of {words} words wrong, ready after {ready:.1f} s"


def _word_errors(client: Client, compute_type: str) -> tuple[int, int]:
    """Over all samples. Raises Wrong if a short English one, which the model hears well even
    with int8 weights, has any."""
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
    """SIGSEGV in the middle of a job: that job's answer, the time to ready, the card's memory."""
    card = stage.maybe_card()
    with stage.service("crash", *arguments) as running, running.client() as client:
        running.ready(COLD)
        # As after the crash: a worker keeps what its longest job took.
        says(client, MINUTE)
        before = card.memory().used if card else 0
        to_answer, to_ready = kill_in_a_job(running, client)
        after = card.settle(lambda m: m.used <= before + SLACK_MIB).used if card else 0
        load = running.worker()["load_seconds"]
    expect(after <= before + SLACK_MIB, f"{after - before} MiB of the card are lost")
    return {
        "the job's answer": f"{to_answer:.2f} s after the kill, in its second attempt",
        "ready": f"after {to_ready:.2f} s, of which {load:.2f} s loading",
        "card before and after": f"{before}, {after} MiB" if card else "no card",
    }


def shape(stage: Stage, name: str) -> Seen:
    """Load, memory, a job of a minute and a crash, with random weights in a real model's shape."""
    model, card, seen = str(stage.model(name)), stage.maybe_card(), Seen()
    types = ("float16", "int8_float16") if card else ("int8_float32",)
    for compute_type in types:
        before = card.memory().used if card else 0
        arguments = ("--model", model, "--compute-type", compute_type)
        with stage.service(compute_type, *arguments) as running, running.client() as client:
            running.ready(COLD)
            started = time.monotonic()
            client.transcribe(MINUTE, language="en", temperature=0.0, timeout=120)
            took = time.monotonic() - started
            taken = f"{card.memory().used - before} MiB" if card else "no card"
            to_answer, to_ready = kill_in_a_job(running, client)
            load = running.worker()["load_seconds"]
        seen[compute_type] = (
            f"{taken}, a minute in {took:.2f} s, killed in a job: its answer after "
            f"{to_answer:.2f} s, ready after {to_ready:.2f} s, of which {load:.2f} s loading"
        )
    return seen


def crash_without_cache(stage: Stage) -> Seen:
    """As `crash`, but what the driver compiles for a new GPU is never kept."""
    stage.card()
    with environment(CUDA_CACHE_DISABLE="1"):
        return crash(stage)


def kill_in_a_job(running: Service, client: Client, sample: Audio = MINUTE) -> tuple[float, float]:
    """Seconds from the kill to that job's transcript, and until all workers have a model."""
    for _ in range(5):
        before = running.pid_of()
        with (
            client.stream(sample, language="en", timeout=COLD) as segments,
            ThreadPoolExecutor(1) as beside,
        ):
            next(segments)
            os.kill(before, signal.SIGSEGV)
            died = time.monotonic()
            ready = beside.submit(running.replaced, before, COLD)
            for _ in segments:
                pass
            answered = time.monotonic() - died
        if segments.transcript.attempts == 2:
            break
    expect(segments.transcript.attempts == 2, "the job was over before the kill, five times")
    return answered, ready.result()


def out_of_memory(stage: Stage) -> Seen:
    """A neighbour takes the whole card: jobs are told so, or the worker restarts and says why; once
    the neighbour has gone, it serves."""
    stage.card()
    model = str(stage.model("small"))
    with stage.service("oom", "--model", model, "--compute-type", "float16") as running:
        running.ready(COLD)
        with running.client() as client:
            says(client)
            before = running.pid_of()
            with _neighbour() as left:
                told = [_outcome(client) for _ in range(3)]
                there = running.worker()
            back = running.wait_for("the worker", lambda: running.worker()["state"] == "ready", 120)
            # The very first job must not pay for the last error.
            after = [_outcome(client) for _ in range(3)]
        same = running.pid_of() == before
    seen = {
        "the neighbour": left,
        "jobs beside it": ", ".join(told),
        "worker then": f"{there['state']} ({there['reason']})",
        "ready again": f"{back:.1f} s after it had gone",
        "process": "the same" if same else "another",
        "jobs after it": ", ".join(after),
    }
    honest = {Code.OUT_OF_MEMORY, Code.UNAVAILABLE, Code.WORKER_CRASHED}
    expect(set(told) <= honest | {"transcript"}, f"{seen}")
    expect(set(told) != {"transcript"}, f"the memory never ran out: {seen}")
    expect(set(after) == {"transcript"}, f"{seen}")
    return seen


@contextlib.contextmanager
def _neighbour() -> Iterator[str]:
    argv = [sys.executable, "-m", "tests.gpu.neighbour"]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        try:
            if other.stdout is None or not (line := other.stdout.readline().strip()):
                raise Wrong("the neighbour could not fill the card")
            yield line
        finally:
            other.kill()


def _outcome(client: Client) -> str:
    try:
        # So wide a beam wants far more memory than what the jobs before it left in the worker.
        client.transcribe(MINUTE, language="en", beam_size=_WIDEST, timeout=60)
    except JobError as error:
        return str(error.code)
    except AsrdError as error:
        return type(error).__name__
    return "transcript"


def sticky_error(stage: Stage) -> Seen:
    """A kernel faults in the worker's context: the process ends, the job is tried once more and
    then given up, its neighbours live."""
    kind = with_workers("tests.gpu.faulty")
    with stage.service("sticky", kind=kind) as running, running.client() as client:
        running.ready(COLD)
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
        return {"told": sentence, "last death": worker["last_death"], "then": "right text"}


def idle_exit(stage: Stage) -> Seen:
    """A worker without work gives back all of the card's memory, and comes when called."""
    card = stage.maybe_card()
    before = card.memory().used if card else 0
    with stage.service("idle", worker="idle_exit_seconds = 1\n") as running:
        running.ready(COLD)
        with_worker = card.memory().used if card else 0
        with running.client() as client:
            says(client)
            running.wait_for("sleep", lambda: running.worker()["state"] == "asleep", 30)
            asleep = card.settle(lambda m: m.used <= before + SLACK_MIB).used if card else 0
            woken = time.monotonic()
            heard = says(client)
            woken = time.monotonic() - woken
    expect(heard == spoken(), f"woken up it says {heard!r}")
    expect(asleep <= before + SLACK_MIB, f"{asleep - before} MiB are still taken")
    memory = f"{before}, {with_worker}, {asleep} MiB" if card else "no card"
    return {"card before, with and after": memory, "first answer when woken": f"{woken:.2f} s"}


def no_cublas(stage: Stage) -> Seen:
    """cuBLAS can't be loaded: one sentence that says so. (A broken file stands in its way: it may
    be anywhere on the machine.) Without a GPU: the sentence for that."""
    library = stage.work / "broken" / "nvidia" / "cublas" / "lib"
    library.mkdir(parents=True)
    for name in ("libcublas.so.12", "libcublasLt.so.12"):
        (library / name).write_text("no library")
    directory = stage.work / "no-cublas"
    directory.mkdir()
    with environment(**{brokencublas.VARIABLE: str(stage.work / "broken")}):
        running = with_workers("tests.gpu.brokencublas")(directory, "--device", "cuda")
        code = running.process.wait(60)
        running.stop()
    reason = running.log.splitlines()[-1]
    wanted = "libcublasLt.so.12 can't be loaded" if stage.device == "cuda" else "no NVIDIA driver"
    expect(wanted in reason, reason)
    expect(code == 78, f"it ended with {code}")
    return {"reason": reason}


def two_workers(stage: Stage) -> Seen:
    """Two workers on one card: both serve, and one's death leaves the other alone."""
    card = stage.maybe_card()
    with stage.service("two", "--workers", "2") as running, running.client() as client:
        running.ready(COLD)
        used = f"{card.memory().used} MiB" if card else "no card"
        with ThreadPoolExecutor(8) as threads:
            heard = list(threads.map(lambda _: says(client), range(24)))
        expect(set(heard) == {spoken()}, f"{set(heard)}")
        done = {name: worker["jobs_done"] for name, worker in running.workers().items()}
        expect(all(done.values()), f"jobs done: {done}")
        survivor = running.pid_of("1")
        os.kill(running.pid_of("0"), signal.SIGKILL)
        expect(says(client) == spoken(), "another text")
        running.ready(COLD)
        expect(running.pid_of("1") == survivor, "the neighbour died, too")
    return {"jobs done": ", ".join(f"{n}: {c}" for n, c in done.items()), "card": used}


def hot_spare(stage: Stage) -> Seen:
    """With a spare worker, a death costs no load."""
    argv = [sys.executable, "-m", "asrd.main", "run", "--help"]
    if "--spares" not in subprocess.run(argv, capture_output=True, text=True, check=True).stdout:
        raise NotHere("asrd run has no --spares")
    with stage.service("spare", "--spares", "1") as running, running.client() as client:
        running.ready(COLD)
        says(client)
        to_answer, to_ready = kill_in_a_job(running, client)
    return {"retried job answered after": f"{to_answer:.2f} s", "all ready": f"{to_ready:.2f} s"}


def doctor(stage: Stage) -> Seen:
    """`asrctl doctor` finds the GPU and nothing wrong with it."""
    with stage.service("doctor") as running:
        running.ready(COLD)
        found = [each for each in running.doctor() if each["subject"] == "gpu"]
    expect(found, "it says nothing of a GPU")
    expect(all(each["verdict"] == "ok" for each in found), f"{found}")
    if stage.device == "cuda":
        expect(any("worker 0 runs on it" in each["text"] for each in found), f"{found}")
    return {"says": "; ".join(each["text"] for each in found)}


def no_new_code(stage: Stage) -> Seen:
    """packaging/gpu-only.conf: no memory that was written is executed (prctl(2), PR_SET_MDWE)."""
    stage.card()
    pr_set_mdwe, refuse_exec_gain = 65, 1
    library = ctypes.CDLL(None, use_errno=True)
    if library.prctl(pr_set_mdwe, refuse_exec_gain, 0, 0, 0) != 0:
        raise NotHere(f"the kernel has no PR_SET_MDWE ({os.strerror(ctypes.get_errno())})")
    # Inherited by everything that is started from here.
    with stage.service("mdwe") as running, running.client() as client:
        running.ready(COLD)
        expect(says(client) == spoken(), "another text")
        client.transcribe(SHORT, language="en", vad_filter=True, word_timestamps=True)
    return {"transcribes": "also with VAD and word timestamps"}


def every_option(stage: Stage) -> Seen:
    """Every option once, right after the start: nothing is left to be compiled in a job that takes
    longer than the watchdog allows."""
    options: list[dict[str, Any]] = [
        {"beam_size": 1},
        {"beam_size": 5},
        {"temperature": 0.4},
        {"word_timestamps": True},
        {"vad_filter": True},
        {"initial_prompt": "four green", "hotwords": "window"},
        {"language": None},
    ]
    with environment(CUDA_CACHE_DISABLE="1"):
        with stage.service("options") as running, running.client() as client:
            running.ready(COLD)
            took = [_seconds(client, {"language": "en", **each}) for each in options]
            expect(running.worker()["restarts"] == 0, "the worker died")
    names = [", ".join(f"{key} {value}" for key, value in each.items()) for each in options]
    return {name: f"{s:.2f} s" for name, s in zip(names, took, strict=True)}


def _seconds(client: Client, options: Any) -> float:
    started = time.monotonic()
    client.transcribe(SHORT, timeout=COLD, **options)
    return time.monotonic() - started


def throughput(stage: Stage, shape: str, seconds: float) -> Seen:
    """tests/benchmarks/gpu.py with this model."""
    return throughput_of(stage, stage.model(shape), seconds)


def throughput_of(
    stage: Stage, model: Path, seconds: float, clients: tuple[int, ...] = (1, 4, 16, 32)
) -> Seen:
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
    return gpu.measure(plan)
