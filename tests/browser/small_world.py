"""A tiny pipeline of random weights up to scores, in the current folder: all that the browser
reads. What no stage is run for is made up."""

from __future__ import annotations

import csv

import tiny_pipeline as tiny

from clearnets.autointerp.records import EXPLANATIONS, SIMILAR
from clearnets.config import Config
from clearnets.pipeline import paths
from clearnets.pipeline.artifacts import Unit, build_all, read_jsonl, to_line, write_text
from clearnets.pipeline.runtime import Runtime
from clearnets.stages import cache, effects, execute, explain, score, words

FAMILIES = (
    "native",
    "topk-native",
    "transcoder",
    "neurons",
    "random-native",
    "step0-transcoder",
    "token-unigram",
)
LATENTS = 12
RUNTIME = Runtime(device="cpu", threads=1)


def config() -> Config:
    """Some families of each kind; few windows are enough to explain a latent."""
    base = tiny.config().model_dump(mode="json")
    base["families"] = list(FAMILIES)
    base["explain"] |= {"latents": LATENTS, "min_windows": 3}
    base["execute"] |= {"families": ["native"], "fit_rows": 30, "rows": 10}
    base["effects"] |= {"rows": 30, "min_tokens": 2}
    base["browse"] |= {"top": 3, "quantiles": 2, "per_quantile": 2, "held_out": 4, "tokens": 5}
    return Config.model_validate(base, strict=False)


def make() -> Config:
    """Everything that the page is made from."""
    tiny.make_data(rows=60)
    tiny.make_models()
    tiny.make_coders()
    settings = config()
    words.run(settings, runtime=RUNTIME)
    layers = settings.model.layers
    for _, work in build_all([Unit("qualify", paths.qualify(), {}, {})]):
        write_text(work.out / "judges.json", "{}\n")
    for _, work in build_all([Unit("embed", paths.embed(), {}, {})]):
        write_text(work.out / "empty", "")
    for family in settings.families:
        cache.run(settings, runtime=RUNTIME, families=[family])
        explain.run(settings, runtime=RUNTIME, family=family, layers=layers)
        score.run(settings, runtime=RUNTIME, family=family, layers=layers)
        for point in settings.hookpoints(family):
            _similarity(family, point)
        _concepts(settings, family)
    execute.run(settings, runtime=RUNTIME, family="native")
    effects.run(settings, runtime=RUNTIME, family="native")
    return settings


def _similarity(family, point: str) -> None:
    """Every second explained latent has an AUROC of a quarter and its number in thousandths."""
    for _, work in build_all([Unit("similarity", paths.similarity(family, 0, point), {}, {})]):
        found = read_jsonl(paths.explain(family, 0, point) / EXPLANATIONS)
        lines = []
        for record in found:
            there = record["status"] == "explained" and record["latent"] % 2 == 0
            auroc = 0.25 + record["latent"] / 1000 if there else None
            lines.append(to_line({"latent": record["latent"], "auroc": auroc}) + "\n")
        write_text(work.out / SIMILAR, "".join(lines))


def _concepts(settings: Config, family) -> None:
    """Latent n of every layer recovers `concept-n`, at an F1 of n hundredths."""
    for _, work in build_all([Unit("concepts", paths.concepts(family, 0), {}, {})]):
        with (work.out / "latents.csv").open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(("source", "hookpoint", "latent", "concept", "f1", "mcc"))
            for point in settings.hookpoints(family):
                for n in range(tiny.LATENTS):
                    writer.writerow(("own", point, n, f"concept-{n}", n / 100, n / 200))
                    writer.writerow(("random-directions", point, n, "no", 1, 1))
