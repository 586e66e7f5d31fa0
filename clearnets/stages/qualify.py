"""`clearnets qualify`: can the language model that judges tell known concepts apart?"""

from __future__ import annotations

from collections.abc import Coroutine
from typing import TYPE_CHECKING, Any

from clearnets.autointerp.llm.transcripts import folder_of, leave_empty
from clearnets.pipeline import paths
from clearnets.pipeline.artifacts import Unit, Work, build_all, write_json
from clearnets.pipeline.runtime import Runtime
from clearnets.pipeline.stage import Stage

if TYPE_CHECKING:
    from clearnets.autointerp.llm.transcripts import Session
    from clearnets.config import Config


STAGE = Stage(
    name="qualify",
    does="Test the language model that judges: can it tell known concepts apart?",
    example="clearnets qualify",
    params=("explain.window", "score.scorers", "qualify"),
    reads=("artifacts/data",),
    writes=("artifacts/transcripts/qualify",),
    small=("artifacts/qualify",),
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
    from clearnets.autointerp.llm.qualification import JUDGES

    todo, judge = units(config), config.score.judge
    if judge is None:
        for _, work in build_all(todo):
            write_json(work.out / JUDGES, {})
        leave_empty(folder_of(todo[0]))
        return
    from clearnets.autointerp.llm.concurrency import build_units
    from clearnets.autointerp.llm.judge_test import examine
    from clearnets.autointerp.llm.qualification import judge_id, record_of
    from clearnets.data.tokens import open_tokens

    async def build(unit: Unit, work: Work, session: Session) -> None:
        store = open_tokens(unit.inputs["data"])
        scores = await examine(judge, config.qualify, config.explain.window, store, session)
        record = record_of(judge, config.qualify, scores)
        write_json(work.out / JUDGES, {judge_id(judge): record})

    build_units(judge.client, todo, build)


def estimate(config: Config) -> list[str]:
    """Return what the judge would be asked, as lines for `--dry-run`; none without a judge."""
    judge = config.score.judge
    if judge is None:
        return []
    from clearnets.autointerp.llm.concurrency import estimate_units
    from clearnets.autointerp.llm.judge_test import examine
    from clearnets.data.tokens import open_tokens

    def ask(unit: Unit, session: Session) -> Coroutine[Any, Any, object]:
        store = open_tokens(unit.inputs["data"])
        return examine(judge, config.qualify, config.explain.window, store, session)

    return estimate_units(judge.client, units(config), ask)
