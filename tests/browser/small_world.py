"""A tiny pipeline of random weights up to scores, in the current folder: all that the browser
reads. What no stage is run for is made up."""

from __future__ import annotations

import csv

import tiny_pipeline as tiny

from clearnets.autointerp.records import EXPLANATIONS, SIMILAR
from clearnets.config import Config
from clearnets.pipeline import paths
from clearnets.pipeline.artifacts import (
    Unit,
    build_all,
    read_jsonl,
    to_line,
    write_jsonl,
    write_text,
)
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
    base["circuits"] |= {"families": ["native"], "linked": 4}
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
    _circuits()
    return settings


def _circuits() -> None:
    """Latents 0 to 5 of both layers in turn, at positions 1 to 6; each has a link to the answer,
    and every one of the first layer to that after it."""
    told = {"task": "wear", "accuracy": 0.75, "done": True, "whole": 1.5, "none": 0.25}
    told |= {"errors": 0.0, "tokens": ["<bos>", " it", " is", " cold", " so", " put", " on"]}
    nodes, links = [], []
    for number in range(6):
        place = {"layer": number % 2, "position": 1 + number, "latent": number}
        nodes.append({"task": "wear", **place, "integrated": 1 / (1 + number), "patching": 0.5})
        ends = [None, number + 1] if number % 2 == 0 else [None]
        links += [
            {"task": "wear", "source": number, "target": end, "weight": 0.125} for end in ends
        ]
    for _, work in build_all([Unit("circuits", paths.circuits("native", 0), {}, {})]):
        write_jsonl(work.out / "answers.jsonl", [told | {"answers": [" boots", " hat"]}])
        write_jsonl(work.out / "nodes.jsonl", nodes)
        write_jsonl(work.out / "links.jsonl", [row for row in links if row["source"] < 4])


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
