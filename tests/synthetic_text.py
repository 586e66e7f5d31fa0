"""A small language with quotations, for tests of explanations: tokens without a tokenizer."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np

NOUNS = ("fox", "dog", "cat", "ball", "house", "tree", "river", "cake", "hat", "boat")
VERBS = ("saw", "took", "said", "asked", "found", "liked")
NAMES = ("Tom", "Mia", "Max", "Eve")
SPEECH = ("said", "asked", "shouted", "cried")
ADVERBS = ("gladly", "sadly", "then", "not")
STARTS = ("It", "Yes", "Where", "My")
MARKS = (".", "?", ",", ' "', ',"', '?"', '."')
PIECES = ("ish", "y")
_SPACED = ("The", "A", "the", "a", *NOUNS, *VERBS, *SPEECH[2:], *NAMES, *ADVERBS, "was")
STRINGS = ("<pad>", "<bos>", "<eos>", *(f" {word}" for word in _SPACED), *STARTS, *MARKS, *PIECES)
PAD, BOS, EOS = 0, 1, 2
ID = {string: token for token, string in enumerate(STRINGS)}
CTX = 64


def counted(tokens_RS: np.ndarray) -> np.ndarray:
    """The mask of every family: no special token, not the first position."""
    mask = tokens_RS > EOS
    mask[..., 0] = False
    return mask


def _sentence(rng: np.random.Generator) -> list[str]:
    def pick(words):
        return words[rng.integers(len(words))]

    if rng.random() < 0.5:
        noun = [
            " " + pick(("the", "a")),
            " " + pick(NOUNS),
            *([pick(PIECES)] * (rng.random() < 0.2)),
        ]
        return [" " + pick(("The", "A")), " " + pick(NOUNS), " " + pick(VERBS), *noun, "."]
    speech = [' "', pick(STARTS), " was", " " + pick(NOUNS), pick((',"', '?"', '."'))]
    after = [" " + pick(SPEECH if rng.random() < 0.7 else ADVERBS), " " + pick(NAMES)]
    return [*speech, *after, *([" " + pick(ADVERBS)] * (rng.random() < 0.3)), "."]


def rows(seed: int, count: int) -> np.ndarray:
    """(count, CTX): bos, one document of 30 to 62 tokens, eos, padding."""
    rng = np.random.default_rng(seed)
    tokens = np.full((count, CTX), PAD, dtype=np.uint16)
    for row in tokens:
        words: list[str] = []
        while len(words) < CTX - 2:
            words += _sentence(rng)
        ids = [BOS, *(ID[word] for word in words[: rng.integers(30, CTX - 1)]), EOS]
        row[: len(ids)] = ids
    return tokens


def entries(act_RS: np.ndarray) -> SimpleNamespace:
    """A layer's cache with one latent, active as `act_RS` says."""
    row, position = np.nonzero(act_RS)
    return SimpleNamespace(
        num_latents=1,
        offsets=np.array([0, len(row)]),
        row=row.astype(np.int32),
        position=position.astype(np.int32),
        act=np.asarray(act_RS, dtype=np.float32)[row, position],
    )
