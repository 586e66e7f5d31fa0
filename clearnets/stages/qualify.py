"""`clearnets qualify`: can the language model that judges tell known concepts apart?"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from clearnets.pipeline import paths
from clearnets.pipeline.artifacts import Unit, build_all, write_json
from clearnets.pipeline.runtime import Runtime, progress, seed_for
from clearnets.pipeline.stage import Stage

if TYPE_CHECKING:
    from clearnets.autointerp.llm.transcripts import Session
    from clearnets.config import Config, DelphiScorer, Qualify

SPLIT = "concept_fit"
PLACED = paths.transcripts_of("qualify", "judge")


STAGE = Stage(
    name="qualify",
    does="Test the language model that judges: can it tell known concepts apart?",
    example="clearnets qualify",
    params=("explain.window", "score.scorers", "qualify"),
    reads=("artifacts/data",),
    writes=("artifacts/transcripts/qualify",),
    small=("artifacts/qualify",),
    runs_on="threads",
)


def units(config: Config) -> list[Unit]:
    """The one unit of this stage. Without a language model among the scorers it is an empty list
    of judges."""
    return [
        Unit(
            stage="qualify",
            out=paths.qualify(),
            settings=config.dump(*STAGE.settings),
            inputs={"data": paths.data()},
        )
    ]


def run(config: Config, *, runtime: Runtime) -> None:
    """Test the judge, if there is one."""
    asyncio.run(_run(config, runtime.num_threads))


async def _run(config: Config, threads: int) -> None:
    from clearnets.autointerp.llm.qualification import JUDGES
    from clearnets.autointerp.llm.transcripts import Session, leave_empty, put_in_place

    for _, work in build_all(units(config)):
        judge = config.score.judge
        if judge is None:
            write_json(work.out / JUDGES, {})
            continue
        from clearnets.autointerp.llm.clients import identity
        from clearnets.autointerp.llm.concurrency import connection
        from clearnets.autointerp.llm.qualification import judge_id, record_of

        async with connection(judge.client, threads=threads) as connect:
            with Session(identity(judge.client), PLACED, connect) as session:
                scores = await _examine(judge, config.qualify, config.explain.window, session)
                record = record_of(judge, config.qualify, scores)
                write_json(work.out / JUDGES, {judge_id(judge): record})
                session.seal(work.out)
    if config.score.judge:
        put_in_place(paths.qualify(), PLACED)
    else:
        leave_empty(PLACED)


async def _examine(
    judge: DelphiScorer, settings: Qualify, window: int, session: Session
) -> dict[str, dict[str, dict[str, Any]]]:
    """The judge's answers by test and concept; none where the corpus's concepts are not known."""
    from clearnets.autointerp.llm import scorers
    from clearnets.autointerp.llm.concurrency import together
    from clearnets.autointerp.llm.qualification import Task, tasks, tests_of
    from clearnets.data.tokens import open_tokens
    from clearnets.latents.examples import windows_of

    store = open_tokens(paths.data())
    tokens_RS, label_RS = store.split(SPLIT), store.labels(SPLIT)
    if label_RS is None:
        print("qualify: no concepts of this corpus are known, so scores are a demonstration")
        return {name: {} for name in tests_of(judge)}
    windows = windows_of(store.counted(tokens_RS), size=window)
    token_NL, strings = windows.cut(tokens_RS), store.strings()

    async def one(name: str, task: Task) -> dict[str, Any]:
        strings_W = [[strings[token] for token in token_NL[w]] for w in task.window_W]
        seed = seed_for(settings.seed, "qualify", task.concept)
        said = task.concept.replace("_", " ")
        windows_W = (strings_W, task.marked_WL, task.holds_W)
        return await scorers.test(name, judge, session, *windows_W, said, seed=seed)

    drawn = tasks(label_RS, store.concepts, windows, settings, seed_for(settings.seed, "qualify"))
    pairs = [(name, task) for name in tests_of(judge) for task in drawn]
    with progress("qualify", len(pairs), "tests of a concept") as bar:
        found = await together([one(*pair) for pair in pairs], bar.advance)
    by_test: dict[str, dict[str, dict[str, Any]]] = {name: {} for name, _ in pairs}
    for (name, task), scores in zip(pairs, found):
        by_test[name][task.concept] = scores
    return by_test


def estimate(config: Config) -> list[str]:
    """What the judge would be asked, as lines for `--dry-run`; nothing without one."""
    from clearnets.autointerp.llm.clients import identity
    from clearnets.autointerp.llm.transcripts import Count, report

    judge = config.score.judge
    if judge is None:
        return []
    counts = []
    if not units(config)[0].fresh():
        with Count(identity(judge.client), PLACED) as count:
            asyncio.run(_examine(judge, config.qualify, config.explain.window, count))
        counts.append(count)
    return report(counts)
