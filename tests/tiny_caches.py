"""A tiny corpus and caches of latents with known rules, for tests of explanations and scores."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import synthetic_text as synthetic
from safetensors.numpy import save_file
from tokenizers import Tokenizer
from tokenizers.models import WordLevel

from clearnets.autointerp.rules.language import Clause, Context, Rule
from clearnets.autointerp.rules.matcher import Lexicon, read_rows
from clearnets.config import Config, load
from clearnets.pipeline import paths
from clearnets.pipeline.artifacts import Unit, build_all, read_jsonl, write_json
from clearnets.pipeline.runtime import Runtime
from clearnets.stages import explain, score, words

SIZE, LATENTS, LAYERS = 16, 12, (0, 1)
RULES = [
    Rule((Clause(("said", "asked"), Context("closed-quotation")),)),
    Rule((Clause((), Context("inside-quotation")),)),
    Rule((Clause(("fox",)),)),
    Rule((Clause(("dog",), Context("seen")),)),
]
DEAD, RARE, FREQUENT, GONE = 4, 5, 6, 7
CONCEPTS = ("fox", "quote_mark", "nowhere")
RUNTIME = Runtime(device="cpu", threads=1)


def config(**changes) -> Config:
    """Return the default experiment at this size, with changes to `explain`."""
    values = load(Path(__file__).parents[1] / "params.yaml").model_dump(mode="json")
    values["data"]["ctx_len"] = synthetic.CTX
    values["model"]["num_layers"] = len(LAYERS)
    values["explain"] |= {"window": SIZE, "latents": 10} | changes
    return Config.model_validate(values, strict=False)


def make_data() -> None:
    """Write a corpus with the splits `train`, `explain`, `score` and, with labels, `concept_fit`;
    and the classes of its words."""
    for _, work in build_all([Unit("data", paths.data(), {}, {})]):
        (work.out / "tokenizer").mkdir()
        vocab = {string: token for token, string in enumerate(synthetic.STRINGS)}
        tokenizer = Tokenizer(WordLevel(vocab, unk_token="<pad>"))
        tokenizer.save(str(work.out / "tokenizer" / "tokenizer.json"))
        special = {"pad": synthetic.PAD, "bos": synthetic.BOS, "eos": synthetic.EOS}
        sizes = {"vocab_size": len(vocab), "ctx_len": synthetic.CTX}
        write_json(work.out / "meta.json", {**sizes, **special, "concepts": CONCEPTS})
        (work.out / "tokens").mkdir()
        for seed, split in enumerate(("explain", "score", "train")):
            np.save(work.out / "tokens" / f"{split}.npy", synthetic.rows(seed, 300))
        tokens_RS = synthetic.rows(7, 80)
        np.save(work.out / "tokens" / "concept_fit.npy", tokens_RS)
        (work.out / "labels").mkdir()
        fox_RS = tokens_RS == synthetic.ID[" fox"]
        quote_RS = np.isin(tokens_RS, [synthetic.ID[mark] for mark in (' "', ',"', '?"', '."')])
        labels_RS = (fox_RS + 2 * quote_RS).astype(np.uint64)
        np.save(work.out / "labels" / "concept_fit.npy", labels_RS)
    words.run(config(), runtime=RUNTIME)


def acts_of(latent: int, split: str, layer: int, tokens_RS: np.ndarray) -> np.ndarray:
    """Return the activations of a latent: some follow a rule, there is one for each way to have no
    score, and the rest are random."""
    counted_RS = synthetic.counted(tokens_RS)
    rng = np.random.default_rng([latent, layer, split == "score"])
    random_RS = rng.random(tokens_RS.shape) * counted_RS
    if latent < len(RULES):
        text = read_rows(tokens_RS, synthetic.counted, Lexicon(synthetic.STRINGS), size=SIZE)
        bits = text.fires(RULES[latent], np.arange(len(text.windows)))
        acts = np.zeros(tokens_RS.shape)
        by_window = acts.reshape(len(acts), -1, SIZE)
        fired = np.unpackbits(bits.view(np.uint8), axis=-1, count=SIZE)
        by_window[text.windows.row_N, text.windows.slot_N] = fired
        return acts * (0.5 + random_RS)
    if latent == DEAD or (latent == GONE and split == "score"):
        return np.zeros(tokens_RS.shape)
    if latent == RARE:
        return random_RS * (np.arange(len(tokens_RS)) < 3)[:, None]
    return random_RS if latent == FREQUENT else random_RS * (random_RS > 0.98)


def make_cache(family: str, points: dict[str, int]) -> None:
    """Write a family's caches; `points` gives the layer that each hookpoint has the latents of."""
    for seed, split in enumerate(("explain", "score")):
        tokens_RS = synthetic.rows(seed, 300)
        for _, work in build_all([Unit("cache", paths.cache(family, 0, split), {}, {})]):
            for point, layer in points.items():
                acts = [acts_of(i, split, layer, tokens_RS) for i in range(LATENTS)]
                latent, row, position = np.nonzero(np.stack(acts))
                locations = np.stack([row, position, latent], axis=1).astype(np.uint16)
                act_E = np.stack(acts)[latent, row, position].astype(np.float16)
                folder = work.out / point
                folder.mkdir()
                entries = {"locations": locations, "activations": act_E}
                save_file(entries, folder / f"0_{LATENTS - 1}.safetensors")
                write_json(folder / "config.json", {"num_latents": LATENTS})


def run_both(settings: Config, family="native", layers=LAYERS) -> None:
    explain.run(settings, runtime=RUNTIME, family=family, layers=layers)
    score.run(settings, runtime=RUNTIME, family=family, layers=layers)


def records(folder: Path) -> dict[int, dict]:
    found = read_jsonl(next(folder.glob("*.jsonl")))
    assert [r["latent"] for r in found] == sorted({r["latent"] for r in found})
    return {record["latent"]: record for record in found}


def centred_by_hand(acts: np.ndarray, counted: np.ndarray) -> dict[tuple[int, int], int]:
    """By row and place of the maximum: where a window begins that is centred on it."""
    starts = {}
    for row, first in np.ndindex(len(acts), synthetic.CTX // SIZE):
        grid = range(first * SIZE, (first + 1) * SIZE)
        live = [acts[row, p] if counted[row, p] else 0 for p in grid]
        if 2 * sum(counted[row, p] for p in grid) < SIZE or not max(live):
            continue
        top = begin = grid[int(np.argmax(live))]
        end = top + 1
        while begin > 0 and counted[row, begin - 1]:
            begin -= 1
        while end < synthetic.CTX and counted[row, end]:
            end += 1
        start = min(max(top - SIZE // 2, begin), end - SIZE)
        starts[row, top] = start if start >= begin else grid[0]
    return starts
