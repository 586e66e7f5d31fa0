"""The words of the storybook and what is known about them.

Every table here is a fact about the story world that a reader has to learn (what a mole eats,
which colour red and yellow make, which tool mends a roof), so that a word of a story can follow
from facts and not only from its neighbours. Labels are bit masks: bit i stands for CONCEPTS[i].
"""

from __future__ import annotations

from typing import NamedTuple

Token = tuple[str, int]
"""A word or punctuation mark and its mask."""

CONCEPTS: tuple[str, ...] = (
    "name",
    "animal",
    "person",
    "kinship",
    "colour",
    "size",
    "material",
    "food",
    "place",
    "home",
    "container",
    "weather",
    "clothing",
    "object",
    "tool",
    "number",
    "plural_noun",
    "speech_verb",
    "animal_cry",
    "motion_verb",
    "positive_emotion",
    "negative_emotion",
    "trait",
    "inside_quotation",
    "quotation_mark",
    "negation",
    "negated",
    "pronoun_female",
    "pronoun_male",
    "pronoun_plural",
    "pronoun_speaker",
    "repeated_object",
    "repeated_name",
    "first_mention",
    "sentence_start",
    "sentence_end",
    "past_tense",
    "question",
    "moral",
    "requires_state",
    "time_word",
    "comma",
    "possessive",
    "order_word",
    "comparison",
    "possession_verb",
    "preposition",
)

_BIT = {name: 1 << i for i, name in enumerate(CONCEPTS)}


def bits(*names: str) -> int:
    """The mask of the named concepts."""
    mask = 0
    for name in names:
        mask |= _BIT[name]
    return mask


# Layout flags live above the concepts and never leave the package.
TIGHT = 1 << 60  # no space before this token
ALL_CONCEPTS = (1 << len(CONCEPTS)) - 1


class Kind(NamedTuple):
    """A species or a profession, and the facts that follow from it."""

    noun: str
    home: str  # where it lives, with its preposition: "in burrow"
    move: str  # how it moves, past tense
    cry: str  # how it speaks, past tense
    food: str  # what it eats, plural or mass noun
    person: bool = False


KINDS: tuple[Kind, ...] = (
    Kind("rabbit", "in burrow", "hopped", "squeaked", "carrots"),
    Kind("mouse", "in hole", "scurried", "peeped", "cheese"),
    Kind("bear", "in cave", "lumbered", "growled", "honey"),
    Kind("fox", "in den", "trotted", "yapped", "berries"),
    Kind("frog", "by pond", "leaped", "croaked", "flies"),
    Kind("duck", "on lake", "waddled", "quacked", "bread"),
    Kind("dog", "in kennel", "bounded", "barked", "bones"),
    Kind("cat", "in basket", "crept", "meowed", "fish"),
    Kind("cow", "in meadow", "strolled", "mooed", "grass"),
    Kind("horse", "in stable", "galloped", "neighed", "hay"),
    Kind("pig", "in sty", "rolled", "grunted", "turnips"),
    Kind("sheep", "in fold", "wandered", "bleated", "clover"),
    Kind("goat", "on hill", "climbed", "brayed", "thistles"),
    Kind("hen", "in coop", "strutted", "clucked", "corn"),
    Kind("owl", "in barn", "swooped", "hooted", "moths"),
    Kind("bee", "in hive", "flew", "buzzed", "nectar"),
    Kind("robin", "in nest", "fluttered", "chirped", "worms"),
    Kind("squirrel", "in oak", "scampered", "chattered", "nuts"),
    Kind("hedgehog", "under hedge", "trundled", "snuffled", "beetles"),
    Kind("turtle", "by river", "crawled", "murmured", "lettuce"),
    Kind("snake", "under rock", "slithered", "hissed", "eggs"),
    Kind("monkey", "in jungle", "swung", "whooped", "bananas"),
    Kind("lion", "on plain", "stalked", "roared", "meat"),
    Kind("elephant", "in valley", "stomped", "trumpeted", "peanuts"),
    Kind("wolf", "in forest", "loped", "howled", "stew"),
    Kind("donkey", "in shed", "plodded", "snorted", "oats"),
    Kind("crow", "on tower", "flapped", "cawed", "crumbs"),
    Kind("mole", "in tunnel", "shuffled", "mumbled", "roots"),
    Kind("penguin", "in igloo", "slid", "honked", "shrimps"),
    Kind("crab", "on beach", "scuttled", "clicked", "seaweed"),
    Kind("farmer", "on farm", "walked", "said", "potatoes", True),
    Kind("baker", "over bakery", "walked", "said", "buns", True),
    Kind("sailor", "on ship", "walked", "said", "biscuits", True),
    Kind("shepherd", "in hut", "walked", "said", "soup", True),
    Kind("miller", "in mill", "walked", "said", "pancakes", True),
    Kind("gardener", "in cottage", "walked", "said", "beans", True),
)

# Any name may belong to any kind and either gender: both must be read from the story.
NAMES: tuple[str, ...] = (
    "Alex",
    "Ash",
    "Billie",
    "Bo",
    "Casey",
    "Charlie",
    "Dana",
    "Drew",
    "Eli",
    "Finn",
    "Frankie",
    "Gale",
    "Harper",
    "Indy",
    "Jamie",
    "Jo",
    "Kai",
    "Kit",
    "Lee",
    "Lou",
    "Max",
    "Mika",
    "Nico",
    "Noor",
    "Ollie",
    "Pat",
    "Pip",
    "Quinn",
    "Remy",
    "Reese",
    "Rory",
    "Sam",
    "Sasha",
    "Sky",
    "Tam",
    "Toby",
    "Val",
    "Wren",
    "Yuki",
    "Zoe",
)

COLOURS = (
    "red",
    "blue",
    "green",
    "yellow",
    "white",
    "black",
    "pink",
    "purple",
    "orange",
    "brown",
)
SIZES = ("big", "small", "tiny", "huge", "long", "short", "round", "flat")
MATERIALS = ("wooden", "glass", "paper", "golden", "silver", "woollen", "leather", "tin")

# Two paints and what they make.
MIXES: tuple[tuple[str, str, str], ...] = (
    ("red", "yellow", "orange"),
    ("red", "blue", "purple"),
    ("blue", "yellow", "green"),
    ("red", "white", "pink"),
    ("black", "white", "grey"),
    ("red", "green", "brown"),
)

TOYS = (
    "ball",
    "kite",
    "drum",
    "doll",
    "boat",
    "train",
    "puppet",
    "flute",
    "bell",
    "ring",
    "key",
    "cup",
    "book",
    "lamp",
    "whistle",
    "pillow",
    "blanket",
    "mirror",
    "box",
    "rope",
    "crown",
    "mask",
    "fan",
    "purse",
)


class Stock(NamedTuple):
    """Things that come in numbers."""

    one: str
    many: str
    adjectives: tuple[str, ...]
    food: bool


STOCKS: tuple[Stock, ...] = (
    Stock("apple", "apples", ("red", "green", "ripe"), True),
    Stock("pear", "pears", ("green", "yellow", "ripe"), True),
    Stock("plum", "plums", ("purple", "ripe", "sweet"), True),
    Stock("cherry", "cherries", ("red", "black", "sweet"), True),
    Stock("cake", "cakes", ("small", "round", "sweet"), True),
    Stock("cookie", "cookies", ("round", "brown", "sweet"), True),
    Stock("lemon", "lemons", ("yellow", "small", "ripe"), True),
    Stock("candy", "candies", ("pink", "orange", "sweet"), True),
    Stock("shell", "shells", ("white", "pink", "small"), False),
    Stock("stone", "stones", ("flat", "black", "round"), False),
    Stock("feather", "feathers", ("white", "blue", "long"), False),
    Stock("button", "buttons", ("silver", "round", "black"), False),
    Stock("marble", "marbles", ("blue", "glass", "green"), False),
    Stock("bead", "beads", ("golden", "glass", "tiny"), False),
    Stock("candle", "candles", ("white", "red", "long"), False),
    Stock("flower", "flowers", ("yellow", "pink", "blue"), False),
)

COINS = Stock("coin", "coins", ("golden",), False)

NUMBERS = (
    "none",
    "one",
    "two",
    "three",
    "four",
    "five",
    "six",
    "seven",
    "eight",
    "nine",
    "ten",
    "eleven",
    "twelve",
    "thirteen",
    "fourteen",
)

# Places to go to, each with the preposition of being there.
PLACES: tuple[tuple[str, str], ...] = (
    ("at", "market"),
    ("in", "garden"),
    ("at", "school"),
    ("by", "well"),
    ("on", "bridge"),
    ("in", "park"),
    ("at", "church"),
    ("on", "island"),
    ("in", "village"),
    ("at", "harbour"),
    ("by", "fountain"),
    ("at", "castle"),
    ("in", "orchard"),
    ("by", "waterfall"),
    ("at", "station"),
    ("in", "library"),
    ("by", "lighthouse"),
    ("at", "inn"),
)

# Where small things can lie.
SPOTS: tuple[tuple[str, str], ...] = (
    ("in", "drawer"),
    ("in", "chest"),
    ("in", "bucket"),
    ("in", "jar"),
    ("in", "sack"),
    ("in", "pot"),
    ("in", "cupboard"),
    ("in", "barrel"),
    ("under", "bed"),
    ("under", "table"),
    ("under", "rug"),
    ("behind", "door"),
    ("behind", "curtain"),
    ("on", "shelf"),
    ("on", "chair"),
    ("on", "roof"),
)

# Containers from the smallest to the largest: a thing fits into any later one.
NESTING = ("purse", "box", "jar", "bag", "bucket", "chest", "cart")

TRAITS: tuple[str, ...] = (
    "brave",
    "shy",
    "clever",
    "lazy",
    "greedy",
    "kind",
    "proud",
    "grumpy",
    "cheerful",
    "patient",
    "curious",
    "honest",
)

# What each trait (in the order above) feels at an event.
EMOTIONS: dict[str, tuple[str, ...]] = {
    "storm": (
        "calm",
        "scared",
        "calm",
        "sleepy",
        "worried",
        "worried",
        "brave",
        "angry",
        "merry",
        "calm",
        "excited",
        "scared",
    ),
    "dark": (
        "calm",
        "scared",
        "calm",
        "sleepy",
        "scared",
        "calm",
        "nervous",
        "angry",
        "merry",
        "calm",
        "excited",
        "nervous",
    ),
    "gift": (
        "glad",
        "shy",
        "glad",
        "glad",
        "delighted",
        "thankful",
        "proud",
        "surprised",
        "delighted",
        "thankful",
        "excited",
        "thankful",
    ),
    "loss": (
        "sad",
        "upset",
        "worried",
        "upset",
        "angry",
        "sad",
        "angry",
        "furious",
        "sad",
        "upset",
        "worried",
        "sad",
    ),
    "win": (
        "proud",
        "surprised",
        "pleased",
        "surprised",
        "pleased",
        "happy",
        "proud",
        "pleased",
        "happy",
        "happy",
        "excited",
        "thankful",
    ),
    "defeat": (
        "calm",
        "upset",
        "upset",
        "sleepy",
        "jealous",
        "glad",
        "furious",
        "angry",
        "merry",
        "calm",
        "surprised",
        "sad",
    ),
}

# The mood behind an emotion decides how its owner speaks.
POSITIVE = (
    "calm",
    "brave",
    "merry",
    "excited",
    "glad",
    "delighted",
    "thankful",
    "proud",
    "surprised",
    "pleased",
    "happy",
)
MOOD: dict[str, str] = {
    "scared": "afraid",
    "worried": "afraid",
    "nervous": "afraid",
    "shy": "afraid",
    "angry": "angry",
    "furious": "angry",
    "jealous": "angry",
    "sad": "sad",
    "upset": "sad",
    "sleepy": "tired",
    "excited": "joyful",
    "delighted": "joyful",
    "merry": "joyful",
    "happy": "joyful",
}
SPEECH: dict[str, str] = {
    "afraid": "whispered",
    "angry": "shouted",
    "sad": "sighed",
    "tired": "yawned",
    "joyful": "cheered",
}


class Weather(NamedTuple):
    """A day's weather, what one wears for it and what one does."""

    happened: str
    wear: str
    did: str
    plural: bool


WEATHERS: tuple[Weather, ...] = (
    Weather("rained", "boots", "jumped in the puddles", True),
    Weather("snowed", "mittens", "built a snowman", True),
    Weather("was sunny", "hat", "swam in the stream", False),
    Weather("was windy", "scarf", "flew a kite", False),
    Weather("was cold", "coat", "skated on the ice", False),
    Weather("was foggy", "cape", "stayed at home", False),
    Weather("was hot", "sandals", "rested under a tree", True),
)

DAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")


class Job(NamedTuple):
    """Something to do and the tool it needs."""

    broken: str  # what is wrong, past tense
    do: str  # the plain form of the verb and its object
    did: str
    tool: str


JOBS: tuple[Job, ...] = (
    Job("the roof was broken", "mend the roof", "mended the roof", "hammer"),
    Job("the tree was too tall", "cut the tree", "cut the tree", "axe"),
    Job("the floor was dusty", "sweep the floor", "swept the floor", "broom"),
    Job("the shirt was torn", "sew the shirt", "sewed the shirt", "needle"),
    Job("the fence was grey", "paint the fence", "painted the fence", "brush"),
    Job("the field was bare", "dig the field", "dug the field", "spade"),
    Job("the kitten was on the roof", "reach the kitten", "reached the kitten", "ladder"),
    Job("the cellar was dark", "light the cellar", "lit the cellar", "lantern"),
    Job("the plants were dry", "water the plants", "watered the plants", "hose"),
    Job("the leaves lay everywhere", "gather the leaves", "gathered the leaves", "rake"),
    Job("the wood was too thick", "split the wood", "split the wood", "wedge"),
    Job("the coal was too hot", "lift the coal", "lifted the coal", "shovel"),
)


class Scale(NamedTuple):
    """A dimension along which three characters are compared."""

    more: str
    most: str
    less: str
    least: str
    most_did: str  # what only the top one can do, plain form
    least_did: str


SCALES: tuple[Scale, ...] = (
    Scale("taller", "tallest", "shorter", "shortest", "reach the top shelf", "hide in the box"),
    Scale("older", "oldest", "younger", "youngest", "read the letter", "wear the tiny shoes"),
    Scale("faster", "fastest", "slower", "slowest", "catch the train", "watch the snails"),
    Scale("stronger", "strongest", "weaker", "weakest", "lift the log", "ride in the cart"),
    Scale("bigger", "biggest", "smaller", "smallest", "stop the wind", "fit in the hole"),
    Scale("heavier", "heaviest", "lighter", "lightest", "break the ice", "cross the ice"),
    Scale("louder", "loudest", "quieter", "quietest", "wake the village", "hold the baby"),
)

# Pairs that two contrary twins disagree about: (verb phrase with a gap, one side, other side).
OPPOSITES: tuple[tuple[str, str, str], ...] = (
    ("liked {} soup", "hot", "cold"),
    ("liked {} stories", "long", "short"),
    ("went {} the stairs", "up", "down"),
    ("got up {}", "early", "late"),
    ("wore {} shoes", "old", "new"),
    ("sat on the {} chair", "hard", "soft"),
    ("slept with the window {}", "open", "shut"),
    ("kept a {} room", "clean", "dirty"),
    ("carried a {} bag", "heavy", "light"),
    ("walked on the {} side", "left", "right"),
    ("drew {} pictures", "big", "small"),
    ("told {} jokes", "good", "bad"),
    ("sang {} songs", "happy", "sad"),
    ("ran {} the house", "inside", "outside"),
    ("kept the cups {}", "full", "empty"),
    ("spoke in a {} voice", "loud", "quiet"),
)

ANIMALS = tuple(k for k in KINDS if not k.person)

# The young and who their parent is.
YOUNG: tuple[tuple[str, str], ...] = (
    ("puppy", "dog"),
    ("kitten", "cat"),
    ("lamb", "sheep"),
    ("foal", "horse"),
    ("calf", "cow"),
    ("chick", "hen"),
    ("duckling", "duck"),
    ("piglet", "pig"),
    ("cub", "bear"),
    ("tadpole", "frog"),
    ("bunny", "rabbit"),
    ("owlet", "owl"),
)


def _words(text: str) -> tuple[str, ...]:
    return tuple(text.split())


_PAST = _words(
    """
    was were had lived liked saw found gave took put went came looked asked said told knew
    wanted needed ran hid swapped kept ate felt made painted mixed carried moved lost won passed
    shared smiled laughed cried lay began got lent stood helped shouted whispered bought sold
    paid counted met heard played wore stayed swam built flew skated rested jumped cut mended
    swept sewed dug reached lit watered gathered split lifted could did showed invited cooked
    sat spoke sang drew slept walked brought called named forgot promised dropped happened
    started turned rained snowed fell held became loved waited belonged picked rolled followed
    agreed cheered sighed yawned grew lined changed owned danced handed traded received packed
    spent cost believed forgave led laid raced saved shook trusted waved
    """
)
_MOVING = _words(
    """
    went came ran walked moved followed
    """
)
_SPEAKING = _words(
    """
    said asked told shouted whispered cheered sighed yawned
    """
)
_NEGATIONS = _words(
    "not no never nothing nobody none didn't don't couldn't wasn't weren't can't cannot without"
)
_HAVING = _words(
    """
    had gave took lent kept bought sold got found lost owned swapped traded belonged have has
    give take handed received shared
    """
)
_ORDER = _words(
    """
    first second third last middle next front behind before after between
    """
)
_COMPARING = {w for s in SCALES for w in (s.more, s.most, s.less, s.least)} | {"more", "than"}
_LOCATING = _words(
    """
    in on under behind by at over near inside outside
    """
)
_TIMES = _words(
    """
    once then now later today tomorrow morning evening night day soon always again ago afternoon
    week
    """
)
_KIN = _words(
    """
    brother sister mother father son daughter grandmother grandfather family twin twins friend
    friends children child uncle aunt nephew niece grandson granddaughter
    """
)
_PLURALS = _words(
    """
    friends twins children stairs puddles plants leaves pictures jokes songs shoes cups stories
    coins clouds questions toys
    """
)
_OTHER: dict[str, tuple[str, ...]] = {
    "he": ("pronoun_male",),
    "him": ("pronoun_male",),
    "his": ("pronoun_male", "possessive"),
    "she": ("pronoun_female",),
    "her": ("pronoun_female",),
    "they": ("pronoun_plural",),
    "them": ("pronoun_plural",),
    "their": ("pronoun_plural", "possessive"),
    "we": ("pronoun_plural", "pronoun_speaker"),
    "us": ("pronoun_plural", "pronoun_speaker"),
    "our": ("pronoun_plural", "pronoun_speaker", "possessive"),
    # The caret marks a word in its second sense: "he left^ it", "the one^ who".
    "left^": ("past_tense", "motion_verb"),
    "one^": (),
    "ones^": (),
    "i": ("pronoun_speaker",),
    "me": ("pronoun_speaker",),
    "my": ("pronoun_speaker", "possessive"),
    "mine": ("pronoun_speaker", "possessive"),
    "'s": ("possessive",),
    ",": ("comma",),
    ".": ("sentence_end",),
    "!": ("sentence_end",),
    "?": ("sentence_end",),
    '"': ("quotation_mark",),
    "storm": ("weather",),
    "thunder": ("weather",),
    "lightning": ("weather",),
    "coins": ("object",),
    "cup": ("object",),
    "kite": ("object",),
    "paint": ("object",),
    "snowman": ("object",),
}


def _base_masks() -> dict[str, int]:
    """Label of each word as such, lower case; what depends on use is added where it is used."""
    mask: dict[str, int] = {}

    def add(words, *concepts: str) -> None:
        for word in words:
            mask[word] = mask.get(word, 0) | bits(*concepts)

    add(_PAST, "past_tense")
    add(_MOVING, "motion_verb")
    add(_SPEAKING, "speech_verb")
    add(_NEGATIONS, "negation")
    add(_HAVING, "possession_verb")
    add(_ORDER, "order_word")
    add(_COMPARING, "comparison")
    add(_LOCATING, "preposition")
    add(_TIMES, "time_word")
    add(_KIN, "kinship")
    add(_PLURALS, "plural_noun")
    add(NUMBERS[1:], "number")
    add(COLOURS, "colour")
    add(["grey"], "colour")
    add(SIZES, "size")
    add(MATERIALS, "material")
    add(TRAITS, "trait")
    add((d.lower() for d in DAYS), "time_word")
    add(["rained", "snowed", "sunny", "windy", "foggy"], "weather")
    add((w.wear for w in WEATHERS), "clothing")
    add((w.wear for w in WEATHERS if w.plural), "plural_noun")
    add((j.tool for j in JOBS), "tool")
    add((p for _, p in PLACES), "place")
    add((k.home.split()[1] for k in KINDS), "home")
    add((k.noun for k in KINDS if not k.person), "animal")
    add((k.noun for k in KINDS if k.person), "person")
    add((y for y, _ in YOUNG), "animal")
    add((k.move for k in KINDS), "motion_verb", "past_tense")
    add((k.cry for k in KINDS if not k.person), "speech_verb", "animal_cry", "past_tense")
    for emotions in EMOTIONS.values():
        for word in emotions:
            # "proud", "shy" and "brave" also name traits: which it is, the use decides.
            if word not in TRAITS:
                add([word], "positive_emotion" if word in POSITIVE else "negative_emotion")
    for word, concepts in _OTHER.items():
        add([word], *concepts)
    return mask


BASE: dict[str, int] = _base_masks()


def word(text: str, *concepts: str) -> Token:
    """A token with the label of its word and the labels that its use adds."""
    return text, BASE.get(text.lower(), 0) | bits(*concepts)


def emotion(text: str) -> Token:
    """The token of an emotion, labelled as one even where the word also names a trait."""
    return text, bits("positive_emotion" if text in POSITIVE else "negative_emotion")


def article(following: str) -> str:
    """The indefinite article before a word. No word of the lexicon begins with a sounded u."""
    return "an" if following[0] in "aeio" or following == "honest" else "a"
