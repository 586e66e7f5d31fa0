"""One latent on a terminal: the content of the page, as text."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from rich.console import Console
from rich.text import Text

from clearnets import UserError
from clearnets.autointerp.sampling import status
from clearnets.autointerp.texts import open_texts
from clearnets.browser import findings
from clearnets.browser.activity import TOP, Activations, Example, see
from clearnets.browser.findings import REASONS, Known
from clearnets.browser.gather import SPLIT
from clearnets.config import Config, Family, layers_in_words, parse_family, parse_seed
from clearnets.data.tokens import open_tokens
from clearnets.families import NO_LAYER, TOKENS
from clearnets.latents.examples import activity
from clearnets.latents.lens import Lenses, extremes
from clearnets.latents.store import load_layer
from clearnets.pipeline import paths
from clearnets.pipeline.runtime import seed_for

GLOW = (230, 126, 0)


@dataclass(frozen=True)
class View:
    """A latent as it is printed.

    Attributes:
        title: which it is.
        known: what the stages found out; its status is `not_drawn` where they did not look.
        seen: where it is active.
        promoted, suppressed: texts of tokens; None where the family has no lens.
        tokens_NL: the tokens of all windows.
        strings: the text of each token.
        hidden: tokens without text.
    """

    title: str
    known: Known
    seen: Activations
    promoted: list[str] | None
    suppressed: list[str] | None
    tokens_NL: np.ndarray
    strings: list[str]
    hidden: frozenset[int]


def look(config: Config, family: str, layer: str, latent: int, *, seed: int | None) -> View:
    """Return everything about one latent.

    Args:
        layer: a number; `tokens` for a family without layers.
        seed: a training seed; the first where None.

    Raises:
        UserError: there is no such family, layer, latent or seed, or a result is missing.
    """
    name = parse_family(family, config)
    seed = parse_seed(seed, config)
    number, point = _place(config, name, layer)
    unit = paths.cache(name, seed, SPLIT)
    cache = load_layer(unit, point)
    if not 0 <= latent < cache.num_latents:
        last = cache.num_latents - 1
        raise UserError(f"no latent {latent}: {name} has latents 0 to {last} in each layer")
    store = open_tokens(paths.data())
    texts = open_texts(SPLIT)
    text = texts.of(config.explain.window)
    names = (name, seed, point)
    rng = np.random.default_rng(seed_for(config.browse.seed, "browse", *names, latent))
    beside = findings.Beside.read(config, name, seed)
    known = findings.of_layer(config, name, seed, point, beside).get(latent)
    if known is None:
        found = status(
            activity(cache, latent, text.windows), text.windows, config.explain.min_windows
        )
        reason = found if found in REASONS else "not_drawn"
        known = Known(reason, concept=beside.concepts.get((point, latent)))
    logit_LV = Lenses(seed).logits(name, number, point)
    strings = store.strings()
    ends: list[list[str] | None] = [None, None]
    if logit_LV is not None:
        both = extremes(logit_LV[latent][: len(strings)], config.browse.tokens)
        ends = [[strings[token] for token in end] for end in both]
    where = "" if number == NO_LAYER else f" · layer {number}"
    which = f" · seed {seed}" if len(config.seeds) > 1 else ""
    return View(
        title=f"{name}{where} · latent {latent}{which}",
        known=known,
        seen=see(cache, latent, text, config.browse, rng, rule=known.rule(config)),
        promoted=ends[0],
        suppressed=ends[1],
        tokens_NL=text.windows.cut(texts.tokens_RS),
        strings=strings,
        hidden=frozenset((store.pad, store.bos, store.eos)),
    )


def _place(config: Config, family: Family, layer: str) -> tuple[int, str]:
    there = config.hookpoints_by_layer(family)
    if NO_LAYER in there:
        if layer != TOKENS:
            raise UserError(f"{family} has no layers; write `{TOKENS}` for the layer")
        return NO_LAYER, there[NO_LAYER]
    if not layer.isdecimal() or int(layer) not in there:
        raise UserError(f"no layer {layer!r}; {layers_in_words(list(there))}")
    return int(layer), there[int(layer)]


def lines(view: View, examples: int, *, shades: bool) -> Iterator[Text]:
    """Yield the view as lines.

    Args:
        examples: windows with the strongest activations; of each quantile there is one.
        shades: mark active tokens by colour instead of << >>, and those at which the explanation
            fires by a line instead of _ _.
    """
    known, seen = view.known, view.seen
    yield Text(view.title, "bold")
    if known.explanation:
        yield Text(printable(known.explanation), "italic")
    if known.effect:
        yield Text(printable(known.effect.sentence), "italic")
    if known.status in REASONS:
        lacks = "no score" if known.explanation else "no explanation"
        yield Text(f"{lacks}: {REASONS[known.status]}")
    yield Text()
    yield from _facts(view)
    top = [e for e in seen.examples if e.quantile == TOP][:examples]
    rest: dict[int, Example] = {}
    for example in seen.examples:
        if example.quantile != TOP:
            rest.setdefault(example.quantile, example)
    fires = "underlined" if shades else "_so_"
    executed = any(example.fires_L is not None for example in seen.examples)
    where = f"; {fires} where the explanation fires" if executed else ""
    for heading, chosen in (
        (f"strongest{where}", top),
        ("weaker, one of each part of the others by strength", list(rest.values())),
    ):
        if chosen:
            yield Text()
            yield Text(heading, "bold")
            for example in chosen:
                act = (f"{example.act_L.max():>7.3g}  ", "dim")
                yield Text.assemble(act, _window(view, example, shades))


def _facts(view: View) -> Iterator[Text]:
    """Yield what is known of the latent beside its sentences, a line each."""
    known, seen = view.known, view.seen
    if known.scores:
        yield _fact("scores", "   ".join(f"{k} {v:.2f}" for k, v in known.scores.items()))
    largest = f"; at most {seen.largest:.3g}" if seen.count else ""
    yield _fact(
        "active", f"at {seen.rate:.3%} of tokens, in {seen.windows:.2%} of windows{largest}"
    )
    if known.simulated:
        on, off, r2 = known.simulated
        fit = "" if r2 is None else f" (R² {r2:.2f})"
        yield _fact("simulated", f"{on:.3g} where the explanation fires, else {off:.3g}{fit}")
    if known.effect:
        _, auroc, divergence = known.effect
        moved = f"moves the prediction by {divergence:.3g} nats a token"
        yield _fact("ablated", f"{moved}; told by its sentence with AUROC {auroc:.2f}")
    if known.concept:
        name, f1, mcc = known.concept
        yield _fact("concept", f"{name} (F1 {f1:.2f}, MCC {mcc:.2f})")
    if view.promoted is not None and view.suppressed is not None:
        yield _fact("promotes", "  ".join(map(_shown, view.promoted)))
        yield _fact("suppresses", "  ".join(map(_shown, view.suppressed)))


def _fact(name: str, value: str) -> Text:
    return Text.assemble((f"{name:<11}", "dim"), value)


def _shown(token: str) -> str:
    return printable(token).replace(" ", "·") or "∅"


def printable(text: str) -> str:
    """Return text without characters that command a terminal."""
    text = text.replace("\n", "↵").replace("\t", "⇥")
    return "".join(letter if letter.isprintable() else "�" for letter in text)


def _window(view: View, example: Example, shades: bool) -> Text:
    tokens_L = view.tokens_NL[example.window]
    seen_L = ~np.isin(tokens_L, list(view.hidden))
    words = [printable(view.strings[token]) for token in tokens_L[seen_L].tolist()]
    fires_L = None if example.fires_L is None else example.fires_L[seen_L]
    largest = view.seen.largest
    return marked(words, example.act_L[seen_L], fires_L, largest=largest, shades=shades)


def marked(
    words: Sequence[str],
    act_L: np.ndarray,
    fires_L: np.ndarray | None = None,
    *,
    largest: float,
    shades: bool,
) -> Text:
    """Return a text whose active tokens stand out, and those at which an explanation fires.

    Args:
        words: the text of each token.
        act_L: a latent's activation at each, of which the `largest` has the deepest colour.
        shades: mark them by colour instead of << >>, and where the explanation fires by a line
            instead of _ _.
    """
    line = Text()
    if fires_L is None:
        fires_L = np.zeros(len(words), dtype=bool)
    for word, act, fires in zip(words, act_L.tolist(), fires_L.tolist()):
        if act <= 0 and not fires:
            line.append(word)
            continue
        text = word.lstrip() or word
        line.append(word[: len(word) - len(text)])
        if shades:
            styles = [_shade(act / largest)] * (act > 0) + ["underline"] * fires
            line.append(text, " ".join(styles))
        else:
            text = f"_{text}_" if fires else text
            line.append(f"<<{text}>>" if act > 0 else text)
    return line


def _shade(share: float) -> str:
    """Return a style of black on white that turns to orange with the share."""
    mixed = [round(255 + (0.25 + 0.75 * share) * (part - 255)) for part in GLOW]
    return f"black on rgb({mixed[0]},{mixed[1]},{mixed[2]})"


def run(view: View, examples: int) -> None:
    """Print the view; with colours on a terminal."""
    console = Console(highlight=False)
    for line in lines(view, examples, shades=console.is_terminal and not console.no_color):
        console.print(line, soft_wrap=not console.is_terminal)
