"""Predict requests, answered together: what waits while the model runs goes into the next run."""

import asyncio
import contextlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import pandas as pd

from pipeline.api.live import LiveModel, Loaded
from pipeline.api.problems import RETRY, refused
from pipeline.api.served import Asked
from pipeline.signals import Signals
from stages.base import SieveError

Reader = Callable[[pd.DataFrame], pd.DataFrame]  # a posted table to checked bars


@dataclass(frozen=True)
class Answer:
    """Signals, the one model that they all are from, and how many requests shared its run."""

    signals: Signals
    model: Loaded
    batch: int


@dataclass(frozen=True)
class _Job:
    table: pd.DataFrame
    as_of: pd.Timestamp | None
    explain: bool
    done: "asyncio.Future[Answer]" = field(compare=False)


class Batcher:
    """One thread that runs the model, and the queue before it.

    Parameters
    ----------
    live : LiveModel
    read : callable
        Checks a posted table and returns its bars; raises DataError.
    most : int
        Requests in one run.
    room : int
        Requests that may wait.
    """

    def __init__(self, live: LiveModel, read: Reader, most: int, room: int) -> None:
        self.live, self.read, self.most = live, read, most
        self._queue: asyncio.Queue[_Job] = asyncio.Queue(room)
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="model")

    async def ask(self, table: pd.DataFrame, as_of: pd.Timestamp | None, explain: bool) -> Answer:
        """The answer to one request.

        Raises
        ------
        SieveError
            What the bars or the model are refused for.
        Refused
            503 SV-X711 if too many wait already.
        """
        job = _Job(table, as_of, explain, asyncio.get_running_loop().create_future())
        try:
            self._queue.put_nowait(job)
        except asyncio.QueueFull as error:
            raise refused(
                503,
                f"{self._queue.maxsize} predict requests wait already",
                "SV-X711",
                {"Retry-After": str(RETRY)},
                cure="ask again in a moment, or raise service.queue",
            ) from error
        return await job.done

    async def run(self) -> None:
        """Answer until cancelled."""
        loop = asyncio.get_running_loop()
        try:
            while True:
                jobs = [await self._queue.get()]
                with contextlib.suppress(asyncio.QueueEmpty):
                    while len(jobs) < self.most:
                        jobs.append(self._queue.get_nowait())
                jobs = [job for job in jobs if not job.done.cancelled()]
                try:
                    found = await loop.run_in_executor(self._thread, self._answer, jobs)
                except Exception as fault:  # noqa: BLE001  each caller gets it, the thread goes on
                    found = [fault] * len(jobs)
                for job, answer in zip(jobs, found, strict=True):
                    _tell(job.done, answer)
        finally:
            self._thread.shutdown(wait=False, cancel_futures=True)

    def _answer(self, jobs: list[_Job]) -> "list[Answer | Exception]":
        """Answers of one model to all jobs: the one that is in service when the run begins."""
        try:
            model = self.live.now()
        except SieveError as error:
            return [error] * len(jobs)
        out: list[Answer | Exception] = []
        asked: list[Asked] = []
        places: list[int] = []
        for job in jobs:
            out.append(SieveError("not answered", code="SV-X500"))
            try:
                asked.append(Asked(self.read(job.table), job.as_of, job.explain))
                places.append(len(out) - 1)
            except SieveError as error:
                out[-1] = error
        for place, said in zip(places, model.pipeline.answers(asked), strict=True):
            answered = said if isinstance(said, SieveError) else Answer(said, model, len(jobs))
            out[place] = answered
        return out


def _tell(done: "asyncio.Future[Answer]", answer: Answer | Exception) -> None:
    if done.done():  # the caller has gone
        return
    if isinstance(answer, Exception):
        done.set_exception(answer)
    else:
        done.set_result(answer)
