"""A split of the corpus as scorers read it: its tokens, their texts, and windows of any size."""

from __future__ import annotations

from clearnets.autointerp.rules.matcher import Lexicon, Store, Text, read_rows
from clearnets.latents.examples import Grid


class Texts:
    """One split, cut into windows of each size that is needed.

    Attributes:
        split: its name.
        tokens_RS: its tokens.
        strings: the text of each token id.
    """

    def __init__(self, store: Store, split: str) -> None:
        self.split = split
        self.tokens_RS = store.split(split)
        self.strings = store.strings()
        self._counted, self._lexicon = store.counted, Lexicon(self.strings)
        self._by_size: dict[int, Text[Grid]] = {}

    def of(self, size: int) -> Text[Grid]:
        """Return the split in windows of `size` tokens."""
        if size not in self._by_size:
            made = read_rows(self.tokens_RS, self._counted, self._lexicon, size=size)
            self._by_size[size] = made
        return self._by_size[size]
