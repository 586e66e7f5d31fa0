"""The `tokens` explainer: a short rule over trigger words and their context, learned greedily.

It sees a sample of active and non-activating windows of one latent and looks for the rule of
`clearnets.autointerp.rules.language` that best predicts both which windows are active and at which
positions, by `clearnets.autointerp.rules.objective`. Each word, class and context costs something.

Shape suffixes: W windows, L positions, B machine words of a window's bits (see `matcher`), C states
of the text, K candidate words and classes, S searches that run side by side, V words of the
lexicon.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from clearnets.autointerp.rules.language import (
    AFTERS,
    STATES,
    Clause,
    Context,
    Kind,
    Rule,
)
from clearnets.autointerp.rules.matcher import (
    NEAR,
    NOTHING,
    Lexicon,
    Role,
    Text,
    fires,
    pack,
)
from clearnets.autointerp.rules.objective import Objective
from clearnets.latents.examples import Activity, Examples

# What a word or class and a context must add to the objective; against learning single windows, and
# for sentences that a person would write. With 0.025 for a word, sentences are a third longer and
# balanced accuracy in rule-detection rises by 0.01, of untrained coders too.
WORD_COST = 0.04
CONTEXT_COST = 0.05
# A second clause makes a sentence harder to read.
CLAUSE_COST = 0.02
# A word is only named if it says something about this many active windows.
MIN_SUPPORT = 2
# Words tried: those that the latent prefers most, and those at which it is active most often; and
# classes that it prefers.
PREFERRED = 12
FREQUENT = 4
GROUPS = 8
# Numbers of the most frequent trigger words that contexts are tried with.
SEEDS = (1, 2)


# Kind of a context, the numbers of its words, and whether it is negated.
_ContextKey = tuple[Kind, tuple[int, ...], bool]
# The contexts without words: none, and each state of the text and its negation.
_STATES: tuple[_ContextKey | None, ...] = (
    None,
    *((kind, (), negated) for kind in STATES for negated in (False, True)),
)
# Words are counted so far before a position at most.
MOST_BACK = 128
# How far before a position the words of each role are counted for candidates: from, to.
_BACK: dict[Role, tuple[int, int]] = {
    "here": (0, 0),
    "right-after": (1, 1),
    "shortly-after": (1, NEAR),
    "text-after": (1, MOST_BACK),
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

    def clause(self, lexicon: Lexicon) -> Clause:
        """Return the clause with its words and classes by name."""
        named = tuple(lexicon.item(word) for word in self.words)
        if self.context is None:
            return Clause(named)
        kind, behind, negated = self.context
        return Clause(named, Context(kind, tuple(lexicon.item(word) for word in behind), negated))


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
    word_E = text.word_NL[found.window_E, found.place_E]
    return text.lexicon.words[int(np.bincount(word_E).argmax())]


def explain(text: Text, examples: Examples, *, trigger: str, share: float, max_words: int) -> Rule:
    """Return the best rule found for a latent.

    Args:
        text: the split that the examples are from.
        examples: active and non-activating windows, at least one of each.
        trigger: the latent's trigger word, by `trigger`.
        share: of the text's windows, those in which the latent is active.
        max_words: cap on the words and classes of the whole rule.
    """
    search, lexicon = _Search(text, examples, trigger, share), text.lexicon
    nothing_WB = np.zeros_like(search.counted_WB)
    first = max(search.options(nothing_WB, max_words), key=lambda option: option.worth)
    rule = Rule((first.clause(lexicon),))
    if search.quality(first.fired_WB) > 1 - CLAUSE_COST:
        return rule
    more = search.options(first.fired_WB, max_words - first.num_words)
    second = max(more, key=lambda option: option.worth)
    if second.worth - first.cost > first.worth + CLAUSE_COST:
        return _prune(search, Rule((*rule.clauses, second.clause(lexicon))))
    return rule


def _prune(search: _Search, rule: Rule) -> Rule:
    """Return the rule without words of its first clause that the second makes superfluous."""
    quality = search.quality(search.text.fires(rule))
    first, second = rule.clauses
    while len(first.words) > 1:
        shorter = [
            Rule((Clause(first.words[:i] + first.words[i + 1 :], first.context), second))
            for i in range(len(first.words))
        ]
        quality_K = search.quality(np.stack([search.text.fires(one) for one in shorter]))
        best = int(quality_K.argmax())
        if quality_K[best] < quality - WORD_COST:
            break
        rule, quality = shorter[best], quality_K[best]
        first = rule.clauses[0]
    return rule


class _Search:
    """The search for one latent's rule, with what its steps share."""

    def __init__(self, text: Text, examples: Examples, trigger: str, share: float) -> None:
        self.text = Text(text.rows, text.windows.these(examples.window_W))
        self.num_words = len(text.lexicon.words)
        self.active_WL, self.counted_WB = examples.active_WL, self.text.counted_NB
        (trigger_WB,) = self.text.marked("here", [text.lexicon.id(trigger)])
        self.quality = Objective(examples, self.counted_WB, trigger_WB, share)

        state_KWB = np.stack([self.text.state(kind) for kind in STATES])
        both_K2WB = np.stack([state_KWB, ~state_KWB], axis=1) & self.counted_WB
        self.states_CWB = np.concatenate(
            [self.counted_WB[None], both_K2WB.reshape(-1, *self.counted_WB.shape)]
        )
        self._off_WL = (self.text.word_NL >= 0) & ~self.active_WL
        self._off_V: dict[Role, np.ndarray] = {}

    def options(self, fired_WB: np.ndarray, max_words: int) -> list[_Option]:
        """Return clauses that could be added to a rule that fires at `fired_WB` so far."""
        wanted_WL = self.active_WL & ~_unpack(fired_WB, self.active_WL.shape[1])
        if not wanted_WL.any():
            wanted_WL = self.active_WL
        found = self._any_words(fired_WB)
        if not max_words:
            return found
        triggers = self._candidates("here", wanted_WL)
        left = [max_words] * len(_STATES)
        sets = self._grow(fired_WB, self.states_CWB, [triggers] * len(_STATES), left)
        found += [_option(one.words, state, one) for state, one in zip(_STATES, sets) if one.words]
        seeds = self._seeds(sets[0].words, triggers, wanted_WL, max_words - 1)
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
            np.bitwise_or.reduce(self.text.marked("here", seed)) & self.counted_WB for seed in seeds
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

    def _candidates(self, role: Role, wanted_WL: np.ndarray) -> _Atoms:
        """Return the words and classes to try as triggers, or before the wanted positions."""
        wanted_V = self._count(role, wanted_WL)
        if role not in self._off_V:
            self._off_V[role] = self._count(role, self._off_WL)
        off_V = self._off_V[role]
        lift_V = wanted_V / max(wanted_V[: self.num_words].sum(), 1)
        lift_V -= off_V / max(off_V[: self.num_words].sum(), 1)
        common = np.flatnonzero(wanted_V >= MIN_SUPPORT)
        word, group = common[common < self.num_words], common[common >= self.num_words]
        chosen = [
            *word[np.argsort(-lift_V[word], kind="stable")[:PREFERRED]],
            *word[np.argsort(-wanted_V[word], kind="stable")[:FREQUENT]],
            *group[np.argsort(-lift_V[group], kind="stable")[:GROUPS]],
        ]
        words = list(dict.fromkeys(int(v) for v in chosen))
        bits_KWB = self.text.marked(role, words)
        supported_K = fires(bits_KWB & pack(wanted_WL)).sum(axis=-1) >= MIN_SUPPORT
        return _Atoms(np.array(words, dtype=np.int64)[supported_K], bits_KWB[supported_K])

    def _count(self, role: Role, flag_WL: np.ndarray) -> np.ndarray:
        """Return how often each word and class has a role at the flagged positions."""
        if role == "text-after":  # Once a window.
            flag_WL = flag_WL & (np.cumsum(flag_WL, axis=1) == 1)
        rows, windows = self.text.shown
        window_E, place_E = np.nonzero(flag_WL)
        first, last = _BACK[role]
        at_xE = windows.start_N[window_E] + place_E - np.arange(first, last + 1)[:, None]
        word_xE = rows.word_RS[windows.row_N[window_E], np.maximum(at_xE, 0)]
        word_E = np.where(at_xE >= 0, word_xE, NOTHING)
        count_V = np.bincount(word_E.ravel() + 1, minlength=self.num_words + 1)[1:]
        return np.concatenate([count_V, self.text.lexicon.class_sums(count_V)])

    def _seeds(
        self, best: tuple[int, ...], triggers: _Atoms, wanted_WL: np.ndarray, max_words: int
    ) -> list[tuple[int, ...]]:
        """Return sets of trigger words to try contexts with: the best set, the most frequent
        words, the best class."""
        count_V = np.bincount(self.text.word_NL[wanted_WL])
        order = [int(v) for v in np.argsort(-count_V, kind="stable")[: max(SEEDS)] if count_V[v]]
        groups = [int(v) for v in triggers.words_K if v >= self.num_words]
        seeds = [best[:max_words], *(tuple(order[:n]) for n in SEEDS if n <= max_words)]
        seeds.append(tuple(groups[: min(1, max_words)]))
        return list(dict.fromkeys(seed for seed in seeds if seed))


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
