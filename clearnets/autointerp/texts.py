"""A split of the corpus as scorers read it: its tokens, their texts, and windows of any size."""

from __future__ import annotations

from clearnets.autointerp.rules.matcher import Lexicon, Store, Text, read_rows
from clearnets.autointerp.rules.word_classes import CLASSES, WordClasses
from clearnets.data.tokens import open_tokens
from clearnets.latents.examples import Grid
from clearnets.pipeline import paths


class Texts:
    """One split, cut into windows of each size that is needed.

    Attributes:
        split: its name.
        tokens_RS: its tokens.
        strings: the text of each token id.
    """

    def __init__(self, store: Store, split: str, classes: WordClasses) -> None:
        self.split = split
        self.tokens_RS = store.split(split)
        self.strings = store.strings()
        self._counted, self._lexicon = store.counted, Lexicon(self.strings, classes)
        self._by_size: dict[int, Text[Grid]] = {}

    def of(self, size: int) -> Text[Grid]:
        """Return the split in windows of `size` tokens."""
        if size not in self._by_size:
            made = read_rows(self.tokens_RS, self._counted, self._lexicon, size=size)
            self._by_size[size] = made
        return self._by_size[size]


def open_texts(split: str) -> Texts:
    """Open a split of `artifacts/data`, with the classes of its words.

    Raises:
        UserError: a file is missing or unreadable.
    """
    return Texts(open_tokens(paths.data()), split, WordClasses.load(paths.words() / CLASSES))
