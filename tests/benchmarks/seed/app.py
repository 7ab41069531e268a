"""The design that asrd replaces, built as it was described, for comparison only: FastAPI in front,
one worker process behind two `multiprocessing.Queue`s, numpy arrays over them, and a watchdog that
looks once a second.

Its faults are kept. The queues outlive the worker, and with them the lock that a killed worker held
while it waited for a job; whoever waits for an answer waits on; /health says 200 whatever happens.
`repaired` is the least that helps: the death is noticed at once, those who wait get 503, and the
next worker gets new queues.
"""

import asyncio
import contextlib
import itertools
import multiprocessing
import queue
import threading
from collections.abc import AsyncIterator
from typing import Any

import numpy as np
from fastapi import FastAPI, HTTPException, Request

from tests.benchmarks.seed.worker import READY, work

_SPAWN = multiprocessing.get_context("spawn")


class Seed:
    def __init__(self, model: str, repaired: bool) -> None:
        self._model = model
        self._repaired = repaired
        self._numbers = itertools.count()
        self._waiting: dict[int, asyncio.Future[str]] = {}
        self._ready = False
        self._jobs: Any = _SPAWN.Queue()
        self._answers: Any = _SPAWN.Queue()

    def start(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._start_reader()
        self._start_worker()

    async def watch(self) -> None:
        while True:
            if self._repaired:
                await asyncio.to_thread(self.process.join)
                self._repair()
            else:
                await asyncio.sleep(1)
            if not self.process.is_alive():
                self._start_worker()

    async def transcribe(self, audio: Any) -> str:
        if self._repaired and not self._ready:
            raise HTTPException(503)
        number = next(self._numbers)
        answer: asyncio.Future[str] = self._loop.create_future()
        self._waiting[number] = answer
        self._jobs.put((number, audio))
        try:
            return await answer
        finally:
            del self._waiting[number]

    def _start_worker(self) -> None:
        arguments = self._model, self._jobs, self._answers
        self.process = _SPAWN.Process(target=work, args=arguments, daemon=True)
        self.process.start()

    def _start_reader(self) -> None:
        threading.Thread(target=self._read, args=(self._answers,), daemon=True).start()

    def _read(self, answers: Any) -> None:
        while self._answers is answers:
            with contextlib.suppress(queue.Empty):
                item = answers.get(timeout=1)
                self._loop.call_soon_threadsafe(self._take, *item)

    def _take(self, number: int, text: str) -> None:
        if number == READY:
            self._ready = True
        elif number in self._waiting and not self._waiting[number].done():
            self._waiting[number].set_result(text)

    def _repair(self) -> None:
        self._ready = False
        for answer in self._waiting.values():
            if not answer.done():
                answer.set_exception(HTTPException(503))
        self._jobs, self._answers = _SPAWN.Queue(), _SPAWN.Queue()
        self._start_reader()


def build(model: str, repaired: bool) -> FastAPI:
    seed = Seed(model, repaired)

    @contextlib.asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        seed.start()
        watch = asyncio.create_task(seed.watch())
        yield
        watch.cancel()
        seed.process.kill()

    async def transcribe(request: Request) -> dict[str, str]:
        body = await request.body()
        audio = np.frombuffer(body, "<i2").astype(np.float32) / 32768
        return {"text": await seed.transcribe(audio)}

    async def health() -> dict[str, Any]:
        return {"status": "ok", "worker": seed.process.pid}

    app = FastAPI(lifespan=lifespan)
    app.add_api_route("/transcribe", transcribe, methods=["POST"])
    app.add_api_route("/health", health)
    return app
