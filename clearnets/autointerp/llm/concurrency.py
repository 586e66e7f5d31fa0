"""Running many requests to one model at once, for the units of a stage."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, TypeVar

from clearnets.autointerp.llm.clients import Backend, connect
from clearnets.autointerp.llm.transcripts import Connect

if TYPE_CHECKING:
    from clearnets.config import ClientSettings

T = TypeVar("T")


@asynccontextmanager
async def connection(client: ClientSettings, *, threads: int) -> AsyncIterator[Connect]:
    """A function that gives the client's one backend, made when it is first called."""
    made: list[Backend] = []

    def get() -> Backend:
        if not made:
            made.append(connect(client, threads=threads))
        return made[0]

    try:
        yield get
    finally:
        for backend in made:
            await backend.close()


async def together(jobs: Iterable[Awaitable[T]], done: Callable[[], object]) -> list[T]:
    """The results of all jobs, in their order; `done` is called after each. The first mistake
    stops them all."""

    async def run(job: Awaitable[T]) -> T:
        result = await job
        done()
        return result

    tasks = [asyncio.ensure_future(run(job)) for job in jobs]
    try:
        return await asyncio.gather(*tasks)
    except BaseException:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        raise
