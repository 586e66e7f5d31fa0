"""Explanations by a language model, with delphi's prompts.

An answer without an explanation is asked for again, with another seed. If none comes, there is
none: the latent gets a status of its own and no score. The same holds for answers that are missing.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from clearnets.autointerp.delphi.adapter import (
    ActivatingExample,
    Asker,
    Latent,
    LatentRecord,
    NonActivatingExample,
)
from clearnets.autointerp.llm.clients import RequestFailed
from clearnets.autointerp.llm.transcripts import Count, Session

from delphi.explainers import ContrastiveExplainer, DefaultExplainer  # isort: skip

if TYPE_CHECKING:
    from clearnets.config import DelphiExplainer

# As delphi asks for it, or in other dress: bold, without brackets, in small letters.
_LABEL = re.compile(r"\[explanation\][*\s]*:?[*\s]*|^[*#\s]*explanation[*\s]*:[*\s]*", re.I | re.M)


def parse_explanation(text: str) -> str:
    """What follows the last label `[EXPLANATION]:`, up to an empty line, on one line.

    Empty where there is no label or nothing behind it.
    """
    labels = list(_LABEL.finditer(text))
    if not labels:
        return ""
    said = text[labels[-1].end() :].strip()
    return " ".join(re.split(r"\n\s*\n", said, maxsplit=1)[0].replace("**", "").split())


class _Careful:
    """For delphi's explainers: an answer without an explanation is empty, not a sentence."""

    def parse_explanation(self, text: str) -> str:
        return parse_explanation(text)


class CarefulDefault(_Careful, DefaultExplainer):
    """delphi's `DefaultExplainer`."""


class CarefulContrastive(_Careful, ContrastiveExplainer):
    """delphi's `ContrastiveExplainer`."""


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
    silent: list[NonActivatingExample],
) -> LatentRecord:
    """What delphi's explainers read."""
    return LatentRecord(
        latent=Latent(hookpoint, latent),
        examples=active,
        train=active,
        not_active=silent,
    )


async def explain(
    settings: DelphiExplainer, session: Session, record: LatentRecord, *, seed: int
) -> str | None:
    """The explanation of a latent, or None where no attempt gave one."""
    if settings.explainer == "no-op":
        return ""
    # What a dry run does not know, it does not know after a further attempt.
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
