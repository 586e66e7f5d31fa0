"""Let a model write a story, and show which latents fire in it.

Shapes: S tokens of the story with its prompt, without bos; K latents active per token.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.text import Text

from clearnets import UserError
from clearnets.autointerp.records import EXPLANATIONS
from clearnets.browser.terminal import marked, printable
from clearnets.config import Config, Family, parse_family, parse_seed
from clearnets.data.tokens import TokenStore, open_tokens
from clearnets.families import FAMILIES
from clearnets.latents.readers import open_model, open_reader
from clearnets.pipeline import paths
from clearnets.pipeline.artifacts import read_jsonl
from clearnets.pipeline.runtime import Runtime, seed_for

# Tokens that are shown on each side of a latent's strongest one.
AROUND = 12


@dataclass(frozen=True)
class Writing:
    """How a story is written.

    Attributes:
        tokens: it ends after so many, if the model does not end it before.
        temperature: of sampling; 0 always takes the likeliest token.
        draw: names the random numbers: the same one gives the same story.
    """

    tokens: int
    temperature: float
    draw: int


@dataclass(frozen=True)
class Fired:
    """A latent that is active in a story.

    Attributes:
        place: its hookpoint.
        latent: its number there.
        act_S: its activation at each token, 0 where it is not active.
        explanation: None where it has none.
    """

    place: str
    latent: int
    act_S: np.ndarray
    explanation: str | None


@dataclass(frozen=True)
class Story:
    """A story, and the latents that fire in it.

    Attributes:
        title: who wrote it, and whose latents these are.
        tokens_S: ids of the prompt's tokens, and of those that the model wrote.
        prompt: how many the prompt has.
        strings: the text of each token of the vocabulary.
        fired: by hookpoint the latents that were asked for, the strongest first.
    """

    title: str
    tokens_S: list[int]
    prompt: int
    strings: list[str]
    fired: list[Fired]


def tell(
    config: Config,
    prompt: str,
    writing: Writing,
    *,
    family: str,
    layers: Sequence[int],
    latents: int,
    seed: int | None,
) -> Story:
    """Let the model that a family reads go on from a prompt, and read the family's latents.

    Args:
        layers: whose latents are shown.
        latents: how many of each layer: those with an explanation first, and of these those that
            are most active.
        seed: a training seed; the first where None.

    Raises:
        UserError: there is no such family or seed, it reads no model, a result is missing, or the
            prompt is too long.
    """
    name, seed = parse_family(family, config), parse_seed(seed, config)
    if FAMILIES[name].model is None:
        raise UserError(f"{name} reads no model, so nothing writes; choose another family")
    Runtime("cpu", config.threads).torch_device()
    store, opened = open_tokens(paths.data()), open_model(name, seed)
    given = encode(store, prompt)
    tokens_S = write(opened.model, store, given, writing)
    reader = open_reader(name, seed, layers, opened, k=config.model.k)
    found = reader(torch.tensor([[store.bos, *tokens_S]]))
    fired: list[Fired] = []
    for point, (acts_BSK, indices_BSK) in found.items():
        known = _explanations(name, seed, point)
        dense = by_latent(acts_BSK[0, 1:].numpy(), indices_BSK[0, 1:].numpy())
        order = sorted(dense, key=lambda n: (known.get(n) is None, -dense[n].max(), n))
        fired += [Fired(point, n, dense[n], known.get(n)) for n in order[:latents]]
    which = f" · seed {seed}" if len(config.seeds) > 1 else ""
    title = f"{FAMILIES[name].model} model · latents: {name}{which}"
    return Story(title, tokens_S, len(given), store.strings(), fired)


def encode(store: TokenStore, prompt: str) -> list[int]:
    """Return the tokens of a prompt; a special token that it spells out is text.

    Raises:
        UserError: they leave no room in the model's context.
    """
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(store.root / "tokenizer" / "tokenizer.json"))
    tokenizer.encode_special_tokens = True
    ids = tokenizer.encode(prompt, add_special_tokens=False).ids
    room = store.ctx_len - 2
    if len(ids) > room:
        raise UserError(f"the prompt has {len(ids)} tokens; write at most {room}")
    return ids


@torch.no_grad()
def write(model: Any, store: TokenStore, given: Sequence[int], writing: Writing) -> list[int]:
    """Return the given tokens and those that the model writes after them, without bos and eos.

    The story ends with eos, after `writing.tokens`, or where the model's context is full.
    """
    generator = torch.Generator().manual_seed(seed_for(writing.draw, "story"))
    tokens = [store.bos, *given]
    for _ in range(min(writing.tokens, store.ctx_len - len(tokens))):
        logit_V = model(input_ids=torch.tensor([tokens]), use_cache=False).logits[0, -1].float()
        never = [token for token in (store.pad, store.bos) if token < len(logit_V)]
        logit_V[never] = -torch.inf
        if writing.temperature:
            chance_V = torch.softmax(logit_V / writing.temperature, dim=-1)
            token = int(torch.multinomial(chance_V, 1, generator=generator))
        else:
            token = int(logit_V.argmax())
        if token == store.eos:
            break
        tokens.append(token)
    return tokens[1:]


def by_latent(acts_SK: np.ndarray, indices_SK: np.ndarray) -> dict[int, np.ndarray]:
    """Return the activation (S,) of each latent that is active at all, by its number."""
    found: dict[int, np.ndarray] = {}
    for at, slot in np.argwhere(acts_SK > 0).tolist():
        own_S = found.setdefault(int(indices_SK[at, slot]), np.zeros(len(acts_SK)))
        own_S[at] = acts_SK[at, slot]
    return found


def _explanations(family: Family, seed: int, point: str) -> Mapping[int, str]:
    """Return the explanations of a layer by latent; none where none were made."""
    path = paths.explain(family, seed, point) / EXPLANATIONS
    records = read_jsonl(path) if path.exists() else []
    return {one["latent"]: one["explanation"] for one in records if one["explanation"]}


def lines(story: Story, *, shades: bool) -> Iterator[Text]:
    """Yield the story, its prompt in bold, and each latent with the part where it is strongest.

    Args:
        shades: mark tokens by colour instead of << >>.
    """
    words = [printable(story.strings[token]) for token in story.tokens_S]
    yield Text(story.title, "dim")
    yield Text.assemble(
        ("".join(words[: story.prompt]), "bold"), "".join(words[story.prompt :]).rstrip()
    )
    place = None
    for one in story.fired:
        if one.place != place:
            yield Text()
            yield Text(one.place, "bold")
            place = one.place
        yield Text.assemble(
            (f"{one.latent:>6}  ", "dim"),
            (printable(one.explanation or "no explanation"), "italic"),
        )
        top = int(one.act_S.argmax())
        part = slice(max(0, top - AROUND), top + AROUND + 1)
        text = marked(words[part], one.act_S[part], largest=one.act_S.max(), shades=shades)
        yield Text.assemble((f"{one.act_S.max():>6.3g}  ", "dim"), text)


def run(story: Story) -> None:
    """Print the story; with colours on a terminal."""
    console = Console(highlight=False)
    for line in lines(story, shades=console.is_terminal and not console.no_color):
        console.print(line, soft_wrap=not console.is_terminal)
