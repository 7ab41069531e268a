"""The doctor's check of speed on a CPU: what would be faster here, and by how much.

It measures nothing: it compares what the workers report with figures of docs/performance.md.
"""

from collections.abc import Iterator
from contextlib import suppress

from asrd.asrctl.finding import Finding, edit, ok
from asrd.asrctl.host import Host
from asrd.config import load_worker
from asrd.cores import divided
from asrd.errors import AsrdError, ConfigError
from asrd.settings import WorkerSettings
from asrd.snapshot import Worker

_BENCH = "`asrd bench` measures it"


def speed(host: Host) -> Iterator[Finding]:
    """Compute type and threads of each worker on the CPU."""
    try:
        workers = host.status().workers
    except AsrdError:
        # The check of the workers reports it.
        return
    count = sum(not worker.spare for worker in workers)
    for worker in workers:
        if worker.device == "cpu" and worker.cpu_threads and worker.cores:
            found = list(_slow(host, worker, worker.cpu_threads, worker.cores, max(1, count)))
            yield from found or [_fast(worker)]


def _fast(worker: Worker) -> Finding:
    how = f"in {worker.compute_type}, threads: {worker.cpu_threads}, cores: {worker.cores}"
    return ok(f"worker {worker.name} computes {how}; `asrd bench` measures alternatives")


def _slow(host: Host, worker: Worker, threads: int, cores: int, workers: int) -> Iterator[Finding]:
    name = f"worker {worker.name}"
    settings = WorkerSettings()
    with suppress(ConfigError):
        settings = load_worker(host.config, worker.name)
    if worker.compute_type == "float32" and not worker.speakers:
        text = f"{name} computes in float32; int8 makes as few errors in about half the time"
        yield ok(f"{text} ({_BENCH})", _change(host, worker, "--compute-type int8"))
    # More threads than the default compete with nobody as long as there are cores for them.
    usual, share = divided(cores, workers), max(1, cores // workers)
    fix, measured = _change(host, worker, f"--threads {usual}"), f"({_BENCH})"
    if not settings.cpu_threads and host.is_installed():
        fix = "sudo systemctl restart asr-workers.target"
        measured += "; a restart counts the cores again, unless OMP_NUM_THREADS is set"
    counted = f"{name} takes {threads} threads, and its share of {cores} cores is {share}"
    if threads > share:
        text = f"{counted}; when all workers have work, they answer about half as many requests"
        yield ok(f"{text} as without competing threads {measured}", fix)
    elif threads < usual:
        text = f"{counted}; twice the threads take about two thirds of the time"
        yield ok(f"{text} {measured}", fix)


def _change(host: Host, worker: Worker, option: str) -> str:
    if not host.is_installed():
        return f"asrd run {option}"
    own = host.config.with_name(f"worker-{worker.name}.toml")
    return edit(own if own.exists() else host.config)
