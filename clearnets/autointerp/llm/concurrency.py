"""Many requests to one language model at once, for the units of a stage; and what they would be."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterable, Sequence
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, TypeVar

from clearnets.autointerp.llm.completions import Backend, identity
from clearnets.autointerp.llm.transcripts import (
    Connect,
    Count,
    Session,
    folder_of,
    put_in_place,
    report,
)
from clearnets.pipeline import processes
from clearnets.pipeline.artifacts import Unit, Work, build_all

if TYPE_CHECKING:
    from clearnets.config import ClientSettings

T = TypeVar("T")


def connect(client: ClientSettings) -> Backend:
    """Return a client's backend, which loads its model or calls its server at the first request."""
    if client.kind == "openai":
        from clearnets.autointerp.llm.openai_client import OpenAI

        return OpenAI.of(client)
    from clearnets.autointerp.llm.gguf_client import GGUF

    return GGUF(client, threads=processes.cores())


@asynccontextmanager
async def connection(client: ClientSettings) -> AsyncIterator[Connect]:
    """Give a function that returns the client's one backend, made at its first call."""
    made: list[Backend] = []

    def get() -> Backend:
        if not made:
            made.append(connect(client))
        return made[0]

    try:
        yield get
    finally:
        for backend in made:
            await backend.close()


def build_units(
    client: ClientSettings,
    units: Sequence[Unit],
    build: Callable[[Unit, Work, Session], Awaitable[None]],
) -> None:
    """Build the units that are not fresh, each in a session, and place all their transcripts."""

    async def run() -> None:
        async with connection(client) as get_backend:
            for unit, work in build_all(units):
                with Session(identity(client), folder_of(unit), get_backend) as session:
                    await build(unit, work, session)
                    session.seal(work.out)

    asyncio.run(run())
    for unit in units:
        put_in_place(unit.out, folder_of(unit))


def estimate_units(
    client: ClientSettings,
    units: Iterable[Unit],
    ask: Callable[[Unit, Session], Coroutine[Any, Any, object]],
    *,
    retries: int = 0,
) -> list[str]:
    """Return what `ask` would request for the units that are not fresh, as lines of text."""
    counts = []
    for unit in units:
        if not unit.fresh():
            with Count(identity(client), folder_of(unit)) as count:
                asyncio.run(ask(unit, count))
            counts.append(count)
    return report(counts, retries=retries)


async def together(jobs: Iterable[Awaitable[T]], done: Callable[[], object]) -> list[T]:
    """Return the results of all jobs, in their order; `done` is called after each. The first
    failure cancels the others."""

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
