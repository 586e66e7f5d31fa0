"""The qualification test of a language model as judge, on the concepts of the corpus."""

from __future__ import annotations

from typing import Any

from clearnets.autointerp.llm.concurrency import together
from clearnets.autointerp.llm.qualification import Task, tasks, tests_of
from clearnets.autointerp.llm.scorers import classify, count_answers
from clearnets.autointerp.llm.shown import item, marked
from clearnets.autointerp.llm.transcripts import Session
from clearnets.config import DelphiScorer, Qualify
from clearnets.data.tokens import TokenStore
from clearnets.latents.examples import windows_of
from clearnets.pipeline.runtime import progress, seed_for

SPLIT = "concept_fit"


async def examine(
    judge: DelphiScorer, settings: Qualify, window: int, store: TokenStore, session: Session
) -> dict[str, dict[str, dict[str, Any]]]:
    """Return the judge's scores by test and concept; none where the corpus names no concepts.

    Args:
        window: tokens per window.
    """
    tokens_RS, label_RS = store.split(SPLIT), store.labels(SPLIT)
    if label_RS is None:
        print("qualify: no concepts of this corpus are known, so scores are a demonstration")
        return {name: {} for name in tests_of(judge)}
    windows = windows_of(store.counted(tokens_RS), size=window)
    token_NL, strings = windows.cut(tokens_RS), store.strings()

    async def one(test: str, task: Task) -> dict[str, Any]:
        items = []
        for w, marked_L, holds in zip(task.window_W, task.marked_WL, task.holds_W):
            words = [strings[token] for token in token_NL[w]]
            text = marked(words, marked_L) if test == "fuzzing" else "".join(words)
            items.append(item(text, (), active=bool(holds)))
        explanation = task.concept.replace("_", " ")
        seed = seed_for(settings.seed, "qualify", task.concept)
        return count_answers(await classify(test, judge, session, items, explanation, seed))

    drawn = tasks(label_RS, store.concepts, windows, settings, seed_for(settings.seed, "qualify"))
    pairs = [(test, task) for test in tests_of(judge) for task in drawn]
    with progress("qualify", len(pairs), "tests of a concept") as bar:
        found = await together([one(*pair) for pair in pairs], bar.advance)
    by_test: dict[str, dict[str, dict[str, Any]]] = {test: {} for test, _ in pairs}
    for (test, task), scores in zip(pairs, found):
        by_test[test][task.concept] = scores
    return by_test
