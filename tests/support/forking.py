"""Programs that fork, for tests/client/test_forking.py: `python -m tests.support.forking PROGRAM`.

Both clients are module globals, as in web frameworks. Each child must end within CHILD_SECONDS.
"""

import gc
import inspect
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import traceback
import warnings
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import anyio
import anyio.to_thread
import pytest

import asrd
from asrd.errors import Busy, DeadlineExceeded, FieldError
from asrd.wire.client_events import Transcript

# Registered before the clients' hook, so that a collection in the child comes first.
os.register_at_fork(after_in_child=gc.collect)
# Python 3.12 and later warn of a fork while threads run, which is tested here.
warnings.simplefilter("ignore", DeprecationWarning)

CHILD_SECONDS = 15
CLIENT = asrd.Client()
ASYNC_CLIENT = asrd.AsyncClient()
READ_IN_CHILD = "belongs to the parent process"


def child(work: Callable[[], object]) -> int:
    pid = os.fork()
    if pid:
        return pid
    signal.alarm(CHILD_SECONDS)
    try:
        work()
    except BaseException:
        traceback.print_exc()
        os._exit(1)
    os._exit(0)


def linger() -> None:
    """Waits, without a limit, until the stdin of all these processes is closed."""
    signal.alarm(0)
    os.read(0, 1)


def finish(*pids: int) -> None:
    codes = [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in pids]
    assert codes == [0] * len(pids)


def calls(client: asrd.Client = CLIENT) -> None:
    """Expects the job's own name as its transcript."""
    for number in range(5):
        job_id = f"{os.getpid()}-{threading.get_ident()}-{number}"
        assert client.transcribe(b"", job_id=job_id).text == job_id
        client.ping()


def children_and_grandchildren() -> None:
    def work() -> None:
        calls()
        finish(child(calls))
        calls()

    calls()
    finish(*[child(calls) for _ in range(32)], child(work))
    calls()


def threads_alive() -> None:
    over = threading.Event()

    def work() -> None:
        while not over.is_set():
            calls()

    with ThreadPoolExecutor(4) as pool:
        working = [pool.submit(work) for _ in range(4)]
        for _ in range(4):
            finish(*[child(calls) for _ in range(4)])
        over.set()
    for each in working:
        each.result()


def inherited_stream() -> None:
    streams = [CLIENT.stream(b"", job_id="kept")]
    assert next(streams[0]).text == "a"

    def close() -> None:
        streams[0].close()
        CLIENT.close()

    def drop() -> None:
        streams.clear()
        gc.collect()

    def read() -> None:
        with pytest.raises(RuntimeError, match=READ_IN_CHILD):
            next(streams[0])

    def refused() -> None:
        # The parent's job is no reason to wait for an hour.
        with pytest.raises(Busy):
            CLIENT.transcribe(b"", job_id="refused")

    finish(child(close), child(drop), child(read), child(calls), child(refused))
    if not (pid := os.fork()):
        # Runs the whole shutdown of an interpreter.
        sys.exit(0)
    finish(pid)
    # Now the daemon answers.
    CLIENT.describe()
    assert [segment.text for segment in streams[0]] == ["b"]
    assert streams[0].transcript.text == "a b"


def nothing_stays_open() -> None:
    """A child keeps neither connections nor audio open (a memfd may hold gigabytes)."""
    before = kept()
    stream = CLIENT.stream(b"audio", job_id="kept")
    next(stream)
    CLIENT.ping()
    assert len(kept() - before) == 3

    def look() -> None:
        assert not kept() - before

    finish(child(look))
    stream.close()


def kept() -> set[str]:
    links = [f"/proc/self/fd/{fd}" for fd in os.listdir("/proc/self/fd")]  # noqa: PTH208
    return {os.readlink(link) for link in links if os.path.islink(link)}  # noqa: PTH114, PTH115


def fork_in_a_callback() -> None:
    pids: list[int] = []

    def on_progress(progress: object) -> None:
        if not pids:
            pids.append(os.fork())

    try:
        assert CLIENT.transcribe(b"", on_progress=on_progress).text == "a b"
    except RuntimeError as error:
        assert READ_IN_CHILD in str(error)
        assert pids == [0]
        os._exit(0)
    assert pids != [0]
    finish(*pids)


def close_while_a_child_lives(how: str) -> None:
    stream = CLIENT.stream(b"audio", job_id="j")
    next(stream)
    pid = child(linger)
    if how == "close":
        stream.close()
    else:
        del stream
    linger()
    finish(pid)


def close_while_a_copy_lives() -> None:
    """Another program, without the clients' fork hook, has a copy of the descriptor."""
    stream = CLIENT.stream(b"audio", job_id="j")
    next(stream)
    connection = stream._connection
    assert connection is not None
    with subprocess.Popen("cat", pass_fds=[connection._sock.fileno()]):
        stream.close()
        linger()


def abandoned_stream() -> None:
    """A stream in a cycle: the collector finds it in the child before the parent."""
    gc.disable()
    stream: Any = CLIENT.stream(b"audio", job_id="j")
    next(stream)
    stream.itself = stream
    del stream
    finish(child(calls))
    print("still running", flush=True)
    os.read(0, 1)
    gc.collect()
    linger()


def by_global(job_id: str) -> str:
    return CLIENT.transcribe(b"", job_id=job_id).text


def by_argument(client: asrd.Client, job_id: str) -> Transcript:
    return client.transcribe(b"", job_id=job_id)


def by_async_global(job_id: str) -> str:
    async def work() -> str:
        async with ASYNC_CLIENT as client:
            return (await client.transcribe(b"", job_id=job_id)).text

    return anyio.run(work)


def fail(error: Exception) -> None:
    raise error


def multiprocess(method: str) -> None:
    calls()
    names = [f"job-{number}" for number in range(32)]
    with multiprocessing.get_context(method).Pool(4) as pool:
        assert pool.map_async(by_global, names, 1).get(CHILD_SECONDS) == names
        found = pool.starmap(by_argument, [(CLIENT, name) for name in names[:4]])
        assert [transcript.job_id for transcript in found] == names[:4]
        assert len(pool.map(partial(CLIENT.transcribe, job_id="j"), [b"", b""], 2)) == 2
        assert pool.map(by_async_global, names[:4]) == names[:4]
        with pytest.raises(DeadlineExceeded) as late:
            pool.apply(fail, [DeadlineExceeded("late", job_id="j", trace_id="t", phase="run")])
        assert (late.value.text, late.value.job_id, late.value.phase) == ("late", "j", "run")
        with pytest.raises(FieldError) as wrong:
            pool.apply(fail, [FieldError("audio", "is wrong")])
        assert (str(wrong.value), wrong.value.field) == ("audio: is wrong", "audio")
    calls()


async def inherited_async_stream(backend: str) -> None:
    async with ASYNC_CLIENT as client:
        streams = [client.stream(b"", job_id="kept")]
        assert (await anext(streams[0])).text == "a"

        def close() -> None:
            streams[0].close()

        def drop() -> None:
            streams.clear()
            gc.collect()

        def use() -> None:
            # Trio warns of a wakeup descriptor, and the child has inherited trio's own.
            signal.set_wakeup_fd(-1)
            anyio.run(_in_a_child, streams[0], backend=backend)

        finish(child(close), child(drop))
        # In a thread without an event loop, like a pool of processes.
        await anyio.to_thread.run_sync(lambda: finish(child(close), child(drop), child(use)))
        # Now the daemon answers.
        await client.describe()
        assert [segment.text async for segment in streams[0]] == ["b"]


async def _in_a_child(stream: Any) -> None:
    with pytest.raises(RuntimeError, match="of the same process"):
        await ASYNC_CLIENT.transcribe(b"")
    with pytest.raises(RuntimeError, match=READ_IN_CHILD):
        await anext(stream)
    stream.close()
    # The parent's block: no effect in a child.
    await ASYNC_CLIENT.__aexit__(None, None, None)
    async with ASYNC_CLIENT as client:
        assert (await client.transcribe(b"", job_id="child")).text == "child"
        with pytest.raises(Busy):
            await client.transcribe(b"", job_id="refused")
        await client.ping()


async def leave_while_a_copy_lives(backend: str) -> None:
    """An unclosed stream's job ends with the client's block."""
    async with ASYNC_CLIENT as client:
        stream = client.stream(b"audio", job_id="j")
        await anext(stream)
        connection = stream._connection
        assert connection is not None
        holder = subprocess.Popen("cat", pass_fds=[connection._sock.fileno()])
    linger()
    holder.wait()


if __name__ == "__main__":
    program, arguments = globals()[sys.argv[1]], sys.argv[2:]
    with CLIENT:
        if inspect.iscoroutinefunction(program):
            anyio.run(program, *arguments, backend=arguments[0])
        else:
            program(*arguments)
