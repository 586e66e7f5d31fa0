"""The `tokens` explainer: a short rule over trigger words and their near context, learned greedily.

It sees a sample of active and non-activating windows of one latent and looks for the rule of
`clearnets.autointerp.rules.language` that best predicts both which windows are active and at which
positions. The objective is what the judge will measure on held-out text, made smooth:

    1/2 (hit - false + recall - stray)

where hit and false are the shares of active and of non-activating windows in which the rule fires,
recall is the mean share of an active window's active positions at which it fires, and stray is the
share of non-activating positions at which it fires: half of the weight lies on positions that hold
the latent's trigger word, half on all others. Each quoted word and each context costs something.

Shape suffixes: W windows, L positions, M = NEAR + L, B machine words of a window's bits (see
`matcher`), C states of the text, K candidate words, S searches that run side by side, V words of
the lexicon.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from clearnets.autointerp.rules.language import AFTERS, STATES, Clause, Context, Kind, Rule
from clearnets.autointerp.rules.matcher import NEAR, Text, count, fires, pack, shortly_after
from clearnets.latents.examples import Activity, Examples

# What a quoted word and a context must add to the objective; against learning single windows, and
# for sentences that a person would write. With 0.01 and 0.03 scores are 0.01 to 0.02 higher, three
# sentences of four list seven words or eight, and latents that are active at random positions
# get 0.53 in rule-fuzzing instead of 0.52: broad contexts find the marks put on triggers.
WORD_COST = 0.02
CONTEXT_COST = 0.08
# A second clause makes a sentence harder to read.
CLAUSE_COST = 0.02
# A word is only named if it says something about this many active windows.
MIN_SUPPORT = 2
# Words tried: those that the latent prefers most, and those at which it is active most often.
PREFERRED = 16
FREQUENT = 8


# Kind of a context, the numbers of its words, and whether it is negated.
_ContextKey = tuple[Kind, tuple[int, ...], bool]
# The contexts without words: none, and each state of the text and its negation.
_STATES: tuple[_ContextKey | None, ...] = (
    None,
    *((kind, (), negated) for kind in STATES for negated in (False, True)),
)
# How far to the left stands the word that is looked for, by the role of that word.
_BACK: dict[str, tuple[int, ...]] = {
    "trigger": (0,),
    "right-after": (1,),
    "shortly-after": tuple(range(1, NEAR + 1)),
}


class _Option(NamedTuple):
    """A clause, in numbers of words, that could be added to a rule.

    Attributes:
        words: its trigger words.
        context: kind of its context, the context's words, and whether it is negated.
        fired_WB: the positions at which it fires, or an earlier clause does.
        worth: the objective there, less what the clause costs.
    """

    words: tuple[int, ...]
    context: _ContextKey | None
    fired_WB: np.ndarray
    worth: float

    @property
    def num_words(self) -> int:
        """Return the number of words that the clause quotes."""
        return len(self.words) + (len(self.context[1]) if self.context else 0)

    @property
    def cost(self) -> float:
        """Return what the clause must add to the objective to be worth it."""
        return _cost(self.num_words, self.context is not None)

    def clause(self, words: Sequence[str]) -> Clause:
        """Return the clause with its words as text, given the texts of all words."""
        named = tuple(words[word] for word in self.words)
        if self.context is None:
            return Clause(named)
        kind, behind, negated = self.context
        return Clause(named, Context(kind, tuple(words[word] for word in behind), negated))


class _Atoms(NamedTuple):
    """Candidate words, and the positions that each marks: (K,) and (K, W, B)."""

    words_K: np.ndarray
    bits_KWB: np.ndarray


class _Grown(NamedTuple):
    """Result of a search: words, the positions at which they fire, and the objective there."""

    words: tuple[int, ...]
    fired_WB: np.ndarray
    value: float


def trigger(text: Text, found: Activity) -> str:
    """Return the word at which a latent is active most often; it must be active somewhere."""
    word_E = text.word_NM[found.window_E, NEAR + found.place_E]
    return text.lexicon.words[int(np.bincount(word_E).argmax())]


def explain(text: Text, examples: Examples, *, trigger: str, max_words: int) -> Rule:
    """Return the best rule found for a latent.

    Args:
        text: the split that the examples are from.
        examples: active and non-activating windows, at least one of each.
        trigger: the latent's trigger word, by `trigger`.
        max_words: cap on the quoted words of the whole rule.
    """
    search, words = _Search(text, examples, trigger), text.lexicon.words
    nothing_WB = np.zeros_like(search.counted_WB)
    first = max(search.options(nothing_WB, max_words), key=lambda option: option.worth)
    rule = Rule((first.clause(words),))
    if search.quality(first.fired_WB) > 1 - CLAUSE_COST:
        return rule
    more = search.options(first.fired_WB, max_words - first.num_words)
    second = max(more, key=lambda option: option.worth)
    if second.worth - first.cost > first.worth + CLAUSE_COST:
        return _prune(text, examples, search, Rule((*rule.clauses, second.clause(words))))
    return rule


def _prune(text: Text, examples: Examples, search: _Search, rule: Rule) -> Rule:
    """Return the rule without words of its first clause that the second makes superfluous."""
    quality = search.quality(text.fires(rule, examples.window_W))
    first, second = rule.clauses
    while len(first.words) > 1:
        shorter = [
            Rule((Clause(first.words[:i] + first.words[i + 1 :], first.context), second))
            for i in range(len(first.words))
        ]
        fired_KWB = np.stack([text.fires(one, examples.window_W) for one in shorter])
        quality_K = search.quality(fired_KWB)
        best = int(quality_K.argmax())
        if quality_K[best] < quality - WORD_COST:
            break
        rule, quality = shorter[best], quality_K[best]
        first = rule.clauses[0]
    return rule


class _Search:
    """The search for one latent's rule, with what its steps share."""

    def __init__(self, text: Text, examples: Examples, trigger: str) -> None:
        window_W = examples.window_W
        self.num_active = examples.num_active
        self.word_WM = text.word_NM[window_W]
        self.num_words = len(text.lexicon.words)
        self.active_WL = examples.active_WL
        self.active_WB = pack(examples.active_WL)
        self.counted_WB = text.counted_NB[window_W]
        self.recall_weight_A = 1 / (
            np.maximum(examples.active_WL[: self.num_active].sum(axis=1), 1) * self.num_active
        )
        off_WB = self.counted_WB & ~self.active_WB
        trigger_WB = pack(self.word_WM[:, NEAR:] == text.lexicon.id(trigger))
        hard_WB, soft_WB = off_WB & trigger_WB, off_WB & ~trigger_WB
        hard, soft = (int(np.bitwise_count(bits).sum()) for bits in (hard_WB, soft_WB))
        self.off_WB, self.hard_WB = off_WB, hard_WB
        # stray = soft_weight * |fired & off| + hard_weight * |fired & hard|, off: not active.
        share = 0.5 if hard and soft else 1.0
        soft_weight = share / soft if soft else 0.0
        self.soft_weight = soft_weight
        self.hard_weight = (share / hard if hard else 0.0) - soft_weight
        # A product with these counts the active and the non-activating windows that fire. Such sums
        # of ones are exact in any order.
        active_W = np.arange(len(window_W)) < self.num_active
        self.kind_W2 = np.stack([active_W, ~active_W], axis=1).astype(np.float32)

        state_KWB = np.stack([text.state_NB[kind][window_W] for kind in STATES])
        both_K2WB = np.stack([state_KWB, ~state_KWB], axis=1) & self.counted_WB
        self.states_CWB = np.concatenate(
            [self.counted_WB[None], both_K2WB.reshape(-1, *self.counted_WB.shape)]
        )
        off_WL = (self.word_WM[:, NEAR:] >= 0) & ~self.active_WL
        self._off_E = self._flat(off_WL)
        self._off_V: dict[str, np.ndarray] = {}

    def quality(self, fired_xWB: np.ndarray) -> np.ndarray:
        """Return the objective of each of many sets of positions: 0 is chance, 1 perfect."""
        a = self.num_active
        fires_x2 = fires(fired_xWB).astype(np.float32) @ self.kind_W2
        hit_x = fires_x2[..., 0].astype(np.float64) / a
        false_x = fires_x2[..., 1].astype(np.float64) / (fired_xWB.shape[-2] - a)
        right_xA = count(fired_xWB[..., :a, :] & self.active_WB[:a])
        # Not `@`: BLAS may sum in another order with other threads.
        recall_x = np.einsum("...a,a->...", right_xA, self.recall_weight_A)
        soft_x = count(fired_xWB & self.off_WB).sum(axis=-1, dtype=np.int32)
        hard_x = count(fired_xWB & self.hard_WB).sum(axis=-1, dtype=np.int32)
        stray_x = soft_x * self.soft_weight + hard_x * self.hard_weight
        return (hit_x - false_x + recall_x - stray_x) / 2

    def options(self, fired_WB: np.ndarray, max_words: int) -> list[_Option]:
        """Return clauses that could be added to a rule that fires at `fired_WB` so far."""
        wanted_WL = self.active_WL & ~_unpack(fired_WB, self.active_WL.shape[1])
        if not wanted_WL.any():
            wanted_WL = self.active_WL
        found = self._any_words(fired_WB)
        if not max_words:
            return found
        triggers = self._candidates("trigger", wanted_WL)
        left = [max_words] * len(_STATES)
        sets = self._grow(fired_WB, self.states_CWB, [triggers] * len(_STATES), left)
        found += [_option(one.words, state, one) for state, one in zip(_STATES, sets) if one.words]
        seeds = self._seeds(sets[0].words, wanted_WL, max_words - 1)
        behind = self._behind_words(fired_WB, wanted_WL, seeds, max_words)
        others = self._triggers_behind(fired_WB, triggers, behind, max_words)
        for kind in AFTERS:
            for options in ([option for option, _ in behind], others):
                found += [one for one in options if one.context and one.context[0] == kind]
        return found

    def _any_words(self, fired_WB: np.ndarray) -> list[_Option]:
        """Return the clauses with any word as trigger, in each state of the text."""
        any_CWB = fired_WB | self.states_CWB
        return [
            _option((), state, _Grown((), bits, value))
            for state, bits, value in zip(_STATES, any_CWB, self.quality(any_CWB).tolist())
        ]

    def _behind_words(
        self,
        fired_WB: np.ndarray,
        wanted_WL: np.ndarray,
        seeds: Sequence[tuple[int, ...]],
        max_words: int,
    ) -> list[tuple[_Option, _Atoms]]:
        """Return clauses with any word, or the words of a seed, as triggers behind other words; and
        the candidates that these were chosen from."""
        seed_masks = [
            np.bitwise_or.reduce(self._marked("trigger", np.array(seed))) & self.counted_WB
            for seed in seeds
        ]
        tries: list[_ContextKey] = []
        bases, atoms = [], []
        for kind in AFTERS:
            words = self._candidates(kind, wanted_WL)
            if len(words.words_K):
                tries.append((kind, (), False))
                for negated in (False, True):
                    tries.extend((kind, seed, negated) for seed in seeds)
                bases += [self.counted_WB, *seed_masks, *seed_masks]
                atoms += [words] * (1 + 2 * len(seeds))
        if not tries:
            return []
        left = [max_words - len(seed) for _, seed, _ in tries]
        negated_S = np.array([negated for *_, negated in tries])
        grown = self._grow(fired_WB, np.stack(bases), atoms, left, negated_S)
        return [
            (_option(seed, (kind, one.words, negated), one), atom)
            for (kind, seed, negated), one, atom in zip(tries, grown, atoms)
            if one.words
        ]

    def _triggers_behind(
        self,
        fired_WB: np.ndarray,
        triggers: _Atoms,
        behind: Sequence[tuple[_Option, _Atoms]],
        max_words: int,
    ) -> list[_Option]:
        """Return clauses with the contexts of those in `behind`, and triggers chosen anew."""
        contexts = {
            context: atom
            for option, atom in behind
            if (context := option.context) and len(context[1]) < max_words
        }
        if not contexts or not len(triggers.words_K):
            return []
        bases = []
        for (_, words, negated), atom in contexts.items():
            number = {word: k for k, word in enumerate(atom.words_K.tolist())}
            chosen = [number[word] for word in words]
            where_WB = np.bitwise_or.reduce(atom.bits_KWB[chosen])
            bases.append(self.counted_WB & (~where_WB if negated else where_WB))
        left = [max_words - len(words) for _, words, _ in contexts]
        grown = self._grow(fired_WB, np.stack(bases), [triggers] * len(contexts), left)
        return [_option(one.words, key, one) for key, one in zip(contexts, grown) if one.words]

    def _grow(
        self,
        fired_WB: np.ndarray,
        base_SWB: np.ndarray,
        atoms_S: Sequence[_Atoms],
        max_words_S: Sequence[int],
        negated_S: np.ndarray | None = None,
    ) -> list[_Grown]:
        """Add words greedily in several searches at once, as long as each is worth its cost.

        A search fires at `fired | base & union`, or `fired | base & ~union` where it is negated,
        with the union of its words' positions.
        """
        searches = len(base_SWB)
        atom_SKWB = _together(atoms_S)
        flip_S11 = np.zeros((searches, 1, 1), dtype=base_SWB.dtype)
        if negated_S is not None:
            flip_S11[negated_S] = ~flip_S11[negated_S]
        union_SWB = np.zeros_like(base_SWB)
        bits_SWB = fired_WB | (base_SWB & (union_SWB ^ flip_S11))
        value_S = self.quality(bits_SWB)
        chosen: list[list[int]] = [[] for _ in range(searches)]
        growing = np.flatnonzero(np.array(max_words_S) > 0)
        if not atom_SKWB.shape[1]:
            growing = growing[:0]
        while len(growing):
            atom_xKWB = atom_SKWB[growing] if len(atom_SKWB) > 1 else atom_SKWB
            tried_SKWB = union_SWB[growing][:, None] | atom_xKWB
            if negated_S is not None:
                tried_SKWB ^= flip_S11[growing][:, None]
            tried_SKWB &= base_SWB[growing][:, None]
            tried_SKWB |= fired_WB
            value_SK = self.quality(tried_SKWB)
            best_S = value_SK.argmax(axis=1)
            best_value_S = value_SK[np.arange(len(growing)), best_S]
            better_S = best_value_S > value_S[growing] + WORD_COST
            at, best_S = growing[better_S], best_S[better_S]
            union_SWB[at] |= atom_SKWB[at if len(atom_SKWB) > 1 else 0, best_S]
            bits_SWB[at] = tried_SKWB[better_S, best_S]
            value_S[at] = best_value_S[better_S]
            for s, k in zip(at.tolist(), best_S.tolist()):
                chosen[s].append(int(atoms_S[s].words_K[k]))
            growing = np.array(
                [s for s in at.tolist() if len(chosen[s]) < max_words_S[s]], dtype=np.int64
            )
        return [
            _Grown(tuple(words), bits_WB, value)
            for words, bits_WB, value in zip(chosen, bits_SWB, value_S.tolist())
        ]

    def _candidates(self, role: str, wanted_WL: np.ndarray) -> _Atoms:
        """Return the words to try as triggers, or as words before the wanted positions."""
        wanted_V = self._count(role, self._flat(wanted_WL))
        if role not in self._off_V:
            self._off_V[role] = self._count(role, self._off_E)
        off_V = self._off_V[role]
        wanted_V[0] = 0
        lift_V = wanted_V / max(wanted_V.sum(), 1) - off_V / max(off_V.sum(), 1)
        common = np.flatnonzero(wanted_V >= MIN_SUPPORT)
        preferred = common[np.argsort(-lift_V[common], kind="stable")[:PREFERRED]]
        frequent = common[np.argsort(-wanted_V[common], kind="stable")[:FREQUENT]]
        words = list(dict.fromkeys([*preferred.tolist(), *frequent.tolist()]))
        words_K = np.array(words, dtype=np.int64) - 1
        bits_KWB = self._marked(role, words_K)
        supported_K = fires(bits_KWB & pack(wanted_WL)).sum(axis=-1) >= MIN_SUPPORT
        return _Atoms(words_K[supported_K], bits_KWB[supported_K])

    def _flat(self, flag_WL: np.ndarray) -> np.ndarray:
        """Return the indices into the flat `word_WM` of the flagged positions."""
        window_E, index_E = np.nonzero(flag_WL)
        return window_E * self.word_WM.shape[1] + NEAR + index_E

    def _count(self, role: str, index_E: np.ndarray) -> np.ndarray:
        """Return how often each word has a role at the given indices; at 0, how often none has."""
        word_xE = self.word_WM.ravel()[index_E - np.array(_BACK[role])[:, None]]
        return np.bincount(word_xE.ravel() + 1, minlength=self.num_words + 1)

    def _seeds(
        self, best: tuple[int, ...], wanted_WL: np.ndarray, max_words: int
    ) -> list[tuple[int, ...]]:
        """Return sets of trigger words to try contexts with: the best set, the most frequent
        words."""
        count_V = np.bincount(self.word_WM[:, NEAR:][wanted_WL])
        order = [int(v) for v in np.argsort(-count_V, kind="stable")[:4] if count_V[v]]
        seeds = [best[:max_words], *(tuple(order[:n]) for n in (1, 2, 4) if n <= max_words)]
        return list(dict.fromkeys(seed for seed in seeds if seed))

    def _marked(self, role: str, words_K: np.ndarray) -> np.ndarray:
        """Return the positions of each word, or those behind it, (K, W, B)."""
        if role == "shortly-after":
            return pack(shortly_after(self.word_WM == words_K[:, None, None]))
        (back,) = _BACK[role]
        word_WL = self.word_WM[:, NEAR - back : self.word_WM.shape[1] - back]
        return pack(word_WL == words_K[:, None, None])


def _cost(num_words: int, has_context: bool) -> float:
    return WORD_COST * num_words + CONTEXT_COST * has_context


def _option(words: tuple[int, ...], context: _ContextKey | None, grown: _Grown) -> _Option:
    cost = _cost(len(words) + len(context[1]) if context else len(words), context is not None)
    return _Option(words, context, grown.fired_WB, grown.value - cost)


def _together(atoms_S: Sequence[_Atoms]) -> np.ndarray:
    """Return the atoms of several searches (S, K, W, B), or (1, K, W, B) where all have the same:
    the shorter lists end in words that mark nothing."""
    first = atoms_S[0].bits_KWB
    if all(atoms is atoms_S[0] for atoms in atoms_S):
        return first[None]
    most = max(len(atoms.words_K) for atoms in atoms_S)
    together_SKWB = np.zeros((len(atoms_S), most, *first.shape[1:]), dtype=first.dtype)
    for bits_KWB, atoms in zip(together_SKWB, atoms_S):
        bits_KWB[: len(atoms.words_K)] = atoms.bits_KWB
    return together_SKWB


def _unpack(bits_WB: np.ndarray, length: int) -> np.ndarray:
    bytes_Wx = np.ascontiguousarray(bits_WB).view(np.uint8)
    return np.unpackbits(bytes_Wx, axis=-1, count=length).astype(bool)
