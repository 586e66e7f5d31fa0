"""Explanations by a language model, with delphi's prompts.

A request whose reply holds no explanation, or is missing, is repeated with another seed. If no
attempt gives one, the latent gets the status `unparsable` and no score.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from clearnets.autointerp.explained_layer import ExplainedLayer
from clearnets.autointerp.llm.completions import RequestFailed
from clearnets.autointerp.llm.concurrency import together
from clearnets.autointerp.llm.delphi_adapter import (
    ActivatingExample,
    Asker,
    Latent,
    LatentRecord,
    NonActivatingExample,
    examples_of,
)
from clearnets.autointerp.llm.transcripts import Count, Session
from clearnets.autointerp.records import EXPLAINED, UNPARSABLE
from clearnets.autointerp.texts import Texts
from clearnets.latents.examples import activations
from clearnets.pipeline.runtime import progress

from delphi.explainers import ContrastiveExplainer, DefaultExplainer  # isort: skip

if TYPE_CHECKING:
    from clearnets.config import DelphiExplainer

# As delphi asks for it, or in bold, without brackets, in small letters.
_LABEL = re.compile(r"\[explanation\][*\s]*:?[*\s]*|^[*#\s]*explanation[*\s]*:[*\s]*", re.I | re.M)


def parse_explanation(text: str) -> str:
    """Return what follows the last label `[EXPLANATION]:`, up to an empty line, on one line.

    Empty where there is no label or nothing behind it.
    """
    labels = list(_LABEL.finditer(text))
    if not labels:
        return ""
    found = text[labels[-1].end() :].strip()
    return " ".join(re.split(r"\n\s*\n", found, maxsplit=1)[0].replace("**", "").split())


class _Careful:
    """Makes a reply without an explanation an empty one, where delphi has a sentence for it."""

    def parse_explanation(self, text: str) -> str:
        return parse_explanation(text)


class CarefulDefault(_Careful, DefaultExplainer):
    """delphi's `DefaultExplainer`."""


class CarefulContrastive(_Careful, ContrastiveExplainer):
    """delphi's `ContrastiveExplainer`."""


async def explain_layer(
    settings: DelphiExplainer, layer: ExplainedLayer, texts: Texts, session: Session
) -> list[dict[str, Any]]:
    """Return the records of a layer's latents, all of which are explained at once."""
    family, point, training_seed = layer.names

    async def one(latent: int) -> dict[str, Any]:
        record, seen = layer.survey(latent)
        if seen is None:
            return record
        text, examples = seen
        token_WL = text.windows.these(examples.window_W).cut(texts.tokens_RS)
        act_WL = activations(layer.cache, latent, text.windows, examples.window_W)
        shown = record_of(point, latent, *examples_of(token_WL, act_WL, texts.strings))
        explanation = await explain(settings, session, shown, seed=layer.seed(latent))
        status = UNPARSABLE if explanation is None else EXPLAINED
        return {**record, "status": status, "explanation": explanation}

    label = f"explain {family} seed {training_seed} {point}"
    with progress(label, len(layer.latents), "latents") as bar:
        return await together(map(one, layer.latents), bar.advance)


def _explainer(
    settings: DelphiExplainer, session: Session, record: LatentRecord, *, seed: int, attempt: int
) -> DefaultExplainer | ContrastiveExplainer:
    options: dict[str, Any] = {
        "client": Asker(session),
        "threshold": settings.threshold,
        "activations": settings.activations,
        "temperature": settings.retry_temperature if attempt else settings.temperature,
        "generation_kwargs": {"max_tokens": settings.max_tokens, "seed": seed + attempt},
    }
    if settings.explainer == "contrastive":
        return CarefulContrastive(
            **options,
            max_examples=len(record.train),
            max_non_activating=len(record.not_active),
        )
    return CarefulDefault(**options, cot=settings.cot)


def record_of(
    hookpoint: str,
    latent: int,
    active: list[ActivatingExample],
    non_activating: list[NonActivatingExample],
) -> LatentRecord:
    """Return the record that delphi's explainers read."""
    return LatentRecord(
        latent=Latent(hookpoint, latent),
        examples=active,
        train=active,
        not_active=non_activating,
    )


async def explain(
    settings: DelphiExplainer, session: Session, record: LatentRecord, *, seed: int
) -> str | None:
    """Return the explanation of a latent, or None where no attempt gave one."""
    if settings.explainer == "no-op":
        return ""
    # A dry run has no reply, whatever the seed.
    retries = 0 if isinstance(session, Count) else settings.retries
    for attempt in range(retries + 1):
        explainer = _explainer(settings, session, record, seed=seed, attempt=attempt)
        try:
            result = await explainer(record)
        except RequestFailed:
            continue
        if result.explanation:
            return result.explanation
    return None
