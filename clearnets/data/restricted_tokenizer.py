"""A byte-level BPE tokenizer restricted to the tokens that a corpus uses most.

The restricted tokenizer has the 256 bytes, special tokens, and the most used tokens, each with the
two tokens that it is merged from, and recursively with their parts; and the merges among all these,
in their order. So each of its tokens can be produced, and every text encodes to tokens that decode
to it: a removed token is spelled in smaller ones. (Without the merges no token but the bytes would
ever be produced.)

Why each token can be produced: BPE repeatedly applies the first merge that fits, until none does.
On the token's own string the full tokenizer applies certain merges. The restricted one has all of
these and no new ones, so at each step the first merge that fits is the same.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from clearnets import UserError
from clearnets.config import RestrictedTokenizer
from clearnets.data.pretrained_tokenizer import backend, load_fast
from clearnets.data.tokenizer import SPECIALS, Specials, Vocabulary

if TYPE_CHECKING:
    from tokenizers import Tokenizer

# Texts encoded at a time.
_BATCH = 1024


def load_restricted(settings: RestrictedTokenizer, texts: Sequence[str]) -> Vocabulary:
    """Load the tokenizer of `settings`, restricted to the tokens that `texts` use most.

    Raises:
        UserError: as `load_fast`; or it is not a byte-level BPE.
    """
    tokenizer = backend(load_fast(settings))
    _require_byte_level_bpe(tokenizer, settings.name)
    tokenizer = faithful(tokenizer)
    counts = count_tokens(tokenizer, texts)
    cut = restrict(tokenizer, counts, vocab_size=settings.vocab_size)
    return Vocabulary(cut, Specials(*_names(tokenizer)), cut.get_vocab_size())


def _require_byte_level_bpe(tokenizer: Tokenizer, name: str) -> None:
    """Check that a tokenizer can be restricted.

    Raises:
        UserError: it is not a byte-level BPE.
    """
    from tokenizers import pre_tokenizers

    whole = json.loads(tokenizer.to_str())
    model = whole["model"]
    reason = ""
    if model["type"] != "BPE":
        reason = f"its model is {model['type']}"
    elif "ByteLevel" not in _types(whole["pre_tokenizer"]) or _types(whole["decoder"]) != [
        "ByteLevel"
    ]:
        reason = "it does not spell text in bytes"
    elif model.get("continuing_subword_prefix") or model.get("end_of_word_suffix"):
        reason = "it marks the ends of words"
    elif missing := set(pre_tokenizers.ByteLevel.alphabet()) - set(model["vocab"]):
        reason = f"its vocabulary lacks {len(missing)} of the 256 bytes"
    if reason:
        raise UserError(
            f"tokenizer {name!r} cannot be restricted: {reason}, and only a byte-level BPE such "
            "as GPT-2's can be; use `kind: pretrained` or `kind: trained`"
        )


def _types(part: Any) -> list[str]:
    """Return the types of the members of a pre-tokenizer or decoder."""
    if part is None:
        return []
    members = part.get("pretokenizers") or part.get("decoders") or [part]
    return [member["type"] for member in members]


def faithful(tokenizer: Tokenizer) -> Tokenizer:
    """Return the byte-level BPE without normalisation, post-processing and added leading space."""
    from tokenizers import Tokenizer

    whole = json.loads(tokenizer.to_str())
    whole["normalizer"] = whole["post_processor"] = None
    for member in whole["pre_tokenizer"].get("pretokenizers") or [whole["pre_tokenizer"]]:
        if member["type"] == "ByteLevel":
            member["add_prefix_space"] = False
    return Tokenizer.from_str(json.dumps(whole))


def count_tokens(tokenizer: Tokenizer, texts: Sequence[str]) -> np.ndarray:
    """Count the occurrences of each token id in `texts` (V,)."""
    # A special token's name in a text is text.
    tokenizer.encode_special_tokens = True
    counts_V = np.zeros(1 + max(tokenizer.get_vocab().values()), np.int64)
    for start in range(0, len(texts), _BATCH):
        batch = list(texts[start : start + _BATCH])
        for encoding in tokenizer.encode_batch_fast(batch, add_special_tokens=False):
            counts_V += np.bincount(np.array(encoding.ids, np.int64), minlength=len(counts_V))
    return counts_V


def restrict(tokenizer: Tokenizer, counts_V: np.ndarray, *, vocab_size: int) -> Tokenizer:
    """Restrict a `faithful` byte-level BPE to `vocab_size` of its tokens, or all that it has.

    Its special and added tokens are replaced by pad, bos and eos with the first ids; the others
    stay in their order.
    """
    from tokenizers import AddedToken, Tokenizer, pre_tokenizers

    whole = json.loads(tokenizer.to_str())
    model = whole["model"]
    merges = [tuple(m) if isinstance(m, list) else tuple(m.split(" ")) for m in model["merges"]]
    added = {entry["content"] for entry in whole["added_tokens"]}
    ids = {token: number for token, number in model["vocab"].items() if token not in added}
    ranks = {pair: rank for rank, pair in enumerate(merges)}
    alphabet = set(pre_tokenizers.ByteLevel.alphabet())
    by_use = sorted(ids, key=lambda token: (-counts_V[ids[token]], ids[token]))
    chosen = choose(by_use, ranks, alphabet, size=vocab_size - len(SPECIALS))

    names = _names(tokenizer)
    ordered = [*names, *sorted(chosen, key=lambda token: ids[token])]
    model["vocab"] = {token: number for number, token in enumerate(ordered)}
    model["merges"] = [list(pair) for pair in merges if {*pair, "".join(pair)} <= chosen]
    model["unk_token"] = model["dropout"] = None
    whole["added_tokens"] = []
    cut = Tokenizer.from_str(json.dumps(whole))
    cut.add_special_tokens([AddedToken(name, normalized=False) for name in names])
    cut.encode_special_tokens = True
    return cut


def choose(
    by_use: Iterable[str],
    ranks: Mapping[tuple[str, str], int],
    alphabet: Iterable[str],
    *,
    size: int,
) -> set[str]:
    """Return `size` tokens: the alphabet, and the first of `by_use` that fit with their parts."""
    chosen = set(alphabet)
    for token in by_use:
        if len(chosen) >= size:
            break
        if token in chosen:
            continue
        family = lineage(token, ranks)
        if family is not None and len(chosen) + len(family - chosen) <= size:
            chosen |= family
    return chosen


def lineage(token: str, ranks: Mapping[tuple[str, str], int]) -> set[str] | None:
    """Return the tokens that BPE goes through from single characters to `token`, including it.

    None if no sequence of merges produces it.
    """
    parts = list(token)
    family = set(parts)
    while len(parts) > 1:
        pairs = [ranks.get(pair, len(ranks)) for pair in itertools.pairwise(parts)]
        rank = min(pairs)
        if rank == len(ranks):
            return None
        at = pairs.index(rank)
        parts[at : at + 2] = [parts[at] + parts[at + 1]]
        family.add(parts[at])
    return family


def _names(tokenizer: Tokenizer) -> list[str]:
    """Return names for pad, bos and eos that are not ordinary tokens of the vocabulary."""
    whole = json.loads(tokenizer.to_str())
    added = {entry["content"] for entry in whole["added_tokens"]}
    taken = set(whole["model"]["vocab"]) - added
    names = []
    for name in SPECIALS:
        while name in taken:
            name = f"<{name[1:-1]}_>"
        names.append(name)
    return names
