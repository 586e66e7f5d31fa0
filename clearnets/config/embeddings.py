"""Parameters of sentence embeddings and of the scorer that compares them."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from clearnets.config.fields import Count, Frozen, Positive


class Embed(Frozen):
    """A sentence encoder, and the splits whose windows it embeds before anything is explained: for
    non-activating windows that are similar in meaning to active ones."""

    model: str
    """A folder that sentence-transformers reads, or `package:NAME` for an installed package that
    carries one in its folder `model`."""
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    """Of all its weights, settings and vocabularies, as `clearnets.autointerp.encoder.identity`
    has it; another model is refused, with its hash."""
    splits: tuple[Literal["explain", "score"], ...]
    """Splits of which all windows are embedded; none where `non_activating` is never `similar`."""


class Similarity(Frozen):
    """The scorer by embeddings: AUROC of active against non-activating windows of `score`, ranked
    by the similarity of their embedding to the explanation's."""

    windows: Positive
    """Windows that are embedded, drawn uniformly: the same for every latent of every family. All
    where there are fewer."""
    min_windows: Positive
    """A latent is scored with at least this many active and non-activating windows among them."""
    instruction: str
    """Text before every explanation, for sentence encoders that were trained with one."""
    seed: Count
    """Seed of the draw of windows."""
