"""Labels that follow from what a story has told: who is meant, who speaks, how somebody feels.

The same stories are told again by a teller that notes who fills which slot. No label follows from
a word by itself: names, their owners' sex and kind, and the order of speakers are drawn anew in
every story. Labels are bit masks: bit i stands for CONTEXTS[i].
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby

from clearnets.data.storybook import Story, tell
from clearnets.data.storybook.entities import Being, Thing
from clearnets.data.storybook.lexicon import ANIMALS, POSITIVE, bits
from clearnets.data.storybook.teller import Teller
from clearnets.data.storybook.templates import Slot, Template

CONTEXTS = (
    # A name, by whom it is of: the first, second or third that the story has introduced, ...
    *("name_of_first", "name_of_second", "name_of_third"),
    *("name_of_male", "name_of_female", "name_of_animal", "name_of_person"),
    # ... whom the last name was of, or not; who has spoken last; who is glad, or is not.
    *("name_of_last_named", "name_of_other", "name_of_last_speaker"),
    *("name_of_glad", "name_of_troubled"),
    # A pronoun, and a kind that stands for a character ("the fox"), by who is meant.
    *("pronoun_of_first", "pronoun_of_second", "pronoun_of_last_named", "pronoun_of_other"),
    *("kind_of_first", "kind_of_second"),
    # Words in quotation marks, by who says them.
    *("speech_of_first", "speech_of_second", "speech_of_third"),
    *("speech_of_male", "speech_of_female", "speech_of_animal", "speech_in_a_mood"),
    # A question whose answer will be no, or yes.
    *("question_denied", "question_affirmed"),
    # Any word, by whose name comes next; and by how many have been introduced.
    *("before_first", "before_second", "one_known", "two_known", "more_known"),
    # A thing that was last told of with somebody else, and one with a namesake in the story.
    *("thing_passed_on", "thing_with_namesake"),
)
_ROLES = ("first", "second", "third")
_NAME, _QUOTED, _QUESTION = bits("name"), bits("inside_quotation"), bits("question")
_MARK, _SPEAKS = bits("quotation_mark"), bits("speech_verb")
_PRONOUNS = ("he", "him", "his")


@dataclass(frozen=True, slots=True)
class Mention:
    """Words of a story that stand for somebody or something.

    Attributes:
        start, end: of the words.
        of: who or what is meant.
        form: in which form.
        felt, mood: how a character feels and speaks then; empty where nothing is told.
    """

    start: int
    end: int
    of: Being | Thing
    form: str
    felt: str
    mood: str


class Witness(Teller):
    """A teller that notes what its words stand for, and tells the same stories."""

    __slots__ = ("mentions", "questions", "sentences")

    def __init__(self, *args: object, **how: object) -> None:
        super().__init__(*args, **how)  # pyright: ignore
        self.mentions: list[Mention] = []
        self.sentences: list[int] = []
        """Where each filled template begins."""
        self.questions: list[tuple[int, int, str]] = []
        """Start and end of templates that answer yes or no, and which."""

    def append(self, template: Template) -> None:
        begins = self.size
        self.sentences.append(begins)
        for item in template:
            start = self.size
            super().append((item,))
            if not isinstance(item, Slot):
                continue
            value = getattr(self.bound[item.value], "_being", self.bound[item.value])
            if isinstance(value, Being):
                state = value.felt, value.mood
                self.mentions.append(Mention(start, self.size, value, item.form, *state))
            elif isinstance(value, Thing):
                self.mentions.append(Mention(start, self.size, value, item.form, "", ""))
            elif item.value == "yes":
                self.questions.append((begins, self.size, self.tokens[start][0].lower()))


def story(seed: int, split: str, index: int) -> Story:
    """Return the story of `storybook.story` with these labels in place of its own."""
    witness, plot = tell(Witness, seed, split, index)
    text, spans = witness.finish()
    labels = _Labels(witness).masks()
    labelled = [(start, end, mask) for (start, end, _), mask in zip(spans, labels, strict=True)]
    return Story(text, labelled, witness.nll, plot)


class _Labels:
    """The labels of one story."""

    def __init__(self, told: Witness) -> None:
        self._told = told
        self._masks = [0] * told.size
        # In the order of their names; who has none comes last.
        people = sorted(self._people(), key=lambda pair: not self._is_name(pair[0]))
        self._order = list({id(being): being for _, being in people}.values())

    def masks(self) -> list[int]:
        """Return the mask of each word and punctuation mark."""
        self._speech()
        self._references()
        self._questions()
        self._what_is_known()
        self._things()
        return self._masks

    def _label(self, places: Sequence[int] | range, *names: str) -> None:
        mask = sum(1 << CONTEXTS.index(name) for name in names if name in CONTEXTS)
        for place in places:
            self._masks[place] |= mask

    def _role(self, being: Being) -> str:
        number = next(i for i, other in enumerate(self._order) if other is being)
        return _ROLES[number] if number < len(_ROLES) else ""

    def _people(self) -> Iterator[tuple[Mention, Being]]:
        for mention in self._told.mentions:
            if isinstance(mention.of, Being):
                yield mention, mention.of

    def _is_name(self, mention: Mention) -> bool:
        return bool(self._told.tokens[mention.start][1] & _NAME)

    def _quotations(self) -> Iterator[tuple[range, Mention]]:
        """Yield the places of each quotation, and the mention of its speaker."""
        tokens, people = self._told.tokens, [m for m, _ in self._people()]
        quoted = [bool(mask & _QUOTED) and not mask & _MARK for _, mask in tokens]
        for inside, run in groupby(range(len(tokens)), key=quoted.__getitem__):
            if not inside:
                continue
            places = list(run)
            after = places[-1] + 2
            behind = [m for m in people if after < m.start <= after + 2]
            before = [m for m in people if m.start < places[0] and not quoted[m.start]]
            verb = after < len(tokens) and tokens[after][1] & _SPEAKS
            found = behind[0] if verb and behind else before[-1] if before else None
            if found is not None:
                yield range(places[0], places[-1] + 1), found

    def _speech(self) -> None:
        self._speakers: list[tuple[int, Being]] = []
        for places, mention in self._quotations():
            speaker = mention.of
            assert isinstance(speaker, Being)
            self._speakers.append((places[-1], speaker))
            names = [f"speech_of_{self._role(speaker)}", f"speech_of_{_sex(speaker)}"]
            names += ["speech_of_animal"] if speaker.kind in ANIMALS else []
            self._label(places, *names, *(["speech_in_a_mood"] if mention.mood else []))

    def _references(self) -> None:
        last: Being | None = None
        for mention, being in self._people():
            places, role = range(mention.start, mention.end), self._role(being)
            if self._is_name(mention):
                spoken = [who for end, who in self._speakers if end < mention.start]
                names = [f"name_of_{role}", f"name_of_{_sex(being)}", f"name_of_{_kind(being)}"]
                names += ["name_of_last_speaker"] if spoken and spoken[-1] is being else []
                names += ["name_of_last_named" if last is being else "name_of_other"] * bool(last)
                if mention.felt:
                    glad = mention.felt in POSITIVE
                    names.append("name_of_glad" if glad else "name_of_troubled")
                self._label(places, *names)
                last = being
            elif mention.form in _PRONOUNS:
                which = "last_named" if last is being else "other"
                self._label(places, f"pronoun_of_{role}", f"pronoun_of_{which}")
            elif mention.form in ("the", "kind", "akind", "ref"):
                self._label(places, f"kind_of_{role}")

    def _questions(self) -> None:
        for start, end, answer in self._told.questions:
            asked = [i for i in range(start, end) if self._told.tokens[i][1] & _QUESTION]
            self._label(asked, "question_denied" if answer == "no" else "question_affirmed")

    def _what_is_known(self) -> None:
        names = [(m.start, being) for m, being in self._people() if self._is_name(m)]
        at = 0
        for start, being in names:
            self._label(range(at, start), f"before_{self._role(being)}")
            at = start
        first = [next((at for at, other in names if other is b), None) for b in self._order]
        first = [at for at in first if at is not None]
        ends = [*first[1:3], self._told.size]
        for name, start, end in zip(("one_known", "two_known", "more_known"), first, ends):
            self._label(range(start, max(start, end)), name)

    def _things(self) -> None:
        with_whom: dict[int, Being] = {}
        things = [m.of for m in self._told.mentions if isinstance(m.of, Thing)]
        near: Being | None = None
        for mention in self._told.mentions:
            if isinstance(mention.of, Being):
                near = mention.of
                continue
            places, key = range(mention.start, mention.end), id(mention.of)
            if near is not None and with_whom.get(key, near) is not near:
                self._label(places, "thing_passed_on")
            if near is not None:
                with_whom[key] = near
            if any(o is not mention.of and o.noun == mention.of.noun for o in things):
                self._label(places, "thing_with_namesake")


def _sex(being: Being) -> str:
    return "male" if being.male else "female"


def _kind(being: Being) -> str:
    return "animal" if being.kind in ANIMALS else "person"
