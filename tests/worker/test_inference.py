"""The worker's threads, with an engine whose every step the test decides."""

import os
import queue
import select
import signal
import threading
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from asrd.engine.interface import Transcription
from asrd.errors import BadAudio, Code
from asrd.wire.fds import OwnedFd
from asrd.wire.records import AudioFormat, Options
from asrd.wire.worker_events import Done, Failed, JobProgress, StartJob
from asrd.worker.inference import Inference, Loaded, Message, Task
from tests.support.subprocesses import run_python

# Long enough for a loaded machine; a test that passes never waits so long.
PATIENCE = 20.0


class Read:
    def __init__(self, name: str, on_progress: Callable[[float, float], None]) -> None:
        self.name = name
        self.on_progress = on_progress
        self.closed = False

    def close(self) -> None:
        self.closed = True


class Engine:
    """A job's text is what its descriptor holds. `gates` hold up what they name, as `run a`, until
    they are set; `log` is what was done, in order."""

    model, languages, device, compute_type, load_seconds = "fake", ("en",), "cpu", "int8", 0.0
    translate, word_timestamps = False, True

    def __init__(self, *gates: str) -> None:
        self.gates = {name: threading.Event() for name in gates}
        self.log: list[str] = []
        self.reads: list[Read] = []
        self.ran_by = 0

    def prepare(
        self,
        fd: int,
        audio: AudioFormat,
        options: Options,
        *,
        max_audio_seconds: float,
        on_progress: Callable[[float, float], None],
    ) -> Read:
        name = os.pread(fd, 100, 0).decode()
        self._do(f"read {name}")
        on_progress(0.0, 1.0)
        if name == "bad":
            raise BadAudio("audio: bad")
        self.reads.append(Read(name, on_progress))
        return self.reads[-1]

    def run(
        self,
        prepared: Read,
        on_progress: Callable[[float, float], None],
        on_segment: Callable[[Any], None],
    ) -> Transcription:
        self.ran_by = threading.get_ident()
        self._do(f"run {prepared.name}")
        on_progress(1.0, 1.0)
        return Transcription(prepared.name, "en", 1.0, 1.0, ())

    def _do(self, what: str) -> None:
        self.log.append(what)
        if what in self.gates:
            assert self.gates[what].wait(PATIENCE)


def task(name: str, key: int = 1, **fields: Any) -> Task:
    with OwnedFd(os.memfd_create(name)) as fd:
        os.write(fd.fileno(), name.encode())
        job = StartJob(key, name, AudioFormat("file"), Options(), len(name), **fields)
        return Task(job, OwnedFd(os.dup(fd.fileno())))


class Led(Inference):
    """Led by a queue of what is to be run, instead of a front."""

    def __init__(self, engine: Engine) -> None:
        super().__init__(lambda: engine)
        self._given: queue.SimpleQueue[Task | int] = queue.SimpleQueue()
        self.leaders: list[int] = []
        self.ran: list[Task] = []
        self._leading = threading.Lock()
        self._serving = threading.Thread(target=self.run, args=(self._lead,))
        self._serving.start()

    def _lead(self) -> Task | int:
        assert self._leading.acquire(blocking=False), "two lead at once"
        self.leaders.append(threading.get_ident())
        given = self._given.get()
        self._leading.release()
        if isinstance(given, Task):
            self.ran.append(given)
        return given

    def _post(self, message: Message) -> None:
        if isinstance(message, (Done, Failed)):
            # The front may send the next job at once: nothing may be held of this one.
            assert self.ran[-1].closed
        super()._post(message)

    def submit(self, task: Task) -> None:
        self._given.put(task)

    def end(self) -> None:
        # Each of the two threads that take turns may be the one that hears it.
        for _ in range(2):
            self._given.put(0)
        self._serving.join()
        self._beside.join()
        self._wake.close()


@contextmanager
def inference(engine: Engine) -> Iterator[Led]:
    made = Led(engine)
    assert isinstance(heard(made), Loaded)
    try:
        yield made
    finally:
        for gate in engine.gates.values():
            gate.set()
        made.end()


def heard(made: Inference) -> Message:
    """The next thing that it says."""
    while not made.messages:
        assert select.select([made], [], [], PATIENCE)[0]
        os.eventfd_read(made.fileno())
    return made.messages.popleft()


def until(what: Callable[[], object]) -> None:
    waiting = threading.Event()
    # Less than a gate's patience, which would open by itself.
    for _ in range(round(PATIENCE / 2 * 100)):
        if what():
            return
        waiting.wait(0.01)
    raise AssertionError("it did not come to that")


def test_a_task_that_was_not_prepared_is_read_and_run() -> None:
    engine = Engine()
    with inference(engine) as made:
        one = task("a", key=7)
        made.submit(one)
        done = heard(made)
    assert isinstance(done, Done) and (done.key, done.text) == (7, "a")
    assert engine.log == ["read a", "run a"]
    assert one.closed and engine.reads[0].closed


def test_the_next_task_is_read_while_one_runs_and_only_once() -> None:
    engine = Engine("run a")
    with inference(engine) as made:
        made.submit(task("a"))
        until(lambda: "run a" in engine.log)
        next_one = task("b", key=2)
        made.prepare(next_one)
        until(lambda: "read b" in engine.log)
        engine.gates["run a"].set()
        assert heard(made)
        made.submit(next_one)
        done = heard(made)
    assert isinstance(done, Done) and (done.key, done.text) == (2, "b")
    assert engine.log == ["read a", "run a", "read b", "run b"]


def test_a_task_whose_turn_comes_while_it_is_read_waits_for_that() -> None:
    engine = Engine("read b")
    with inference(engine) as made:
        one = task("b")
        made.prepare(one)
        until(lambda: "read b" in engine.log)
        made.submit(one)
        engine.gates["read b"].set()
        assert isinstance(heard(made), Done)
    assert engine.log == ["read b", "run b"]


def test_what_went_wrong_in_reading_is_told_when_the_task_has_its_turn() -> None:
    engine = Engine()
    with inference(engine) as made:
        one = task("bad")
        made.prepare(one)
        until(lambda: one._is_prepared.is_set())
        assert not made.messages
        made.submit(one)
        failed = heard(made)
    assert isinstance(failed, Failed) and failed.code == Code.BAD_AUDIO
    assert one.closed


def test_nothing_is_said_of_a_task_that_is_only_read() -> None:
    engine = Engine()
    with inference(engine) as made:
        one = task("a", stream=True)
        made.prepare(one)
        until(lambda: one._is_prepared.is_set())
        assert not made.messages
        made.submit(one)
        assert [type(heard(made)) for _ in range(2)] == [JobProgress, Done]


def test_what_was_read_is_freed_though_nothing_comes_after_it() -> None:
    engine = Engine()
    with inference(engine) as made:
        one, dropped = task("a"), task("b")
        made.prepare(one)
        made.submit(one)
        assert isinstance(heard(made), Done)
        made.prepare(dropped)
        until(lambda: len(engine.reads) == 2)
        made.discard(dropped)
        until(lambda: dropped.closed)
        freed = [weakref.ref(engine.reads.pop()) for _ in range(2)]
        until(lambda: not any(read() for read in freed))


def test_a_discarded_task_is_closed_once_its_reading_stops() -> None:
    engine = Engine("read a")
    with inference(engine) as made:
        one = task("a")
        made.prepare(one)
        until(lambda: "read a" in engine.log)
        one.cancelled_at = 1.0
        made.discard(one)
        assert not one.closed
        engine.gates["read a"].set()
        until(lambda: one.closed)
        assert engine.reads == []


def test_a_reading_that_hangs_holds_up_no_other_task() -> None:
    engine = Engine("read stuck")
    with inference(engine) as made:
        stuck = task("stuck")
        made.prepare(stuck)
        until(lambda: "read stuck" in engine.log)
        stuck.cancelled_at = 1.0
        made.discard(stuck)
        other = task("b")
        made.prepare(other)
        made.submit(other)
        done = heard(made)
        assert isinstance(done, Done) and done.text == "b"


def test_nothing_is_read_beside_a_last_attempt() -> None:
    engine = Engine("read suspect")
    with inference(engine) as made:
        suspect, last = task("suspect"), task("a")
        made.prepare(suspect)
        until(lambda: "read suspect" in engine.log)
        suspect.cancelled_at = 1.0
        made.discard(suspect)
        last.alone = True
        made.submit(last)
        # Who waits for that does not keep the front waiting.
        until(lambda: len(made.leaders) == 2)
        assert engine.log == ["read suspect"]
        engine.gates["read suspect"].set()
        assert isinstance(heard(made), Done)
    assert engine.log == ["read suspect", "read a", "run a"]


@pytest.mark.parametrize("prepared", [False, True])
def test_a_cancelled_task_stops_at_its_next_sign_of_life(prepared: bool) -> None:
    engine = Engine("run a")
    with inference(engine) as made:
        one = task("a")
        if prepared:
            made.prepare(one)
        made.submit(one)
        until(lambda: "run a" in engine.log)
        one.cancelled_at = 1.0
        engine.gates["run a"].set()
        failed = heard(made)
    assert isinstance(failed, Failed) and failed.code == Code.CANCELLED


def test_who_is_given_a_task_runs_it_and_another_thread_leads() -> None:
    engine = Engine("run a")
    with inference(engine) as made:
        made.submit(task("a"))
        until(lambda: "run a" in engine.log)
        until(lambda: len(made.leaders) == 2)
        assert not made.messages
        assert made.leaders[0] == engine.ran_by != made.leaders[1]


class Panic(BaseException):
    """As a library in Rust raises it (pyo3's PanicException)."""


def raise_panic(*_: object, **__: object) -> Any:
    raise Panic


@pytest.mark.parametrize("what", ["load", "lead", "read", "run", "read beside"])
def test_what_is_no_exception_ends_it_all(what: str) -> None:
    engine, doomed = Engine(), task("a")
    made = Inference(raise_panic if what == "load" else lambda: engine)
    if what.startswith("read"):
        engine.prepare = raise_panic  # type: ignore[method-assign]
    if what == "run":
        engine.run = raise_panic  # type: ignore[method-assign]
    never = threading.Event()

    def lead() -> Task | int:
        if what == "load":
            never.wait(PATIENCE)
        if what == "lead":
            raise Panic
        assert isinstance(heard(made), Loaded)
        if what == "read beside":
            made.prepare(doomed)
        return doomed

    with pytest.raises(Panic):
        made.run(lead)
    never.set()
    doomed.close()
    made._wake.close()


@pytest.mark.parametrize("number", [signal.SIGUSR1, signal.SIGUSR2])
def test_a_signal_that_another_thread_gets_is_handled(number: signal.Signals) -> None:
    """Python handles it in the main thread, which is not woken by it."""
    code = f"""
import signal, threading, time
from asrd.worker.inference import Inference

got, serving = threading.Event(), threading.Event()
signal.signal({number:d}, lambda *_: got.set())

def lead():
    serving.set()
    return 0 if got.wait({PATIENCE}) else 1

def kill():
    serving.wait()
    time.sleep(0.5)  # Until the main thread sleeps.
    signal.pthread_kill(threading.get_ident(), {number:d})

threading.Thread(target=kill).start()
assert Inference(lambda: 1 / 0).run(lead) == 0
"""
    run_python(code)


def test_what_is_held_as_soon_as_it_has_loaded_is_read() -> None:
    """The engine was set a moment after it was told: now and then an innocent was `internal`."""
    seen: list[object] = []

    class Watching(Led):
        def _post(self, message: Message) -> None:
            if isinstance(message, Loaded):
                seen.append(self._engine)
            super()._post(message)

    engine = Engine()
    made = Watching(engine)
    assert isinstance(heard(made), Loaded)
    made.end()
    assert seen == [engine]
