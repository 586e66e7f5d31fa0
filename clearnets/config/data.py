"""Parameters of the text: corpus, tokenizer, packing."""

from __future__ import annotations

import re
from typing import Annotated, Literal

from pydantic import Field, field_validator

from clearnets import UserError
from clearnets.config.fields import Count, External, Frozen, Positive


class Storybook(Frozen):
    """The embedded corpus of simple English stories."""

    kind: Literal["storybook"]
    seed: Count = 0
    """Seed of the generator."""


class _Text(Frozen):
    """Settings of corpora that are read from files or the hub."""

    text_column: str = "text"
    """Column or key that holds a document's text (Parquet, JSONL, hub)."""
    streaming: bool = False
    """Read documents one after the other and never all at once, for a corpus larger than memory
    or disk. A document's split is then drawn by a hash of its text, so the splits are in
    proportion on average only, and the train split keeps the corpus's order. Otherwise the
    documents are shuffled and divided exactly."""
    seed: Count = 0
    """Seed of the assignment of documents to splits."""

    @field_validator("split", check_fields=False)
    @classmethod
    def _readable(cls, split: str | None) -> str | None:
        one = r"\w+(\.\w+)*(\[(-?\d+%?)?:(-?\d+%?)?\])?"
        if split is not None and not re.fullmatch(rf"{one}(\+{one})*", split, re.ASCII):
            raise ValueError("write a split as train, train[:2%], train[1000:2000] or train+test")
        return split


class LocalText(_Text):
    """A Parquet, JSONL or text file, or a folder of such files in the hub's layout."""

    kind: Literal["local"]
    path: str
    """The file or folder."""
    split: str | None = None
    """As in datasets, e.g. `train` or `train[:2%]`: read these files of a folder in the hub's
    layout (`train.parquet`, `data/train-00000-of-00002.parquet`, `train/...`) and a slice of
    their documents. null reads every file."""
    fingerprint: str | None = None
    """Hash of the files' content. `clearnets exp` fills it in, so that DVC notices a change; in
    params.yaml itself only `clearnets data` does."""


class HubText(_Text):
    """A dataset of the Hugging Face hub."""

    kind: Literal["hub"]
    name: str
    """Its id, e.g. `roneneldan/TinyStories`."""
    config: str | None = None
    """Configuration name, e.g. `sample-10BT`; null where the dataset has one only."""
    split: str = "train"
    """As in datasets: a split's name, or a slice such as `train[:2%]`."""
    revision: str | None = None
    """Commit, tag or branch. Only a commit always names the same text."""


class SplitTokens(Frozen):
    """Tokens per split. The splits are disjoint by document."""

    train: Positive
    """For the models and the coders."""
    valid: Positive
    """For held-out losses, the pairing and the evaluation of coders."""
    explain: Positive
    """All that the explainer sees."""
    score: Positive
    """All that explanations are judged on; shares no 32-token window with the former."""
    concept_fit: Count
    """For choosing latents and thresholds per concept."""
    concept_test: Count
    """For measuring them."""


class TrainedTokenizer(Frozen):
    """Byte-level BPE learned from the corpus."""

    kind: Literal["trained"]
    vocab_size: Annotated[int, Field(ge=260)]
    """Tokens, special ones included."""


class PretrainedTokenizer(External):
    """An existing tokenizer as it is; special tokens that it lacks come behind its vocabulary."""

    kind: Literal["pretrained"]
    vocab_size: Positive | None = None
    """At least the tokenizer's tokens and the special ones, of which those that it lacks are added:
    GPT-2's 50257 tokens have no bos and no pad that differ from its eos, so that they become 50259.
    A model that is trained here has as many rows of embeddings, and a larger number rounds them
    up; a pretrained one keeps its own. null takes just the tokens there are, which only `clearnets
    data` can count."""
    open_ended: bool = False
    """Documents end without eos, and of one that is longer than a row only the beginning is held
    out. For a pretrained model whose own text was like that: it predicts neither an eos nor what
    stands behind a bos in the middle of a document, and both would be counted in its loss."""


class RestrictedTokenizer(External):
    """An existing byte-level BPE, cut down to the tokens that the corpus uses most."""

    kind: Literal["restricted"]
    vocab_size: Annotated[int, Field(ge=260)]
    """Tokens that remain: the 256 bytes, the special tokens, and the most used ones with the
    tokens that they are merged from."""


AnyTokenizer = TrainedTokenizer | PretrainedTokenizer | RestrictedTokenizer


class Data(Frozen):
    """Corpus, tokenizer and packing."""

    corpus: Annotated[Storybook | LocalText | HubText, Field(discriminator="kind")]
    """Where the documents come from."""
    tokenizer: Annotated[AnyTokenizer, Field(discriminator="kind")]
    """The tokenizer."""
    ctx_len: Annotated[int, Field(ge=8)]
    """Tokens per row. Every row begins with bos."""
    tokens: SplitTokens

    @property
    def vocab_size(self) -> int:
        """Size of the models' vocabulary, known without the tokenizer.

        Raises:
            UserError: a pretrained tokenizer of unknown size.
        """
        if self.tokenizer.vocab_size is None:
            raise UserError(
                f"the size of tokenizer {self.tokenizer.name!r} is not in the parameters; "
                "set data.tokenizer.vocab_size"
            )
        return self.tokenizer.vocab_size
