"""Parameters of circuits."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, model_validator

from clearnets.config.fields import Count, Frozen, Positive
from clearnets.config.names import ALL, FamilyOrAll
from clearnets.families import FAMILIES


class Circuits(Frozen):
    """Which latents, at which positions, make a model answer questions about stories; on the
    embedded corpus only (see `clearnets.coders.circuits`)."""

    families: tuple[FamilyOrAll, ...]
    """Those of the families that are compared for which it is done; `[all]` means all that can."""
    pairs: Annotated[int, Field(ge=2)]
    """Pairs of prompts per task on which it is seen how well the model answers."""
    shown: Positive
    """Pairs on which effects are computed, and as many others on which circuits run; half of what
    there is where there are fewer."""
    steps: Positive
    """Of integrated gradients."""
    sizes: Annotated[tuple[Positive, ...], Field(min_length=1)]
    """Numbers of latents, rising, that are kept in circuits."""
    linked: Annotated[int, Field(ge=2)]
    """Latents per task of the largest effects, between which links are measured."""
    ablated: Annotated[int, Field(ge=2)]
    """Latents per task that are ablated one by one, to check their effects, and links that are cut
    one by one."""
    checkpoints: Count
    """Most checkpoints through which a model is followed, ever farther apart; only for latents that
    nothing is fitted for: native ones and neurons of trained models."""
    min_difference: float
    """Least mean logit difference between the right and the wrong answer, from which a model can do
    a task and circuits of it are looked for."""
    seed: Count
    """Seed of the pairs, and of random circuits."""

    @model_validator(mode="after")
    def _can_be_ablated(self) -> Circuits:
        for family in self.families:
            if family != ALL and not has_circuits(family):
                raise ValueError(
                    f"families: the latents of {family} write nothing into a model: remove it"
                )
        return self


def is_followed(family: str) -> bool:
    """Whether a family has latents at every checkpoint of its model."""
    spec = FAMILIES[family]
    return spec.kind in ("native", "neurons") and not (spec.untrained_model or spec.equal_loss)


def has_circuits(family: str) -> bool:
    """Whether a family's latents write into a model as they are, with nothing fitted to them."""
    return FAMILIES[family].writes and FAMILIES[family].refits != "decoder"
